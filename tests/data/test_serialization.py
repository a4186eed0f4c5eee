"""EHR tables → sequences: literal patients on every boundary, and properties on made ones."""

from dataclasses import replace
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables

from medbert_jax.data.serialization import SerializationConfig, count_patients, order_histories, serialize
from medbert_jax.data.vocabulary import UNK, fit_vocabulary
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.schema import SCHEMAS, EhrSource, EhrTables

EVERYBODY = SerializationConfig(minimum_codes=1)
DAY = datetime(2015, 3, 1, 8)


def tables(visits, diagnoses, patients=None, *, has_dates=True):
    """Visits as dicts of patient, order, …; diagnoses as dicts of patient, order, code, …: the rest is unknown."""
    visits = [{"visit_id": f"{v['patient']}-{v['order']}", "patient_id": v["patient"], **v} for v in visits]
    diagnoses = [
        {
            "visit_id": f"{d['patient']}-{d['order']}",
            "patient_id": d["patient"],
            "code_system": "ICD10CM",
            **d,
        }
        for d in diagnoses
    ]
    patients = patients or {v["patient_id"]: {} for v in visits}
    patients = [{"patient_id": patient, **rest} for patient, rest in patients.items()]
    frames = {
        name: pl.DataFrame([{c: row.get(c) for c in SCHEMAS[name]} for row in rows], schema=SCHEMAS[name])
        for name, rows in (("patients", patients), ("visits", visits), ("diagnoses", diagnoses))
    }
    return EhrTables(**frames, source=EhrSource("literal", has_dates, "days"))


def visit(patient, order, *, admitted=None, left=None, stay=None, **rest):
    return {
        "patient": patient,
        "order": order,
        "admit_time": admitted,
        "discharge_time": left,
        "length_of_stay": stay,
        **rest,
    }


def diagnosis(patient, order, code, *, poa=None, billing=None, priority=None):
    return {
        "patient": patient,
        "order": order,
        "code": code,
        "present_on_admission": poa,
        "captured_at_billing": billing,
        "priority": priority,
    }


def codes_of(sequences, codes):
    """patient → visit → codes, in order."""
    found = {}
    for i, patient in enumerate(sequences.patient_id):
        span = slice(*sequences.code_offsets[i : i + 2])
        visits = found[patient.decode()] = {}
        for code, number, rank in zip(
            sequences.code_ids[span], sequences.visit_ids[span], sequences.serialization_ids[span], strict=True
        ):
            assert rank == len(visits.setdefault(int(number), []))
            visits[int(number)].append(str(codes[code]).removeprefix("ICD10CM/"))
    return found


def left_under(ledger):
    return {line.rule: (line.left.patients, line.left.visits, line.left.codes) for line in ledger.lines}


def test_codes_of_a_visit_come_by_admission_then_billing_then_priority_then_code():
    rows = [
        diagnosis("a", 1, "H", poa=False, billing=False, priority=1),
        diagnosis("a", 1, "G", poa=True, billing=True, priority=1),
        diagnosis("a", 1, "F", poa=True, billing=False, priority=None),
        diagnosis("a", 1, "E", poa=True, billing=False, priority=None),
        diagnosis("a", 1, "D", poa=True, billing=False, priority=12),
        diagnosis("a", 1, "C", poa=None, billing=None, priority=2),
        diagnosis("a", 1, "I", poa=False, billing=True, priority=1),
    ]
    sequences, codes, _ = order_histories(tables([visit("a", 1)], rows), EVERYBODY)
    assert codes_of(sequences, codes) == {"a": {1: ["C", "D", "E", "F", "G", "H", "I"]}}


def test_a_repeated_code_is_kept_once_at_its_first_place_and_counted():
    rows = [
        diagnosis("a", 1, "X", priority=3),
        diagnosis("a", 1, "Y", priority=2),
        diagnosis("a", 1, "X", priority=1),
        diagnosis("a", 2, "X", priority=1),
    ]
    sequences, codes, ledger = order_histories(tables([visit("a", 1), visit("a", 2)], rows), EVERYBODY)
    assert codes_of(sequences, codes) == {"a": {1: ["X", "Y"], 2: ["X"]}}
    assert left_under(ledger)["repeated_in_visit"] == (0, 0, 1)


