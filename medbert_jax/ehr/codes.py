"""Diagnosis codes: normal forms of ICD-9-CM, ICD-10-CM and other countries' ICD-10, and matching by prefix.

A code's full name is its system and its normal form, "ICD10CM/E11.9": upper case, dot after the category.
"""

import re
from collections.abc import Iterable

import polars as pl

from medbert_jax.ehr.icd import ICD10_SYSTEMS, titles

_SHAPES = {
    # A category 000 there is none, in any release: it is what stands for no code.
    "ICD9CM": re.compile(r"(0(?:0[1-9]|[1-9]\d)|[1-9]\d\d|V\d{2}|E\d{3})(\.\d{1,2})?"),
    "ICD10CM": re.compile(r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?"),
}
EITHER = "ICD-9-CM or ICD-10-CM"
"""In place of a code system where nothing decides between the two."""
SOURCE = "SOURCE"
"""In place of a code system: a source's own text, of which nobody says what it is a code of."""
CODE_SYSTEMS = (
    "ICD9CM", "ICD9Proc", "ICD9ProcCN", "ICD10PCS", "ICDO3", "SNOMED", "RxNorm", "RxNorm_Extension", "NDC",
    "ATC", "LOINC", "CPT4", "HCPCS", "CVX", "Read", "CTV3", "OXMIS", "ICPC", "ICPC2", "OPCS4", "OPS", "CCAM", "OPCS",
    "MedDRA", "MeSH", "Nebraska_Lexicon", "Cancer_Modifier", "HemOnc", "OMOP_Extension", "OMOP_Genomic", "dm+d", "AMT",
    "GGR", "DPD", "BDPM", "JMDC", "GPI", "Multum", "VANDF", "NDFRT", "SPL", "UCUM", "EDI", "KDC", "MDC", "DRG",
    "MIMIC_ITEM", "name", "LOCAL",
)  # fmt: skip
"""Names of code systems in EHR tables, beside the ICD-10 of WHO and of countries (`icd.ICD10_SYSTEMS`)."""
_SPELLINGS = {re.sub(r"[\s_.-]", "", name).upper(): name for name in CODE_SYSTEMS} | {
    "ICD9": "ICD9CM", "ICD9PCS": "ICD9Proc", "SNOMEDCT": "SNOMED", "CPT": "CPT4", "READV2": "Read",
}  # fmt: skip
_NUMBERED = ["SNOMED", "RxNorm"]
_COUNTRY_SHAPE = re.compile(r"[A-Z]\d\d(\.[0-9A-Z]{1,8})?(\+\d{1,2})?")
# As written, lost zeros aside: ICD-9 has V01–V91, E000–E030 and E800–E999; ICD-10-CM has no category E90 or above.
_ICD9_LETTERS = (
    r"^(?:V(?:0[1-9]|[1-8]\d|9[01])(?:\.?\d{1,2})?|V[1-9](?:\.\d{1,2})?|E(?:0[0-2]\d|030|[89]\d\d)(?:\.?\d)?)$"
)


def normalise_icd9(code: pl.Expr) -> pl.Expr:
    """ICD-9-CM diagnosis codes in normal form: 250.01, 041.1, V45.81, E849.0; null for any other text.

    Blanks go, letters become capitals, the dot is put where it is missing. Zeros that a spreadsheet ate are put back:
    "8" → 008, "41" → 041, "41.1" → 041.1, "V1" → V01; E codes never lose one (a cell with an E is text), and E11.9 is
    of ICD-10. Four or five digits without a dot are read as written, 4280 → 428.0, since a lost zero cannot be seen
    there. Decimals stay as they are: 250.6 is not 250.60. Procedure codes have another shape (two digits before the
    dot) and must not be passed.
    """
    text = code.cast(pl.String).str.to_uppercase().str.replace_all(r"\s+", "")
    letter = text.str.extract(r"^([VE]?)\d")
    rest = text.str.extract(r"^[VE]?([\d.]+)$")
    width = pl.when(letter == "V").then(2).otherwise(3)
    digits = rest.str.extract(r"^(\d+)\.?$")
    whole = pl.coalesce(rest.str.extract(r"^(\d+)\.\d+$"), digits.str.slice(0, width))
    decimals = pl.coalesce(rest.str.extract(r"^\d+\.(\d+)$"), digits.str.slice(width))
    whole = pl.when(letter == "E").then(whole).otherwise(whole.str.zfill(width))
    normal = letter + whole + pl.when(decimals.str.len_bytes() > 0).then("." + decimals).otherwise(pl.lit(""))
    return pl.when(normal.str.contains(rf"^(?:{_SHAPES['ICD9CM'].pattern})$")).then(normal)


def normalise_icd10(code: pl.Expr) -> pl.Expr:
    """ICD-10-CM codes in normal form: E11.9, I50, T36.0X1A; null where the text is no such code.

    Blanks go, letters become capitals, a missing dot is put in; with a dot in another place it is no code.
    """
    text = code.cast(pl.String).str.to_uppercase().str.replace_all(r"\s+", "").str.strip_suffix(".")
    dotted = text.str.replace(r"^([A-Z]\d[0-9A-Z])([0-9A-Z]+)$", "${1}.${2}")
    return pl.when(dotted.str.contains(rf"^(?:{_SHAPES['ICD10CM'].pattern})$")).then(dotted)


def normalise_country_icd10(code: pl.Expr) -> pl.Expr:
    """ICD-10 codes of WHO and of countries other than the US in normal form; null where it is no such code.

    Blanks go, letters become capitals, the dot stands after three characters; what follows is not checked,
    since every country subdivides in its own way: letters in Sweden (E11.3D), up to seven signs in China
    (E11.900X001), an extension after a plus in France (Z51.5+1). Three marks say something else than the
    disease and go: dagger (+ or †) and asterisk of WHO's double coding tell cause from manifestation, Germany's
    exclamation mark a code that never stands alone, and a hyphen, or the X with which England fills up to four
    characters, that there is no further digit (E11.- and I10X are E11 and I10). Letters behind a German code
    stay, since A says that the disease was ruled out; two codes in one cell (E11.2+N08.3*) are none.
    """
    text = code.cast(pl.String).str.to_uppercase().str.replace_all(r"\s+", "").str.strip_chars_end("†+*!-–.")
    text = text.str.replace(r"^([A-Z]\d\d)\.?X$", "${1}").str.replace(".+", "+", literal=True)
    dotted = text.str.replace(r"^([A-Z]\d\d)([0-9A-Z])", "${1}.${2}")
    return pl.when(dotted.str.contains(rf"^(?:{_COUNTRY_SHAPE.pattern})$")).then(dotted)


def normal_form(code_system: pl.Expr, code: pl.Expr) -> pl.Expr:
    """Codes in the normal form of their system; null where the text is no code of it or the system is null.

    ICD9CM and ICD10CM are checked; ICD10, CIM10, KCD7 and ICD10 with a country's two letters (ICD10GM,
    ICD10CN, …) take the looser form of `normalise_country_icd10`. ICD9Proc gets its dot after two digits. Zeros that a
    spreadsheet ate are put back where one reading is left: codes of ICD10PCS have 7 characters, of CPT4 5, and a dot of
    ICD9Proc stands after two digits. Codes of SNOMED and RxNorm are whole numbers: 44054006.0 was 44054006, and 4.4E+07
    may have been many. In all other systems (SNOMED, RxNorm, …) the text stays, without blanks at its
    ends. Costs tens of patterns a row: on large tables apply it to the distinct pairs and join.
    """
    text = code.cast(pl.String).str.strip_chars().str.replace_all(r"\s+", " ")
    return (
        pl.when(code_system == "ICD9CM")
        .then(normalise_icd9(code))
        .when(code_system == "ICD10CM")
        .then(normalise_icd10(code))
        .when(code_system.str.contains(f"^{ICD10_SYSTEMS}$"))
        .then(normalise_country_icd10(code))
        .when((code_system == "ICD9Proc") & text.str.contains(r"^\d{3,4}$"))
        .then(text.str.replace(r"^(\d\d)(\d+)$", "${1}.${2}"))
        .when((code_system == "ICD9Proc") & text.str.contains(r"^\d\.\d{1,2}$"))
        .then("0" + text)
        .when((code_system == "ICD10PCS") & text.str.contains(r"^\d{5,6}$"))  # shorter ones are categories
        .then(text.str.zfill(7))
        .when((code_system == "CPT4") & text.str.contains(r"^\d{3,4}$"))  # 00100 is the first
        .then(text.str.zfill(5))
        .when(code_system.is_in(_NUMBERED) & text.str.contains(r"^\d+(?:\.\d+)?(?:[eE]\+?\d+)?$"))
        .then(text.str.extract(r"^(\d+)(?:\.0+)?$"))
        .when(code_system.is_not_null() & (text != ""))
        .then(text)
    )


def normal_codes(pairs: pl.DataFrame) -> pl.DataFrame:
    """Distinct code_system and code, with `normal`: their `normal_form`, null too for ICD-9-CM codes made of numbers.

    Where a program read 496 as the number 496.0, there is no such code, and 496 may have been 496 or no code at all: a
    ".0" that ICD-9-CM does not know stays unread where it knows what stands before it.
    """
    pairs = pairs.with_columns(normal=normal_form(pl.col("code_system"), pl.col("code")))
    of_nine = (pl.col("code_system") == "ICD9CM") & pl.col("normal").str.ends_with(".0")
    zeros = pairs.filter(of_nine)["normal"].unique().to_list()
    known = (titles([f"ICD9CM/{code.removesuffix(end)}" for code in zeros]) for end in ("", ".0"))
    made = [code for code, title, above in zip(zeros, *known, strict=True) if above and not title]
    return pairs.with_columns(normal=pl.when(~(of_nine & pl.col("normal").is_in(made))).then("normal"))


def system_name(written: pl.Expr) -> pl.Expr:
    """The name in EHR tables of a code system in any spelling ("icd-10-cm" → ICD10CM); null where it is not known."""
    squeezed = written.str.to_uppercase().str.replace_all(r"[\s_.-]+", "")
    of_country = squeezed.str.contains(f"^{ICD10_SYSTEMS}$")
    known = squeezed.replace_strict(_SPELLINGS, default=None, return_dtype=pl.String)
    return pl.when(of_country).then(squeezed).otherwise(known)


def guess_icd_version(codes: pl.Expr, days: pl.Expr | None = None) -> pl.Expr:
    """ICD9CM, ICD10CM or EITHER, for codes of a US site as written; null for text that is a code of neither.

    The shape decides where only one version has such a code: "428.0", "E849.0" and "V1" are ICD-9-CM, "E11.9",
    "I50" and "V27.01XA" ICD-10-CM. Codes of both, "V27.0" or without the dot "E849" (place of the accident, or
    cystic fibrosis), are decided by their day if given: ICD-10-CM from 2015-10-01, its first day in the US, and EITHER
    without a day, or with one after 2100, in a calendar that is shifted. Give the day of discharge or service.
    """
    text = codes.cast(pl.String).str.to_uppercase().str.replace_all(r"\s+", "").str.strip_suffix(".")
    nine = normalise_icd9(codes).is_not_null() & text.str.contains(rf"^\d|{_ICD9_LETTERS}")
    ten = normalise_icd10(codes).is_not_null() & ~text.str.starts_with("E9")
    day = pl.lit(None, pl.Date) if days is None else days.cast(pl.Date)
    is_nine = ~ten | (day < pl.date(2015, 10, 1)).fill_null(False)
    is_ten = ~nine | day.is_between(pl.date(2015, 10, 1), pl.date(2099, 12, 31)).fill_null(False)
    version = pl.when(nine & is_nine).then(pl.lit("ICD9CM")).when(ten & is_ten).then(pl.lit("ICD10CM"))
    return version.when(nine & ten).then(pl.lit(EITHER)).otherwise(None)


def prefix_expression(codes: pl.Expr, prefixes: Iterable[str]) -> pl.Expr:
    """Whether a code is one of the prefixes or falls under one; false for null.

    "ICD9CM/428" takes 428, 428.0 and 428.21, never a neighbour that only begins alike; "ICD9CM/250.1" takes
    250.1 and 250.13; "ICD10CM/I50" takes I50 and I50.9, and so in the ICD-10 of other countries. In systems other
    than ICD nothing falls under a code but itself.

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
        shape = _SHAPES.get(system) or (_COUNTRY_SHAPE if re.fullmatch(ICD10_SYSTEMS, system) else None)
        if not (system and local) or (shape and not shape.fullmatch(local)):
            wrong.append(prefix)
        under = "" if not shape else ".*" if "." in local else r"(?:[.+].*)?"
        alternatives.append(re.escape(prefix) + under)
    if wrong:
        raise ValueError(
            f'a code prefix is "system/code" in normal form, a category or longer: got {", ".join(wrong)}; '
            'write for instance "ICD9CM/428", "ICD9CM/250.1" or "ICD10CM/I50"'
        )
    if not alternatives:
        return codes.is_null() & False
    return codes.str.contains(f"^(?:{'|'.join(alternatives)})$").fill_null(False)
