"""Groups of ICD codes, on codes whose chapter and clinical group are in the books."""

import pytest

from medbert_jax.ehr.icd_groups import categories, chapters, clinical_groups


@pytest.mark.parametrize(
    ("code", "category", "chapter", "clinical"),
    [
        (
            "ICD10CM/E11.9",
            "ICD10CM/E11",
            "ICD10CM/E00-E89 | Endocrine, nutritional and metabolic diseases",
            "ICD10CM/END002",
        ),
        ("ICD10CM/I50.9", "ICD10CM/I50", "ICD10CM/I00-I99 | Diseases of the circulatory system", "ICD10CM/CIR019"),
        ("ICD9CM/250.00", "ICD9CM/250", "ICD9CM/3", "ICD9CM/49"),
        ("ICD9CM/428.0", "ICD9CM/428", "ICD9CM/7", "ICD9CM/108"),
        ("ICD9CM/E849.0", "ICD9CM/E849", "ICD9CM/19", "ICD9CM/2621"),
        ("SNOMED/44054006", "", "", ""),
        ("ICD10GM/E11.90", "ICD10GM/E11", "", ""),
        ("ICD9CM/nonsense", "", "", ""),
    ],
)
def test_a_code_is_in_its_groups(code, category, chapter, clinical):
    assert (categories([code]), chapters([code]), clinical_groups([code])) == ([category], [chapter], [clinical])
