"""Titles, what is above a code, and backing off: known codes by hand, and the package's own hierarchy as a whole."""

import random
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

from medbert_jax.ehr import icd, icd10cm_release

TITLES = {
    "ICD9CM/428.0": "Congestive heart failure, unspecified",
    "ICD9CM/008.45": "Intestinal infection due to Clostridium difficile",
    "ICD9CM/V45.81": "Aortocoronary bypass status",
    "ICD9CM/V27.0": "Outcome of delivery, single liveborn",
    "ICD9CM/E849.0": "Home accidents",
    "ICD9CM/E849": "Place of occurrence",
    # Lost decimals leave a category or subcategory, which has a title of its own.
    "ICD9CM/428": "Heart failure",
    "ICD9CM/250": "Diabetes mellitus",
    "ICD9CM/250.6": "Diabetes with neurological manifestations",
    "ICD9CM/V45": "Other postprocedural states",
    "ICD10CM/E11.9": "Type 2 diabetes mellitus without complications",
    "ICD10CM/E11": "Type 2 diabetes mellitus",
    "ICD10CM/T36.0X1A": "Poisoning by penicillins, accidental (unintentional), initial encounter",
    "ICD10CM/T36.0X": "Poisoning by, adverse effect of and underdosing of penicillins",
    "ICD10CM/C7A": "Malignant neuroendocrine tumors",  # a block of the same name is not meant
    "ICD10CM/B99": "Other and unspecified infectious diseases",
    # No title: no such code, not in normal form, a chapter or block, another system, another country's ICD-10.
    "ICD9CM/428.05": "",
    "ICD9CM/4280": "",
    "ICD10CM/E11.9999": "",
    "ICD10CM/e11.9": "",
    "ICD10CM/E08-E13": "",
    "ICD10CM/4": "",
    "ICD10GM/E11.9": "",
    "ICD10CN/E11.900": "",
    "ICD10/I10": "",
    "SNOMED/44054006": "",
    "E11.9": "",
    "": "",
}


def test_titles():
    assert dict(zip(TITLES, icd.titles(list(TITLES)), strict=True)) == TITLES
    assert icd.titles([]) == []


def test_every_title_is_one_clean_line_and_every_code_in_normal_form():
    for system, least in (("ICD9CM", 17_500), ("ICD10CM", 95_000)):
        found = icd._titles_of(system)
        assert len(found) >= least
        assert all(title == " ".join(title.split()) and title for title in found.values())
        assert all(re.fullmatch(r"[A-Z0-9]{3,4}(\.[A-Z0-9]{1,4})?", code) for code in found)


def test_in_icd9_every_beginning_of_a_billable_code_is_a_titled_category():
    found = icd._titles_of("ICD9CM")
    assert not [code for code in found for above in icd._beginnings(f"ICD9CM/{code}") if above[7:] not in found]


@pytest.mark.parametrize(
    ("code", "above"),
    [
        ("ICD9CM/250.01", ("ICD9CM/250.0", "ICD9CM/250")),
        ("ICD9CM/E849.0", ("ICD9CM/E849",)),
        ("ICD9CM/V45.81", ("ICD9CM/V45.8", "ICD9CM/V45")),
        ("ICD9CM/428.05", ("ICD9CM/428.0", "ICD9CM/428")),  # no such code, yet it begins like one
        ("ICD9CM/428", ()),
        ("ICD10CM/E11.65", ("ICD10CM/E11.6", "ICD10CM/E11")),
        ("ICD10CM/V27.01XA", ("ICD10CM/V27.01", "ICD10CM/V27.0", "ICD10CM/V27")),  # V27.01X is no code
        ("ICD10CM/V27.0XXA", ("ICD10CM/V27.0", "ICD10CM/V27")),  # retired
        ("ICD10CM/C7A.00", ("ICD10CM/C7A.0", "ICD10CM/C7A")),
        ("ICD10GM/E11.90", ("ICD10GM/E11.9", "ICD10GM/E11")),
        ("CIM10/Z51.5+1", ("CIM10/Z51.5", "CIM10/Z51")),
        ("CIM10/B24+0", ("CIM10/B24",)),
        ("ICD10PCS/0DB00ZZ", ()),
        ("SNOMED/44054006", ()),
        ("E11.9", ()),
    ],
)
def test_what_is_above_a_code(code, above):
    assert icd.ancestors(code) == above
    assert icd.parent(code) == (above[0] if above else "")


@pytest.fixture(scope="module")
def package():
    with warnings.catch_warnings():  # it reads its files in a way that Python 3.11 and 3.12 call deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        import simple_icd_10_cm
    return simple_icd_10_cm


def test_titles_of_icd10cm_are_what_the_package_says(package):
    every = filter(icd10cm_release.CODE_SHAPE.fullmatch, package.get_all_codes())
    assert icd._titles_of("ICD10CM") == {code: " ".join(package.get_description(code).split()) for code in every}


def test_what_is_above_an_icd10cm_code_is_what_the_package_says(package):
    codes = random.Random(0).sample(sorted(icd._titles_of("ICD10CM")), 5_000)
    above = [package.get_ancestors(code) for code in codes]
    # Blocks and chapters are no codes; a block of one category has the category's name, so that it comes twice.
    expected = [dict.fromkeys(a for a in chain if icd10cm_release.CODE_SHAPE.fullmatch(a)) for chain in above]
    expected = [[a for a in chain if a != code] for code, chain in zip(codes, expected, strict=True)]
    assert [[a[8:] for a in icd.ancestors(f"ICD10CM/{code}")] for code in codes] == expected
    assert sum(map(len, expected)) > 10_000


def test_backing_off_takes_the_nearest_known_code_of_the_same_system():
    known = ["ICD9CM/250", "ICD9CM/250.0", "ICD10CM/E11", "ICD10CM/E11.9", "ICD10CM/V27.0", "ICD10GM/E11", "SNOMED/44"]
    codes = {
        "ICD9CM/250.01": "ICD9CM/250.0",
        "ICD9CM/250.61": "ICD9CM/250",
        "ICD9CM/250": "ICD9CM/250",
        "ICD9CM/251.0": "ICD9CM/251.0",
        "ICD10CM/E11.9": "ICD10CM/E11.9",
        "ICD10CM/E11.65": "ICD10CM/E11",
        "ICD10CM/E1": "ICD10CM/E1",
        "ICD10CM/V27.01XA": "ICD10CM/V27.0",
        "ICD10GM/E11.90": "ICD10GM/E11",
        "ICD10CN/E11.900": "ICD10CN/E11.900",
        "SNOMED/44054006": "SNOMED/44054006",
        "no system": "no system",
    }
    repeated = list(codes) * 3
    assert icd.back_off(repeated, known).tolist() == list(codes.values()) * 3
    table = np.array(list(codes)).reshape(3, 4)
    assert icd.back_off(table, set(known)).tolist() == np.array(list(codes.values())).reshape(3, 4).tolist()
    assert icd.back_off(repeated, []).tolist() == repeated
    assert icd.back_off([], known).shape == (0,)


def test_nothing_is_loaded_before_a_title_is_asked_for():
    script = (
        "import sys\n"
        "from medbert_jax.ehr.icd import back_off, titles\n"
        "back_off(['ICD10CM/E11.9'], ['ICD10CM/E11']), titles(['ICD10GM/E11.9', 'ICD9CM/428'])\n"
        "found = {'polars', 'jax', 'simple_icd_10_cm'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
