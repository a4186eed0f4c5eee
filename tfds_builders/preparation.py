"""Runs a builder without network or chatter, once: the same dataset is found again, another is not replaced."""

import json
import logging
import re
from pathlib import Path

from medbert_jax.data.token_store import read_metadata
from tfds_builders.patient_sequences import PatientSequencesBuilder, SequencesConfig


def prepare(builder_class: type[PatientSequencesBuilder], config: SequencesConfig, *, data_dir) -> Path:
    """Return the dataset's directory, DATA_DIR/FAMILY/NAME/VERSION, which appears whole or not at all.

    A dataset of that name is returned as it is when it was made by the same recipe. Raises ValueError when it
    was not, and for a name that cannot be a folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", config.name):
        raise ValueError(
            "a dataset's name must be letters, digits, '-', '_' and '.', and become a folder:"
            f" got {config.name!r}; choose such a name"
        )
    wanted = json.loads(json.dumps(config.recipe()))  # reads the tables' record: nothing is made where there are none
    directory = Path(data_dir) / builder_class.name / config.name / str(builder_class.VERSION)
    if directory.exists():
        made = read_metadata(directory)["recipe"]
        if differing := sorted(key for key in made | wanted if made.get(key) != wanted.get(key)):
            changes = "; ".join(f"{key}: {made.get(key)} → {wanted.get(key)}" for key in differing)
            raise ValueError(
                f"a dataset is not replaced by another: {directory} differs from what is asked for in"
                f" {changes}; choose another name, or delete that folder"
            )
        config.announce(f"the dataset is there already: {directory}")
        return directory
    # TFDS calls every dataset that it does not list itself a custom configuration, as a warning.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        builder = builder_class(config=config, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    finally:
        logger.setLevel(level)
    return directory
