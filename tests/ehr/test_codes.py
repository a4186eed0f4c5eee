import polars as pl
import pytest

from medbert_jax.ehr.codes import normalise_icd9, normalise_icd10, prefix_expression


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
    "I50.9": None,
    "42x": None,
    "-12": None,
    "V": None,
    ".5": None,
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
    "?": None,
    "": None,
    None: None,
}


def test_icd9_normal_forms():
    assert dict(zip(ICD9, applied(normalise_icd9, list(ICD9)), strict=True)) == ICD9


def test_icd10_normal_forms():
    assert dict(zip(ICD10, applied(normalise_icd10, list(ICD10)), strict=True)) == ICD10


def test_normal_forms_stay():
    for function, table in ((normalise_icd9, ICD9), (normalise_icd10, ICD10)):
        normal = [code for code in table.values() if code]
        assert applied(function, normal) == normal


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
