"""The code of a row of OMOP: of its source concept, its source value, or its standard concept."""

import functools
from collections import Counter
from collections.abc import Iterator

import polars as pl

from medbert_jax.ehr.codes import EITHER, SOURCE, guess_icd_version, system_name
from medbert_jax.ehr.icd import billable_icd9
from medbert_jax.ingest.distinct import by_distinct
from medbert_jax.ingest.reader import text, whole
from medbert_jax.ingest.readers.omop_concepts import look_up
from medbert_jax.ingest.readers.omop_options import ICD, OmopOptions

_MARKED = "[A-Za-z0-9.+*!†–-]"  # with the marks that countries put behind their ICD-10
_NAMED_SYSTEM = (
    r"(?i)^(ICD-?9(?:-?CM)?|ICD-?10(?:-?[A-Z]{2})?|CIM-?10|KCD-?\d|SNOMED(?:-?CT)?)(?:\s*[:/|_^]+\s*|\s+)"
    + f"({_MARKED}{{1,20}})$"
)
_SNOMED = r"^\d{6,18}$"
# E11.9, E119, I10, V45.81, E849.0, 428.0; of digits alone only what ICD-9-CM has.
_ICD_SHAPE = r"(?i)^(?:[A-Z]\d[0-9A-Z](?:\.?[0-9A-Z]{1,4})?|E\d{3}\.\d|\d{3}\.\d{1,2})$"
_UNREAD, _UNREAD_ICD = "source values without an ICD concept", "source values without an ICD concept that look like ICD"
# A word of a code's signs and length with a digit in it. All other text may say anything about anyone: never a code.
_CODE_SIGNS, _DIGIT = r"^[A-Za-z0-9.-]{1,20}$", r"\d"
# Days, telephone numbers, numbers of persons: what looks like them is no code of a system whose codes have no shape.
_NUMBERS = r"^\d+(?:[.-]\d+){2,}$|^\d{3}-\d{4}$|^(?:19|20)\d{6}$|^\d{9,}$"


def codes_of(
    table: pl.DataFrame, kind: str, concepts: pl.DataFrame, value_system: str = "", days: pl.Series | None = None
) -> dict[str, pl.Series]:
    """code_system and code of each row; null where there is neither a concept nor a text that looks like a code.

    Texts that look like a code of nobody knows what are of the system SOURCE: they are counted, and leave.

    With `days` (of discharge or service), values are ICD codes of a US site whose version is told by shape and day.
    """
    columns = {"source": "source_concept_id", "standard": "concept_id"}
    rows = pl.DataFrame(
        {name: whole(table[f"{kind}_{column}"]) for name, column in columns.items()}
        | {"value": text(table[f"{kind}_source_value"])}
    )
    if days is not None:
        rows = rows.with_columns(days.alias("day"))
    codes = by_distinct(rows, functools.partial(_code_of_each, kind=kind, concepts=concepts, value_system=value_system))
    return dict(zip(codes.columns, codes.get_columns(), strict=True))


def _code_of_each(rows: pl.DataFrame, kind: str, concepts: pl.DataFrame, value_system: str) -> pl.DataFrame:
    """code_system and code of rows with their concepts' ids `source` and `standard`, `value` and maybe `day`."""
    frame = rows.with_columns(
        series.alias(f"{name}_{part}")
        for name in ("source", "standard")
        for part, series in zip("sc", look_up(rows[name], concepts, "system", "code"), strict=True)
    )
    value = pl.col("value")
    coded = value.str.contains(_CODE_SIGNS) & value.str.contains(_DIGIT)
    of_system = coded
    if value_system.startswith("ICD9"):
        of_system = coded & value.str.contains(r"(?i)^(?:E\d{3}|V?\d)[\d.]*$")
    elif value_system.startswith(("ICD", "CIM", "KCD")):
        of_system = value.str.contains(rf"^[A-Za-z]\d{_MARKED}{{0,18}}$")
    elif value_system:
        of_system = value.str.contains(_SNOMED) if value_system == "SNOMED" else coded & ~value.str.contains(_NUMBERS)
    its_word, its_code = system_name(value.str.extract(_NAMED_SYSTEM, 1)), value.str.extract(_NAMED_SYSTEM, 2)
    its_word = pl.when((its_word != "SNOMED") | its_code.str.contains(_SNOMED)).then(its_word)
    of_option = pl.lit(value_system or None, pl.String)
    if "day" in rows.columns:
        of_option = guess_icd_version(value, pl.col("day"))
        of_option = pl.when(of_option != EITHER).then(of_option)
    told = [
        (its_word, its_code),
        (pl.when(of_system).then(of_option), value),
    ]
    source, standard = ((pl.col(f"{name}_s"), pl.col(f"{name}_c")) for name in ("source", "standard"))
    if kind == "condition":
        icd = pl.when(source[0].str.contains(ICD)).then(source[0]), source[1]
        order = [icd, *told, standard, source]
    else:
        order = [source, *told, standard] if kind == "procedure" else [standard, source, *told]
    system, code = pl.lit(SOURCE), pl.when(coded).then(value)
    for its_system, its_code in reversed(order):
        both = its_system.is_not_null() & its_code.is_not_null()
        system, code = pl.when(both).then(its_system).otherwise(system), pl.when(both).then(its_code).otherwise(code)
    frame = frame.select(code_system=system, code=code)
    return frame.with_columns(code_system=pl.when(pl.col("code").is_not_null()).then("code_system"))