@pytest.mark.parametrize("visit_rule", ["encounter", "discharge_date"])
def test_a_visit_id_names_a_visit_within_its_patient_alone(visit_rule):
    visits = [visit(patient, order, visit_id=str(order), stay=order) for patient in "ab" for order in (1, 2)]
    rows = [diagnosis(patient, order, code) for patient, order, code in (("a", 1, "W"), ("a", 2, "X"), ("b", 2, "Y"))]
    made = tables(visits, [{**row, "visit_id": str(row["order"])} for row in rows])
    config = replace(EVERYBODY, visit_rule=visit_rule)
    sequences, codes, ledger = order_histories(made, config)
    assert codes_of(sequences, codes) == {"a": {1: ["W"], 2: ["X"]}, "b": {1: ["Y"]}}
    assert sequences.length_of_stay.tolist() == [1, 2, 2]
    assert (ledger.came.visits, ledger.came.codes) == (4, 3)
    assert left_under(ledger)["no_codes"] == (0, 1, 0)
    cut, codes, _ = order_histories(made, config, until=cohort(a=1, b=2))
    assert codes_of(cut, codes) == {"a": {1: ["W"]}, "b": {1: ["Y"]}}


def test_visits_without_codes_get_no_number_but_count_for_days_and_stays():
    visits = [
        visit("a", 1, admitted=DAY, left=datetime(2015, 3, 9, 9), stay=8),
        visit("a", 2, admitted=datetime(2015, 3, 11), stay=0),
        visit("a", 3, admitted=datetime(2015, 3, 12), stay=None),
        visit("b", 1, stay=7),
    ]
    rows = [diagnosis("a", 2, "X"), diagnosis("a", 3, "Y"), diagnosis("b", 1, "X")]
    sequences, codes, ledger = order_histories(tables(visits, rows), EVERYBODY)
    assert codes_of(sequences, codes) == {"a": {1: ["X"], 2: ["Y"]}, "b": {1: ["X"]}}
    assert sequences.visit_days.tolist() == [10, 11, -1]
    assert sequences.length_of_stay.tolist() == [0, -1, 7]
    assert sequences.outcomes["prolonged_los"].tolist() == [1, 0]  # 8 days are prolonged, 7 are not
    assert left_under(ledger)["no_codes"] == (0, 1, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        [visit("a", 1, admitted=DAY, left=datetime(2015, 3, 1, 7, 59))],
        [visit("a", 1, stay=-1)],
        [visit("a", 1, admitted=DAY), visit("a", 2, admitted=datetime(2015, 2, 28))],
        [visit("a", 1, admitted=DAY), visit("a", 2), visit("a", 3, admitted=datetime(2015, 2, 28))],
    ],
)
def test_a_patient_with_a_wrong_recorded_time_leaves_whole(wrong):
    visits = [*wrong, visit("b", 1, admitted=DAY, left=DAY, stay=0), visit("b", 2, admitted=DAY)]
    rows = [diagnosis("a", len(wrong), "X"), diagnosis("b", 1, "X")]
    sequences, _, ledger = order_histories(tables(visits, rows), EVERYBODY)
    assert sequences.patient_id.tolist() == [b"b"]
    assert left_under(ledger)["wrong_times"] == (1, len(wrong), 1)


@pytest.mark.parametrize(("unique", "stays"), [(True, ["c"]), (False, ["b", "c"])])
def test_three_codes_are_needed_counted_with_or_without_repeats(unique, stays):
    visits = [visit(patient, order) for patient in "abc" for order in (1, 2)]
    rows = [diagnosis("a", 1, "X"), diagnosis("a", 1, "X"), diagnosis("a", 2, "Y")]  # one repeated in its visit
    rows += [diagnosis("b", 1, "X"), diagnosis("b", 1, "Y"), diagnosis("b", 2, "X")]
    rows += [diagnosis("c", 1, "X"), diagnosis("c", 1, "Y"), diagnosis("c", 2, "Z")]
    sequences, _, ledger = order_histories(tables(visits, rows), SerializationConfig(unique=unique))
    assert [patient.decode() for patient in sequences.patient_id] == stays
    assert left_under(ledger)["minimum_codes"][0] == 3 - len(stays)


