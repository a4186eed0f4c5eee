"""Names that a spec takes from the tables, of code systems, visit types and units: what nobody knows is refused.

A name may be the product's or the tables'; the tables are read only for those that are none of the product's.
"""

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl

from medbert_jax.attrition.disclosure import masked
from medbert_jax.cohorts.derived import DERIVED
from medbert_jax.cohorts.parsing import NameOf, marked
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.disk.tables_on_disk import scan_parquet
from medbert_jax.ehr.codes import CODE_SYSTEMS, system_name
from medbert_jax.ehr.schema import DISPOSITIONS, SCHEMAS, VISIT_TYPES

UNITS = (
    "%", "1", "ratio", "index", "score", "g", "mg", "ug", "kg", "g/dL", "g/L", "mg/dL", "mg/L", "ug/dL", "ug/L",
    "ug/mL", "ng/dL", "ng/L", "ng/mL", "pg", "pg/mL", "pg/dL", "mmol/L", "umol/L", "nmol/L", "pmol/L", "mol/L",
    "mmol/mol", "mg/g", "mg/mmol", "ug/mg", "mg/24h", "mg/d", "g/d", "mL/min", "mL/min/1.73m2",
    "mL/min/{1.73_m2}", "mEq/L", "meq/L", "mosm/kg", "U/L", "IU/L", "IU/mL", "kU/L", "mU/L", "uIU/mL", "mIU/L",
    "mIU/mL", "U/mL", "10*3/uL", "10*6/uL", "10*9/L", "10*12/L", "K/uL", "M/uL", "/uL", "fL", "s", "sec", "min",
    "h", "d", "{INR}", "mm", "cm", "m", "m2", "mm/h", "kg/m2", "mm[Hg]", "mmHg", "kPa", "/min", "bpm", "Cel",
    "degC", "degF", "L", "mL", "L/min", "dB",
)  # fmt: skip
"""Units of results as sources write them; in specs and tables alike any case will do."""
_CALLED = {
    "code_system": "code system",
    "visit_type": "visit type",
    "discharge_disposition": "disposition",
    "unit": "unit",
}
_OURS = {
    "code_system": ("ICD10CM", "ICD10", *CODE_SYSTEMS, DERIVED),
    "visit_type": VISIT_TYPES,
    "discharge_disposition": DISPOSITIONS,
    "unit": UNITS,
}
_SHOWN = 8
"""Names of the tables that are told."""


def refuse_unknown_names(spec: CohortSpec, ehr_directory: Path) -> None:
    """ValueError with every name of the spec that neither the product nor the tables have, and the nearest known."""
    if faults := unknown_names(spec, ehr_directory):
        raise ValueError(
            f"code systems, visit types and units of a cohort spec must be known: got {len(faults)} of"
            f" {spec.name!r} that are not;\n  " + "\n  ".join(faults) + "\ncorrect these keys"
        )


def unknown_names(spec: CohortSpec, ehr_directory: Path) -> list[str]:
    """Every such name in words, with its key."""
    asked: dict[tuple[str, str], dict[str, None]] = {}
    for key, column, name in names_of(spec):
        asked.setdefault((column, name), {})[key] = None
    unknown = [of for of in asked if not _is_ours(*of)]
    there = {column: _in_tables(ehr_directory, column) for column in {column for column, _ in unknown}}
    return [
        f"{', '.join(asked[column, name])}: no {_CALLED[column]} {name!r}; {_nearest(column, name, there[column])}"
        for column, name in unknown
        if _folded(column, name) not in {_folded(column, one) for one in there[column]}
    ]


def names_of(spec: CohortSpec) -> Iterator[tuple[str, str, str]]:
    """(key, column, name) of every name in the spec that is one of a column of the tables."""
    for key, mark, value in marked(spec, NameOf):
        for text in value if isinstance(value, tuple) else (value,):
            yield key, mark.column, text.partition("/")[0] if mark.column == "code_system" else text


def close_to(text: str, names: Collection[str], *, likeness: float = 0.6) -> list[str]:
    """The name that is nearest to a text, whatever its case; none where none is as like as difflib's ratio asks."""
    by_fold = {name.casefold(): name for name in sorted(names)}
    return [by_fold[fold] for fold in difflib.get_close_matches(text.casefold(), by_fold, n=1, cutoff=likeness)]


def _is_ours(column: str, name: str) -> bool:
    if column == "code_system" and name != DERIVED:
        return _written_here(name) == name
    return _folded(column, name) in {_folded(column, one) for one in _OURS[column]}


def _written_here(system: str) -> str | None:
    """How the tables of the readers name a code system that is spelled in any way."""
    return pl.select(system_name(pl.lit(system))).item()


def _folded(column: str, name: str) -> str:
    return name.strip().lower() if column == "unit" else name


def _nearest(column: str, name: str, there: Collection[str]) -> str:
    spelled = _written_here(name) if column == "code_system" else None
    near = [spelled] if spelled else close_to(name, {*_OURS[column], *there})
    near = [one for one in near if column != "visit_type" or masked(one) == one]
    told = [f"the nearest is {near[0]}"] if near else []
    # Systems and units are words of their kind; a visit type may be anything that a source calls so.
    shown = sorted({masked(one) for one in there} if column == "visit_type" else there)
    if shown:
        told.append(f"the tables have {', '.join(shown[:_SHOWN])}{' …' * (len(shown) > _SHOWN)}")
    return "; ".join(told) or f"{_CALLED[column]}s are for instance {', '.join(_OURS[column][:4])}"


def _in_tables(ehr_directory: Path, column: str) -> set[str]:
    """The different names in a column, of all tables that have it."""
    found = set()
    for table, schema in SCHEMAS.items():
        files = sorted((ehr_directory / table).glob("*.parquet")) if column in schema else []
        if files:
            found |= set(scan_parquet(*files).select(pl.col(column).drop_nulls().unique()).collect()[column])
    return found
