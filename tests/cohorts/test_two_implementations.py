"""The package and plain loops that were written apart from it give the same cohorts: patient by patient, 0 differences.

On messy random patients, which know the corners, and on simulated ones, which know what records look like.
"""

from collections import Counter
from datetime import date

import pytest
from cohorts.independent.ahead_loops import (
    af_after_hypertension,
    ckd_progression,
    in_hospital_mortality,
    mortality_30d,
    new_diagnosis,
)
from cohorts.independent.cohort_loops import (
    In,
    Left,
    age_is_uncertain,
    dhf,
    dhf_landmark,
    dhf_matched,
    first_with,
    paca,
    read_ehr,
    read_last_day,
    records_of,
)
from cohorts.independent.comparison import rows_in, spec_of
from cohorts.independent.literal_patients import LAST_DAY, ask_loops, tables_of
from cohorts.independent.messy_patients import messy_patients, with_times

from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import read_shard
from medbert_jax.simulation.simulate import simulate

SPECS = ("dhf", "dhf-landmark", "dhf-matched", "dhf-matched-incident", "paca", "paca+30")
RARE = ("paca-matched",)
"""Of which thousands of simulated patients have hardly a case: on messy patients alone."""
AHEAD = {
    "af-after-hypertension": af_after_hypertension,
    "ckd-progression": ckd_progression,
    "mortality-30d": mortality_30d,
    "in-hospital-mortality": lambda records, last_day: in_hospital_mortality(records),
}
OURS = {"not_case", "not_control", "not_drawn"}
"""Rules of matched cohorts that the definition doesn't name: there, only who stays, `unmatched` and `short_at_risk` are
compared."""


def rows_of_package(spec: str, tables: EhrTables) -> tuple[dict[str, In], Counter]:
    """Who stays, and how many left under which rule."""
    frame, ledger = select_cohort(tables, spec_of(spec))
    rows = {id: row._replace(weight=round(row.weight, 9)) for id, row in rows_in(frame, spec, tables).items()}
    return rows, Counter({line.rule: line.left.patients for line in ledger.lines if line.left.patients})


def differences(spec: str, tables: EhrTables, outcomes: dict[str, Left | In]) -> list[str]:
    """Every difference in words; empty if none. `outcomes` are those of the loops for the same patients."""
    rows, left = rows_of_package(spec, tables)
    said = []
    for patient_id, outcome in outcomes.items():
        row = rows.get(patient_id)
        if isinstance(outcome, In):
            outcome = outcome._replace(weight=round(outcome.weight, 9))
        if row != (outcome if isinstance(outcome, In) else None):
            said.append(f"{patient_id}: loops {outcome}, package {row or 'left'}")
    by_rule = Counter(outcome.rule for outcome in outcomes.values() if isinstance(outcome, Left))
    every = left.keys() | by_rule.keys()
    rules = {"unmatched", "short_at_risk"} if "matched" in spec else every
    return said + [
        f"{rule}: loops {by_rule[rule]}, package {left[rule]}" for rule in sorted(rules) if by_rule[rule] != left[rule]
    ]


MESSY = 3_000
FEW = 6_000


