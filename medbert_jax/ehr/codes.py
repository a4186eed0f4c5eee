"""Diagnosis codes: normal forms of ICD-9-CM and ICD-10-CM, and matching by prefix.

A code's full name is its system and its normal form, "ICD10CM/E11.9": upper case, dot after the category.
"""

import re
from collections.abc import Iterable

import polars as pl

_SHAPES = {
    "ICD9CM": re.compile(r"(\d{3}|V\d{2}|E\d{3})(\.\d{1,2})?"),
    "ICD10CM": re.compile(r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?"),
}


def normalise_icd9(code: pl.Expr) -> pl.Expr:
    """ICD-9-CM diagnosis codes in normal form: 250.01, 041.1, V45.81, E849.0; null for any other text.

    Blanks go, letters become capitals, the dot is put where it is missing. Zeros that a spreadsheet ate are
    put back: "8" → 008, "41" → 041, "41.1" → 041.1, "V1" → V01. Four or five digits without a dot are read as
    written, 4280 → 428.0, since a lost zero cannot be seen there. Decimals stay as they are: 250.6 is not
    250.60. Procedure codes have another shape (two digits before the dot) and must not be passed.
    """
    text = code.cast(pl.String).str.to_uppercase().str.replace_all(r"\s+", "")
    letter = text.str.extract(r"^([VE]?)\d")
    rest = text.str.extract(r"^[VE]?([\d.]+)$")
    width = pl.when(letter == "V").then(2).otherwise(3)
    digits = rest.str.extract(r"^(\d+)\.?$")
    whole = pl.coalesce(rest.str.extract(r"^(\d+)\.\d+$"), digits.str.slice(0, width))
    decimals = pl.coalesce(rest.str.extract(r"^\d+\.(\d+)$"), digits.str.slice(width))
    whole = whole.str.zfill(width)
    normal = letter + whole + pl.when(decimals.str.len_bytes() > 0).then("." + decimals).otherwise(pl.lit(""))
    return pl.when(normal.str.contains(rf"^(?:{_SHAPES['ICD9CM'].pattern})$")).then(normal)


def normalise_icd10(code: pl.Expr) -> pl.Expr:
    """ICD-10-CM codes in normal form: E11.9, I50, T36.0X1A; null where the text is no such code.

    Blanks go, letters become capitals, a missing dot is put in; with a dot in another place it is no code.
    """
    text = code.cast(pl.String).str.to_uppercase().str.replace_all(r"\s+", "").str.strip_suffix(".")
    dotted = text.str.replace(r"^([A-Z]\d[0-9A-Z])([0-9A-Z]+)$", "${1}.${2}")
    return pl.when(dotted.str.contains(rf"^(?:{_SHAPES['ICD10CM'].pattern})$")).then(dotted)


def prefix_expression(codes: pl.Expr, prefixes: Iterable[str]) -> pl.Expr:
    """Whether a code is one of the prefixes or falls under one; false for null.

    "ICD9CM/428" takes 428, 428.0 and 428.21, never a neighbour that only begins alike; "ICD9CM/250.1" takes
    250.1 and 250.13; "ICD10CM/I50" takes I50 and I50.9. In systems other than ICD nothing falls under a code
    but itself.

    Args:
        codes: full names ("ICD9CM/428.0"), in normal form.
        prefixes: full names of codes or categories.

    Raises:
        ValueError: prefixes that are not "system/code", or whose ICD part is shorter than a category or not
            in normal form, all listed: they would silently match nothing.
    """
    alternatives, wrong = [], []
    for prefix in prefixes:
        system, _, local = prefix.partition("/")
        if not (system and local) or (system in _SHAPES and not _SHAPES[system].fullmatch(local)):
            wrong.append(prefix)
        under = "" if system not in _SHAPES else ".*" if "." in local else r"(?:\..*)?"
        alternatives.append(re.escape(prefix) + under)
    if wrong:
        raise ValueError(
            f'a code prefix is "system/code" in normal form, a category or longer: got {", ".join(wrong)}; '
            'write for instance "ICD9CM/428", "ICD9CM/250.1" or "ICD10CM/I50"'
        )
    if not alternatives:
        return codes.is_null() & False
    return codes.str.contains(f"^(?:{'|'.join(alternatives)})$").fill_null(False)
