"""A dry run of a spec: what each part finds, what is refused by name, what is warned of, who would be in."""

import json
import sys
from dataclasses import replace

import polars as pl
import pytest
from drawn_patients import person, tables_of, visit

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.cli import main
from medbert_jax.cohorts.known_names import refuse_unknown_names
from medbert_jax.cohorts.loading import load_spec, parse_spec
from medbert_jax.cohorts.looked_for import count_found, looked_for
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.cohorts.spec_check import check_spec
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import write_tables
from medbert_jax.printed_tables import table_text

SAID = {"description": "As its name says", "tag": "ours"}


def rule(id: str, **when) -> dict:
    return {"id": id, **SAID, "when": when}


def fibrillation(**changes) -> dict:
    """A spec as plain data: atrial fibrillation within a year of hypertension."""
    data = {
        "name": "af-after-hypertension",
        "title": "Atrial fibrillation within a year of hypertension",
        "description": "At the first encounter with hypertension",
        "code_sets": [
            {"id": "hypertension", **SAID, "prefixes": ["ICD9CM/401", "ICD10CM/I10"]},
            {"id": "af", **SAID, "prefixes": ["ICD9CM/427.3", "ICD10CM/I48"]},
        ],
        "outcome": {"codes": "af", "from_day": 1, "to_day": 365, "death": "competes", **SAID},
        "index": {"everyone": "first_visit_after", "after_days": 0, "after_codes": "hypertension", **SAID},
        "input": {"until": "through_index", "minimum_codes": 1, **SAID},
        "rules": [
            rule("no_hypertension", measure="visits", with_codes="hypertension", window="whole_record", fewer_than=1),
            rule("under_18", measure="age_at_index", fewer_than=18),
            rule("short_follow_up", measure="days_of_follow_up", fewer_than=365),
        ],
    }
    return data | changes


def with_rule(*rules: dict, **changes) -> dict:
    return fibrillation(**changes) | {"rules": [*fibrillation()["rules"], *rules]}


def hearts(count: int, **settings) -> dict[str, dict]:
    """Patients with hypertension: of three one has atrial fibrillation, one dies first, one is seen two years on."""
    people = {}
    for number in range(count):
        fibrillates = visit("2010-08-01", "427.31" if number % 2 else "ICD10CM/I48.0")
        later = ([fibrillates], [], [visit("2012-01-01", "272.4")])[number % 3]
        died = "2010-05-01" if number % 3 == 1 else None
        people[f"p{number}"] = person(visit("2010-01-01", "401.9 272.4"), *later, died=died, **settings)
    return people


@pytest.fixture
def written(tmp_path):
    def write(people: dict[str, dict] | EhrTables, shards: int = 1, **settings):
        tables = people if isinstance(people, EhrTables) else tables_of(people, **settings)
        write_tables(tables, tmp_path / "ehr", shards=shards)
        return tmp_path / "ehr"

    return write


def check(folder, data: dict, **settings):
    return check_spec(folder, parse_spec(data, source="mine.yaml"), workers=1, **settings)


def found(checked) -> dict[str, tuple[int, int]]:
    """What is looked for → rows, patients."""
    return {
        " ".join(filter(None, (one.of.key, one.of.part, one.of.units))): (one.rows, one.patients)
        for one in checked.matches
    }


def test_rows_and_patients_of_each_part_are_counted(written):
    people = {
        "a": person(visit("2010-01-01", "401.9 401.1"), visit("2010-02-01", "ICD10CM/I10")),
        "b": person(visit("2010-01-01", "401"), visit("2010-03-01", "402.91 4010")),
    }
    counted = found(check(written(people), fibrillation()))
    assert counted["code_sets[hypertension] ICD9CM/401"] == (3, 2)
    assert counted["code_sets[hypertension] ICD10CM/I10"] == (1, 1)
    assert counted["code_sets[hypertension]"] == (4, 2)
    assert counted["code_sets[af]"] == counted["code_sets[af] ICD9CM/427.3"] == (0, 0)


