"""Cohort specs: the format is read strictly, every fault is listed at once, and the built-ins are sound."""

import copy
from datetime import date

import pytest
import yaml

from medbert_jax.cohorts.loading import SPECS_DIRECTORY, load_spec, parse_spec

BUILT_IN = (
    "acute-mi-1y",
    "af-after-hypertension",
    "ckd-progression",
    "dhf",
    "dhf-landmark",
    "dhf-matched",
    "dhf-matched-incident",
    "hf-later",
    "hypertension-1y",
    "in-hospital-mortality",
    "ischaemic-stroke-1y",
    "los-next",
    "mortality-30d",
    "paca",
    "paca-matched",
    "readmission-30d",
    "type-2-diabetes-1y",
)


def test_the_built_ins_are_these_and_each_is_named_as_its_file():
    assert sorted(path.stem for path in SPECS_DIRECTORY.iterdir()) == sorted(BUILT_IN)
    for name in BUILT_IN:
        assert load_spec(name).name == name


def test_the_three_cohorts_of_heart_failure_mean_the_same_by_the_same_words():
    specs = [load_spec(name) for name in ("dhf", "dhf-landmark", "dhf-matched")]
    for group in ("code_sets", "drug_sets", "laboratory_sets"):
        meant = [{one.id: one for one in getattr(spec, group)} for spec in specs]
        for other in meant[1:]:
            shared = meant[0].keys() & other.keys()
            assert shared and {id: meant[0][id] for id in shared} == {id: other[id] for id in shared}


@pytest.mark.parametrize("name", BUILT_IN)
def test_plain_data_of_a_spec_give_the_spec_back(name, tmp_path):
    spec = load_spec(name)
    assert parse_spec(spec.to_dict(), source="to_dict") == spec
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(spec.to_dict(), allow_unicode=True), encoding="utf-8")
    assert load_spec(path) == spec


def test_a_spec_of_datasets_made_before_measures_were_classes_is_read():
    spec = load_spec("dhf")
    data = spec.to_dict()
    together = next(rule["when"] for rule in data["rules"] if rule["when"].keys() & {"any_of", "none_of"})
    together["measure"] = "visits"
    assert parse_spec(data, source="metadata.json") == spec
    together["measure"] = "deaths"
    with pytest.raises(ValueError, match="measure"):
        parse_spec(data, source="mine.yaml")


def test_a_day_is_read_from_yaml_and_from_plain_data(tmp_path):
    path = tmp_path / "later.yaml"
    text = yaml.safe_dump(load_spec("dhf").to_dict(), allow_unicode=True)
    path.write_text(f"{text}split: {{test_from: 2015-01-01, description: Later, tag: ours}}\n", encoding="utf-8")
    spec = load_spec(path)
    assert spec.split.test_from == date(2015, 1, 1) and spec.to_dict()["split"]["test_from"] == "2015-01-01"
    assert parse_spec(spec.to_dict(), source="to_dict") == spec


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "split: {test_from: 2015-02-29, description: Later, tag: ours}",
            "split.test_from: must be a day, as 2015-01-01",
        ),
        ("[a, b]: 3", "not YAML (a key that is no word)"),
        ("extra: !!int abc", "the file: a value that is not of its YAML type"),
        ("extra: !!timestamp foo", "the file: a value that is not of its YAML type"),
        ("extra: 2015-13-45", "extra: unknown key"),
    ],
)
def test_days_and_keys_that_are_none_are_faults_of_the_file(tmp_path, line, fault):
    path = tmp_path / "later.yaml"
    path.write_text(f"{yaml.safe_dump(load_spec('dhf').to_dict())}{line}\n", encoding="utf-8")
    with pytest.raises(ValueError) as error:
        load_spec(path)
    assert fault in str(error.value) and "later.yaml has 1 fault" in str(error.value)


def test_unknown_name_lists_the_built_ins():
    with pytest.raises(
        ValueError,
        match="a YAML file: got 'hf'; use acute-mi-1y, af-after-hypertension, ckd-progression, dhf, dhf-",
    ):
        load_spec("hf")


def plain(name="hf-later"):
    return load_spec(name).to_dict()


def faults_of(data) -> str:
    with pytest.raises(ValueError) as error:
        parse_spec(data, source="mine.yaml")
    return str(error.value)


