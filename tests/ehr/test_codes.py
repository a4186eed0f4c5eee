from datetime import date, datetime

import polars as pl
import pytest

from medbert_jax.ehr.codes import (
    EITHER,
    guess_icd_version,
    normal_codes,
    normal_form,
    normalise_country_icd10,
    normalise_icd9,
    normalise_icd10,
    prefix_expression,
    system_name,
)


def applied(function, texts):
    return (
        pl.DataFrame({"code": texts}, schema={"code": pl.String}).select(function(pl.col("code"))).to_series().to_list()
    )


ICD9 = {
    "428": "428",
    "428.0": "428.0",
    "4280": "428.0",
    "42821": "428.21",
    "250.6": "250.6",
    "250.01": "250.01",
    "250.": "250",
    "8": "008",
    "41": "041",
    "41.1": "041.1",
    "8.45": "008.45",
    "038": "038",
    " 428.0 ": "428.0",
    "428 .0\u00a0": "428.0",
    "v45.81": "V45.81",
    "V4581": "V45.81",
    "v1": "V01",
    "V1.2": "V01.2",
    "V58": "V58",
    "e849.0": "E849.0",
    "E8490": "E849.0",
    "E812": "E812",
    "?": None,
    "": None,
    "  ": None,
    None: None,
    "428.123": None,
    "4281234": None,
    "1234.5": None,
    "250.1.3": None,
    "E11.9.": None,
    "E11.9": None,
    "E11": None,
    "I50.9": None,
    "42x": None,
    "-12": None,
    "V": None,
    ".5": None,
    "1E+11": None,
    "4.28E+03": None,
}

ICD10 = {
    "E11.9": "E11.9",
    "e119": "E11.9",
    " e11.9 ": "E11.9",
    "I50": "I50",
    "I50.": "I50",
    "T36.0X1A": "T36.0X1A",
    "t360x1a": "T36.0X1A",
    "C7A.00": "C7A.00",
    "C7A00": "C7A.00",
    "Z3A.20": "Z3A.20",
    "E1.19": None,
    "E8": None,
    "E11.9+": None,
    "428.0": None,
    "T36.0X1AB": None,
    "1E+11": None,
    "1.00E+11": None,
    "11": None,
    "?": None,
    "": None,
    None: None,
}

COUNTRY_ICD10 = {
    "E11.9": "E11.9",
    "e119 ": "E11.9",
    "I10": "I10",
    "E11.90 +": "E11.90",  # Germany: dagger, asterisk, exclamation mark, not the last digit
    "N08.3*": "N08.3",
    "u07.1!": "U07.1",
    "E11.-": "E11",
    "M54.1-": "M54.1",
    "E10.2†": "E10.2",
    "I10X": "I10",  # England fills up to four characters
    "I10.X": "I10",
    "I10.x00": "I10.X00",  # China
    "E11.900x001": "E11.900X001",
    "E11900x001": "E11.900X001",
    "e11.3d": "E11.3D",  # Sweden
    "Z51.5+1": "Z51.5+1",  # France
    "Z515+1": "Z51.5+1",
    "B24+0": "B24+0",
    "E43.+0": "E43+0",
    "M8140/3": None,  # morphology, not a diagnosis
    "E11.2+N08.3*": None,
    "E11.9 / I10": None,
    "C7A.00": None,
    "E1.19": None,
    "1E+11": None,
    "428.0": None,
    "-": None,
    "?": None,
    "": None,
    None: None,
}


def test_icd9_normal_forms():
    assert dict(zip(ICD9, applied(normalise_icd9, list(ICD9)), strict=True)) == ICD9


def test_icd10_normal_forms():
    assert dict(zip(ICD10, applied(normalise_icd10, list(ICD10)), strict=True)) == ICD10


def test_normal_forms_of_other_countries():
    assert dict(zip(COUNTRY_ICD10, applied(normalise_country_icd10, list(COUNTRY_ICD10)), strict=True)) == COUNTRY_ICD10


def test_normal_forms_stay():
    tables = (normalise_icd9, ICD9), (normalise_icd10, ICD10), (normalise_country_icd10, COUNTRY_ICD10)
    for function, table in tables:
        normal = [code for code in table.values() if code]
        assert applied(function, normal) == normal


