"""The built-in cohort dhf on literal patients: every rule, and every boundary of it."""

import pytest
from drawn_patients import fates, person, tables_of, visit

from medbert_jax.cohorts.loading import load_spec, parse_spec
from medbert_jax.cohorts.select import select_cohort

METFORMIN = (("2010-03-01", "metformin"),)
FUROSEMIDE = (("2010-06-01", "furosemide"),)
BOTH = METFORMIN + FUROSEMIDE
TYPE_2 = (visit("2010-01-01", "250.00"), visit("2010-02-01", "250.00 401.9"))


@pytest.fixture(scope="module")
def dhf():
    return load_spec("dhf")


def case(*more, first="2010-03-03", **what):
    """Type 2 diabetes on 1 January and 1 February 2010, heart failure from `first` on, twice."""
    what = {"drugs": BOTH} | what
    return person(*TYPE_2, visit(first, "428.0"), visit("2010-09-01", "428.0"), *more, **what)


def test_cases_and_controls(dhf):
    assert fates(
        {
            "case": case(),
            "control": person(*TYPE_2, visit("2010-05-01", "401.9"), drugs=METFORMIN),
            "control_of_two": person(*TYPE_2, drugs=METFORMIN),
            "icd10": person(
                visit("2016-01-01", "ICD10CM/E11.9"),
                visit("2016-02-01", "ICD10CM/E11.65"),
                visit("2016-06-01", "ICD10CM/I13.0"),
                visit("2016-07-01", "ICD10CM/I97.131"),
                drugs=(("2016-01-01", "insulin glargine"), ("2016-06-01", "bumetanide")),
            ),
            "any_diabetes_twice_and_type_2_once": person(
                visit("2010-01-01", "250.00"), visit("2010-02-01", "250"), drugs=METFORMIN
            ),
        },
        dhf,
    ) == {
        "case": (1, 3, 2),
        "control": (0, 3, 2),
        "control_of_two": (0, 2, 1),
        "icd10": (1, 3, 2),
        "any_diabetes_twice_and_type_2_once": (0, 2, 1),
    }


def test_diabetes_counts_by_encounter_and_by_whole_codes(dhf):
    assert fates(
        {
            "neighbours": person(visit("2010-01-01", "251.0 249.00 V25.0"), drugs=METFORMIN),
            "two_codes_of_one_encounter": person(visit("2010-01-01", "250.00 250.02"), visit("2010-02-01", "401.9")),
            "two_encounters_of_one_day": person(
                visit("2010-01-01T08:00", "250.00"), visit("2010-01-01T10:00", "250.00"), drugs=METFORMIN
            ),
            "no_fifth_digit": person(visit("2010-01-01", "250"), visit("2010-02-01", "250.4"), drugs=METFORMIN),
            "icd10_of_another_country": person(
                visit("2010-01-01", "ICD10GM/E11.9"), visit("2010-02-01", "ICD10GM/E11.9"), drugs=METFORMIN
            ),
            "no_visit": person(),
        },
        dhf,
    ) == {
        "neighbours": "no_diabetes",
        "two_codes_of_one_encounter": "one_diabetes_encounter",
        "two_encounters_of_one_day": (0, 2, 1),
        "no_fifth_digit": "no_type_2",
        "icd10_of_another_country": "no_diabetes",
        "no_visit": "no_visits",
    }


@pytest.mark.parametrize(
    ("codes", "rule"),
    [
        ("253.5 588.1 ICD10CM/E23.2 ICD10CM/N25.1", "diabetes_insipidus"),
        ("648 648.01 648.93 V12.21 ICD10CM/O24.419 ICD10CM/Z86.32", "gestational_diabetes"),
        ("775 775.1 ICD10CM/P70.2", "neonatal_diabetes"),
        ("249 249.00 ICD10CM/E08.9 ICD10CM/E09.65", "secondary_diabetes"),
        ("250.01 250.93 250.43 ICD10CM/E10.9", "type_1_diabetes"),
        ("253.6 588.81 647.0 649 V12.29 774.1 776 V86.3 ICD10CM/Z86.31 ICD10CM/E13.9 ICD10CM/O25.1", (0, 3, 2)),
    ],
)
def test_exclusions_by_any_code_of_the_whole_record(dhf, codes, rule):
    before = {f"before {code}": (visit("2009-01-01", code), *TYPE_2) for code in codes.split()}
    after = {f"after {code}": (*TYPE_2, visit("2010-07-01", code)) for code in codes.split()}
    people = {name: person(*visits, drugs=METFORMIN) for name, visits in (before | after).items()}
    assert fates(people, dhf) == dict.fromkeys(people, rule)