def test_ranges_and_exceptions_are_parts_as_they_match():
    spec = load_spec("paca")
    codes = ["157.0", "150.1", "173.1", "ICD10CM/C50.9", "209.0", "210.0"]
    tables = tables_of({"a": person(*(visit(f"2010-0{day}-01", code) for day, code in enumerate(codes, 1)))})
    sought = looked_for(spec)
    counts = count_found(tables, spec, sought).counts
    by_part = {(one.key, one.part): rows for one, (rows, _) in zip(sought, counts, strict=True)}
    (key,) = {key for key, part in by_part if part.startswith("without ")}
    assert by_part[key, "ICD9CM/140 to 209"] == 4 and by_part[key, "without ICD9CM/173"] == 1
    member = tables.diagnoses.filter(spec.code_set(key[10:-1]).matches()).height
    assert by_part[key, ""] == member == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_and_workers_change_nothing(written, workers):
    people, spec = hearts(40), parse_spec(fibrillation(), source="mine.yaml")
    one = check_spec(written(people), spec, workers=1)
    two = check_spec(written(people, shards=3), spec, workers=workers)
    assert one.to_dict() == two.to_dict() and one.ledger.came.patients == 40
    frame, ledger = select_cohort(tables_of(people), spec)
    assert one.selected.patients == frame.height == 40 and one.selected.cases == frame["label"].sum() == 14
    assert Ledger.from_dict(one.to_dict()["ledger"]).to_dict() == ledger.to_dict()


def test_deaths_that_compete_stand_beside_the_events(written):
    checked = check(written(hearts(9)), fibrillation())
    assert checked.selected.competing_deaths == 3 and not checked.refused
    said = "9 patients would be in: 3 with the outcome, 6 without, of whom 3 died first within the time at risk"
    assert any(line.startswith(said) for line in checked.lines())
    silent = fibrillation(outcome={key: of for key, of in fibrillation()["outcome"].items() if key != "death"})
    checked = check(written(hearts(9)), silent)
    assert checked.selected.competing_deaths == 3


@pytest.mark.parametrize(
    ("prefix", "system", "nearest"),
    [
        ("ICD9/427.3", "ICD9", "ICD9CM"),
        ("ICD10CMM/I48", "ICD10CMM", "ICD10CM"),
        ("SNOMEDCT/4927", "SNOMEDCT", "SNOMED"),
    ],
)
def test_a_code_system_that_nobody_knows_is_refused_with_the_nearest(written, prefix, system, nearest):
    data, folder = fibrillation(), written(hearts(6))
    data["code_sets"][1]["prefixes"] = [prefix, "ICD10CM/I48"]
    checked = check(folder, data)
    words = (
        f"code_sets[af].prefixes: no code system '{system}'; the nearest is {nearest}; the tables have ICD10CM, ICD9CM"
    )
    assert checked.refused == (words,) and checked.ledger is None
    with pytest.raises(ValueError, match="outcome, index and input rest on rows") as refused:
        checked.raise_if_refused()
    assert words in str(refused.value)
    with pytest.raises(ValueError, match=f"no code system '{system}'; the nearest is {nearest}"):
        refuse_unknown_names(parse_spec(data, source="mine.yaml"), folder)


def test_a_range_and_a_laboratory_code_name_systems_too(written):
    data = with_rule(rule("lab", measure="measurements", with_results="a1c", window="whole_record", at_least=1))
    results = [{"codes": ["LIONC/4548-4"], "units": ["%"], "or_unit_unknown": True, "at_least": 6.5}]
    data["laboratory_sets"] = [{"id": "a1c", **SAID, "results": results}]
    data["code_sets"][1]["ranges"] = [{"system": "ICD9C", "first": "427", "last": "428"}]
    refused = check(written(hearts(6, results=[("2010-01-01", "4548-4", 7.0, "%")])), data).refused
    assert [line.partition(";")[0] for line in refused] == [
        "code_sets[af].ranges[1].system: no code system 'ICD9C'",
        "laboratory_sets[a1c].results[1].codes: no code system 'LIONC'",
    ]