def test_every_system_has_its_normal_form():
    expected = [
        ("ICD9CM", "4280 ", "428.0"),
        ("ICD9CM", "E11.9", None),
        ("ICD10CM", "e119", "E11.9"),
        ("ICD10CM", "E11.9+", None),
        ("ICD10CM", "I10X", "I10.X"),
        ("ICD10GM", "E11.9+", "E11.9"),
        ("ICD10CN", "I10.x00", "I10.X00"),
        ("ICD10", "I10X", "I10"),
        ("CIM10", "B24+0", "B24+0"),
        ("KCD7", "e11.9", "E11.9"),
        ("ICD10GM", "428.0", None),
        ("ICD10PCS", " 0DB00ZZ", "0DB00ZZ"),
        ("ICD9Proc", "00.66", "00.66"),
        ("SNOMED", " 44054006\u00a0", "44054006"),
        ("name", "insulin \n glargine", "insulin glargine"),
        ("LOINC", "  ", None),
        ("SNOMED", None, None),
        (None, "E11.9", None),
    ]
    frame = pl.DataFrame(expected, schema=["system", "code", "normal"], orient="row")
    assert frame.select(normal_form(pl.col("system"), pl.col("code"))).to_series().to_list() == [
        normal for _, _, normal in expected
    ]
    numbers = pl.DataFrame({"system": ["ICD9CM", "RxNorm"], "code": [8, 4821]})
    assert numbers.select(normal_form(pl.col("system"), pl.col("code"))).to_series().to_list() == ["008", "4821"]


VERSIONS = {
    "428.0": "ICD9CM",
    "4280": "ICD9CM",
    "8": "ICD9CM",
    " e849.0": "ICD9CM",
    "E950.3": "ICD9CM",
    "E900": "ICD9CM",  # ICD-10-CM ends its letter E at E89
    "E030.1": "ICD9CM",
    "V1": "ICD9CM",
    "E11.9": "ICD10CM",
    "e119": "ICD10CM",  # ICD-9 has no E119
    "E11": "ICD10CM",
    "E84.9": "ICD10CM",
    "I50 ": "ICD10CM",
    "V27.01XA": "ICD10CM",
    "V95.9": "ICD10CM",  # ICD-9 ends at V91
    "V00.1": "ICD10CM",
    "V27.0": EITHER,
    "v4581": EITHER,
    "V27": EITHER,
    "E849": EITHER,  # place of the accident, or cystic fibrosis
    "E8490": EITHER,
    "1E+11": None,
    "E11.9+": None,
    "?": None,
    None: None,
}


def test_versions_are_guessed_where_the_shape_decides():
    assert dict(zip(VERSIONS, applied(guess_icd_version, list(VERSIONS)), strict=True)) == VERSIONS


@pytest.mark.parametrize(
    ("day", "version"),
    [
        (date(2015, 9, 30), "ICD9CM"),
        (datetime(2015, 9, 30, 23, 59), "ICD9CM"),
        (date(2015, 10, 1), "ICD10CM"),
        (datetime(2015, 10, 1), "ICD10CM"),
        (date(2099, 12, 31), "ICD10CM"),
        (date(2100, 1, 1), EITHER),  # a calendar that is shifted
        (None, EITHER),
    ],
)
def test_the_day_decides_between_versions_only_where_the_shape_does_not(day, version):
    frame = pl.DataFrame({"code": list(VERSIONS)}).with_columns(day=pl.lit(day))
    found = frame.select(guess_icd_version(pl.col("code"), pl.col("day"))).to_series().to_list()
    assert found == [version if known == EITHER else known for known in VERSIONS.values()]


def matching(prefixes, codes):
    frame = pl.DataFrame({"name": codes}, schema={"name": pl.String})
    found = frame.select(prefix_expression(pl.col("name"), prefixes)).to_series()
    assert found.dtype == pl.Boolean and found.null_count() == 0
    return frame.filter(found)["name"].to_list()


def test_prefix_takes_what_is_under_it_and_no_neighbour():
    codes = [f"ICD9CM/{c}" for c in ("428", "428.0", "428.21", "427.8", "429", "042.8", "V42.8", "4280", "4281.0")]
    codes += ["ICD10CM/428", "X/ICD9CM/428", "ICD9CM", None]
    assert matching(["ICD9CM/428"], codes) == ["ICD9CM/428", "ICD9CM/428.0", "ICD9CM/428.21"]
    diabetes = [f"ICD9CM/{c}" for c in ("250", "250.1", "250.13", "250.01", "250.10", "2501", "250x1", "251.1")]
    assert matching(["ICD9CM/250.1"], diabetes) == ["ICD9CM/250.1", "ICD9CM/250.13", "ICD9CM/250.10"]
    heart = [f"ICD10CM/{c}" for c in ("I50", "I50.9", "I5", "I51.0", "I500", "I11.0", "I11.09", "I110")]
    assert matching(["ICD10CM/I50"], heart) == ["ICD10CM/I50", "ICD10CM/I50.9"]
    assert matching(["ICD10CM/I11.0", "ICD10CM/I51"], heart) == ["ICD10CM/I51.0", "ICD10CM/I11.0", "ICD10CM/I11.09"]