def test_everybody_who_leaves_is_counted_once_under_the_first_rule():
    visits = [visit("a", 1, stay=-1), visit("b", 1, stay=-1), visit("c", 1), visit("d", 1)]
    rows = [diagnosis("b", 1, "X"), diagnosis("c", 1, "X"), *(diagnosis("d", 1, code) for code in "XYZ")]
    patients = {patient: {} for patient in "abcde"}  # e has no visit at all
    sequences, _, ledger = order_histories(tables(visits, rows, patients), SerializationConfig())
    assert sequences.patient_id.tolist() == [b"d"]
    assert left_under(ledger) == {
        "no_diagnoses": (2, 1, 0),
        "wrong_times": (1, 1, 1),
        "minimum_codes": (1, 1, 1),
        "no_codes": (0, 0, 0),
        "repeated_in_visit": (0, 0, 0),
    }
    assert (ledger.came.patients, ledger.kept.patients, ledger.kept.codes) == (5, 1, 3)


def test_age_comes_from_the_birth_date_else_as_stated_else_is_unknown():
    visits = [
        visit("a", 1, admitted=datetime(2016, 3, 1), age_days=99),
        visit("b", 1, age_days=77),
        visit("c", 1),
        visit("d", 1, admitted=DAY),
    ]
    patients = {
        "a": {"birth_date": date(2016, 2, 28), "sex": "female", "race": "R2"},
        "b": {"sex": "male"},
        "c": {"race": "R1"},
        "d": {"birth_date": date(2020, 1, 1), "race": "another"},
    }
    rows = [diagnosis(patient, 1, "X") for patient in "abcd"]
    sequences, _, _ = order_histories(tables(visits, rows, patients), EVERYBODY, races=("R1", "R2"))
    assert sequences.age_days.tolist() == [2, 77, -1, -1]
    assert sequences.sex.tolist() == [1, 2, 0, 0]
    assert sequences.race.tolist() == [2, 0, 1, 0]


def test_encounters_with_one_discharge_date_are_one_visit_under_the_released_rule():
    visits = [
        visit("a", 1, admitted=DAY, left=datetime(2015, 3, 10, 9), stay=9),
        visit("a", 2, admitted=datetime(2015, 3, 8), left=datetime(2015, 3, 9), stay=1),
        visit("a", 3, admitted=datetime(2015, 3, 9), left=datetime(2015, 3, 10, 1), stay=1),
        visit("a", 4, admitted=datetime(2015, 4, 1), stay=3),
        visit("a", 5, admitted=datetime(2015, 5, 1), stay=4),
    ]
    rows = [diagnosis("a", 1, "Y"), diagnosis("a", 2, "Z"), diagnosis("a", 3, "X"), diagnosis("a", 3, "Y")]
    rows += [diagnosis("a", 4, "X"), diagnosis("a", 5, "X")]
    config = replace(EVERYBODY, visit_rule="discharge_date")
    sequences, codes, ledger = order_histories(tables(visits, rows), config)
    assert codes_of(sequences, codes) == {"a": {1: ["X", "Y"], 2: ["Z"], 3: ["X"], 4: ["X"]}}
    assert sequences.length_of_stay.tolist() == [9, 1, 3, 4]
    assert left_under(ledger)["same_discharge_date"] == (0, 1, 0)
    with pytest.raises(ValueError, match=r"visit_rule 'discharge_date' needs discharge dates: got .*\(literal\)"):
        order_histories(tables([visit("a", 1)], [], has_dates=False), config)


def cohort(**until):
    frame = pl.DataFrame(
        {
            "patient_id": list(until),
            "label": [1] * len(until),
            "index_order": [order + 1 for order in until.values()],
            "input_until": list(until.values()),
            "index_day": [-1] * len(until),
            "prediction_time": [DAY] * len(until),
            "over_by": [DAY] * len(until),
        }
    )
    return frame.cast(dict.fromkeys(("label", "index_order", "input_until", "index_day"), pl.Int32)).cast(
        {"prediction_time": pl.Datetime("us"), "over_by": pl.Datetime("us")}
    )