def test_what_the_tables_have_is_known_whatever_its_name(written):
    people = {
        name: person(visit("2010-01-01", "401.9 HouseCodes/7"), visit("2010-08-01", "HouseCodes/7")) for name in "ab"
    }
    tables = tables_of(people)
    folder = written(replace(tables, visits=tables.visits.with_columns(visit_type=pl.lit("day ward 3"))))
    data = with_rule(rule("ward", measure="visits", with_type=["day ward 3"], window="first_visit", fewer_than=1))
    data["code_sets"][1]["prefixes"] = ["HouseCodes/7"]
    assert not check(folder, data).refused
    data["rules"][-1]["when"]["with_type"] = ["day wards"]
    (refused,) = check(folder, data).refused
    assert "no visit type 'day wards'" in refused and "the tables have day ward #" in refused
    assert "ward 3" not in refused  # a source's own text


@pytest.mark.parametrize(("type", "nearest"), [("inpatent", "inpatient"), ("Emergency", "emergency")])
def test_a_visit_type_that_nobody_knows_is_refused_with_the_nearest(written, type, nearest):
    wrong = rule("wrong", measure="visits", with_type=[type], window="index_visit", fewer_than=1)
    (refused,) = check(written(hearts(6)), with_rule(wrong)).refused
    assert refused.startswith(f"rules[wrong].when.with_type: no visit type '{type}'; the nearest is {nearest};")


def test_a_visit_type_of_an_outcome_that_nobody_has_is_refused(written):
    (refused,) = check(written(hearts(6)), load_spec("readmission-30d").to_dict()).refused
    assert refused.startswith("outcome.readmission_types (inpatient) finds no row of visits, on which outcome rests")


LAB = {"codes": ["LOINC/2160-0"], "units": ["umol/L"], "or_unit_unknown": False, "at_least": 1.5}


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("umol/L", "0 of 12 results of LOINC/2160-0 are in umol/L; they are in mg/dL 8, no unit 4"),
        ("MG/DL", None),
    ],
)
def test_results_in_other_units_are_warned_of_with_the_units_that_there_are(written, unit, words):
    results = [("2010-01-01", "2160-0", 1.9, "mg/dL"), ("2010-01-02", "2160-0", 0.9, "mg/dL")]
    results = [*results, ("2010-01-03", "2160-0", 1.9, None)]
    data = with_rule(rule("renal", measure="measurements", with_results="renal", window="whole_record", at_least=1))
    data["laboratory_sets"] = [{"id": "renal", **SAID, "results": [{**LAB, "units": [unit]}]}]
    checked = check(written(hearts(4, results=results)), data)
    counted = found(checked)
    assert not checked.refused and counted["laboratory_sets[renal] LOINC/2160-0"] == (12, 4)
    if words:
        assert f"laboratory_sets[renal]: {words}" in checked.warned
        assert counted["laboratory_sets[renal]"] == (0, 0)
        assert any("finds no row of measurements, on which rule renal rests" in line for line in checked.warned)
    else:
        assert counted["laboratory_sets[renal]"] == (4, 4)
        assert counted[f"laboratory_sets[renal] LOINC/2160-0 {unit}"] == (8, 4)
        assert not any("laboratory_sets" in line for line in checked.warned)


def test_a_unit_that_nobody_knows_is_refused_with_the_nearest(written):
    data = with_rule(rule("renal", measure="measurements", with_results="renal", window="whole_record", at_least=1))
    data["laboratory_sets"] = [{"id": "renal", **SAID, "results": [{**LAB, "units": ["umlo/L", "mg/dL"]}]}]
    (refused,) = check(written(hearts(4, results=[("2010-01-01", "2160-0", 1.9, "mg/dL")])), data).refused
    assert refused == (
        "laboratory_sets[renal].results[1].units: no unit 'umlo/L'; the nearest is umol/L; the tables have mg/dL"
    )