def test_the_strict_set_lets_other_complications_of_pregnancy_stay():
    data = load_spec("dhf").to_dict()
    (rule,) = (rule for rule in data["rules"] if rule["id"] == "gestational_diabetes")
    rule["when"]["with_codes"] = "gestational_diabetes_strict"
    people = {code: person(*TYPE_2, visit("2010-07-01", code), drugs=METFORMIN) for code in ("648.93", "648.83")}
    assert fates(people, parse_spec(data, source="strict")) == {
        "648.93": (0, 3, 2), "648.83": "gestational_diabetes"
    }  # fmt: skip


A1C = "4548-4"


VERIFIES_DIABETES = [
    ({"results": [("2010-01-01", A1C, 6.5, "%")]}, True),
    ({"results": [("2010-01-01", A1C, 6.4, "%")]}, False),
    ({"results": [("2010-01-01", A1C, 6.5, None)]}, True),
    ({"results": [("2010-01-01", A1C, 48.0, "mmol/mol")]}, True),
    ({"results": [("2010-01-01", A1C, 47.9, "mmol/mol")]}, False),
    ({"results": [("2010-01-01", A1C, 48.0, "mg/dL")]}, False),
    ({"results": [("2010-01-01", A1C, None, "%")]}, False),
    ({"results": [("2010-01-01", "2160-0", 9.0, "%")]}, False),
    ({"results": [(2, A1C, 7.0, "%")]}, True),  # the day of its visit
    ({"results": [("", A1C, 7.0, "%")]}, False),  # no day at all
    ({"drugs": [("2015-01-01", "Metformin ")]}, True),
    ({"drugs": [("2010-01-01", "metformin hydrochloride")]}, True),
    ({"drugs": [("2010-01-01", "metformin / sitagliptin")]}, True),
    ({"drugs": [("2010-01-01", "lisinopril, acarbose")]}, True),
    ({"drugs": [("2010-01-01", "aspirin and insulin lispro")]}, True),
    ({"drugs": [("2010-01-01", "aspirin+glipizide")]}, True),
    ({"drugs": [("2010-01-01", "insulinase")]}, False),
    ({"drugs": [("2010-01-01", "human insulin")]}, False),
    ({"drugs": [("2010-01-01", "furosemide")]}, False),
    ({"drugs": [("2010-01-01", None)]}, False),
    ({}, False),
]


def test_diabetes_is_verified_by_a1c_or_drug(dhf):
    people = {str(evidence): person(*TYPE_2, **evidence) for evidence, _ in VERIFIES_DIABETES}
    assert fates(people, dhf) == {
        str(evidence): (0, 2, 1) if verified else "diabetes_unverified" for evidence, verified in VERIFIES_DIABETES
    }


VERIFIES_HEART_FAILURE = [
    ({"results": [("2010-03-03", "30934-4", 100.1, "pg/mL")]}, True),
    ({"results": [("2010-03-03", "30934-4", 100.0, "pg/mL")]}, False),
    ({"results": [("2010-03-03", "42637-9", 101.0, "ng/L")]}, True),
    ({"results": [("2010-03-03", "30934-4", 500.0, "pmol/L")]}, False),
    ({"results": [("2010-03-03", "33762-6", 300.0, "pg/mL")]}, False),
    ({"results": [("2010-03-03", "71425-3", 301.0, None)]}, True),
    ({"drugs": [*METFORMIN, ("2009-01-01", "spironolactone")]}, True),
    ({"drugs": [*METFORMIN, ("2009-01-01", "lisinopril / hydrochlorothiazide")]}, True),
    ({"drugs": [*METFORMIN, ("2009-01-01", "ethacrynic acid")]}, True),
    ({"drugs": [*METFORMIN, ("2009-01-01", "ethacrynic")]}, False),
    ({"procedures": [("2012-01-01", "CPT4/90951")]}, True),
    ({"procedures": [("2012-01-01", "CPT4/90970")]}, True),
    ({"procedures": [("2012-01-01", "CPT4/90971"), ("2012-01-01", "CPT4/90936")]}, False),
    ({"procedures": [("2012-01-01", "CPT4/33929")]}, True),
    ({"procedures": [("2012-01-01", "ICD9Proc/37.66")]}, True),
    ({"procedures": [("2012-01-01", "ICD9Proc/37.61")]}, False),
    ({"procedures": [("2012-01-01", "ICD10PCS/5A1D70Z")]}, True),
    ({"procedures": [("2012-01-01", "ICD10PCS/02HA0QZ")]}, True),
    ({"procedures": [("2012-01-01", "ICD10PCS/02HB0QZ"), ("2012-01-01", "HCPCS/90951")]}, False),
    ({}, False),
]


