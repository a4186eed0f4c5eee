"""The coding of the simulated health system: real codes, in the right code sets, for every condition."""

import re
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import yaml

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.ehr import icd
from medbert_jax.ehr.codes import prefix_expression

FILE = Path(icd.__file__).parent.parent / "simulation" / "v1_coding.yaml"
SYSTEMS = ("ICD9CM", "ICD10CM")
_CORE = """
type_2_diabetes type_1_diabetes gestational_diabetes secondary_diabetes neonatal_diabetes diabetes_insipidus
prediabetes hypertension hyperlipidemia obesity smoking alcohol_use coronary_disease myocardial_infarction angina
atrial_fibrillation heart_failure cardiomyopathy valve_disease stroke peripheral_artery_disease
chronic_kidney_disease end_stage_renal_disease acute_kidney_injury diabetic_retinopathy diabetic_neuropathy
diabetic_nephropathy copd asthma pneumonia sleep_apnea respiratory_failure pulmonary_embolism deep_vein_thrombosis
depression anxiety schizophrenia opioid_use dementia epilepsy parkinson_disease migraine back_pain osteoarthritis
rheumatoid_arthritis gout osteoporosis hip_fracture hypothyroidism anemia reflux_disease peptic_ulcer gallstones
acute_pancreatitis chronic_pancreatitis new_onset_diabetes weight_loss jaundice biliary_obstruction abdominal_pain
pancreatic_cancer breast_cancer prostate_cancer colorectal_cancer lung_cancer skin_cancer lymphoma
chronic_liver_disease hepatitis_c cirrhosis urinary_tract_infection sepsis cellulitis influenza
upper_respiratory_infection chest_pain dyspnea edema syncope fatigue pregnancy benign_prostatic_hyperplasia
well_visit injury
"""
CORE = frozenset(_CORE.split())
BY_TYPE_2 = {"type_2_diabetes", "diabetic_retinopathy", "diabetic_neuropathy", "diabetic_nephropathy"}
CANCERS = {"breast_cancer", "prostate_cancer", "colorectal_cancer", "lung_cancer", "lymphoma"}
# The cohorts' code sets, each with the conditions that may use it.
CODE_SETS = {
    "heart_failure": {"heart_failure"},
    "type_2_diabetes": BY_TYPE_2 | {"new_onset_diabetes"},
    "type_1_diabetes": {"type_1_diabetes"},
    "diabetes": BY_TYPE_2 | {"new_onset_diabetes", "type_1_diabetes", "secondary_diabetes"},
    "diabetes_insipidus": {"diabetes_insipidus"},
    "gestational_diabetes": {"gestational_diabetes"},
    "neonatal_diabetes": {"neonatal_diabetes"},
    "secondary_diabetes": {"secondary_diabetes"},
    "pancreatic_cancer": {"pancreatic_cancer"},
    "other_cancer": CANCERS,
}


@pytest.fixture(scope="module")
def parameters() -> dict:
    return yaml.load(FILE.read_text(), yaml.CSafeLoader)


@pytest.fixture(scope="module")
def usual(parameters) -> pl.DataFrame:
    """The usual codes: condition, system, code, weight, whether a background condition, whether background cancer."""
    conditions = [(name, one, False) for name, one in parameters["coding"].items()]
    conditions += [(one["id"], one, True) for one in parameters["background"]]
    rows = [
        (name, system, code, float(weight), background, bool(one.get("cancer")))
        for name, one, background in conditions
        for system in SYSTEMS
        for code, weight in one[system].items()
    ]
    return pl.DataFrame(rows, ["condition", "code_system", "code", "weight", "background", "cancer"], orient="row")


@pytest.fixture(scope="module")
def every(parameters, usual) -> pl.DataFrame:
    """All codes of every condition, those of stages, sites, hurried coders and suspicions too."""
    rows = []
    for name, one in parameters["coding"].items():
        parts = [
            one.get("truven", {}),
            one.get("unspecific", {}),
            one.get("rule_out", {}),
            *one.get("stages", {}).values(),
        ]
        rows += [(name, system, code) for part in parts for system in SYSTEMS for code in part.get(system, ())]
    further = pl.DataFrame(rows, ["condition", "code_system", "code"], orient="row")
    background = pl.lit(False).alias("background"), pl.lit(False).alias("cancer")
    return pl.concat([usual.drop("weight"), further.with_columns(*background)]).unique()


def in_set(name: str) -> pl.Expr:
    return load_spec("paca" if name.endswith("cancer") else "dhf").code_set(name).matches()


def test_every_condition_is_there_in_both_systems(parameters):
    background = parameters["background"]
    assert parameters["coding"].keys() == CORE
    assert len(background) >= 400
    assert Counter(one["id"] for one in background).most_common(1)[0][1] == 1
    assert not CORE & {one["id"] for one in background}
    for one in (*parameters["coding"].values(), *background):
        for system in SYSTEMS:
            assert one[system] and all(isinstance(code, str) for code in one[system])


def test_weights_are_positive_and_codes_are_many(parameters, usual):
    assert usual["weight"].min() > 0
    assert usual.select("code_system", "code").n_unique() >= 3000
    for one in parameters["coding"].values():
        for part in (one.get("truven", {}), *one.get("stages", {}).values()):
            assert all(weight > 0 for system in SYSTEMS for weight in part.get(system, {}).values())
    assert (
        len(parameters["coding"]["type_2_diabetes"]["ICD10CM"]) + len(parameters["coding"]["type_2_diabetes"]["ICD9CM"])
        > 24
    )


