"""What both dataset families share: the features, what a dataset is made from, and the dataset as TFDS knows it.

TFDS's own generator path makes examples one by one in Python, writes their features in an order that changes
from process to process, and needs TensorFlow once a split passes a gigabyte. So whole shards are written before TFDS
is asked (`tfds_builders.preparation`), and the builder puts them together: everything that TFDS reads (features.json,
dataset_info.json, ArrayRecord files of tf.train.Example, one record per group) is as TFDS writes it.
"""

import dataclasses
import functools
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from medbert_jax.data.example_records import CODE_FEATURES, OUTCOMES, PATIENT_FEATURES, VISIT_FEATURES
from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.disk.whole_files import put_in_place, whole_file, write_json
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.ehr.tables import read_source
from tfds_builders.shards import Serialized, ShardJob
from tfds_builders.splits import Split
from tfds_builders.work_folder import WorkFolder


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


@dataclasses.dataclass(eq=False, kw_only=True)
class SequencesConfig(tfds.core.BuilderConfig):
    """What every dataset of patient sequences is made from; `name` is the dataset's name.

    A family says what its shards are (`job`), which datasets must not be made (`check`), and what its metadata has
    beside that of every dataset (`describe`).
    """

    ehr_directory: Path
    preset: str
    serialization: SerializationConfig
    split: Split
    vocabulary: Vocabulary | None
    """A frozen one, or None: fitted on this dataset."""
    minimum_patients: int = 1
    """Codes that fewer patients have are not in a fitted vocabulary."""
    unknown_code_limit: float
    """The share of codes outside the vocabulary above which the dataset is refused."""
    back_off: bool = False
    """Whether codes outside a frozen vocabulary become their nearest ancestor in it."""
    announce: Callable[[str], None]

    @functools.cached_property
    def source(self) -> EhrSource:
        """What the EHR tables say of themselves, read once: tables that come later are refused."""
        return read_source(self.ehr_directory)

    def recipe(self) -> dict:
        """Return all that decides the dataset's content, as JSON data."""
        recipe = {
            "ehr_content_hash": self.source.content_hash,
            "preset": self.preset,
            "serialization": dataclasses.asdict(self.serialization),
            "split": self.split.recipe(),
        }
        if self.vocabulary is None:
            return recipe | {"minimum_patients": self.minimum_patients}
        return recipe | {"vocabulary_hash": self.vocabulary.hash} | ({"back_off": True} if self.back_off else {})

    def job(self, work: WorkFolder) -> ShardJob:
        """Return what the work on one shard must know."""
        # Released code: the vocabulary is fitted on everybody, held-out patients too.
        everybody = self.preset == "released_code"
        return ShardJob(
            self.ehr_directory.absolute(),  # workers of a cluster are somewhere else
            self.source.content_hash,
            self.source.shards,
            WorkFolder(work.path.absolute()),
            self.serialization,
            self.split,
            fit_on_everybody=everybody,
            back_off=self.back_off,
        )

    def check(self, found: Serialized, work: WorkFolder, directory: Path) -> None:
        """Raise ValueError where what was found forbids the dataset that would stand in `directory`."""
        raise NotImplementedError

    def describe(self, found: Serialized) -> dict:
        """Return metadata of this family."""
        raise NotImplementedError

    def tables_beside(self, work: WorkFolder) -> dict[str, pl.DataFrame]:
        """Return what lies beside the dataset as a table: file name → rows; nothing, where a family has no such."""
        return {}


@dataclasses.dataclass(frozen=True)
class Made:
    """A dataset but for its place: what the builder puts together."""

    metadata: dict
    vocabulary: Vocabulary
    ledgers: dict
    """The content of ledger.json."""
    files: dict[str, list[tuple[Path, int, int]]]
    """Split → (ArrayRecord file, patients, bytes of its records), in the order of the shards."""
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
        directory, splits = Path(self.data_dir), []  # a folder of TFDS's, which is renamed when all is there
        self.made.vocabulary.write(directory / "vocabulary.tsv")
        write_json(directory / "ledger.json", self.made.ledgers)
        for name, rows in self.made.tables.items():
            with whole_file(directory / name) as partial:
                rows.write_parquet(partial)
        for split in (split for split in SPLITS if self.made.files[split]):
            template, files = self._get_filename_template(split), self.made.files[split]
            for number, (path, _, _) in enumerate(files):
                put_in_place(path, template.sharded_filepath(shard_index=number, num_shards=len(files)))
            splits.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[patients for _, patients, _ in files],
                    num_bytes=sum(size for _, _, size in files),
                    filename_template=template,
                )
            )
        self.info.set_splits(tfds.core.SplitDict(splits))
        files = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
        self.info.metadata.update(self.made.metadata, files=files)

    # Nothing is downloaded: no folder for it, and no word of it on the terminal.
    def _make_download_manager(self, *args, **kwargs):
        return types.SimpleNamespace(downloaded_size=0)

    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...
