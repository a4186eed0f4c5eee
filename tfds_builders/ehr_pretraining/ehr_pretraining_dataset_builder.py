"""The pretraining dataset: everybody with enough codes, split 7:1:2, vocabulary from the training patients."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.serialization import SerializationConfig, count_patients, order_histories
from medbert_jax.data.vocabulary import Vocabulary, fit_vocabulary
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.ledger import Ledger
from medbert_jax.ehr.schema import EhrTables
from tfds_builders.patient_sequences import PatientSequencesBuilder, SequencesConfig, SerializedShard
from tfds_builders.preparation import prepare

SERIALIZATION = {
    "paper": SerializationConfig(),
    # Released code: no filter by codes, and stays that end on one day are one visit.
    "released_code": SerializationConfig(minimum_codes=1, visit_rule="discharge_date"),
}
"""Preset → serialization."""


@dataclasses.dataclass(eq=False, kw_only=True)
class PretrainingConfig(SequencesConfig):
    """What a pretraining dataset is made from."""

    minimum_patients: int
    """Codes that fewer training patients have are not in the vocabulary."""

    def recipe(self) -> dict:
        """Return all that decides the dataset's content, as JSON data."""
        return super().recipe() | {"minimum_patients": self.minimum_patients}


class Builder(PatientSequencesBuilder):
    """Serialized histories of the patients to pretrain on."""

    KIND = "pretraining"

    def __init__(self, **kwargs):
        self._counts: list[tuple[np.ndarray, np.ndarray]] = []
        super().__init__(**kwargs)

    def histories(self, tables: EhrTables, races: tuple[str, ...]) -> tuple[PatientSequences, np.ndarray, Ledger]:
        """Return the histories of everybody with enough codes."""
        return order_histories(tables, self.builder_config.serialization, races=races)

    def see(self, shard: SerializedShard) -> None:
        """Count patients per code, for the vocabulary."""
        # Released code: the vocabulary is fitted on everybody, held-out patients too.
        everybody = self.builder_config.preset == "released_code"
        fitted_on = np.flatnonzero(everybody | (shard.split == SPLITS.index("train")))
        self._counts.append(count_patients(shard.histories.take(fitted_on), shard.codes))

    def vocabulary(self) -> Vocabulary:
        """Return the codes of the training patients."""
        return fit_vocabulary(self._counts, minimum_patients=self.builder_config.minimum_patients)

    def check(self, counts: dict[str, int], ledger: Ledger) -> None:
        """Refuse a dataset with an empty split."""
        wanted = dict(zip(SPLITS, self.builder_config.ratios, strict=True))
        if any(wanted[split] > 0 and not counts[split] for split in SPLITS):
            raise ValueError(
                f"every split must have patients: got {counts} of these,\n{ledger.render()}\n"
                "use more patients, or a ratio of 0 for a split that you do without"
            )

    def describe(self, unknown_code_share: dict[str, float]) -> dict:
        """Return nothing more."""
        return {}


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
    announce: Callable[[str], None] = print,
) -> Path:
    """Serialize EHR tables into the dataset DATA_DIR/ehr_pretraining/NAME/1.0.0 and return that directory.

    Beside TFDS's files it holds vocabulary.tsv, ledger.json and metadata.json. The same tables and arguments
    give the same bytes, on any machine.

    Args:
        ehr_directory: EHR tables, as `write_tables` writes them.
        name: the dataset's name.
        data_dir: the folder of all datasets.
        preset: "paper" or "released_code": who fits the vocabulary, and the serialization.
        split_key: key of the hash of patient ids that splits them.
        ratios: shares of training, validation and test patients.
        minimum_patients: codes that fewer patients have are not in the vocabulary.
        serialization: in place of the preset's.
        announce: gets one line per shard and step.

    Raises:
        ValueError: an unknown preset, an empty split, or another dataset under that name.
    """
    if preset not in SERIALIZATION:
        raise ValueError(
            f"preset must be one of {', '.join(SERIALIZATION)}: got {preset!r}; the other presets of the model"
            " and the plan are trained on a dataset of preset paper"
        )
    config = PretrainingConfig(
        name=name,
        ehr_directory=Path(ehr_directory),
        preset=preset,
        serialization=serialization or SERIALIZATION[preset],
        split_key=split_key,
        ratios=tuple(ratios),
        minimum_patients=minimum_patients,
        announce=announce,
    )
    return prepare(Builder, config, data_dir=data_dir)
