"""Several rows of one patient."""

from collections import Counter

import polars as pl

CONTRADICTED = "patients whose rows contradict each other in {}, which is unknown now"
"""What is told of a column of patients."""


def one_row_each(patients: pl.DataFrame) -> tuple[pl.DataFrame, Counter[str]]:
    """One row per patient, and the patients of whom rows contradict each other, by column: the value is unknown."""
    if not patients["patient_id"].is_duplicated().any():
        return patients, Counter()
    said = pl.exclude("patient_id").drop_nulls()
    rows = patients.group_by("patient_id", maintain_order=True)
    unlike = rows.agg(said.n_unique() > 1).drop("patient_id").sum().row(0, named=True)
    single = rows.agg(pl.when(said.n_unique() == 1).then(said.first()).name.keep())
    return single, +Counter({CONTRADICTED.format(column): count for column, count in unlike.items()})