def test_a_cohort_reads_its_patients_up_to_their_cut_and_nothing_after_it():
    visits = [visit("a", 1, stay=2), visit("a", 2, stay=9), visit("b", 1), visit("b", 2, stay=-3), visit("c", 1)]
    rows = [diagnosis(patient, order, code) for patient, order, code in [("a", 1, "X"), ("a", 2, "Y"), ("b", 1, "X")]]
    rows += [diagnosis("b", 2, "Y"), diagnosis("c", 1, "X")]
    until = cohort(a=2, b=1)
    sequences, codes, ledger = order_histories(tables(visits, rows), EVERYBODY, until=until)
    assert codes_of(sequences, codes) == {"a": {1: ["X"], 2: ["Y"]}, "b": {1: ["X"]}}
    assert (ledger.came.patients, ledger.came.visits, ledger.came.codes) == (2, 3, 3)
    assert {name: values.tolist() for name, values in sequences.outcomes.items()} == {
        "label": [1, 1],
        "index_day": [-1, -1],
        "index_order": [3, 2],
        "prediction_time": [1425196800000000] * 2,
    }
    assert sequences.outcomes["prediction_time"].dtype == np.int64
    with pytest.raises(ValueError, match="got 1 of 2 who are not"):
        order_histories(tables(visits, rows), EVERYBODY, until=cohort(a=1, somebody=1))


def test_codes_outside_the_vocabulary_are_unknown():
    rows = [diagnosis("a", 1, code, priority=i) for i, code in enumerate("XYZ")]
    vocabulary = fit_vocabulary([(np.array(["ICD10CM/Z", "ICD10CM/X"]), np.array([2, 1]))])
    sequences, _ = serialize(tables([visit("a", 1)], rows), vocabulary, EVERYBODY)
    assert sequences.code_ids.tolist() == [17, UNK, 16]


def test_patients_are_counted_per_code_not_occurrences():
    visits = [visit("a", 1), visit("a", 2), visit("b", 1)]
    rows = [diagnosis("a", 1, "X"), diagnosis("a", 2, "X"), diagnosis("a", 2, "Y"), diagnosis("b", 1, "X")]
    sequences, codes, _ = order_histories(tables(visits, rows), EVERYBODY)
    names, patients = count_patients(sequences, codes)
    assert dict(zip(names.tolist(), patients.tolist(), strict=True)) == {"ICD10CM/X": 2, "ICD10CM/Y": 1}
    names, patients = count_patients(sequences.take([1]), codes)
    assert (names.tolist(), patients.tolist()) == (["ICD10CM/X"], [1])


def test_settings_out_of_range_are_all_listed():
    with pytest.raises(ValueError) as error:
        SerializationConfig(minimum_codes=0, prolonged_los_days=-1, visit_rule="day", code_order="alphabet")
    assert str(error.value).splitlines() == [
        "minimum_codes must be at least 1: got 0; raise it",
        "prolonged_los_days must be at least 0: got -1; raise it",
        "visit_rule must be one of encounter, discharge_date: got 'day'; choose one of them",
        "code_order must be one of priority, random: got 'alphabet'; choose one of them",
    ]


@pytest.fixture(scope="module")
def made():
    return made_tables(300, seed=5)


def raw_visits(tables):
    """patient → the sets of codes of his visits that have any, in order."""
    key = ["patient_id", "visit_id"]
    rows = tables.diagnoses.join(tables.visits.select(*key, "order"), on=key)
    found = {}
    for row in rows.sort("patient_id", "order").iter_rows(named=True):
        visits = found.setdefault(row["patient_id"], {})
        visits.setdefault(row["order"], set()).add(f"{row['code_system']}/{row['code']}".removeprefix("ICD10CM/"))
    return {patient: list(visits.values()) for patient, visits in found.items()}


@pytest.mark.parametrize("code_order", ["priority", "random"])
def test_sequences_can_be_turned_back_into_visits_and_no_code_is_lost(made, code_order):
    sequences, codes, _ = order_histories(made, replace(EVERYBODY, code_order=code_order))
    turned = {
        patient: [set(visits[number]) for number in sorted(visits)]
        for patient, visits in codes_of(sequences, codes).items()
    }
    assert turned == raw_visits(made)
    sequences.code_ids[0] = (sequences.code_ids[0] + 1) % len(codes)
    assert codes_of(sequences, codes) != turned


