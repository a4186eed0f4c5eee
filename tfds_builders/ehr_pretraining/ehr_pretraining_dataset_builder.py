"""The pretraining dataset: everybody with enough codes, split 7:1:2, vocabulary from the training patients."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.split_rule import find_split
from medbert_jax.ehr.tables import read_source
from tfds_builders.excluded_cohort import find_excluded
from tfds_builders.ingredients import Ingredients
from tfds_builders.options import PrepareOptions
from tfds_builders.patient_sequences import PatientSequencesBuilder
from tfds_builders.preparation import prepare
from tfds_builders.shards import Serialized
from tfds_builders.work_folder import WorkFolder

SERIALIZATION = {
    "paper": SerializationConfig(),
    # Released code: no filter by codes, and stays that end on one day are one visit.
    "released_code": SerializationConfig(minimum_codes=1, visit_rule="discharge_date"),
}
"""Preset → serialization."""


class Builder(PatientSequencesBuilder):
    """Serialized histories of the patients to pretrain on."""

    KIND = "pretraining"


def prepare_pretraining(
    options: PrepareOptions,
    *,
    ratios: tuple[float, float, float] = (0.7, 0.1, 0.2),
    serialization: SerializationConfig | None = None,
    announce: Callable[[str], None] = print,
) -> Path | None:
    """Serialize EHR tables into the dataset DATA_DIR/ehr_pretraining/NAME/1.0.0 and return that directory.

    Beside TFDS's files it holds vocabulary.tsv, ledger.json and metadata.json. The same tables and options
    give the same bytes, on any machine, by any number of workers or tasks. A file splits.parquet beside the tables
    (patient_id, split: train, validation or test) takes the place of the hash that splits patients; those whom it does
    not name leave. With `options.shard` only the part of one task is done, and None is returned; see `preparation`.

    Args:
        options: of the command.
        ratios: shares of training, validation and test patients.
        serialization: in place of the preset's.
        announce: gets one line per shard and step.

    Raises:
        ValueError: an unknown preset, an empty split, another dataset under that name, too many unknown codes,
            a faulty splits.parquet, or an excluded cohort that is none or of other tables.
    """
    if options.preset not in SERIALIZATION:
        raise ValueError(
            f"preset must be one of {', '.join(SERIALIZATION)}: got {options.preset!r}; the other presets of the model"
            " and the plan are trained on a dataset of preset paper"
        )
    if options.vocabulary is not None and options.minimum_patients != 1:
        raise ValueError(
            f"minimum_patients acts where a vocabulary is fitted: got {options.minimum_patients} and a vocabulary;"
            " leave one of them out"
        )
    source = read_source(options.ehr)  # first: it says what is wrong with a folder that holds no EHR tables
    ingredients = Ingredients(
        ehr_directory=options.ehr,
        source=source,
        preset=options.preset,
        serialization=serialization or SERIALIZATION[options.preset],
        split=find_split(options.ehr, options.split_key, ratios),
        vocabulary=None if options.vocabulary is None else Vocabulary.read(options.vocabulary),
        minimum_patients=options.minimum_patients,
        back_off=options.back_off,
        excluded=None if options.exclude_cohort is None else find_excluded(options.exclude_cohort, source),
    )
    check = partial(_check, ingredients)
    return prepare(Builder, ingredients, options, check=check, describe=lambda found: {}, announce=announce)


def _check(ingredients: Ingredients, found: Serialized, work: WorkFolder, directory: Path) -> None:
    """Refuse a dataset with an empty split; where splits were given, only that of test patients may be empty."""
    counts = dict(zip(SPLITS, found.sizes.sum(axis=0).tolist(), strict=True))
    wanted = dict(zip(SPLITS, ingredients.split.ratios or (1, 1, 0), strict=True))
    if any(wanted[split] > 0 and not counts[split] for split in SPLITS):
        cure = "a ratio of 0 for a split that you do without"
        if ingredients.split.ratios is None:
            cure = "let the source's own splits have some for validation (MEDS: or none at all, --options.splits none)"
        raise ValueError(
            f"every split must have patients: got {counts} of these,\n{found.ledger.render()}\n"
            f"use more patients, or {cure}"
        )
