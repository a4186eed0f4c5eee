"""What both dataset families share: the features, and the dataset as TFDS knows it.

TFDS's own generator path makes examples one by one in Python, writes their features in an order that changes
from process to process, and needs TensorFlow once a split passes a gigabyte. So whole shards are written before TFDS
is asked (`tfds_builders.preparation`), and the builder puts them together: everything that TFDS reads (features.json,
dataset_info.json, ArrayRecord files of tf.train.Example, one record per group) is as TFDS writes it.
"""

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from medbert_jax.data.example_records import CODE_FEATURES, OUTCOMES, PATIENT_FEATURES, VISIT_FEATURES
from medbert_jax.data.token_store import write_token_store
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.disk.seals import SUMS, sealed
from medbert_jax.disk.whole_files import put_in_place, sha256_of, whole_file, write_json
from medbert_jax.ehr.hashing import SPLITS


def sequence_features(kind: str) -> tfds.features.FeaturesDict:
    """Return the features of a "pretraining" or "cohort" dataset."""
    whole_numbers = tfds.features.Tensor(shape=(None,), dtype=np.int32)
    return tfds.features.FeaturesDict(
        {
            "patient_id": tfds.features.Text(),
            **dict.fromkeys((*CODE_FEATURES, *VISIT_FEATURES), whole_numbers),
            **{name: tfds.features.Scalar(np.int32) for name in PATIENT_FEATURES},
            **{name: tfds.features.Scalar(dtype) for name, dtype in OUTCOMES[kind].items()},
        }
    )


@dataclass(frozen=True)
class Made:
    """A dataset but for its place: what the builder puts together."""

    metadata: dict
    vocabulary: Vocabulary
    ledgers: dict
    """The content of ledger.json."""
    files: dict[str, list[tuple[Path, int, int, str]]]
    """Split → (ArrayRecord file, patients, bytes of its records, its sha256), in the order of the shards."""
    columns: Mapping[str, Callable[[], Iterator[dict[str, np.ndarray]]]]
    """Split → its columns for the token store, shard by shard."""
    tables: dict[str, pl.DataFrame]
    """Name of a Parquet file beside the dataset → its rows."""


class PatientSequencesBuilder(FileReaderBuilder, skip_registration=True):
    """Puts together what was made of the shards; `made` is set before it is asked to prepare."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Patient sequences as in the paper, whole histories."}  # noqa: RUF012
    KIND: str
    made: Made

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{type(self).__doc__}\nMade by medbert_jax from EHR tables.",
            features=sequence_features(self.KIND),
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        del dl_manager, download_config  # nothing is downloaded
        directory, splits, sums = Path(self.data_dir), [], {}  # a folder of TFDS's, which is renamed when all is there
        self.made.vocabulary.write(directory / "vocabulary.tsv")
        write_json(directory / "ledger.json", self.made.ledgers)
        for name, rows in self.made.tables.items():
            with whole_file(directory / name) as partial:
                rows.write_parquet(partial)
        for split in (split for split in SPLITS if self.made.files[split]):
            store = directory / "token_store" / split
            store.mkdir(parents=True)
            write_token_store(store, self.made.columns[split](), self.made.metadata, split)
            template, files = self._get_filename_template(split), self.made.files[split]
            for number, (path, _, _, sha256) in enumerate(files):
                place = Path(template.sharded_filepath(shard_index=number, num_shards=len(files)))
                put_in_place(path, place)
                sums[place.name] = sha256
            splits.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[patients for _, patients, _, _ in files],
                    num_bytes=sum(size for _, _, size, _ in files),
                    filename_template=template,
                )
            )
        self.info.set_splits(tfds.core.SplitDict(splits))
        # The token store is not among them: a dataset is whole without it.
        paths = [path for path in sorted(directory.iterdir()) if path.is_file()]
        files = {path.name: path.stat().st_size for path in paths}
        sums = {path.name: sums.get(path.name) or sha256_of(path) for path in paths}
        metadata = self.info.metadata
        assert metadata is not None  # `_info` gives it
        metadata.update(sealed({**self.made.metadata, "files": files, SUMS: sums}))

    # Nothing is downloaded: no folder for it, and no word of it on the terminal.
    def _make_download_manager(self, *args, **kwargs):
        return types.SimpleNamespace(downloaded_size=0)

    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...