def same(one, other):
    columns = [name for name in one.__dataclass_fields__ if name != "outcomes"]
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)
    assert all(np.array_equal(one.outcomes[name], other.outcomes[name]) for name in one.outcomes | other.outcomes)


@pytest.mark.parametrize("code_order", ["priority", "random"])
def test_neither_the_order_of_rows_nor_the_shards_matter(made, code_order):
    config = SerializationConfig(code_order=code_order)
    vocabulary = fit_vocabulary([count_patients(*order_histories(made, config)[:2])])
    whole, _ = serialize(made, vocabulary, config)
    shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=3) for name, frame in made.present().items()}
    same(serialize(replace(made, **shuffled), vocabulary, config)[0], whole)
    shards = patient_hash(whole.patient_id, "any") % np.uint64(3)
    for shard in range(3):
        frames = {
            name: frame.filter(pl.Series(patient_hash(frame["patient_id"], "any") % np.uint64(3) == shard))
            for name, frame in made.present().items()
        }
        same(serialize(replace(made, **frames), vocabulary, config)[0], whole.take(shards == shard))


def test_sequences_written_back_as_tables_give_the_same_sequences(made):
    """Idempotent: what serialization keeps and orders once, it keeps and orders so again."""
    once, codes, _ = order_histories(made, SerializationConfig())
    owner = np.repeat(once.patient_id.astype(str), once.lengths)
    visit = [f"{patient}-{number}" for patient, number in zip(owner, once.visit_ids, strict=True)]
    kept = pl.DataFrame({"patient_id": owner, "visit_id": visit, "order": once.visit_ids})
    system, code = zip(*(codes[place].split("/") for place in once.code_ids), strict=True)
    diagnoses = kept.with_columns(
        code_system=pl.Series(system), code=pl.Series(code), priority=pl.Series(once.serialization_ids) + 1
    )
    first = made.visits.filter(pl.col("visit_id").is_in(made.diagnoses["visit_id"].unique()))
    place = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("patient_id", order_by="order")
    visits = first.with_columns(order=place).with_columns(visit_id=pl.format("{}-{}", "patient_id", "order"))
    frames = {"visits": visits, "diagnoses": diagnoses}
    written = {
        name: frame.select(
            (pl.col(column) if column in frame.columns else pl.lit(None)).cast(dtype).alias(column)
            for column, dtype in SCHEMAS[name].items()
        )
        for name, frame in frames.items()
    }
    again, codes_again, _ = order_histories(
        replace(made, medications=None, measurements=None, **written), SerializationConfig()
    )
    assert codes_again[again.code_ids].tolist() == codes[once.code_ids].tolist()
    for column in ("patient_id", "code_offsets", "visit_ids", "serialization_ids"):
        np.testing.assert_array_equal(getattr(again, column), getattr(once, column))


def test_random_order_is_another_order_and_always_the_same(made):
    by_priority, _, _ = order_histories(made, EVERYBODY)
    at_random, _, _ = order_histories(made, replace(EVERYBODY, code_order="random"))
    assert (by_priority.code_ids != at_random.code_ids).mean() > 0.3
    assert np.array_equal(by_priority.visit_ids, at_random.visit_ids)
    same(at_random, order_histories(made, replace(EVERYBODY, code_order="random"))[0])


def test_an_empty_shard_gives_no_patients():
    nothing = tables([], [])
    sequences, codes, ledger = order_histories(nothing, SerializationConfig())
    assert (len(sequences), len(codes), ledger.kept.patients) == (0, 0, 0)
    names, patients = count_patients(sequences, codes)
    assert (len(names), len(patients)) == (0, 0)
    vocabulary = fit_vocabulary([(names, patients), (np.array(["ICD9CM/428.0"]), np.array([1]))])  # of another shard
    assert len(serialize(nothing, vocabulary, replace(EVERYBODY, code_order="random"))[0]) == 0
