"""Matched sets are drawn within a split: a case and his controls are trained on, or tested on, together."""

import dataclasses

import numpy as np
import polars as pl

from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.schema import EhrTables


def drawn_apart(tables: EhrTables, spec: CohortSpec | LabelFolder, split: np.ndarray | None) -> list[EhrTables]:
    """The tables of a shard, in the parts within which the sets of a matched cohort are drawn; one of any other cohort.

    A patient keeps his split, which the pretraining knows; so the set is made to fit it, and not he to his set.

    Args:
        tables: of a shard.
        spec: of the cohort.
        split: (patients,) of each row of `tables.patients`, any numbers; None: nobody is kept apart.
    """
    if split is None or not isinstance(spec, CohortSpec) or spec.matching is None or tables.patients.is_empty():
        return [tables]
    whose = tables.patients.select("patient_id").with_columns(split=split)
    return [only_of(tables, whose.filter(pl.col("split") == one)) for one in np.unique(split).tolist()]


def only_of(tables: EhrTables, patients: pl.DataFrame) -> EhrTables:
    """The rows of some patients (patient_id, …)."""
    ids = patients.select("patient_id")
    kept = {
        name: table.join(ids, on="patient_id", how="semi", maintain_order="left")
        for name, table in tables.present().items()
    }
    return dataclasses.replace(tables, **kept)
