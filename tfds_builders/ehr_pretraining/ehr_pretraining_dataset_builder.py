"""The pretraining dataset: everybody with enough codes, split 7:1:2, vocabulary from the training patients."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.tables import read_source
from tfds_builders.excluded_cohort import ExcludedCohort, find_excluded
from tfds_builders.patient_sequences import PatientSequencesBuilder, SequencesConfig
from tfds_builders.preparation import prepare
from tfds_builders.shards import Serialized, ShardJob
from tfds_builders.splits import find_split
from tfds_builders.work_folder import WorkFolder

SERIALIZATION = {
    "paper": SerializationConfig(),
    # Released code: no filter by codes, and stays that end on one day are one visit.
    "released_code": SerializationConfig(minimum_codes=1, visit_rule="discharge_date"),
}
"""Preset → serialization."""


@dataclasses.dataclass(eq=False, kw_only=True)
class PretrainingConfig(SequencesConfig):
    """What a pretraining dataset is made from."""

    excluded: ExcludedCohort | None = None
    """A cohort whose patients are left out."""

    def recipe(self) -> dict:
        """Return all that decides the dataset's content, as JSON data."""
        return super().recipe() | ({"excluded_cohort": self.excluded.recipe()} if self.excluded else {})

    def job(self, work: WorkFolder) -> ShardJob:
        """Return what the work on one shard must know."""
        return dataclasses.replace(super().job(work), excluded=self.excluded)

    def check(self, found: Serialized, work: WorkFolder, directory: Path) -> None:
        """Refuse a dataset with an empty split; where splits were given, only that of test patients may be empty."""
        counts = dict(zip(SPLITS, found.sizes.sum(axis=0).tolist(), strict=True))
        wanted = dict(zip(SPLITS, self.split.ratios or (1, 1, 0), strict=True))
        if any(wanted[split] > 0 and not counts[split] for split in SPLITS):
            raise ValueError(
                f"every split must have patients: got {counts} of these,\n{found.ledger.render()}\n"
                "use more patients, or a ratio of 0 for a split that you do without"
            )

    def describe(self, found: Serialized) -> dict:
        """Return nothing more."""
        return {}


class Builder(PatientSequencesBuilder):
    """Serialized histories of the patients to pretrain on."""

    KIND = "pretraining"


def prepare_pretraining(
    ehr_directory,
    name: str,
    *,
    data_dir,
    preset: str = "paper",
    split_key: str = "medbert",
    ratios: tuple[float, float, float] = (0.7, 0.1, 0.2),
    minimum_patients: int = 1,
    serialization: SerializationConfig | None = None,
    vocabulary: Path | None = None,
    unknown_code_limit: float = 0.2,
    back_off: bool = False,
    exclude_cohort: Path | None = None,
    workers: int = 0,
    shard: str | None = None,
    beam: Sequence[str] = (),
    announce: Callable[[str], None] = print,
) -> Path | None:
    """Serialize EHR tables into the dataset DATA_DIR/ehr_pretraining/NAME/1.0.0 and return that directory.

    Beside TFDS's files it holds vocabulary.tsv, ledger.json and metadata.json. The same tables and arguments
    give the same bytes, on any machine, by any number of workers or tasks. A file splits.parquet beside the tables
    (patient_id, split: train, validation or test) takes the place of the hash that splits patients; those whom it does
    not name leave. With `shard` only the part of one task is done, and None is returned; see `preparation`.

    Args:
        ehr_directory: EHR tables, as `write_tables` writes them.
        name: the dataset's name.
        data_dir: the folder of all datasets.
        preset: "paper" or "released_code": who fits the vocabulary, and the serialization.
        split_key: key of the hash of patient ids that splits them.
        ratios: shares of training, validation and test patients.
        minimum_patients: codes that fewer patients have are not in the vocabulary.
        serialization: in place of the preset's.
        vocabulary: vocabulary.tsv of another dataset, to be used as it is instead of fitting one.
        unknown_code_limit: share of codes outside of the vocabulary above which the dataset is refused.
        back_off: whether a code outside of that vocabulary becomes its nearest ICD ancestor there; two codes of a visit
            may then be the same.
        exclude_cohort: directory of a cohort dataset of the same tables: its patients are left out of all splits.
        workers: processes; 0: one per core.
        shard: "i/N": the part of task i of N of a batch scheduler's job array, i from 0.
        beam: options of an Apache Beam pipeline that works on the shards instead, as "runner=FlinkRunner".
        announce: gets one line per shard and step.

    Raises:
        ValueError: an unknown preset, an empty split, another dataset under that name, too many unknown codes,
            a faulty splits.parquet, or an excluded cohort that is none or of other tables.
    """
    if preset not in SERIALIZATION:
        raise ValueError(
            f"preset must be one of {', '.join(SERIALIZATION)}: got {preset!r}; the other presets of the model"
            " and the plan are trained on a dataset of preset paper"
        )
    if vocabulary is not None and minimum_patients != 1:
        raise ValueError(
            f"minimum_patients acts where a vocabulary is fitted: got {minimum_patients} and a vocabulary;"
            " leave one of them out"
        )
    source = read_source(ehr_directory)  # says what is wrong with a folder that holds no EHR tables
    config = PretrainingConfig(
        name=name,
        ehr_directory=Path(ehr_directory),
        preset=preset,
        serialization=serialization or SERIALIZATION[preset],
        split=find_split(Path(ehr_directory), split_key, ratios),
        vocabulary=None if vocabulary is None else Vocabulary.read(vocabulary),
        minimum_patients=minimum_patients,
        unknown_code_limit=unknown_code_limit,
        back_off=back_off,
        excluded=None if exclude_cohort is None else find_excluded(exclude_cohort, source),
        announce=announce,
    )
    return prepare(Builder, config, data_dir=data_dir, workers=workers, shard=shard, beam=beam)