def test_heart_failure_is_verified_by_diuretic_peptide_or_procedure(dhf):
    people = {str(evidence): case(**{"drugs": METFORMIN} | evidence) for evidence, _ in VERIFIES_HEART_FAILURE}
    assert fates(people, dhf) == {
        str(evidence): (1, 3, 2) if verified else "hf_unverified" for evidence, verified in VERIFIES_HEART_FAILURE
    }


def test_whoever_has_heart_failure_qualifies_or_leaves(dhf):
    """1 January 2010 is the first day with type 2 diabetes: 31 January is day 30."""
    once = person(*TYPE_2, visit("2010-03-03", "428.0 404.91"), drugs=BOTH)
    assert fates(
        {
            "one_encounter": once,
            "day_29": case(first="2010-01-30T23:00"),
            "before_diabetes": person(visit("2009-01-01", "428.0"), *TYPE_2, visit("2010-06-01", "428.0"), drugs=BOTH),
            "with_diabetes": person(
                visit("2010-01-01", "250.00 428.0"), visit("2010-06-01", "250.00 428.0"), drugs=BOTH
            ),
            "one_encounter_comes_first": person(
                visit("2010-01-01", "250.00 428.0"), visit("2010-06-01", "250.00"), drugs=METFORMIN
            ),
            "neighbours": person(*TYPE_2, visit("2010-05-01", "429.0 402.00 404.02 ICD10CM/I51"), drugs=METFORMIN),
        },
        dhf,
    ) == {
        "one_encounter": "hf_one_encounter",
        "day_29": "hf_too_early",
        "before_diabetes": "hf_too_early",
        "with_diabetes": "hf_too_early",
        "one_encounter_comes_first": "hf_one_encounter",
        "neighbours": (0, 3, 2),
    }
    # Day 29 and day 30 by the calendar, whatever the hour.
    late = visit("2010-09-01", "428.0")
    start = (visit("2010-01-01T20:00", "250.00"), visit("2010-01-15", "250.00"))
    assert fates(
        {
            "day_29": person(*start, visit("2010-01-30T23:00", "428.0"), late, drugs=BOTH),
            "day_30": person(*start, visit("2010-01-31T01:00", "428.0"), late, drugs=BOTH),
        },
        dhf,
    ) == {"day_29": "hf_too_early", "day_30": (1, 3, 2)}


def diabetic_on(day, **what):
    return person(visit(day, "250.00"), visit("2016-02-01", "250.00"), drugs=METFORMIN, **what)


def test_age_at_the_first_encounter_with_diabetes(dhf):
    assert fates(
        {
            "a_day_under_18": diabetic_on("2010-06-14", born="1992-06-15"),
            "eighteen_today": diabetic_on("2010-06-15", born="1992-06-15"),
            "leap_day_28_february": diabetic_on("2010-02-28", born="1992-02-29"),
            "leap_day_1_march": diabetic_on("2010-03-01", born="1992-02-29"),
            "earlier_encounters_do_not_count": person(
                visit("2009-01-01", "401.9"), visit("2010-06-15", "250.00"), visit("2011-01-01", "250.00"),
                born="1992-06-15", drugs=METFORMIN,
            ),
            "february": diabetic_on("2010-01-31", born="1992-02-01"),
            "december": diabetic_on("2010-12-01", born="1992-11-30"),
            "december_to_come": diabetic_on("2010-12-01", born="1992-12-02"),
            "unknown": diabetic_on("2010-06-15", born=None),
        },
        dhf,
    ) == {
        "a_day_under_18": "under_18",
        "eighteen_today": (0, 2, 1),
        "leap_day_28_february": "under_18",
        "leap_day_1_march": (0, 2, 1),
        "earlier_encounters_do_not_count": (0, 3, 2),
        "february": "under_18",
        "december": (0, 2, 1),
        "december_to_come": "under_18",
        "unknown": "age_unknown",
    }  # fmt: skip


