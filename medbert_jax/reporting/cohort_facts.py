"""Facts of a cohort's test patients that a page warns of: outcome codes in the input, deaths before the outcome."""

import sys
from dataclasses import dataclass

import numpy as np
import polars as pl

from medbert_jax.cohorts.ahead import DEATH_DAY
from medbert_jax.data.sequences import sums_within
from medbert_jax.data.token_store import open_token_store, read_vocabulary
from medbert_jax.data.vocabulary import FIRST_CODE
from medbert_jax.disk.tables_on_disk import read_parquet
from medbert_jax.evaluation.evaluated_patients import COHORT_TABLE
from medbert_jax.reporting.reported_cohort import ReportedCohort


@dataclass(frozen=True)
class CohortFacts:
    """Of the test patients; None is what cannot be counted."""

    patients: int | None = None
    with_outcome_codes: int | None = None
    """Whose input has a code of the outcome."""
    competing_deaths: int | None = None
    """Who died before the outcome could come."""


def cohort_facts(cohort: ReportedCohort, *, cache_dir: str = "") -> CohortFacts:
    """Read them from the dataset, where it is there and has a spec."""
    if cohort.directory is None or cohort.spec is None:
        return CohortFacts()
    patients = open_token_store(cohort.directory, "test", cache_dir, _tell)
    name = getattr(cohort.spec.outcome, "code_set", None)
    seen = None
    if isinstance(name, str):
        vocabulary = read_vocabulary(cohort.directory)
        pairs = [code.partition("/") for code in vocabulary.codes]
        frame = pl.DataFrame(
            {"code_system": [system for system, _, _ in pairs], "code": [code for *_, code in pairs]},
            schema={"code_system": pl.String, "code": pl.String},
        )
        is_outcome = np.zeros(vocabulary.size, bool)
        is_outcome[FIRST_CODE:] = frame.select(cohort.spec.code_set(name).matches())[:, 0].to_numpy()
        seen = int((sums_within(is_outcome[patients.code_ids], patients.code_offsets) > 0).sum())
    return CohortFacts(len(patients), seen, _deaths(cohort))


def _deaths(cohort: ReportedCohort) -> int | None:
    path = cohort.directory / COHORT_TABLE if cohort.directory else None
    if path is None or not path.is_file():
        return None
    rows = read_parquet(path)
    if DEATH_DAY not in rows.columns:
        return None
    return rows.filter(pl.col("split") == "test", pl.col(DEATH_DAY).is_not_null()).height


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