def test_prefixes_in_the_icd10_of_other_countries():
    codes = ["ICD10GM/E11.90", "ICD10GM/E11", "ICD10GM/E12.9", "ICD10CM/E11.9", "CIM10/B24+0", "CIM10/B24"]
    assert matching(["ICD10GM/E11"], codes) == ["ICD10GM/E11.90", "ICD10GM/E11"]
    assert matching(["CIM10/B24"], codes) == ["CIM10/B24+0", "CIM10/B24"]
    with pytest.raises(ValueError, match="got ICD10GM/E1; write"):
        prefix_expression(pl.col("x"), ["ICD10GM/E1"])


def test_other_systems_match_whole_codes_only():
    drugs = ["name/glyburide", "name/glyburide-metformin", "name/insulin glargine", "name/A1C >8", "name/insulin"]
    assert matching(["name/glyburide"], drugs) == ["name/glyburide"]
    assert matching(["name/insulin glargine", "name/A1C >8"], drugs) == ["name/insulin glargine", "name/A1C >8"]


def test_no_prefixes_match_nothing():
    assert matching([], ["ICD9CM/428", None]) == []


def test_prefixes_that_would_silently_match_nothing_are_all_listed():
    with pytest.raises(ValueError, match=r"got 428, ICD10CM/I5, ICD9CM/428\.\*, ICD10CM/e11, name/; write") as caught:
        prefix_expression(pl.col("x"), ["428", "ICD9CM/428", "ICD10CM/I5", "ICD9CM/428.*", "ICD10CM/e11", "name/"])
    assert "ICD9CM/428," not in str(caught.value).partition("; write")[0]


def test_codes_that_a_program_took_for_numbers_are_none():
    """XXX.0 is a code only where ICD-9-CM has it; what it does not know at all is left to its shape."""
    codes = {"496.0": None, "311.0": None, "V58.0": "V58.0", "428.0": "428.0", "8.0": "008.0", "250.0": "250.0",
             "496": "496", "999.90": "999.90", "E849.0": "E849.0", "007.0": "007.0"}  # fmt: skip
    pairs = pl.DataFrame({"code_system": "ICD9CM", "code": list(codes)})
    assert dict(normal_codes(pairs).select("code", "normal").rows()) == codes
    german = pl.DataFrame({"code_system": ["ICD10GM", "MIMIC_ITEM", None], "code": ["I10.0", "496.0", "496.0"]})
    assert normal_codes(german)["normal"].to_list() == ["I10.0", "496.0", None]


def test_names_of_systems_in_any_spelling():
    names = {"icd9cm": "ICD9CM", "ICD-9-CM": "ICD9CM", "ICD9": "ICD9CM", "icd_10_cm": "ICD10CM", "ICD10": "ICD10",
             "ICD-10-GM": "ICD10GM", "KCD7": "KCD7", "RXNORM": "RxNorm", "RxNorm Extension": "RxNorm_Extension",
             "SNOMED CT": "SNOMED", "ICD10PCS": "ICD10PCS", "name": "name", "SMITH": None, "ICD11": None,
             "SOURCE": None, "": None}  # fmt: skip
    assert dict(zip(names, applied(system_name, list(names)), strict=True)) == names
    assert applied(system_name, [None]) == [None]


def test_procedures_of_icd_9_have_their_dot():
    """39.95 is haemodialysis; MIMIC and MEDS write 3995, and the system ICD9PCS."""
    frame = pl.DataFrame({"code": ["3995", "39.95", "395", "9", "39.9", "5A1D"]})
    found = frame.select(normal_form(pl.lit("ICD9Proc"), pl.col("code"))).to_series()
    assert found.to_list() == ["39.95", "39.95", "39.5", "9", "39.9", "5A1D"]
    assert frame[:1].select(system_name(pl.lit("ICD9PCS"))).item() == "ICD9Proc"