def test_age_as_the_source_states_it_and_where_it_is_too_rough(dhf):
    def stated(days, precision):
        first = visit("2010-06-15", "250.00", age_days=days, precision=precision)
        return person(first, visit("2011-06-15", "250.00"), born=None, drugs=METFORMIN)

    people = {
        "just_under": stated(6574, None),  # 18 years are 6574.5 days
        "just_over": stated(6575, None),
        "rough_over": stated(6700, 365),
        "rough_and_sure": stated(6800, 365),
        "rough_under": stated(6500, 365),
        "born": diabetic_on("2010-06-15", born="1992-06-15"),
    }
    assert fates(people, dhf) == {
        "just_under": "under_18", "just_over": (0, 2, 1), "rough_over": (0, 2, 1), "rough_and_sure": (0, 2, 1),
        "rough_under": "under_18", "born": (0, 2, 1),
    }  # fmt: skip
    frame, _ = select_cohort(tables_of(people), dhf)
    flagged = dict(frame.select("patient_id", "flag_age_uncertain").iter_rows())
    assert flagged == {"just_over": False, "rough_over": True, "rough_and_sure": False, "born": False}


def test_incorrect_times_and_deaths(dhf):
    turned = visit("2010-05-02", "401.9", discharge="2010-05-01")
    assert fates(
        {
            "discharged_before_admitted": person(*TYPE_2, turned, drugs=METFORMIN),
            "admission_unknown": person(*TYPE_2, visit(None, "401.9"), drugs=METFORMIN),
            "discharge_unknown": person(*TYPE_2, visit("2010-05-01", "401.9", discharge=None), drugs=METFORMIN),
            "dead_before_the_first": person(*TYPE_2, died="2009-12-31", drugs=METFORMIN),
            "dead_on_the_first": person(*TYPE_2, died="2010-01-01", drugs=METFORMIN),
            "dead_the_day_before": person(*TYPE_2, died="2010-01-31", drugs=METFORMIN),
            "dead_on_the_index": person(*TYPE_2, died="2010-02-01", drugs=METFORMIN),
            "dead_on_the_index_treated_before": person(*TYPE_2, died="2010-02-01", drugs=[(1, "metformin")]),
            "dead_before_the_last": person(
                *TYPE_2, visit("2010-04-01", "401.9"), died="2010-03-31", drugs=[(1, "metformin")]
            ),
            "case_dead_before": case(died="2010-03-02"),
            "case_dead_on_the_day": case(died="2010-03-03"),
            "case_dead_later": case(visit("2010-12-01", "401.9"), died="2010-09-01"),
            "incorrect_comes_before_exclusions": person(
                *TYPE_2, turned, visit("2010-06-01", "250.01"), drugs=METFORMIN
            ),
        },
        dhf,
    ) == {
        "discharged_before_admitted": "incorrect_times",
        "admission_unknown": "incorrect_times",
        "discharge_unknown": (0, 3, 2),
        "dead_before_the_first": "incorrect_times",
        "dead_on_the_first": "one_diabetes_encounter",  # the second comes after the death
        "dead_the_day_before": "one_diabetes_encounter",
        "dead_on_the_index": "diabetes_unverified",  # by a drug after the death alone
        "dead_on_the_index_treated_before": (0, 2, 1),
        "dead_before_the_last": "died_before_index",
        "case_dead_before": "died_before_index",
        "case_dead_on_the_day": "hf_one_encounter",
        "case_dead_later": (1, 3, 2),
        "incorrect_comes_before_exclusions": "incorrect_times",
    }


def test_the_input_ends_before_the_index_and_holds_what_was_over(dhf):
    long = visit("2010-02-20", "401.9", days=60)
    assert fates(
        {
            "open_at_the_index": person(
                *TYPE_2, long, visit("2010-03-03", "428.0"), visit("2010-09-01", "428.0"), drugs=BOTH
            ),
            "nothing_to_read": person(
                visit("2010-01-01", "250.00", days=90), visit("2010-03-03", "428.0 250.00"),
                visit("2010-09-01", "428.0"), drugs=BOTH,
            ),
        },
        dhf,
    ) == {"open_at_the_index": (1, 4, 3), "nothing_to_read": "input_codes"}  # fmt: skip
