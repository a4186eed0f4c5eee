"""What of a spec finds nothing in the tables, in words: no cohort without it, or worth knowing."""

from collections.abc import Sequence

from medbert_jax.attrition.disclosure import SMALLEST, masked
from medbert_jax.cohorts.looked_for import Found, Match

_SHOWN = 6
"""Names that one line tells."""
LARGEST_UNNAMED = 0.05
"""Share of a table's rows that may be of code systems that the spec does not name, without a warning."""


def unmatched(matches: Sequence[Match], found: Found, there: Sequence[str]) -> tuple[list[str], list[str]]:
    """(what outcome, index, input or matching rest on, the rest); `there` are the names of the tables.

    Of a table that is not there rules are told by `missing_inputs`. Codes of systems that a table has not are told
    once a system, and so are the systems of many rows that no set names.
    """
    refused, warned, sets = [], [], {}
    for one in matches:
        sets.setdefault((one.of.table, one.of.key), []).append(one)
    foreign = _foreign_tables(matches, found)
    for table, words in foreign.items():
        of_prediction = any(one.of.is_of_prediction for one in matches if one.of.table == table)
        (refused if of_prediction else warned).append(words)
    for (table, key), (whole, *parts) in sets.items():
        of_prediction = whole.of.is_of_prediction
        if table in foreign or not (table in there or of_prediction):
            continue
        if whole.rows == 0:
            rests = " and ".join(whole.of.rests_on_it)
            words = f"{key} ({_few([one.of.part for one in parts])}) finds no row of {table}, on which {rests} rests"
            (refused if of_prediction else warned).append(words + _nearly(parts, found))
        else:
            warned += _empty_parts(key, parts, found)
        warned += _other_units(key, parts, found)
    return refused, [*warned, *_missing_systems(matches, found, foreign), *_unnamed_systems(matches, found, foreign)]


def _few(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:_SHOWN]) + f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)


def _most(rows: dict) -> str:
    most = sorted(rows.items(), key=lambda item: (-item[1], str(item[0])))
    return _few([f"{name or 'no unit'} {count:,}" for name, count in most])


def _systems_named(matches: Sequence[Match]) -> dict[str, dict[str, set[str]]]:
    """Table → code system → the parts of that system."""
    named = {}
    for one in matches:
        if one.of.system:
            named.setdefault(one.of.table, {}).setdefault(one.of.system, set()).add(one.of.part)
    return named


def _foreign_tables(matches: Sequence[Match], found: Found) -> dict[str, str]:
    """Tables that have no row of any system that is named → that, in words."""
    words = {}
    for table, named in _systems_named(matches).items():
        there = found.systems.get(table, {})
        if there and not named.keys() & there.keys():
            words[table] = (
                f"0 of {sum(there.values()):,} {table} are of a system that the spec names"
                f" ({', '.join(named)}; the tables have {_most(there)})"
            )
    return words


def _missing_systems(matches: Sequence[Match], found: Found, foreign: dict[str, str]) -> list[str]:
    return [
        f"0 of {sum(found.systems[table].values()):,} {table} are of {system}: {len(parts)} of the prefixes and ranges"
        " find nothing"
        for table, named in _systems_named(matches).items()
        if table in found.systems and table not in foreign
        for system, parts in named.items()
        if system not in found.systems[table]
    ]


def _unnamed_systems(matches: Sequence[Match], found: Found, foreign: dict[str, str]) -> list[str]:
    """Tables of which some systems are named, and more than `LARGEST_UNNAMED` is of others: no rule sees these rows."""
    said = []
    for table, named in _systems_named(matches).items():
        there = found.systems.get(table, {})
        unnamed = {system: rows for system, rows in there.items() if system not in named}
        rows, of = sum(unnamed.values()), sum(there.values())
        if table not in foreign and rows > LARGEST_UNNAMED * of:
            which = next(iter(unnamed)) if len(unnamed) == 1 else f"systems ({_most(unnamed)})"
            said.append(f"{rows:,} of {of:,} {table} are of {which}, which the spec does not name: no set finds them")
    return said


def _empty_parts(key: str, parts: Sequence[Match], found: Found) -> list[str]:
    """Parts of a set that finds others, of systems that are there."""
    empty = [
        one
        for one in parts
        if not one.rows
        and not one.of.units
        and (not one.of.system or one.of.system in found.systems.get(one.of.table, {}))
    ]
    return [f"{key}: no row of {_few([one.of.part for one in empty])}{_nearly(empty, found)}"] if empty else []


def _other_units(key: str, parts: Sequence[Match], found: Found) -> list[str]:
    """Laboratory codes whose results are all in units that are not named."""
    by_code, said = {}, []
    for one in parts:
        if one.of.units:
            by_code.setdefault(one.of.part, []).append(one)
    for code, of_code in by_code.items():
        there = found.units.get(code, {})
        if there and not any(one.rows for one in of_code):
            asked = " or ".join(dict.fromkeys(one.of.units for one in of_code))
            said.append(
                f"{key}: 0 of {sum(there.values()):,} results of {code} are in {asked}; they are in {_most(there)}"
            )
    return said


def _nearly(parts: Sequence[Match], found: Found) -> str:
    """Ingredients that are written nearly as drugs that were not found; what few patients have is not told."""
    missing, named = {one.of.part for one in parts if not one.rows}, {one.of.part.casefold() for one in parts}
    near = {one for (name, one), patients in found.near.items() if name in missing and patients >= SMALLEST}
    shown = sorted(one for one in near if masked(one) == one and one.casefold() not in named)
    return f"; the tables have {_few(shown)}" if shown else ""
