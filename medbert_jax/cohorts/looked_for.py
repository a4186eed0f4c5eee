"""What a spec looks for in the tables, set by set and part by part, and how many rows and patients each finds.

Parts are sets of one prefix, one range, one ingredient or one laboratory code, so that they match as the sets do.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import polars as pl

from medbert_jax.cohorts.derived import with_derived
from medbert_jax.cohorts.evidence_sets import CodeSet, DrugSet, LaboratorySet
from medbert_jax.cohorts.known_names import close_to
from medbert_jax.cohorts.parsing import NameOf, marked, names_in
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.schema import SCHEMAS, EhrTables

OF_PREDICTION = ("outcome", "index", "input", "matching")
"""The parts of a spec without evidence for which nothing is predicted."""


@dataclass(frozen=True)
class LookedFor:
    """A set of a spec, or a part of one, in a table."""

    key: str
    """As "code_sets[af]", or of names of visits the key that lists them."""
    table: str
    rests_on_it: tuple[str, ...]
    """Parts of the spec, as "outcome" and "rule renal"."""
    columns: tuple[str, ...]
    """Those of the table that `matches` looks at."""
    matches: pl.Expr
    part: str = ""
    """What of the set; empty: all of it."""
    system: str = ""
    """Of a part that is of one code system."""
    units: str = ""
    """Of the results of a laboratory code: those in which they count."""

    @property
    def is_of_prediction(self) -> bool:
        """Whether outcome, index, input or matching rest on it."""
        return any(one in OF_PREDICTION for one in self.rests_on_it)


@dataclass(frozen=True)
class Match:
    """What one of them found."""

    of: LookedFor
    rows: int
    patients: int


@dataclass(frozen=True)
class Found:
    """What a shard has of everything that is looked for."""

    counts: list[tuple[int, int]]
    """(rows, patients) of each."""
    systems: dict[str, dict[str, int]]
    """Table → code system → rows, of the tables where codes are looked for."""
    units: dict[str, dict[str | None, int]]
    """Laboratory code → unit → rows."""
    near: dict[tuple[str, str], int]
    """(name of a drug that was not found, ingredient that is written nearly so) → patients."""


def looked_for(spec: CohortSpec) -> list[LookedFor]:
    """Everything that rules, outcome, index, input and matching look for, each set once a table, whole before parts."""
    sets: dict[tuple[str, str, str], dict[str, None]] = {}
    for key, names, id in names_in(spec):
        sets.setdefault((names.group, id, names.table), {})[_place(key)] = None
    found = []
    for (group, id, table), places in sets.items():
        one = spec.entry(group, id)
        found += _PARTS[type(one)](one, functools.partial(LookedFor, f"{group}[{id}]", table, tuple(places)))
    for key, mark, names in marked(spec, NameOf):
        if mark.column in SCHEMAS["visits"]:
            column, new = (
                pl.col(mark.column),
                functools.partial(LookedFor, key, "visits", (_place(key),), (mark.column,)),
            )
            found += [new(column.is_in(list(names))), *(new(column == name, name) for name in names)]
    return found


def unused_sets(spec: CohortSpec) -> list[str]:
    """Sets that nothing looks for."""
    used = {(names.group, id) for _, names, id in names_in(spec)}
    groups = ("code_sets", "drug_sets", "laboratory_sets")
    there = ((group, one.id) for group in groups for one in getattr(spec, group) or ())
    return [f"{group}[{id}]" for group, id in there if (group, id) not in used]


def count_found(tables: EhrTables, spec: CohortSpec, sought: Sequence[LookedFor]) -> Found:
    """Count a shard. Patterns run over the different names of a table, and not over its rows."""
    counts = [(0, 0)] * len(sought)
    systems, units, near = {}, {}, {}
    present = tables.present()
    if "measurements" in present:
        present["measurements"] = with_derived(tables, spec, present["measurements"])
    for table, columns in dict.fromkeys((one.table, one.columns) for one in sought):
        if table not in present:
            continue
        rows = present[table].select("patient_id", *columns)
        if "unit" in columns:
            rows = rows.filter(pl.col("code").is_in(_laboratory_codes(spec)))
        places = [number for number, one in enumerate(sought) if (one.table, one.columns) == (table, columns)]
        different = rows.select(columns).unique()
        members = [different.filter(sought[place].matches).with_columns(place=pl.lit(place)) for place in places]
        matched = rows.join(pl.concat(members), on=list(columns), nulls_equal=True)
        counted = matched.group_by("place").agg(pl.len(), pl.col("patient_id").n_unique())
        for place, count, patients in counted.iter_rows():
            counts[place] = (count, patients)
        if "ingredient" in columns:
            near = _near(rows, [sought[place].part for place in places if not counts[place][0]])
    for table in {one.table for one in sought if "code_system" in SCHEMAS[one.table]} & present.keys():
        systems[table] = dict(present[table].group_by("code_system").len().iter_rows())
    if any(one.units for one in sought) and "measurements" in present:
        results = present["measurements"].filter(pl.col("code").is_in(_laboratory_codes(spec)))
        name = pl.concat_str("code_system", "code", separator="/")
        for code, unit, count in results.group_by(name.alias("name"), "unit").len().iter_rows():
            units.setdefault(code, {})[unit] = count
    return Found(counts, systems, units, near)


def merged(one: Found, other: Found) -> Found:
    """Of two shards; nobody is in both."""
    pairs = zip(one.counts, other.counts, strict=True)
    return Found(
        [(rows + more, patients + others) for (rows, patients), (more, others) in pairs],
        {
            table: _sums(one.systems.get(table, {}), other.systems.get(table, {}))
            for table in one.systems | other.systems
        },
        {code: _sums(one.units.get(code, {}), other.units.get(code, {})) for code in one.units | other.units},
        _sums(one.near, other.near),
    )


def _sums(one: dict, other: dict) -> dict:
    return {key: one.get(key, 0) + other.get(key, 0) for key in one | other}


def _place(key: str) -> str:
    """The part of a spec in which a key is: "outcome", "rule renal"."""
    place = key.partition(".")[0]
    return f"rule {place[6:-1]}" if place.startswith("rules[") else place


_CODE, _DRUG = ("code_system", "code"), ("ingredient",)
_UNIT, _RESULT = (*_CODE, "unit"), (*_CODE, "unit", "value")
_New = Callable[..., LookedFor]


def _of_codes(whole: CodeSet, new: _New) -> Iterator[LookedFor]:
    yield new(_CODE, whole.matches())
    alone = replace(whole, prefixes=(), ranges=None, without=None)
    for mark, prefixes in (("", whole.prefixes), ("without ", whole.without or ())):
        for prefix in prefixes:
            matches = replace(alone, prefixes=(prefix,)).matches()
            yield new(_CODE, matches, mark + prefix, prefix.partition("/")[0])
    for one in whole.ranges or ():
        yield new(_CODE, replace(alone, ranges=(one,)).matches(), f"{one.system}/{one.first} to {one.last}", one.system)


def _of_drugs(whole: DrugSet, new: _New) -> Iterator[LookedFor]:
    yield new(_DRUG, whole.matches())
    for name in whole.ingredients:
        yield new(_DRUG, replace(whole, ingredients=(name,)).matches(), name)


def _of_results(whole: LaboratorySet, new: _New) -> Iterator[LookedFor]:
    yield new(_RESULT, whole.matches())
    for code in dict.fromkeys(code for one in whole.results for code in one.codes):
        is_code, system = CodeSet(whole.id, "", whole.tag, (code,)).matches(), code.partition("/")[0]
        yield new(_UNIT, is_code, code, system)
        for one in (one for one in whole.results if code in one.codes):
            units = " or ".join([*one.units, *["no unit"] * one.or_unit_unknown])
            yield new(_UNIT, is_code & one.in_units(), code, system, units)


_PARTS = {CodeSet: _of_codes, DrugSet: _of_drugs, LaboratorySet: _of_results}


def _laboratory_codes(spec: CohortSpec) -> list[str]:
    """The codes of all laboratory sets, without their systems: few, by which the rows are taken first."""
    parts = (part for one in spec.laboratory_sets or () for part in one.results)
    return [code.partition("/")[2] for part in parts for code in part.codes]


def _near(rows: pl.DataFrame, names: list[str]) -> dict[tuple[str, str], int]:
    names = [name for name in names if name]
    if not names:
        return {}
    patients = dict(rows.drop_nulls().group_by("ingredient").agg(pl.col("patient_id").n_unique()).iter_rows())
    return {(name, one): patients[one] for name in names for one in close_to(name, patients, likeness=0.8)}
