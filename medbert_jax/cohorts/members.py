"""Of a shard those who are in some cohorts, with their whole records: what is kept of tables too large to keep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from medbert_jax.cohorts.drawn_apart import only_of
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.hashing import assign_split
from medbert_jax.ehr.schema import EhrTables


@dataclass(frozen=True)
class Members:
    """Called with the tables of a shard it returns those of the members: plain data, which can be sent to workers.

    The cohorts of what it returns are those of the whole shard, patient by patient: rules judge each by his own record;
    controls that are sampled are sampled later, of all there are; and of a matched cohort the cases with their controls
    stay, so that each case finds the same ones first, whoever else is there. The weights of drawn controls, which count
    those whom they were drawn from, are those among the members.
    """

    specs: Sequence[CohortSpec]
    key: str
    """Of the hash that splits patients, within whose splits matched sets are drawn."""
    ratios: tuple[float, float, float] = (0.7, 0.1, 0.2)

    def __call__(self, tables: EhrTables) -> EhrTables:
        """The members' tables."""
        split = assign_split(tables.patients["patient_id"], key=self.key, ratios=self.ratios)
        found = [select_cohort(tables, replace(spec, sample=None), split)[0] for spec in self.specs]
        return only_of(tables, pl.concat([frame.select("patient_id") for frame in found]).unique())
