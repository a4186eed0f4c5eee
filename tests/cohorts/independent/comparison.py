"""What the package says of a set of tables, in the words of the loops, so that the two can be compared.

Uses only what a user of `select_cohort` sees: its frame and its ledger.
"""

import dataclasses
from datetime import date, timedelta
from functools import cache

import polars as pl
from cohorts.independent.cohort_loops import In, Left
from cohorts.independent.literal_patients import LAST_DAY

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.known import input_diagnoses, input_visits
from medbert_jax.ehr.schema import EhrTables

SOMEWHERE = "left, one of several"
"""The ledger counts and doesn't name: the rule of a patient is known where one patient left alone."""


@cache
def spec_of(name: str):
    """A built-in spec; "paca+30" is paca with a gap of 30 days."""
    name, _, gap = name.partition("+")
    spec = load_spec(name)
    if not gap:
        return spec
    return dataclasses.replace(spec, input=dataclasses.replace(spec.input, gap_days=int(gap)))


def ask_package(spec: str, tables: EhrTables, last_day: str = LAST_DAY) -> dict[str, Left | In]:
    frame, ledger = select_cohort(tables, spec_of(spec))
    left = {line.rule: line.left.patients for line in ledger.lines if line.left.patients}
    assert ledger.came.patients - sum(left.values()) == ledger.kept.patients == frame.height
    rule = next(iter(left)) if len(left) == 1 else SOMEWHERE
    outcomes = {patient_id: Left(rule) for patient_id in tables.patients["patient_id"]}
    return outcomes | rows_in(frame, spec, tables)


def rows_in(frame: pl.DataFrame, spec: str, tables: EhrTables) -> dict[str, In]:
    """Who stays, with every diagnosis that is read."""
    read = input_diagnoses(tables, input_visits(tables, frame)).select("patient_id", "order", "code_system", "code")
    inputs: dict[str, list[tuple]] = {}
    for patient_id, *code in read.iter_rows():
        inputs.setdefault(patient_id, []).append(tuple(code))
    return {
        row["patient_id"]: In(
            row["label"],
            index_date(row, spec),
            row["index_order"],
            row["input_until"],
            row.get("weight", 1.0),
            bool(row.get("competing_death", False)),
            tuple(sorted(inputs.get(row["patient_id"], ()))),
            *(row.get(name) for name in ("event_day", "death_day", "censored_day")),
        )
        for row in frame.to_dicts()
    }


def index_date(row: dict, spec: str) -> date:
    """The calendar day of the index: prediction times lie 1 µs before it, or at the discharge that ends the input.

    With a gap of 30 days the input ends before the day that lies 29 days before the index.
    """
    gap = int(spec.partition("+")[2] or 0)
    return (row["prediction_time"] + timedelta(microseconds=1)).date() + timedelta(days=max(gap - 1, 0))


def ask_package_of_each(
    spec: str, tables_of, texts: dict[str, str], expected: dict[str, object]
) -> dict[str, Left | In]:
    """`ask_package` of many patients who do not touch each other, with the rule under which each one left.

    Those who left are asked again in groups that are expected to leave under one rule: where the ledger of a group has
    one line, that is the rule of each; otherwise everyone is asked alone.
    """
    outcomes = ask_package(spec, tables_of(texts))
    groups: dict[object, list[str]] = {}
    for name, outcome in outcomes.items():
        if isinstance(outcome, Left):
            groups.setdefault(str(expected[name]), []).append(name)
    for names in groups.values():
        asked = ask_package(spec, tables_of({name: texts[name] for name in names}))
        if Left(SOMEWHERE) in asked.values():
            for name in names:
                asked |= ask_package(spec, tables_of({name: texts[name]}))
        outcomes |= asked
    return outcomes