def test_no_key_is_given_twice():
    class Strict(yaml.CSafeLoader):
        pass

    def mapping(loader, node):
        keys = Counter(loader.construct_object(key) for key, _ in node.value)
        assert not (twice := [key for key, count in keys.items() if count > 1]), twice
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor("tag:yaml.org,2002:map", mapping)
    loaded = yaml.load(FILE.read_text(), Strict)
    assert loaded["coding"].keys() == CORE
    with pytest.raises(AssertionError, match="I10"):
        yaml.load("{I10: 1, I10: 2}", Strict)


def test_every_code_has_a_title(every):
    codes = [f"{system}/{code}" for system, code in every.select("code_system", "code").iter_rows()]
    assert [code for code, title in zip(codes, icd.titles([*codes]), strict=True) if not title] == []
    assert icd.titles(["ICD10CM/I50.99", "ICD9CM/428.99"]) == ["", ""]


def test_a_code_belongs_to_one_condition_or_the_exception_is_listed(parameters, usual):
    owners = (
        usual.group_by("code_system", "code")
        .agg(pl.col("condition").unique())
        .filter(pl.col("condition").list.len() > 1)
    )
    shared = {name: set(one["with"]) for name, one in parameters["shared"].items()}
    for _, code, conditions in owners.iter_rows():
        for name in conditions:
            assert set(conditions) - {name} <= shared.get(name, set()) | {
                other for other, those in shared.items() if name in those
            }, (code, conditions)
    used = {name for conditions in owners["condition"] for name in conditions}
    assert shared.keys() <= used, "an exception that no code needs"


@pytest.mark.parametrize("name", CODE_SETS)
def test_code_sets_of_the_cohorts_stay_with_their_conditions(every, name):
    members = every.filter(in_set(name))
    allowed = CODE_SETS[name]
    stray = members.filter(~pl.col("condition").is_in(list(allowed)))
    if name == "other_cancer":
        stray = stray.filter(~pl.col("cancer"))
    assert stray.height == 0, stray
    assert set(members["code_system"]) == set(SYSTEMS)
    assert not (set(members.filter(pl.col("background"))["condition"]) and name != "other_cancer")


def test_each_cohort_condition_is_mostly_coded_inside_its_set(usual):
    share = {
        name: usual.filter(pl.col("condition") == condition)
        .group_by("code_system")
        .agg((pl.col("weight") * in_set(name)).sum() / pl.col("weight").sum())["weight"]
        .min()
        for name, condition in [
            ("heart_failure", "heart_failure"),
            ("type_2_diabetes", "type_2_diabetes"),
            ("type_1_diabetes", "type_1_diabetes"),
            ("pancreatic_cancer", "pancreatic_cancer"),
            ("secondary_diabetes", "secondary_diabetes"),
            ("neonatal_diabetes", "neonatal_diabetes"),
            ("diabetes_insipidus", "diabetes_insipidus"),
            ("gestational_diabetes", "gestational_diabetes"),
        ]
    }
    assert share.pop("secondary_diabetes") > 0.6  # E13 is written for it too
    assert min(share.values()) > 0.95, share


def test_skin_cancer_is_no_other_cancer(usual):
    skin = usual.filter(pl.col("condition") == "skin_cancer")
    full = pl.concat_str(pl.col("code_system"), pl.lit("/"), pl.col("code"))
    assert (
        skin.filter(prefix_expression(full, ["ICD9CM/173", "ICD10CM/C44"]))["weight"].sum() > 0.6 * skin["weight"].sum()
    )
    assert skin.filter(in_set("other_cancer")).height == 0


def test_background_conditions_fit_their_sex_and_age(parameters):
    for one in parameters["background"]:
        start, peak, end = one["age"]
        assert 0 <= start <= peak <= end <= 100 and start < end, one["id"]
        assert one["sex"] in ("any", "female", "male") and one["kind"] in ("acute", "chronic"), one["id"]
        assert one["yearly_rate"] > 0 and one["follow_ups"] >= 0, one["id"]
        titles = icd.titles([f"{system}/{code}" for system in SYSTEMS for code in one[system]])
        of_pregnancy = any(re.search(r"complicating pregnancy|antepartum", title) for title in titles)
        assert not of_pregnancy or (one["sex"] == "female" and end < 60), one["id"]
        if one["sex"] != "male":
            assert not any(
                re.search(r"prostat(e|itis)\b(?!.*family)|of penis", t) and "amily" not in t for t in titles
            ), one["id"]
        if one["sex"] == "any":
            assert not any(re.search(r"\bovary|\buter(us|ine)\b|vulvo", t) and "amily" not in t for t in titles), one[
                "id"
            ]
        if end > 40:
            assert not any(re.search(r"(?i)\bnewborn|neonatal", t) and "not of newborn" not in t for t in titles), one[
                "id"
            ]


def test_it_loads_quickly():
    text = FILE.read_text()
    seconds = []
    for _ in range(3):
        start = time.process_time()
        yaml.load(text, yaml.CSafeLoader)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5