def test_every_fault_is_listed_with_file_and_key():
    data = plain()
    data["extra"] = 1
    data["name"] = 4
    del data["rules"][0]["tag"]
    data["rules"][1]["when"]["windoww"] = "first_visit"
    data["rules"][1]["tag"] = "theirs"
    data["rules"][2]["when"]["at_least"] = "1"
    data["code_sets"][0]["prefixes"] = ["ICD9CM/42", "ICD9CM/4280", "428", "icd9cm/428", "ICD10CM/I5"]
    data["code_sets"][1]["prefixes"] = "ICD9CM/398"
    data["outcome"]["codes"] = "heart_attack"
    data["input"]["minimum_codes"] = True
    text = faults_of(data)
    assert text.startswith("a cohort spec must follow its format: mine.yaml has 14 faults;")
    for fault in (
        "extra: unknown key; the keys here are name, title",
        "name: must be text; got 4",
        "rules[two_encounters].tag: missing; one of paper, group, ehrshot, fomoh, ours",
        "rules[heart_failure_at_first_encounter].when.windoww: unknown key",
        "rules[heart_failure_at_first_encounter].tag: must be one of paper, group, ehrshot, fomoh, ours; got 'theirs'",
        "rules[related_heart_disease].when.at_least: must be a whole number; got '1'",
        "code_sets[heart_failure].prefixes[1]: 'ICD9CM/42' must be",
        "code_sets[heart_failure].prefixes[2]: 'ICD9CM/4280' must be",
        "code_sets[heart_failure].prefixes[3]: '428' must be",
        "code_sets[heart_failure].prefixes[4]: 'icd9cm/428' must be",
        "code_sets[heart_failure].prefixes[5]: 'ICD10CM/I5' must be",
        "code_sets[related_heart_disease].prefixes: must be a list; got 'ICD9CM/398'",
        "outcome.codes: no code set 'heart_attack'; the code sets are heart_failure, related_heart_disease",
        "input.minimum_codes: must be a whole number; got True",
    ):
        assert fault in text
    # One was given, though not as a number: nothing is said of it beside that.
    assert "needs exactly one of at_least" not in text


SPLIT = {"description": "Tested on later predictions", "tag": "ours"}
SAMPLE = {"description": "Two controls for each case", "tag": "ours", "controls_per_case": 2, "key": "a"}


def rule(data, id):
    return next(rule["when"] for rule in data["rules"] if rule["id"] == id)


def parts(data):
    return rule(data, "diabetes_unverified")["none_of"]


def result(data):
    return data["laboratory_sets"][0]["results"][0]