def test_a_drug_that_nobody_takes_is_warned_of_with_the_nearest(written):
    data = with_rule(rule("drug", measure="medications", with_drugs="ac", window="through_index", at_least=1))
    data["drug_sets"] = [{"id": "ac", **SAID, "ingredients": ["warfrin", "apixaban"]}]
    drugs = [("2010-01-01", "Warfarin"), ("2010-01-01", "insulin"), ("2010-01-01", "warfarin MRN-7")]
    nobody = "drug_sets[ac] (warfrin, apixaban) finds no row of medications, on which rule drug rests"
    checked = check(written(hearts(12, drugs=drugs), shards=2), data)
    assert f"{nobody}; the tables have Warfarin" in checked.warned and not checked.refused
    assert nobody in check(written(hearts(10, drugs=drugs)), data).warned  # what few patients have is not told
    data["drug_sets"][0]["ingredients"] = ["warfrin", "insulin"]
    assert (
        "drug_sets[ac]: no row of warfrin; the tables have Warfarin"
        in check(written(hearts(12, drugs=drugs)), data).warned
    )


@pytest.mark.parametrize("part", ["outcome", "index"])
def test_what_outcome_and_index_rest_on_must_be_there(written, part):
    data = fibrillation()
    place = 1 if part == "outcome" else 0
    data["code_sets"][place]["prefixes"] = ["ICD9CM/799.9", "ICD10CM/R99"]
    refused = check(written(hearts(6)), data).refused
    (line,) = [line for line in refused if "(ICD9CM/799.9, ICD10CM/R99) finds no row of diagnoses" in line]
    assert part in line.rpartition(" on which ")[2]


def test_a_system_that_the_tables_have_not_is_told_once(written):
    people = {name: person(visit("2010-01-01", "401.9"), visit("2010-08-01", "427.31")) for name in "abc"}
    checked = check(written(people), fibrillation())
    assert "0 of 6 diagnoses are of ICD10CM: 2 of the prefixes and ranges find nothing" in checked.warned
    assert not checked.refused and not any("no row of ICD10CM" in line for line in checked.warned)


def test_codes_of_other_systems_are_said_in_place_of_more_patients(written):
    people = {name: person(visit("2010-01-01", "SNOMED/38341003 SNOMED/1 ICPC2/K86")) for name in "abc"}
    checked = check(written(people), fibrillation())
    assert checked.refused == (
        "0 of 9 diagnoses are of a system that the spec names (ICD9CM, ICD10CM; the tables have SNOMED 6, ICPC2 3)",
    )
    assert not any("prefixes" in line for line in checked.warned)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ("SNOMED/38341003", "2 of 40 diagnoses are of SNOMED"),
        ("SNOMED/38341003 SNOMED/1", "3 of 41 diagnoses are of SNOMED"),
        ("SNOMED/1 ICPC2/K86 ICPC2/K87", "4 of 42 diagnoses are of systems (ICPC2 2, SNOMED 2)"),
    ],
)
def test_systems_of_many_diagnoses_that_no_set_names_are_told_once(written, others, words):
    people = {
        f"p{one}": person(visit("2010-01-01", "401.9"), visit("2010-08-01", "ICD10CM/I48.0")) for one in range(19)
    }
    people["a"] = person(visit("2010-01-01", "SNOMED/38341003"), visit("2010-08-01", others))
    checked = check(written(people, shards=2), fibrillation())
    said = [line for line in checked.warned if "which the spec does not name" in line]
    above = others != "SNOMED/38341003"  # 2 of 40 are 5 %, and not more
    assert said == [f"{words}, which the spec does not name: no set finds them"] * above
    assert not checked.refused
    data = fibrillation()
    data["code_sets"][0]["prefixes"] += ["SNOMED/38341003", "ICPC2/K86"]
    assert not any("does not name" in line for line in check(written(people), data).warned)


