"""Charts for a review: random cases, controls and patients of every line under which somebody left, or one patient."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.chart_review.charts import ReviewedChart, charts
from medbert_jax.chart_review.evidence_rows import with_parts
from medbert_jax.cohorts.drawn_apart import drawn_apart, only_of
from medbert_jax.cohorts.judging import Exit, judge
from medbert_jax.cohorts.missing_inputs import missing_inputs, refuse_days_without_dates
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.disk.tables_on_disk import read_parquet
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.split_rule import Split
from medbert_jax.ehr.tables import read_shard, read_source, read_titles
from medbert_jax.ehr.text_hash import shard_numbers
from medbert_jax.ehr.workers import Workers

_NOTHING_THERE = "no_visits"
_SIDE = (
    pl.when("label").then(pl.lit("cases")).when(~pl.col("label")).then(pl.lit("controls")).otherwise(pl.lit("censored"))
)
_GROUP = pl.coalesce("leaves_under", _SIDE)
_NAMES = {"cases": "case", "controls": "control", "censored": "censored"}


def draw_charts(
    ehr_directory: Path,
    spec: CohortSpec,
    each: int,
    *,
    members: Path | None = None,
    split: Split | None = None,
    seed: int = 0,
    workers: int = 0,
) -> list[tuple[str, ReviewedChart]]:
    """(patient_id, chart) of `each` random cases, controls and patients of every line under which somebody left.

    Those with the lowest hash of their id, by `seed`: whatever the shards and workers, the same. Named "case 1", ….
    Cases and controls are taken from `members`, a Parquet file with patient_id, where it is given; `split` is the one
    within which the sets of a matched cohort were drawn. Raises ValueError
    for a rule that the source cannot decide.
    """
    if each < 1:
        raise ValueError(f"a chart review shows 1 patient or more of each group: got {each}; use for instance 25")
    task = functools.partial(_draw_of_shard, ehr_directory, spec, each, members, split, seed)
    with Workers(workers) as run:
        drawn = [one for part in run(task, range(read_source(ehr_directory).shards)) for one in part]
    named, count = [], {}
    for _, patient_id, chart in sorted(drawn, key=lambda one: one[:2]):
        number = count[chart.group] = count.get(chart.group, 0) + 1
        if number <= each:
            named.append((patient_id, replace(chart, name=f"{_NAMES.get(chart.group, chart.group)} {number}")))
    return named


def chart_of(ehr_directory: Path, spec: CohortSpec, patient_id: str, *, split: Split | None = None) -> ReviewedChart:
    """The chart of one patient; only his shard is read. Raises ValueError where nobody has that id.

    `split` as in `draw_charts`.
    """
    source = read_source(ehr_directory)
    tables = read_shard(ehr_directory, int(shard_numbers(pl.Series([patient_id]), source.shards)[0]))
    wanted = pl.DataFrame({"patient_id": [patient_id]})
    if tables.patients.join(wanted, on="patient_id", how="semi").is_empty():
        raise ValueError(
            f"a patient is asked for by the id that he has in the EHR tables: got one that is not in {ehr_directory};"
            " look at patient_id in its folder patients/"
        )
    judged, lines = _judged(tables, spec, _split_of(ehr_directory, tables, split))
    judged = judged.join(wanted, on="patient_id", how="semi")
    return next(charts(only_of(tables, wanted), spec, judged, lines, read_titles(ehr_directory)))[1]


def _draw_of_shard(
    ehr_directory: Path,
    spec: CohortSpec,
    each: int,
    members: Path | None,
    split: Split | None,
    seed: int,
    shard: int,
) -> list[tuple[tuple[int, int], str, ReviewedChart]]:
    """((place of the group, hash), patient_id, chart) of those whom this shard can give."""
    tables = read_shard(ehr_directory, shard)
    if tables.patients.is_empty():
        return []
    judged, lines = _judged(tables, spec, _split_of(ehr_directory, tables, split))
    if members is not None:
        here = judged["patient_id"].is_in(read_parquet(members, columns=["patient_id"])["patient_id"].implode())
        judged = judged.filter(here | judged["leaves_under"].is_not_null())
    judged = judged.with_columns(drawing_order=patient_hash(judged["patient_id"], f"review/{seed}"))
    chosen = judged.filter(_GROUP != _NOTHING_THERE).sort("drawing_order").group_by(_GROUP.alias("group")).head(each)
    places = {id: place for place, id in enumerate((*_NAMES, *(line.id for line in lines)))}
    order = dict(chosen.select("patient_id", "drawing_order").iter_rows())
    found = charts(only_of(tables, chosen), spec, chosen, lines, read_titles(ehr_directory))
    return [((places[chart.group], order[patient_id]), patient_id, chart) for patient_id, chart in found]


def _split_of(ehr_directory: Path, tables: EhrTables, split: Split | None) -> np.ndarray | None:
    return None if split is None else split.assign(ehr_directory, tables.patients["patient_id"])


def _judged(tables: EhrTables, spec: CohortSpec, split: np.ndarray | None = None) -> tuple[pl.DataFrame, list[Exit]]:
    """What is said of everybody of a shard, line:<id> included: who is drawn for a cohort depends on all of them."""
    refuse_days_without_dates(spec, tables.source)
    missing_inputs(spec, tables.source, tables.present())  # of the spec's own rules, before those of `with_parts`
    in_parts = with_parts(spec, tables)
    parts = [judge(part, in_parts, every_rule=True) for part in drawn_apart(tables, spec, split)]
    judged, lines = pl.concat([part for part, _ in parts]), parts[0][1]
    applies = [(line, line.applies | (pl.col("leaves_under") == line.id)) for line in lines]
    return judged.with_columns(one.fill_null(False).alias(f"line:{line.id}") for line, one in applies), lines
