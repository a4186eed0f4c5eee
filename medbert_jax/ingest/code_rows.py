"""Tables of codes: normal forms, which rows stay, each once, and what the source calls its codes."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import polars as pl

from medbert_jax.ehr.codes import SOURCE, normal_codes, system_name
from medbert_jax.ehr.schema import SCHEMAS, TITLES_SCHEMA
from medbert_jax.ingest.icd9_zeros import with_zeros
from medbert_jax.ingest.visit_rows import VISIT_RULES

_SEVERAL = "kept as written, since with and without lost zeros they are billable codes"


def with_normal_forms(table: pl.DataFrame, restore_zeros: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A table of codes with named systems, `normal` forms, their `place` in order of both, and `several`.

    Second, the distinct code_system and code with their rows.
    """
    # Few distinct codes, many rows: the normal form is found once per code.
    table = table.rename({"code_system": "its_system", "code": "its_code"})
    pairs = table.group_by("its_system", "its_code").agg(rows=pl.len())
    system = pl.col("its_system").str.strip_chars().str.replace_all(r"[\s/]+", "_").replace("", None)
    written = pl.col("its_code").str.replace_all(r"\s+", " ").str.strip_chars().replace("", None)
    pairs = pairs.with_columns(code_system=pl.coalesce(system_name(system), system), code=written)
    names = ["code_system", "code"]
    distinct = pairs.group_by(names).agg(pl.col("rows").sum())
    codes = distinct.select(names)
    read = with_zeros(codes) if restore_zeros else codes.with_columns(read="code", several=False)
    normal = normal_codes(read.select("code_system", code="read").unique()).rename({"code": "read"})
    normal = normal.with_columns(place=pl.struct("code_system", "normal").rank("dense"))
    read = read.join(normal, on=["code_system", "read"], how="left", nulls_equal=True).drop("read")
    pairs = pairs.drop("rows").join(read, on=names, how="left", nulls_equal=True)
    as_written = ["its_system", "its_code"]
    return table.join(pairs, on=as_written, how="left", nulls_equal=True).drop(as_written), distinct


def codes_that_stay(
    name: str,
    table: pl.DataFrame,
    visits: pl.DataFrame,
    left: dict[str, dict[str, int]],
    unreadable: Counter[str],
    told: Counter[str],
) -> pl.DataFrame:
    """The rows of a table of codes that stay, codes in normal form; the others counted under their first rule."""
    if "rule" not in table.columns:
        table = table.join(visits, on=["patient_id", "visit_id"], how="left")
    of_no_visit = pl.col("rule").is_null()
    if name == "diagnoses":
        unlinked = of_no_visit
    else:  # an event may stand without a visit: its time says where it belongs
        unreadable[f"visit_id of {name}"] += int(
            table.select((of_no_visit & pl.col("visit_id").is_not_null()).sum()).item()
        )
        table = table.with_columns(visit_id=pl.when(~of_no_visit).then("visit_id"), rule=pl.col("rule").fill_null(-1))
        unlinked = pl.lit(False)
    reasons = {rule: pl.col("rule") == number for number, rule in enumerate(VISIT_RULES)} | {
        "unlinked_code": unlinked,
        "missing_code": pl.col("code").is_null(),
        "unnamed_system": pl.col("code_system") == SOURCE,
        "unreadable_code": pl.col("normal").is_null() | pl.col("code_system").is_null(),
    }
    reason = pl.lit(None, pl.String)
    for rule, applies in reversed(reasons.items()):
        reason = pl.when(applies.fill_null(False)).then(pl.lit(rule)).otherwise(reason)
    table = table.with_columns(reason=reason)
    for rule, rows in table["reason"].drop_nulls().value_counts().iter_rows():
        left[rule][name] += rows
    table = table.filter(pl.col("reason").is_null())
    zeros = pl.col("normal").str.starts_with("0") & ~pl.col("code").str.starts_with("0")
    for what, rows in (("whose leading zeros were put back", zeros), (_SEVERAL, "several")):
        for system, count in table.filter(rows)["code_system"].value_counts().iter_rows():
            told[f"{system} codes {what}"] += count
    table = table.with_columns(code="normal")
    kept = _earliest(table) if name == "diagnoses" else table.select(SCHEMAS[name].keys()).unique(maintain_order=False)
    left["duplicate_code"][name] += table.height - kept.height
    return kept


def _earliest(table: pl.DataFrame) -> pl.DataFrame:
    """Diagnoses in order of visit and code, of rows that differ in their time alone the earliest: it was known then."""
    diagnoses = table.select(SCHEMAS["diagnoses"].keys())
    key = table.select(pl.col("visit").cast(pl.UInt64) * 2**32 + pl.col("place")).to_series().to_numpy()
    order = np.argsort(key)
    again = np.flatnonzero(np.diff(key[order]) == 0)
    if len(again):  # of one visit and code: the few rows of which some may differ in their time alone
        several = np.union1d(again, again + 1)
        rows = diagnoses[order[several]].with_row_index("row").sort("time", nulls_last=True)
        first = rows.unique([name for name in diagnoses.columns if name != "time"], keep="first")["row"].to_numpy()
        order = np.delete(order, np.delete(several, first))
    return diagnoses[order]


def titles_of(written: pl.DataFrame | None, tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """code_system, code, title of the codes in the tables, each once, codes in normal form."""
    names = ["code_system", "code"]
    if written is None:
        return pl.DataFrame(schema=TITLES_SCHEMA)
    written = written.with_columns(pl.col("title").str.replace_all(r"\s+", " ").str.strip_chars().replace("", None))
    written = written.drop_nulls().unique().sort(pl.all()).unique(names, keep="first", maintain_order=True)
    written = (
        with_normal_forms(written, restore_zeros=False)[0].select("code_system", "title", code="normal").drop_nulls()
    )
    written = written.unique(names, keep="first", maintain_order=True)
    used = pl.concat([table.select(names) for table in tables]).unique()
    return written.join(used, on=names, how="semi").select(TITLES_SCHEMA.keys())
