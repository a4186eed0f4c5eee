"""What OMOP tables leave open."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from medbert_jax.ehr.codes import CODE_SYSTEMS, system_name
from medbert_jax.ehr.icd import ICD10_SYSTEMS
from medbert_jax.ingest.linking import Unlinked
from medbert_jax.ingest.reader import SourceOptions

ICD = f"^(?:ICD9CM|{ICD10_SYSTEMS})$"
"""Vocabularies of ICD codes of diagnoses."""


@dataclass(frozen=True)
class OmopOptions(SourceOptions):
    """How conditions are read where the tables leave a choice."""

    source_value_system: str = ""
    """Code system of condition_source_value (ICD10CM, ICD10GM, KCD7, …; LOCAL for codes of the site's own), used for
    rows without an ICD source concept, before the standard concept, where the text looks like a code of it. Empty: only
    texts that name their system ("ICD10CM:E11.9") are used; rows with other texts that look like a code, and without a
    concept, leave under unnamed_system."""
    unlinked: Unlinked = "by_date"
    """Conditions without visit_occurrence_id, or with one that no visit has: given to the patient's visit of their day;
    where there is none, to a visit made of that day; or left out (and counted)."""
    us_icd: bool = False
    """Whether condition_source_value of rows without an ICD source concept is an ICD code of a US site whose version
    nobody says: read as ICD-9-CM or ICD-10-CM, before the standard concept, by its shape and, where both have such a
    code (V27.0), by the visit's end or condition_start_date, which must then be of a real calendar. Not together with
    source_value_system."""
    icd_from_snomed: str = ""
    """ICD (ICD10CM, ICD9CM, ICD10GM, …) that diagnoses get in place of their SNOMED code where concept_relationship
    maps one code of that ICD to it ("Maps to"), or several that all fall under one of them. Where the codes part, and
    where an ICD code maps to more than the one SNOMED code, the diagnosis stays as it is. Empty: all stay."""

    def __post_init__(self):
        """Check every field, all faults in one error; and write the code system as the tables do."""
        super().__post_init__()
        for name in ("source_value_system", "icd_from_snomed"):
            object.__setattr__(self, name, self._system(name) or "")

    def _system(self, name: str) -> str | None:
        return pl.select(system_name(pl.lit(getattr(self, name)))).item()

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.us_icd and self.source_value_system:
            yield (
                "condition_source_value is of one system, or of a US version that its shape and day tell: got "
                f"source_value_system {self.source_value_system} and us_icd; leave one of them"
            )
        if self.icd_from_snomed and not re.match(ICD, self._system("icd_from_snomed") or ""):
            yield (
                f"icd_from_snomed must be an ICD of diagnoses: got {self.icd_from_snomed}; use ICD10CM, ICD9CM, ICD10, "
                "or that of a country (ICD10GM)"
            )
        if self.source_value_system and not self._system("source_value_system"):
            known = ", ".join(("ICD10", "ICD10CM", "ICD10GM (and other countries)", "CIM10", "KCD8", *CODE_SYSTEMS))
            yield (
                f"source_value_system must be a code system that is known: got {self.source_value_system}; "
                f"use LOCAL for codes of the site's own, or one of {known}"
            )
