"""What the codes of a MEDS folder mean: by patterns, and by metadata/codes.parquet where no pattern knows them."""

import re
from dataclasses import replace

import polars as pl

from medbert_jax.ehr.codes import normal_form, system_name
from medbert_jax.ingest.reader import text
from medbert_jax.ingest.readers.meds_options import CODE_TABLES, MedsOptions, groups_of

_MOMENTS = {
    "birth": ("BIRTH", "DOB", "DATE_OF_BIRTH", "SNOMED/3950001", "SNOMED/184099003", "LOINC/21112-8"),
    "death": ("DEATH", "DOD", "DATE_OF_DEATH", "SNOMED/419620001", "SNOMED/419099009", "SNOMED/399753006",
              "LOINC/81954-0", "LOINC/81956-5"),
}  # fmt: skip
"""Codes, beside MEDS_BIRTH and MEDS_DEATH, whose time is that of birth or death."""
_SEX_AND_RACE = (
    (r"(?i)^(?:MIMIC_IV_)?(?:GENDER|SEX)/+(?P<code>.+)$", "sex", ""),
    (r"(?i)^(?:MIMIC_IV_)?RACE/+(?P<code>.+)$", "race", ""),
)
_VERSIONLESS = (r"(?i)^(?:DIAGNOSIS/+)?ICD/+(?P<code>[^/]+)$", "diagnoses", "ICD")
_OWN_SYSTEMS = ("MIMIC_ITEM", "name", "LOCAL")
"""Of one site: nobody else knows their codes, so that a parent takes their place."""


def described_codes(table: pl.DataFrame | None) -> pl.DataFrame | None:
    """metadata/codes.parquet as code, description and parent, a row for each parent of a code; None stays None."""
    if table is None:
        return None
    if table.schema["parent_codes"].is_nested():
        parents = pl.col("parent_codes")  # an empty list stands for no parent, and not for no code
        table = table.with_columns(pl.when(parents.list.len() > 0).then(parents)).explode("parent_codes")
    columns = {"code": "code", "description": "description", "parent": "parent_codes"}
    return table.select(text(table[column]).alias(name) for name, column in columns.items()).unique().sort(pl.all())


def meanings(codes: pl.Series, described: pl.DataFrame | None, options: MedsOptions) -> pl.DataFrame:
    """Every different code once: what it means.

    Columns: code; role, one of `CODE_TABLES` or birth, death, sex, race, admission, discharge, null where nobody knows
    the code; system (of an admission: the type of visit); value; unit_in_code; by_standard, whether a birth or death
    is MEDS's own code; parents, how many meanings its parent_codes have where they were asked (1: it has that meaning
    now, more: it keeps its own). `described` is of `described_codes`.
    """
    if options.us_icd:
        options = replace(options, patterns=(*options.patterns, _VERSIONLESS))
    own = _by_patterns(codes.drop_nulls().unique(), options)
    if described is None or not options.parent_codes:
        return own.with_columns(parents=pl.lit(0, pl.UInt32))
    found = _of_parents(own, described, options)
    rows = own.join(found, on="code", how="left", suffix="_of_parent").with_columns(pl.col("parents").fill_null(0))
    taken = pl.col("parents") == 1
    return rows.select(
        "code",
        *(pl.when(taken).then(f"{name}_of_parent").otherwise(name).alias(name) for name in ("role", "system", "value")),
        "unit_in_code",
        pl.when(taken).then("by_standard_of_parent").otherwise("by_standard").alias("by_standard"),
        "parents",
    )


def titles(rows: pl.DataFrame, described: pl.DataFrame | None) -> pl.DataFrame | None:
    """code_system, code, title: the descriptions of codes, where a code's meaning is its own and not its parent's."""
    if described is None:
        return None
    said = described.select("code", title="description").drop_nulls().unique()
    known = rows.filter(pl.col("role").is_in(CODE_TABLES) & (pl.col("parents") != 1))
    return known.join(said, on="code").select("title", code_system="system", code="value")


def _of_parents(own: pl.DataFrame, described: pl.DataFrame, options: MedsOptions) -> pl.DataFrame:
    """code, parents, and the meaning of the first of them, of codes that need one.

    SNOMED counts only where no other parent is known: it says less than the ICD code beside it.
    """
    local = pl.col("system").is_in(_OWN_SYSTEMS) & pl.col("role").is_in(CODE_TABLES)
    needy = own.filter(pl.col("role").is_null() | local).select("code", own_role="role")
    named = described.select("code", "parent").drop_nulls().join(needy, on="code").unique()
    found = _by_patterns(named["parent"].unique(), options).rename({"code": "parent"}).drop_nulls("role")
    found = found.with_columns(normal=pl.coalesce(normal_form(pl.col("system"), pl.col("value")), "value"))
    named = named.join(found, on="parent").filter((pl.col("role") == pl.col("own_role")).fill_null(True))
    snomed = (pl.col("system") == "SNOMED").fill_null(False)
    named = named.filter(~snomed | snomed.all().over("code")).sort("code", "parent")
    meaning = ("role", "system", "value", "by_standard")
    return named.group_by("code", maintain_order=True).agg(
        pl.col(meaning).first(), parents=pl.struct("role", "system", "normal").n_unique()
    )


def _by_patterns(codes: pl.Series, options: MedsOptions) -> pl.DataFrame:
    patterns = (
        (_moment("birth", options.birth_codes), "birth", ""),
        (_moment("death", options.death_codes), "death", ""),
        *_SEX_AND_RACE,
        *((regex, "admission", kind) for regex, kind in options.admissions),
        *((regex, "discharge", "") for regex in options.discharges),
        *options.patterns,
    )
    code, absent, found = pl.col("code"), pl.lit(None, pl.String), []
    for regex, role, system in patterns:
        names, parts = groups_of(regex), code.str.extract_groups(regex).struct
        groups = {name: parts.field(name) if name in names else absent for name in ("code", "unit", "system")}
        meaning = pl.struct(
            role=pl.lit(role),
            system=pl.coalesce(groups["system"], pl.lit(system or None, pl.String)),
            value=groups["code"].str.strip_chars(),
            unit_in_code=groups["unit"],
        )
        found.append(pl.when(code.str.contains(regex)).then(meaning))
    rows = codes.to_frame("code").select("code", pl.coalesce(found).alias("meaning")).unnest("meaning")
    of_code = pl.when(pl.col("role").is_in(CODE_TABLES)).then(system_name(pl.col("system")))
    return rows.with_columns(
        system=pl.coalesce(of_code, "system"), by_standard=pl.col("code").str.contains(r"(?i)^MEDS_")
    )


def _moment(role: str, further: tuple[str, ...]) -> str:
    """An expression for all codes of birth or death, in any case and with any number of slashes.

    MEDS's own may say more after a slash (MEDS_DEATH//cause).
    """
    codes = [re.sub("/+", "/+", re.escape(code)) for code in (*_MOMENTS[role], *further)]
    codes = [re.sub("^SNOMED/", "SNOMED(?:CT)?/", code) for code in codes]
    return rf"(?i)^(?:MEDS_{role}(?:/.*)?|{'|'.join(codes)})$"