def changed(name, change):
    data = copy.deepcopy(plain(name))
    change(data)
    return data


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (
            "hf-later",
            lambda d: d["rules"].append(d["rules"][0]),
            r"rules[two_encounters].id: given to 2 entries",
        ),
        ("hf-later", lambda d: d["rules"][0].update(id="no_visits"), "the ledger's own line has this name"),
        (
            "hf-later",
            lambda d: d["rules"][0].update(id="Two visits"),
            "must be lower-case letters, digits and _",
        ),
        ("hf-later", lambda d: d["rules"][0]["when"].pop("window"), ".when.window: missing"),
        (
            "hf-later",
            lambda d: d["rules"][0]["when"].update(at_least=2),
            "exactly one of at_least, fewer_than",
        ),
        (
            "hf-later",
            lambda d: d["rules"][0]["when"].update(fewer_than=0),
            "fewer_than: must be 1 or more; got 0",
        ),
        ("hf-later", lambda d: d["rules"][0]["when"].update(measure="days_to_index"), "leave the key out"),
        (
            "hf-later",
            lambda d: d["rules"][1].update(action="skip_visit"),
            "action: skip_visit needs index.everyone",
        ),
        ("hf-later", lambda d: d["rules"][1]["when"].update(with_codes="x"), "no code set 'x'"),
        (
            "hf-later",
            lambda d: d["input"].update(until="through_index"),
            "would show the outcome's own codes",
        ),
        (
            "hf-later",
            lambda d: d["outcome"].update(stay_over_days=7),
            "needs exactly one of codes, stay_over_days",
        ),
        ("hf-later", lambda d: d["outcome"].pop("codes"), "got none"),
        (
            "los-next",
            lambda d: d.update(index=plain("hf-later")["index"]),
            "an outcome of stay_over_days needs everyone, and neither cases",
        ),
        (
            "hf-later",
            lambda d: d.update(index=plain("los-next")["index"]),
            "an outcome of codes needs cases and controls, and not everyone",
        ),
        ("dhf-landmark", lambda d: d.update(index=plain("dhf")["index"]), "an outcome of to_day needs everyone"),
        (
            "hf-later",
            lambda d: d["index"].pop("controls"),
            "index.controls: missing; cases first_outcome_visit needs it",
        ),
        ("hf-later", lambda d: d.update(code_sets=None), "code_sets: must be a list; got None"),
        ("hf-later", lambda d: d["code_sets"][0].update(prefixes=[]), "empty; name at least one code"),
        (
            "los-next",
            lambda d: d["index"].update(everyone="first_visit"),
            "nothing comes before index.everyone",
        ),
        (
            "los-next",
            lambda d: d["index"].update(cases="first_outcome_visit"),
            "index: needs exactly one of cases, everyone; got everyone, cases",
        ),
        (
            "los-next",
            lambda d: d["outcome"].update(readmission_types=["inpatient"]),
            "goes with readmitted_within",
        ),
        (
            "los-next",
            lambda d: d["rules"][1]["when"].update(with_disposition=["dead"]),
            "must be one of home, facil",
        ),
        (
            "los-next",
            lambda d: d["rules"][1]["when"].update(with_disposition=[]),
            "empty; name at least one or leave",
        ),
        (
            "los-next",
            lambda d: d["outcome"].update(stay_over_days=None),
            "empty; write a value or leave the key out",
        ),
        ("los-next", lambda d: d.update(title=" "), "title: empty text"),
        ("los-next", lambda d: d.pop("index"), "index: missing"),
        ("los-next", lambda d: d["rules"][0].update(among="cases"), "cases and controls are there with outcome.codes"),
        # Evidence
        ("dhf", lambda d: d["drug_sets"][0].update(ingredients=[]), "drug_sets[diabetes_drug].ingredients: empty"),
        (
            "dhf",
            lambda d: parts(d)[1].update(with_drugs="statin"),
            "no drug set 'statin'; the drug sets are diabetes_d",
        ),
        (
            "dhf",
            lambda d: parts(d)[0].update(with_results="x"),
            "no laboratory set 'x'; the laboratory sets are high_a",
        ),
        ("dhf", lambda d: parts(d)[0].pop("with_results"), ".with_results: missing; measure measurements needs it"),
        ("dhf", lambda d: parts(d)[0].update(with_codes="diabetes"), "measure measurements does not look at it"),
        (
            "dhf",
            lambda d: parts(d)[0].update(window="first_visit"),
            "window: must be one of whole_record, before_index, thr",
        ),
        ("dhf", lambda d: result(d).update(more_than=6.4), "results[1]: needs exactly one of at_least, more_than"),
        ("dhf", lambda d: result(d).pop("at_least"), "results[1]: needs exactly one of at_least, more_than"),
        ("dhf", lambda d: result(d).update(at_least="6.5"), "results[1].at_least: must be a number; got '6.5'"),
        ("dhf", lambda d: result(d).update(at_least=float("nan")), "results[1].at_least: must be a number; got nan"),
        ("dhf", lambda d: result(d).update(codes=["4548-4"]), "'4548-4' must be a code system, '/' and"),
        ("dhf", lambda d: result(d).update(units=[], or_unit_unknown=False), "name a unit, or say or_unit_unknown"),
        ("paca", lambda d: d["code_sets"][1]["ranges"][0].update(last="2090"), "of one length, as ICD9CM 140 to 209"),
        ("paca", lambda d: d["code_sets"][1]["ranges"][0].update(last="139"), "of one length, as ICD9CM 140 to 209"),
        (
            "paca",
            lambda d: d["code_sets"][1].update(without=["ICD9CM/17"]),
            "code_sets[other_cancer].without[1]: 'ICD9CM/",
        ),
        # Conditions put together
        ("dhf", lambda d: rule(d, "diabetes_unverified").update(at_least=1), "at_least: none_of does not look at it;"),
        ("dhf", lambda d: rule(d, "diabetes_unverified").update(none_of=[]), ".none_of: empty; name at least one cond"),
        ("dhf", lambda d: parts(d)[1].pop("at_least"), "none_of[2]: needs exactly one of at_least, fewer_than"),
        ("dhf", lambda d: rule(d, "age_unknown").update(unknown=False), "unknown: write true or leave the key out"),
        ("dhf", lambda d: rule(d, "age_unknown").update(fewer_than=18), "needs exactly one of at_least, fewer_than"),
        ("dhf", lambda d: rule(d, "no_type_2").update(unknown=True), "a count is known; use fewer_than: 1"),
        ("dhf", lambda d: rule(d, "under_18").update(window="whole_record"), "always looks at the whole record; leav"),
        ("dhf", lambda d: rule(d, "hf_too_early").pop("since_codes"), "since_codes: missing; measure days_between nee"),
        # Index, outcome, time at risk
        ("dhf-landmark", lambda d: d["index"].pop("after_days"), "index.after_days: missing; everyone first_visit_"),
        ("dhf-landmark", lambda d: d["index"].update(everyone="last_visit"), "goes with everyone: first_visit_after"),
        ("dhf-landmark", lambda d: d["outcome"].update(from_day=0), "outcome.from_day: must be 1 or more; got 0"),
        ("dhf-landmark", lambda d: d["outcome"].update(from_day=366), "to_day: must be from_day or more; got 366 to"),
        ("dhf-landmark", lambda d: d["outcome"].pop("to_day"), "from_day: codes does not look at it; leave the"),
        ("dhf-landmark", lambda d: d["input"].update(until="before_index"), "use through_index"),
        (
            "dhf",
            lambda d: d["outcome"].update(death="competes"),
            "outcome.death: codes does not look at it; leave the key out, it goes with to_day",
        ),
        ("paca", lambda d: d["input"].update(gap_days=-1), "input.gap_days: must be 0 or more"),
        (
            "paca",
            lambda d: d.update(split=SPLIT | {"test_from": "2015-02-29"}),
            "split.test_from: must be a day, as 201",
        ),
        (
            "paca",
            lambda d: d.update(split=SPLIT | {"test_from": 2015}),
            "split.test_from: must be a day, as 2015",
        ),
        ("paca", lambda d: d.update(split=SPLIT), "split.test_from: missing"),
        (
            "paca",
            lambda d: d.update(split=SPLIT | {"test_from": "2015-01-01"}, sample=SAMPLE),
            "sample: is drawn whatever",
        ),
        # Draws
        ("dhf-matched", lambda d: d.pop("matching"), "matching: goes with index.controls: matched_date"),
        (
            "dhf-matched",
            lambda d: d["matching"].update(control_pool=1),
            "control_pool: must lie between 0 and 1; got 1.0",
        ),
        ("dhf-matched", lambda d: d["matching"].update(controls_per_case=0), "controls_per_case: must be 1 or more"),
        ("dhf-matched", lambda d: d["input"].update(gap_days=30), "a matched cohort's input ends before its date"),
        (
            "dhf-matched",
            lambda d: rule(d, "one_diabetes_encounter").update(window="through_index"),
            "is a date: use wh",
        ),
        ("dhf-matched", lambda d: parts(d)[0].update(at_least=None, fewer_than=2), "empty; write a value"),
        ("dhf-matched", lambda d: [parts(d)[0].pop("at_least"), parts(d)[0].update(fewer_than=2)], "become true with"),
        (
            "dhf",
            lambda d: d.update(sample={**SAMPLE, "controls_per_case": 0}),
            "sample.controls_per_case: must be 1 or",
        ),
        ("los-next", lambda d: d.update(sample=SAMPLE), "sample: cases and controls are there with outcome.codes"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(name, change, fault):
    assert fault in faults_of(changed(name, change))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: a\nname: b\n", "name (line 2): written twice"),
        ("name: [a\n", "not YAML"),
        ("", "the file: must be a mapping of keys to values; got None"),
        ("- a\n", "the file: must be a mapping of keys to values"),
    ],
)
def test_files_that_are_no_spec_are_refused(tmp_path, text, fault):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml") as error:
        load_spec(path)
    assert fault in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        load_spec(path)


@pytest.mark.parametrize(
    ("parts", "one_way"),
    [
        ([{"at_least": 3}, {"none_of": [{"at_least": 2}]}], False),
        ([{"at_least": 2}, {"none_of": [{"fewer_than": 1}]}], True),
        ([{"at_least": 2}, {"none_of": [{"none_of": [{"at_least": 3}]}]}], True),
        ([{"at_least": 2}, {"fewer_than": 1}], False),
    ],
)
def test_what_holds_where_none_does_goes_the_other_way_with_a_matched_date(parts, one_way):
    def visits(part):
        if "none_of" in part:
            return {"none_of": [visits(inner) for inner in part["none_of"]]}
        return {"measure": "visits", "window": "before_index", **part}

    data = load_spec("dhf-matched").to_dict()
    when = {"any_of": [visits(part) for part in parts]}
    data["rules"].append({"id": "nested", "description": "Nested", "tag": "ours", "action": "flag", "when": when})
    if one_way:
        assert parse_spec(data, source="mine.yaml").rules[-1].id == "nested"
    else:
        with pytest.raises(ValueError, match="all parts must become true with time"):
            parse_spec(data, source="mine.yaml")