def test_a_missing_rule_of_follow_up_is_said(written):
    folder = written(hearts(6))
    for days, words in ((0, "no follow-up is asked for"), (180, "180 days of follow-up are asked for")):
        rules = [*fibrillation()["rules"][:2]]
        rules += [rule("short", measure="days_of_follow_up", fewer_than=days)] * bool(days)
        told = check(folder, fibrillation(rules=rules)).told
        assert any(f"365 days ahead, and {words}" in line for line in told)
    assert not any("follow-up" in line for line in check(folder, fibrillation()).told)


def test_unknown_ages_are_counted(written):
    people = {"a": person(visit("2010-01-01", "401.9"), born=None), **hearts(3)}
    people["b"] = person(visit("2010-01-01", "401.9", age_days=20000), born=None)
    line = "1 patients have neither a birth date nor a stated age, and rules compare ages"
    assert (
        f"{line}: none takes them (unknown: true), and 1 of them are in"
        in check(written(people), fibrillation()).warned
    )
    known = with_rule(rule("age_unknown", measure="age_at_index", unknown=True))
    assert line in check(written(people), known).warned
    without = fibrillation(rules=fibrillation()["rules"][::2])
    assert not any("stated age" in line for line in check(written(people), without).warned)


def test_rules_must_be_given_and_none_are_said(written):
    data = {key: part for key, part in fibrillation().items() if key != "rules"}
    with pytest.raises(ValueError, match=r"rules: missing; write \[\] where there are none"):
        parse_spec(data, source="mine.yaml")
    assert "rules: none; everybody who has an index, a label and an input is in" in check(
        written(hearts(6)), fibrillation(rules=[])
    ).told  # fmt: skip


def test_what_the_source_cannot_decide_is_refused_and_the_rest_still_counted(written):
    data = with_rule(rule("drug", measure="medications", with_drugs="ac", window="whole_record", at_least=1))
    data["drug_sets"] = [{"id": "ac", **SAID, "ingredients": ["warfarin"]}]
    checked = check(written(hearts(6), without=["medications"]), data)
    assert len(checked.refused) == 1 and "rule drug has nothing to rest on" in checked.refused[0]
    assert found(checked)["code_sets[hypertension]"] == (6, 6) and not any(
        "medications" in line for line in checked.warned
    )


def test_the_command_prints_and_writes_what_it_finds_and_makes_nothing(written, tmp_path, monkeypatch, capsys):
    folder, spec, report = written(hearts(9)), tmp_path / "mine.yaml", tmp_path / "check.json"
    spec.write_text(json.dumps(fibrillation()))
    asked = f"medbert cohort {folder} {spec} mine --data-dir {tmp_path / 'data'} --workers 1"
    monkeypatch.setattr(sys, "argv", [*asked.split(), "--check", "--json-out", str(report)])
    main()
    out = capsys.readouterr().out
    checked = check(folder, fibrillation())
    assert table_text(checked.table()) in out and checked.ledger.render() in out
    assert all(line in out for line in checked.lines())
    assert json.loads(report.read_text()) == checked.to_dict() and not (tmp_path / "data").exists()
    data = fibrillation()
    data["code_sets"][1]["prefixes"] = ["ICD9/427.3"]
    spec.write_text(json.dumps(data))
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and "no code system 'ICD9'" in said.err and "ICD9/427.3" in said.out
    assert json.loads(report.read_text())["refused"]
    monkeypatch.setattr(sys, "argv", [*asked.split(), "--json-out", str(report)])
    with pytest.raises(SystemExit):
        main()
    assert "--json-out writes what --check finds" in capsys.readouterr().err
