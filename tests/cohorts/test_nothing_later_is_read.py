"""Two records that are equal up to the prediction and different after it have the same input, byte by byte."""

from datetime import datetime, timedelta
from random import Random

import polars as pl
import pytest
from cohorts.independent.literal_patients import rows_of, tables_of_rows
from cohorts.independent.messy_patients import HEART_FAILURE, NEIGHBOURS, PANCREAS, TYPE_2, messy_patients, with_times

from medbert_jax.cohorts.loading import SPECS_DIRECTORY, load_spec, parse_spec
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.data import serialization
from medbert_jax.data.serialization import SerializationConfig, order_histories
from medbert_jax.ehr.schema import SCHEMAS

BUILT_IN = sorted(path.stem for path in SPECS_DIRECTORY.glob("*.yaml"))
CODES = [code for some in (HEART_FAILURE, PANCREAS, TYPE_2, NEIGHBOURS) for code in some.split() if "/" not in code]
COLUMNS = ("visit_ids", "serialization_ids", "visit_days", "age_days", "length_of_stay")


def cohorts_of(folder) -> dict:
    """Every built-in cohort, those that it takes an option to make, and labels at any time."""
    specs = {name: load_spec(name) for name in BUILT_IN}
    paca, readmission = (specs[name].to_dict() for name in ("paca", "readmission-30d"))
    paca["input"]["gap_days"], readmission["input"]["known"] = 30, "billing"
    specs |= {"paca+30": parse_spec(paca, source="paca"), "billing": parse_spec(readmission, source="readmission")}
    chance = Random(5)
    times = [
        datetime(2008, 1, 1) + timedelta(days=chance.randrange(4000), hours=chance.randrange(24)) for _ in range(400)
    ]
    labels = {"subject_id": list(range(400)), "prediction_time": times, "boolean_value": [True, False] * 200}
    pl.DataFrame(labels).write_parquet(folder / "labels.parquet")
    return {**specs, "labels": LabelFolder.find(folder)}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return cohorts_of(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def records():
    """The rows of made patients by table: half of them as the matched cohorts need them."""
    texts = [*messy_patients(200, seed=11).values(), *messy_patients(300, seed=12, matchable=True).values()]
    texts = with_times({str(number): text for number, text in enumerate(texts)}, seed=13)
    rows = {name: [] for name in SCHEMAS}
    for patient_id, text in texts.items():
        for name, some in rows_of(patient_id, text).items():
            rows[name] += some
    return with_lengths(rows)


WITH_PAST = ("acute-mi-1y", "ckd-progression", "hypertension-1y", "ischaemic-stroke-1y", "type-2-diabetes-1y")
"""Cohorts that ask for a longer past, or a disease, than the made patients have."""


@pytest.fixture(scope="module")
def with_past(records):
    """The same patients with a check-up 800 days before all else; every other one with kidney disease later."""
    rows, chance = {name: [dict(row) for row in some] for name, some in records.items()}, Random(4)
    visits, untimed = {}, {"time": None, "captured_at_billing": None}
    for visit in rows["visits"]:
        visit["order"] += 1
        visits.setdefault(visit["patient_id"], []).append(visit)
    for number, (patient_id, some) in enumerate(visits.items()):
        if begun := [visit["admit_time"] for visit in some if visit["admit_time"]]:
            key = {"patient_id": patient_id, "visit_id": "check-up"}
            day = min(begun) - timedelta(days=800)
            check_up = {"admit_time": day, "discharge_time": day, "visit_type": "outpatient", "order": 1}
            rows["visits"].append({**key, **check_up})
            rows["diagnoses"].append({**key, "code_system": "ICD10CM", "code": "Z00.00", **untimed})
            if number % 2:
                key["visit_id"] = chance.choice(some)["visit_id"]
                rows["diagnoses"].append({**key, "code_system": "ICD10CM", "code": "N18.30", **untimed})
        else:
            for visit in some:
                visit["order"] -= 1
    return with_lengths(rows)


def with_lengths(rows):
    for visit in rows["visits"]:
        times = (visit["discharge_time"], visit["admit_time"])
        visit["length_of_stay"] = None if None in times else (times[0].date() - times[1].date()).days
    return rows


def changed(rows: dict, frame: pl.DataFrame, chance: Random) -> dict:
    """The same rows where of the patients of `frame` is changed what lies after their prediction, and nothing else."""
    people = {row["patient_id"]: row for row in frame.to_dicts()}
    new = {name: [dict(row) for row in some] for name, some in rows.items()}

    def after(at: datetime) -> datetime:
        return at + timedelta(days=chance.choice([0, 1, 30, 400]), hours=chance.choice([1, 12]))

    for one in new["patients"]:
        if row := people.get(one["patient_id"]):
            day = row["prediction_time"].date()
            if one["death_date"] is None or one["death_date"] > day:
                one["death_date"] = chance.choice(
                    [None, one["death_date"], day + timedelta(days=chance.randrange(1, 99))]
                )
    old, kept = {(v["patient_id"], v["visit_id"]): v for v in rows["visits"]}, []
    for visit in sorted(new["visits"], key=lambda visit: (visit["patient_id"], -visit["order"])):
        row = people.get(visit["patient_id"])
        if row is None:
            kept.append(visit)
            continue
        predicted, ended = row["prediction_time"], visit["discharge_time"]
        begun = visit["admit_time"] is None or visit["admit_time"] <= predicted
        last = not any(other["patient_id"] == visit["patient_id"] for other in kept[-1:])
        if not begun and last and visit["order"] > row["index_order"] and chance.random() < 0.5:
            continue  # the last ones of a record, from its end
        kept.append(visit)
        if visit["visit_type"] == "inpatient" and (ended is None or ended > row["over_by"]):
            visit["discharge_time"] = chance.choice([None, after(max(predicted, visit["admit_time"] or predicted))])
        elif ended is not None and ended > row["over_by"]:
            visit["discharge_time"] = after(max(ended, row["over_by"]))
    places, diagnoses = {(v["patient_id"], v["visit_id"]): v for v in kept}, []
    for one in new["diagnoses"]:
        row, key = people.get(one["patient_id"]), (one["patient_id"], one["visit_id"])
        if key not in places:
            continue
        diagnoses.append(one)
        if row is None or not comes_later(one, old[key], row):
            continue
        how = chance.random()
        if how < 0.3:
            diagnoses.pop()
        elif how < 0.6:
            code = chance.choice(CODES)
            one |= {"code": code, "code_system": "ICD9CM" if code[0].isdigit() or code[0] == "V" else "ICD10CM"}
        elif how < 0.8 and one["time"] is not None:
            one["time"] = after(max(one["time"], row["prediction_time"]))
    for key, visit in places.items():
        if (row := people.get(key[0])) and chance.random() < 0.5:
            at = max(row["prediction_time"], visit["discharge_time"] or row["prediction_time"])
            code = {"code_system": "ICD10CM", "code": chance.choice(["I10", "E78.5", "C50.911", "R73.03"])}
            diagnoses.append({"patient_id": key[0], "visit_id": key[1], **code, "time": after(at)})
    for name in ("medications", "measurements", "procedures"):
        new[name] = [one for one in new[name] if not one["visit_id"] or (one["patient_id"], one["visit_id"]) in places]
    return with_lengths({**new, "visits": kept, "diagnoses": diagnoses})


def comes_later(one: dict, visit: dict, row: dict) -> bool:
    """Whether a diagnosis was known only after the prediction, in the words of the documents."""
    time, ended, billed = one["time"], visit["discharge_time"], one["captured_at_billing"]
    if visit["admit_time"] is not None and visit["admit_time"] > row["prediction_time"]:
        return True
    if row.get("unbilled_order") == visit["order"] and billed is not False:
        return True
    if (ended is None and visit["visit_type"] == "inpatient") or (ended is not None and ended > row["over_by"]):
        return time is None or bool(billed) or time > row["prediction_time"]
    return time is not None and time > row["prediction_time"] and (ended is None or time > ended)


def inputs(tables, frame) -> dict[str, tuple]:
    """Per patient everything of his sequence that is not said of him by the cohort."""
    sequences, codes, _ = order_histories(tables, SerializationConfig(minimum_codes=1), until=frame)
    found = {}
    for number, patient_id in enumerate(sequences.patient_id.tolist()):
        of_codes = slice(*sequences.code_offsets[number : number + 2])
        of_visits = slice(*sequences.visit_offsets[number : number + 2])
        parts = [codes[sequences.code_ids[of_codes]].tolist()]
        for name in COLUMNS:
            values = getattr(sequences, name)
            parts.append(values[of_codes if len(values) == len(sequences.code_ids) else of_visits].tobytes())
        found[patient_id.decode()] = tuple(map(str, parts))
    return found


@pytest.mark.parametrize("name", [*BUILT_IN, "paca+30", "billing", "labels"])
def test_what_comes_after_the_prediction_changes_no_input(name, cohorts, records, with_past):
    records = with_past if name in WITH_PAST else records
    tables = tables_of_rows(records)
    frame, _ = select_cohort(tables, cohorts[name])
    assert frame.height >= 10
    before, same_index, chance = inputs(tables, frame), 0, Random(1)
    for _ in range(3):
        other = tables_of_rows(changed(records, frame, chance))
        assert not tables.diagnoses.equals(other.diagnoses) and not tables.visits.equals(other.visits)
        differing = {id for id, one in inputs(other, frame).items() if before.get(id) != one}
        assert not differing, [(id, before.get(id)) for id in differing][:3]
        # And selected anew, wherever the prediction is made at the same time.
        again, _ = select_cohort(other, cohorts[name])
        pairs = frame.join(again, on=["patient_id", "prediction_time", "over_by"], suffix="_again")
        assert pairs["input_until"].to_list() == pairs["input_until_again"].to_list()
        found = inputs(other, again)
        both = pairs["patient_id"].filter(pairs["patient_id"].is_in(list(before)))
        assert {id: before[id] for id in both} == {id: found[id] for id in both}
        same_index += len(both)
    assert same_index >= 10


def test_a_reader_that_looks_further_is_found(cohorts, records, monkeypatch):
    tables = tables_of_rows(records)
    frame, _ = select_cohort(tables, cohorts["hf-later"])

    def all_codes(tables, visits):
        visits = visits.select("patient_id", "visit_id", "order", "prediction_time")
        return tables.diagnoses.join(visits, on=["patient_id", "visit_id"])

    monkeypatch.setattr(serialization, "input_diagnoses", all_codes)
    before, other = inputs(tables, frame), tables_of_rows(changed(records, frame, Random(1)))
    assert sum(before.get(id) != one for id, one in inputs(other, frame).items()) > 20
