"""Datasets as the commands make them, called like functions: what is no option of the command goes to the builder."""

from pathlib import Path

from tfds_builders.disease_cohort import disease_cohort_dataset_builder
from tfds_builders.ehr_pretraining import ehr_pretraining_dataset_builder
from tfds_builders.options import CohortOptions, PrepareOptions

OF_THE_BUILDER = ("ratios", "serialization", "minimum_codes", "announce")


def prepare_pretraining(ehr, name: str, *, data_dir, **settings) -> Path | None:
    """The dataset's directory."""
    more = {key: settings.pop(key) for key in OF_THE_BUILDER if key in settings}
    options = PrepareOptions(Path(ehr), name, data_dir=Path(data_dir), **settings)
    return ehr_pretraining_dataset_builder.prepare_pretraining(options, **more)


def prepare_cohort(ehr, cohort: str, name: str, *, data_dir, **settings) -> Path | None:
    """The dataset's directory."""
    more = {key: settings.pop(key) for key in OF_THE_BUILDER if key in settings}
    options = CohortOptions(Path(ehr), cohort, name, data_dir=Path(data_dir), **settings)
    return disease_cohort_dataset_builder.prepare_cohort(options, **more)
