"""The options of `medbert prepare` and `medbert cohort`, once: the command line reads them, the builders take them."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval
from tyro.conf import Positional

from medbert_jax.checked_fields import check_fields


@dataclass(frozen=True)
class PrepareOptions:
    """Serialize EHR tables into a pretraining dataset."""

    ehr: Positional[Path]
    """folder of EHR tables."""
    name: Positional[str]
    """name of the dataset."""
    data_dir: Path = Path("data")
    """folder of all datasets."""
    preset: Literal["paper", "released_code"] = "paper"
    """which side to take where the paper and its released code disagree."""
    split_key: str = "medbert"
    """key of the hash that splits patients into training, validation and test."""
    minimum_patients: Annotated[int, Ge(1)] = 1
    """codes that fewer training patients have are not in the vocabulary."""
    vocabulary: Path | None = None
    """vocabulary.tsv of another dataset, used as it is instead of a new one."""
    unknown_code_limit: Annotated[float, Interval(ge=0, le=1)] = 0.2
    """share of codes outside of that vocabulary above which the dataset is refused."""
    back_off: bool = False
    """a code outside of that vocabulary becomes its nearest ICD ancestor there."""
    exclude_cohort: Path | None = None
    """directory of a cohort dataset whose patients are left out; with --vocabulary, so that the same
    cohort can be fine-tuned with and without them."""
    workers: Annotated[int, Ge(0)] = 0
    """processes; 0: one per core."""
    shard: str | None = None
    """i/N, the part of task i of N of a batch scheduler's job array, i from 0; given without it at the end."""
    beam: tuple[str, ...] = ()
    """options of an Apache Beam pipeline that works on the shards instead, as runner=FlinkRunner."""
    replace: bool = False
    """a dataset of that name that was made otherwise, or is damaged, is replaced once the new one is there."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class CohortOptions:
    """Select a disease cohort and serialize it with the vocabulary and split of a pretraining dataset."""

    ehr: Positional[Path]
    """folder of EHR tables."""
    cohort: Positional[str]
    """name of a built-in cohort, a YAML file, or a folder of MEDS labels."""
    name: Positional[str]
    """name of the dataset."""
    pretraining_dataset: Path | None = None
    """directory whose vocabulary and split the cohort inherits."""
    data_dir: Path = Path("data")
    """folder of all datasets."""
    cache_dir: Path | None = None
    """folder where the token store of a dataset that cannot be written, and has none, is kept."""
    gap_days: Annotated[int, Ge(0)] | None = None
    """the input ends so many days before the index, in place of what the spec says."""
    test_from: datetime.date | None = None
    """a split by time within that by patient: test patients are predicted on this day (2015-01-01) or
    later, the others before it; who is on the wrong side leaves."""
    few_cases: bool = False
    """also with fewer than 50 test cases, which tell little."""
    unknown_code_limit: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """share of codes outside of that vocabulary above which the cohort is refused."""
    back_off: bool = False
    """a code outside of that vocabulary becomes its nearest ICD ancestor there."""
    review: Annotated[int, Ge(0)] = 0
    """write review.html beside the dataset: so many random cases, controls and patients of every exclusion,
    with what each rule rests on. Patient-level data: it must not leave the site."""
    review_seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """another number draws other patients."""
    why: str | None = None
    """print rule by rule why the patient with this id is in or out, and make no dataset. Rules alone: who leaves
    later (wrong times, --test-from) is in the ledger."""
    workers: Annotated[int, Ge(0)] = 0
    """processes; 0: one per core."""
    shard: str | None = None
    """i/N, the part of task i of N of a batch scheduler's job array, i from 0; given without it at the end."""
    beam: tuple[str, ...] = ()
    """options of an Apache Beam pipeline that works on the shards instead, as runner=FlinkRunner."""
    replace: bool = False
    """a dataset of that name that was made otherwise, or is damaged, is replaced once the new one is there."""
    check: bool = False
    """a dry run, which needs no pretraining dataset and makes none: rows and patients of everything that the spec
    looks for, who would be in, what is refused. Exit code 2 where something is."""
    json_out: Path | None = None
    """with --check, also write what it finds there, as JSON."""
    labels: Literal["first", "last", "random", "all"] = "first"
    """which prediction time of a subject is taken, where a folder of MEDS labels has several; all: each is a row of
    its own, and all rows of a subject are of one split."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)
