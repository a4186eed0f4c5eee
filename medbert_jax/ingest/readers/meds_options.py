"""What MEDS leaves to the dataset: the meaning of codes, and what a visit is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import polars as pl

from medbert_jax.ingest.reader import SourceOptions

CODE_TABLES = ("diagnoses", "medications", "measurements", "procedures")


@dataclass(frozen=True)
class MedsOptions(SourceOptions):
    """What MEDS leaves to the dataset. Regular expressions are Rust's: no look-around."""

    visits: Literal["auto", "column", "events", "day"] = "auto"
    """Which codes are one visit: those with one visit_id, hadm_id or encounter_id; those between events of admission
    and discharge; those of a calendar day; auto tries the first two for each code."""
    outside: Literal["day", "none"] = "day"
    """What becomes of a diagnosis outside all visits: one visit per calendar day, or no visit (it leaves, counted)."""
    splits: Literal["auto", "table", "folders", "none"] = "auto"
    """Which splits of the source count: those of metadata/subject_splits.parquet (table), of the folders data/train,
    data/tuning, data/held_out, of both, which must then say the same (auto), or none: patients are drawn anew."""
    birth_year_only: bool = False
    """Whether the day of birth is right to the year only (made from MIMIC-IV it is on 1 January)."""
    birth_codes: tuple[str, ...] = ()
    """Further codes whose time is that of birth, as they are written (DX//BORN), beside MEDS_BIRTH, BIRTH, DOB,
    DATE_OF_BIRTH, SNOMED/3950001, SNOMED/184099003 and LOINC/21112-8; in any case, with any number of slashes."""
    death_codes: tuple[str, ...] = ()
    """Likewise of death, beside MEDS_DEATH, DEATH, DOD, DATE_OF_DEATH, SNOMED/419620001, SNOMED/419099009,
    SNOMED/399753006, LOINC/81954-0 and LOINC/81956-5."""
    parent_codes: bool = True
    """Whether codes that no pattern knows, or that are of the site alone (MIMIC_ITEM, name, LOCAL), become what
    parent_codes of metadata/codes.parquet says they are, where it says one thing."""
    us_icd: bool = False
    """Whether ICD codes that do not say their version (ICD/250.00, DIAGNOSIS//ICD//25000, or of system ICD by
    `patterns`) are those of a US site: read as ICD-9-CM or ICD-10-CM, by their shape and, where both have such a code
    (V27.0), by the day of discharge or of the code, which must then be of a real calendar. Else no pattern knows
    them."""
    admissions: tuple[tuple[str, str], ...] = (
        (r"(?i)^VISIT/+(?:IP|ERIP|INPATIENT|9201|262)\b", "inpatient"),
        (r"(?i)^VISIT/+(?:ER|ED|EMERGENCY|9203)\b", "emergency"),
        (r"(?i)^VISIT/+(?:OP|OUTPATIENT|9202)\b", "outpatient"),
        (r"(?i)^VISIT(?:/|$)", ""),
        (r"(?i)^(?:HOSPITAL_|MIMIC_IV_)?ADMISSION/+(?:EU|AMBULATORY|DIRECT) OBSERVATION", "other"),
        (r"(?i)^(?:HOSPITAL_|MIMIC_IV_)?ADMISSION(?:/|$)", "inpatient"),
    )
    """Codes with which a visit begins, and its type (inpatient, outpatient, emergency, other; "" unknown); the first
    match counts."""
    discharges: tuple[str, ...] = (
        r"(?i)^(?:HOSPITAL_)?DISCHARGE(?:/+(?P<code>.+))?$",
        r"^MIMIC_IV_Discharge_Location/(?P<code>.+)$",
    )
    """Codes with which a visit ends; the group `code` names where the patient went."""
    patterns: tuple[tuple[str, str, str], ...] = (
        (r"(?i)^(?P<system>ICD9(?:CM)?|ICD10(?:[A-Z]{2})?|CIM10|KCD\d*)/+(?P<code>.+)$", "diagnoses", ""),
        (r"(?i)^DIAGNOSIS//ICD//9//(?P<code>.+)$", "diagnoses", "ICD9CM"),
        (r"(?i)^DIAGNOSIS//ICD//10//(?P<code>.+)$", "diagnoses", "ICD10CM"),
        (r"(?i)^SNOMED(?:CT)?/+(?P<code>.+)$", "diagnoses", "SNOMED"),
        (r"(?i)^(?P<system>RxNorm(?: Extension)?|NDC|ATC)/+(?P<code>.+)$", "medications", ""),
        (r"(?i)^MEDICATION//START//(?P<code>.+)$", "medications", "name"),
        (r"(?i)^MEDICATION//(?P<code>.+)//Administered$", "medications", "name"),
        (r"(?i)^MIMIC_IV_Drug/(?P<code>.+)$", "medications", "name"),
        (r"(?i)^LOINC/+(?P<code>.+)$", "measurements", "LOINC"),
        (r"(?i)^LAB//(?:RESULT//)?(?P<code>\d+)//(?P<unit>.+)$", "measurements", "MIMIC_ITEM"),
        (r"(?i)^MIMIC_IV_(?:LAB)?ITEM/(?P<code>\d+)", "measurements", "MIMIC_ITEM"),
        (r"(?i)^(?P<system>ICD10PCS|CPT4|HCPCS)/+(?P<code>.+)$", "procedures", ""),
        (r"(?i)^ICD9(?:Proc|PCS)/+(?P<code>.+)$", "procedures", "ICD9Proc"),
        (r"(?i)^PROCEDURE//ICD//9//(?P<code>.+)$", "procedures", "ICD9Proc"),
        (r"(?i)^PROCEDURE//ICD//10//(?P<code>.+)$", "procedures", "ICD10PCS"),
    )
    """What codes mean, first match first: expression with a group `code` (and maybe `unit`, `system`), table, code
    system ("" where the group `system` gives it)."""

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        rule, example = "(expression, table, code system)", '("^DX:(?P<code>.+)$", "diagnoses", "ICD10CM")'
        for one in self._pattern_faults():
            yield f"patterns of MEDS codes must be {rule}: got {one}; write for instance {example}"

    def _pattern_faults(self) -> Iterator[str]:
        for regex in (*self.discharges, *(pattern[0] for pattern in (*self.admissions, *self.patterns))):
            try:
                pl.Series([""]).str.contains(regex)
            except pl.exceptions.ComputeError:
                yield f'"{regex}" is no regular expression'
        for regex, table, system in self.patterns:
            if table not in CODE_TABLES:
                yield f'"{regex}" goes to "{table}", which is none of {", ".join(CODE_TABLES)}'
            if "code" not in groups_of(regex) or not (system or "system" in groups_of(regex)):
                yield f'"{regex}" lacks a group (?P<code>…), or says no code system'


def groups_of(regex: str) -> list[str]:
    """The names of an expression's groups."""
    return re.findall(r"\(\?P?<(\w+)>", regex)
