"""What a dataset says of itself: metadata.json, and TFDS's dataset_info.json."""

from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from medbert_jax.data.example_records import OUTCOMES
from medbert_jax.disk.seals import check_seal
from medbert_jax.disk.stored_json import check_form, read_object
from medbert_jax.disk.versions import refuse_newer

METADATA_VERSION = 1
"""Of metadata.json. Version 0 says none."""
_AGAIN = "delete that folder and prepare the dataset again"


class SplitRule(TypedDict, total=False):
    """Who is in which split."""

    key: str
    ratios: tuple[float, float, float] | None
    sha256: str | None


class Split(SplitRule):
    """And how many they are."""

    counts: dict[str, int]


class Serialization(TypedDict, total=False):
    """The fields of `data.serialization.SerializationConfig`, which asks for their ranges."""

    minimum_codes: int
    unique: bool
    prolonged_los_days: int
    visit_rule: str
    code_order: str


class Source(TypedDict, total=False):
    """The fields of `ehr.schema.EhrSource`."""

    format: str
    has_dates: bool
    age_precision: str
    assumptions: list[str]
    shards: int
    content_hash: str
    known: dict[str, float]
    last_day: str | None


class _Any(TypedDict):
    """What every dataset has said from the first."""

    kind: Literal["pretraining", "cohort"]
    dataset_hash: str
    vocabulary_hash: str
    split: Split
    preset: NotRequired[str]
    serialization: NotRequired[Serialization]
    source: NotRequired[Source]
    recipe: NotRequired[dict[str, Any]]
    races: NotRequired[list[str]]
    cohort: NotRequired[dict[str, Any] | None]
    unknown_code_share: NotRequired[dict[str, float]]
    time_is_ordinal: NotRequired[bool]
    patients: NotRequired[dict[str, int]]  # of a split, where a row is a prediction and several are of one patient
    cases: NotRequired[dict[str, int]]
    flags: NotRequired[dict[str, int]]
    pretraining_dataset_hash: NotRequired[str]
    files: NotRequired[dict[str, int]]
    sha256: NotRequired[dict[str, str]]
    own_sha256: NotRequired[str]


_PRETRAINING = ("preset", "serialization", "source", "recipe", "races", "unknown_code_share", "time_is_ordinal")
_PRETRAINING += ("cohort", "files")
_SINCE_1 = {"pretraining": _PRETRAINING, "cohort": (*_PRETRAINING, "cases", "flags", "pretraining_dataset_hash")}
"""Kind → what those of version 1 say besides."""


class _InfoSplit(TypedDict):
    name: str
    shardLengths: list[str]


class DatasetInfo(TypedDict):
    """What is asked of dataset_info.json: where the records are, and how many."""

    name: str
    splits: list[_InfoSplit]
    fileFormat: NotRequired[str]


def read_metadata(dataset_directory) -> dict:
    """Return the metadata of a dataset that `medbert prepare` or `medbert cohort` made.

    Raises FileNotFoundError or ValueError when the directory is not such a dataset, or they were changed since.
    """
    path = Path(dataset_directory) / "metadata.json"
    advice = "pass DATA_DIR/ehr_pretraining/NAME/1.0.0 or DATA_DIR/disease_cohort/NAME/1.0.0"
    if not path.is_file():
        raise FileNotFoundError(f"a dataset directory must hold metadata.json: got {dataset_directory}; {advice}")
    cure = f"put the file back from a copy, or {advice}"
    metadata = read_object(path, cure=cure)
    missing = [key for key in _Any.__required_keys__ if key not in metadata]
    if missing or metadata["kind"] not in (*OUTCOMES,):
        what = f"no {', '.join(sorted(missing))}" if missing else "another kind than " + " and ".join(OUTCOMES)
        raise ValueError(f"metadata.json must describe a dataset of patient sequences: got {what} in {path}; {advice}")
    version = metadata.get("version", 0)
    refuse_newer(str(path), version, METADATA_VERSION)
    check_form(metadata, _Any, path, cure=cure)
    check_seal(path, metadata, _AGAIN)
    if version and (missing := _missing_since_1(metadata)):
        raise ValueError(
            f"metadata.json of version {version} must say all of a dataset: got no {', '.join(missing)} in {path};"
            f" {cure}"
        )
    return metadata


def _missing_since_1(metadata: dict) -> list[str]:
    missing = [key for key in _SINCE_1[metadata["kind"]] if key not in metadata]
    for name, form in (("serialization", Serialization), ("source", Source)):
        missing += [f"{name}.{key}" for key in form.__annotations__ if key not in metadata.get(name, ())]
    return missing


def read_dataset_info(dataset_directory) -> dict:
    """Return what TFDS says of the files. Raises OSError where it is not there, ValueError where it is damaged."""
    path = Path(dataset_directory) / "dataset_info.json"
    cure = "copy the file again, or prepare the dataset again"
    info = read_object(path, DatasetInfo, cure=cure)
    if not all(length.isdecimal() for split in info["splits"] for length in split["shardLengths"]):
        raise ValueError(f"dataset_info.json must say how many records a file has: got other text in {path}; {cure}")
    return info