@pytest.fixture(scope="module")
def messy() -> dict[str, list[tuple[dict[str, str], EhrTables, dict[str, Left | In]]]]:
    """Per spec its shards: texts, tables, and what the loops say."""
    dated = with_times(messy_patients(MESSY // 2, seed=2), seed=2)
    shards = [(texts, tables_of(texts)) for texts in (messy_patients(MESSY, seed=1), dated)]
    # Matching needs many who qualify, and some shards that are so small that cases find no control.
    matching = [
        messy_patients(size, seed=seed, matchable=True)
        for seed, size in enumerate((1_000, 200, 30, 30, 30, 30, 30, 30))
    ]
    matching.append(with_times(messy_patients(1_000, seed=9, matchable=True), seed=9))
    shards_of_matched = [(texts, tables_of(texts)) for texts in matching]
    return {
        spec: [
            (texts, tables, ask_loops(spec, tables))
            for texts, tables in (shards_of_matched if "matched" in spec else shards)
        ]
        for spec in (*SPECS, *RARE)
    }


@pytest.mark.parametrize("spec", [*SPECS, *RARE])
def test_on_messy_patients(spec, messy):
    found = []
    for texts, tables, outcomes in messy[spec]:
        for line in differences(spec, tables, outcomes):
            found.append(f"{line}\n{texts.get(line.split(':')[0], '')}")
    assert not found, "\n\n".join([f"{len(found)} differences", *found[:5]])
    # The comparison says something only where every way was taken.
    counts = Counter(one.label for _, _, outcomes in messy[spec] for one in outcomes.values() if isinstance(one, In))
    assert counts[0] >= 20 and counts[1] >= 20, counts


def test_messy_patients_take_every_rule(messy):
    rules = {one.rule for shards in messy.values() for *_, outcomes in shards for one in outcomes.values()
             if isinstance(one, Left)}  # fmt: skip
    missing = {
        "no_diabetes", "one_diabetes_encounter", "incorrect_times", "diabetes_insipidus", "gestational_diabetes",
        "neonatal_diabetes", "secondary_diabetes", "type_1_diabetes", "no_type_2", "diabetes_unverified", "under_18",
        "age_unknown", "hf_one_encounter", "hf_too_early", "hf_unverified", "died_before_index", "input_codes",
        "no_index_visit", "hf_before_index", "short_follow_up", "unmatched", "paca_other_cancer_before", "other_cancer",
        "under_45", "no_visits",
        "short_at_risk",
    } - rules  # fmt: skip
    assert not missing


@pytest.mark.parametrize(("spec", "boundary"), [("dhf", 18), ("dhf-landmark", 18), ("dhf-matched", 18), ("paca", 45)])
def test_the_same_ages_are_uncertain(spec, boundary, messy):
    flagged = 0
    for _, tables, _ in messy[spec]:
        records = records_of({name: frame.to_dicts() for name, frame in tables.present().items()})
        for row in select_cohort(tables, spec_of(spec))[0].to_dicts():
            patient = records[row["patient_id"]]
            index = next((one for one in patient.visits if one.order == row["index_order"]), None)
            visit = index if spec == "paca" else first_with(patient.visits, "diabetes")
            assert row["flag_age_uncertain"] == age_is_uncertain(patient, visit, boundary)
            flagged += row["flag_age_uncertain"]
    assert flagged or spec in ("dhf-landmark", "dhf-matched")  # few rows, so perhaps none of them


@pytest.fixture(scope="module", params=[FEW, pytest.param(20_000, marks=pytest.mark.slow)])
def simulated(tmp_path_factory, request):
    folder, patients = tmp_path_factory.mktemp("simulated") / "ehr", request.param
    simulate(
        folder, patients=patients, site="cerner", world="rich", seed=1, shards=2, workers=1, announce=lambda _: None
    )
    records = read_ehr(folder)
    assert len(records) == patients
    by_shard = {}
    for patient in records.values():
        by_shard.setdefault(patient.shard, {})[patient.patient_id] = patient
    return by_shard, {shard: read_shard(folder, shard) for shard in by_shard}, read_last_day(folder)


NEW = {
    "acute-mi-1y": ("acute_mi", None),
    "ischaemic-stroke-1y": ("ischaemic_stroke", None),
    "hypertension-1y": ("hypertension", None),
    "type-2-diabetes-1y": ("type_2_diabetes", "diabetes"),
}


@pytest.mark.parametrize("spec", [*SPECS, *NEW, *AHEAD])
def test_on_simulated_patients(spec, simulated):
    by_shard, tables, last_day = simulated
    found, counts = [], Counter()
    for shard, records in by_shard.items():
        outcomes = {
            **{name: lambda records, of=of: new_diagnosis(records, last_day, *of) for name, of in NEW.items()},
            **{name: lambda records, of=of: of(records, last_day) for name, of in AHEAD.items()},
            "dhf": lambda records: dhf(records),
            "dhf-landmark": lambda records: dhf_landmark(records, last_day),
            "dhf-matched": lambda records: dhf_matched(records, last_day),
            "dhf-matched-incident": lambda records: dhf_matched(records, last_day, incident=True),
            "paca": lambda records: paca(records),
            "paca+30": lambda records: paca(records, gap_days=30),
        }[spec](records)
        found += differences(spec, tables[shard], outcomes)
        counts.update(outcome.label for outcome in outcomes.values() if isinstance(outcome, In))
    assert not found, (f"{len(found)} differences", found[:10])
    assert sum(counts.values()) >= 10, counts


def test_the_last_day_is_the_latest_admission(simulated):
    by_shard, _, last_day = simulated
    days = [v.date for records in by_shard.values() for p in records.values() for v in p.visits if v.date]
    assert max(days) == last_day and date.fromisoformat(LAST_DAY) > last_day