def unread_icd(table: pl.DataFrame, concepts: pl.DataFrame, options: OmopOptions) -> Counter[str]:
    """How many source values of conditions no option reads, and how many of these look like ICD."""
    if options.source_value_system or options.us_icd:
        return Counter()
    values = pl.DataFrame(
        {"value": text(table["condition_source_value"]), "concept_id": whole(table["condition_source_concept_id"])}
    )
    values = values.drop_nulls("value").group_by(pl.all()).len()
    if values.is_empty():
        return Counter()
    values = values.join(concepts.select("concept_id", "system"), on="concept_id", how="left")
    of_icd = pl.col("system").str.contains(ICD).fill_null(False)
    values = values.filter(~of_icd & ~pl.col("value").str.contains(_NAMED_SYSTEM))
    looks = pl.col("value").str.contains(_ICD_SHAPE) | pl.col("value").is_in(list(billable_icd9("ICD9CM")))
    return Counter({_UNREAD: int(values["len"].sum()), _UNREAD_ICD: int(values.filter(looks)["len"].sum())})


def check_unread(told: Counter[str], options: OmopOptions) -> Iterator[str]:
    """A line for the user where many source values, counted by `unread_icd`, look as if an option would read them."""
    # A number of a site's own is one of ICD-9-CM in about one of seven.
    if told[_UNREAD_ICD] * 5 > told[_UNREAD]:
        yield (
            f"{told[_UNREAD_ICD]:,} of {told[_UNREAD]:,} source values look like ICD; see "
            "--options.source-value-system (or --options.us-icd): without it their diagnoses have the code of the "
            "standard concept, or none."
        )


def icd_of_snomed(relations: pl.DataFrame | None, concepts: pl.DataFrame, system: str) -> pl.DataFrame:
    """SNOMED concept_id → `icd`, the one code of `system` that all which map to it fall under; null where they part."""
    if relations is None:
        return pl.DataFrame(schema={"concept_id": pl.Int64, "icd": pl.String})
    maps = pl.DataFrame(
        {
            "source": whole(relations["concept_id_1"]),
            "concept_id": whole(relations["concept_id_2"]),
            "invalid": text(relations["invalid_reason"]),
        }
    )
    maps = maps.filter(pl.col("invalid").is_null()).select("source", "concept_id").unique()
    # A code that maps to two says more than either of them.
    maps = maps.filter(pl.col("source").is_unique())
    systems = concepts.with_columns(system=system_name(pl.col("system")))
    maps = maps.join(systems.filter(system=system).select("code", source="concept_id"), on="source")
    maps = maps.join(systems.filter(system="SNOMED").select("concept_id"), on="concept_id", how="semi")
    shortest = pl.col("code").sort_by(pl.col("code").str.len_bytes(), "code").first()
    return maps.group_by("concept_id").agg(icd=pl.when(pl.col("code").str.starts_with(shortest).all()).then(shortest))


def with_icd(
    codes: pl.DataFrame, ids: pl.Series, mapped: pl.DataFrame, system: str, told: Counter[str]
) -> pl.DataFrame:
    """code_system and code of each row, those of SNOMED in place of which `mapped` has one of ICD replaced."""
    rows = codes.with_columns(whole(ids).alias("concept_id")).join(
        mapped.with_columns(is_mapped=True), on="concept_id", how="left", maintain_order="left"
    )
    snomed = (pl.col("code_system") == "SNOMED").fill_null(False)
    counts = rows.filter(snomed).select(
        one=pl.col("icd").is_not_null().sum(),
        several=(pl.col("is_mapped") & pl.col("icd").is_null()).sum(),
        none=pl.col("is_mapped").is_null().sum(),
    )
    words = {
        "one": f"SNOMED diagnoses read as {system}",
        "several": f"SNOMED diagnoses to which several codes of {system} map",
        "none": f"SNOMED diagnoses to which no code of {system} maps alone",
    }
    told.update({words[name]: int(count or 0) for name, count in counts.row(0, named=True).items()})
    takes = snomed & pl.col("icd").is_not_null()
    return rows.select(
        code_system=pl.when(takes).then(pl.lit(system)).otherwise("code_system"),
        code=pl.when(takes).then("icd").otherwise("code"),
    )
