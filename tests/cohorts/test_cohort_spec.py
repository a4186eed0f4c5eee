"""Cohort specs: the format is read strictly, every fault is listed at once, and the built-ins are sound."""

import copy

import pytest
import yaml

from medbert_jax.cohorts.spec import SPECS_DIRECTORY, load_spec, parse_spec

BUILT_IN = ("hf-later", "los-next", "readmission-30d")


def test_the_built_ins_are_these_and_each_is_named_as_its_file():
    assert sorted(path.stem for path in SPECS_DIRECTORY.iterdir()) == sorted(BUILT_IN)
    for name in BUILT_IN:
        assert load_spec(name).name == name


@pytest.mark.parametrize("name", BUILT_IN)
def test_plain_data_of_a_spec_give_the_spec_back(name, tmp_path):
    spec = load_spec(name)
    assert parse_spec(spec.to_dict(), source="to_dict") == spec
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(spec.to_dict(), allow_unicode=True), encoding="utf-8")
    assert load_spec(path) == spec


def test_unknown_name_lists_the_built_ins():
    with pytest.raises(ValueError, match="built-in name or a YAML file: got 'hf'; use hf-later, los-next, readm"):
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
    assert text.startswith("a cohort spec must follow its format: mine.yaml has 15 faults;")
    for fault in (
        "extra: unknown key; the keys here are name, title",
        "name: must be text; got 4",
        "rules[two_encounters].tag: missing; one of paper, group, ours",
        "rules[heart_failure_at_first_encounter].when.windoww: unknown key",
        "rules[heart_failure_at_first_encounter].tag: must be one of paper, group, ours; got 'theirs'",
        "rules[related_heart_disease].when.at_least: must be a whole number; got '1'",
        "rules[related_heart_disease].when: needs exactly one of at_least, fewer_than",
        "code_sets[heart_failure].prefixes: 'ICD9CM/42' must be",
        "code_sets[heart_failure].prefixes: 'ICD9CM/4280' must be",
        "code_sets[heart_failure].prefixes: '428' must be",
        "code_sets[heart_failure].prefixes: 'icd9cm/428' must be",
        "code_sets[heart_failure].prefixes: 'ICD10CM/I5' must be",
        "code_sets[related_heart_disease].prefixes: must be a list; got 'ICD9CM/398'",
        "outcome.codes: no code set 'heart_attack'; the code sets are heart_failure, related_heart_disease",
        "input.minimum_codes: must be a whole number; got True",
    ):
        assert fault in text


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
        ("hf-later", lambda d: d["index"].pop("controls"), "an outcome of codes needs cases and controls"),
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
            "needs everyone, and neither cases",
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
