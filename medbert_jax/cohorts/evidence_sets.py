"""What counts as evidence of one thing: sets of codes, of drugs and of laboratory results, and how they match."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import polars as pl

from medbert_jax.cohorts.parsing import Must, NameOf, at_least_one
from medbert_jax.ehr.codes import prefix_expression

# Where a rule comes from: printed in the paper, printed elsewhere by its authors, in the shape of a list of tasks that
# others publish, or a gap that we filled.
Tag = Literal["paper", "group", "ehrshot", "fomoh", "ours"]

CODE_STRING = pl.concat_str("code_system", "code", separator="/")
# Seven signs without a dot, where each sign stands for an axis: the beginning of a code is a category.
_BEGINNING_IS_CATEGORY = "ICD10PCS/"
# A system in small letters would match nothing, in silence.
_SYSTEM = re.compile(r"[A-Z][A-Za-z0-9_]*/")


def _is_prefix(text: str) -> bool:
    try:
        prefix_expression(pl.lit(""), [text])
    except ValueError:
        return False
    return _SYSTEM.match(text) is not None


Id = Annotated[
    str,
    Must(
        lambda text: re.fullmatch(r"[a-z][a-z0-9_]*", text) is not None,
        "must be lower-case letters, digits and _; got {!r}",
    ),
]
CodePrefix = Annotated[
    str,
    Must(
        _is_prefix,
        "{!r} must be a code system, '/' and at least a whole category with its dot, such as ICD9CM/428, ICD9CM/250.1,"
        " ICD10CM/I50",
    ),
    NameOf("code_system"),
]


@dataclass(frozen=True)
class CodeRange:
    """Categories, or whole codes, from `first` to `last`, both included: ICD9CM 140 to 209."""

    system: Annotated[str, NameOf("code_system")]
    first: str
    last: str

    def own_faults(self) -> Iterator[tuple[str, str]]:
        """What no single key shows."""
        whole = all(re.fullmatch(r"\d+|[A-Z][0-9A-Z]+", end) for end in (self.first, self.last))
        alike = len(self.first) == len(self.last) and self.first.isdigit() == self.last.isdigit()
        if not (_SYSTEM.match(f"{self.system}/") and whole and alike and self.first <= self.last):
            yield (
                "",
                (
                    "must be a code system and its first and last category, or code without a dot, of one length, as"
                    f" ICD9CM 140 to 209; got {self.system} {self.first} to {self.last}"
                ),
            )


@dataclass(frozen=True)
class CodeSet:
    """Codes that mean one thing, by prefix: ICD9CM/428 is 428, 428.0 and 428.21, never another category."""

    id: Id
    description: str
    tag: Tag
    prefixes: tuple[CodePrefix, ...] = ()
    ranges: tuple[CodeRange, ...] | None = None
    # prefixes that do not belong to it, though one of the above takes them in
    without: tuple[CodePrefix, ...] | None = None

    def own_faults(self) -> Iterator[tuple[str, str]]:
        """What no single key shows."""
        if not self.prefixes and not self.ranges:
            yield "prefixes", "empty; name at least one code"

    def matches(self) -> pl.Expr:
        """Whether a row's `code_system` and `code` are of the set; false for null."""
        found = _matches_prefix(self.prefixes)
        for part in self.ranges or ():
            shape = (
                rf"^(\d{{{len(part.first)}}})"
                if part.first.isdigit()
                else rf"^([A-Z][0-9A-Z]{{{len(part.first) - 1}}})"
            )
            category = pl.col("code").str.extract(shape + r"(?:\.|$)")
            found = found | (
                (pl.col("code_system") == part.system) & category.is_between(pl.lit(part.first), pl.lit(part.last))
            )
        return (found & ~_matches_prefix(self.without or ())).fill_null(False)


@dataclass(frozen=True)
class DrugSet:
    """Drugs by ingredient. A combination counts by its parts, a salt or a kind ("insulin glargine") by its name."""

    id: Id
    description: str
    tag: Tag
    ingredients: Annotated[tuple[str, ...], at_least_one("ingredient")]

    def matches(self) -> pl.Expr:
        """Whether a row's `ingredient` has a part that is one of the names, or begins with one as a whole word.

        Parts are what stands between / , ; + & - and "and"; but with non-, pro-, anti-, -like, -free and -dependent a
        word is another word.
        """
        names = "|".join(re.escape(" ".join(name.lower().split())) for name in self.ingredients)
        text = pl.col("ingredient").str.to_lowercase()
        text = text.str.replace_all(r"\b(non|pro|anti)-", "${1}_").str.replace_all(r"-(like|free|dependent)\b", "_$1")
        pattern = rf"(?:^|[/,;+&-]|\sand\s)\s*(?:{names})(?:\s|[/,;+&-]|$)"
        return text.str.contains(pattern).fill_null(False)


@dataclass(frozen=True)
class ResultRange:
    """Results of tests on one side of a limit, in units that mean the same."""

    EXACTLY_ONE_OF: ClassVar[tuple[str, ...]] = ("at_least", "more_than", "at_most", "less_than")

    codes: Annotated[tuple[CodePrefix, ...], at_least_one("code")]
    units: Annotated[tuple[str, ...], NameOf("unit")]
    # whether a result without a unit is read as one of these units
    or_unit_unknown: bool
    at_least: float | None = None
    more_than: float | None = None
    at_most: float | None = None
    less_than: float | None = None

    def own_faults(self) -> Iterator[tuple[str, str]]:
        """What no single key shows."""
        if not self.units and not self.or_unit_unknown:
            yield "units", "empty; name a unit, or say or_unit_unknown: true"

    def in_units(self) -> pl.Expr:
        """Whether a row's `unit` is one of these, in any case, or unknown where that is allowed."""
        unit = pl.col("unit").str.strip_chars().str.to_lowercase()
        named = unit.is_in([text.lower() for text in self.units]).fill_null(False)
        return named | unit.is_null() | (unit == "") if self.or_unit_unknown else named

    def beyond(self) -> pl.Expr:
        """Whether a row's `value` is on that side; null where it is unknown."""
        compared = ((self.at_least, pl.Expr.ge), (self.more_than, pl.Expr.gt), (self.at_most, pl.Expr.le),
                    (self.less_than, pl.Expr.lt))  # fmt: skip
        return next(compare(pl.col("value"), limit) for limit, compare in compared if limit is not None)


@dataclass(frozen=True)
class LaboratorySet:
    """Laboratory results that mean one thing: any of the ranges. Results in other units are not counted."""

    id: Id
    description: str
    tag: Tag
    results: Annotated[tuple[ResultRange, ...], at_least_one("range")]

    def matches(self) -> pl.Expr:
        """Whether a row's code, `value` and `unit` are of the set; false where the value is unknown."""
        found = pl.lit(False)
        for part in self.results:
            found = found | (_matches_prefix(part.codes) & part.in_units() & part.beyond())
        return found.fill_null(False)


def _matches_prefix(prefixes: tuple[str, ...]) -> pl.Expr:
    beginnings = [prefix for prefix in prefixes if prefix.startswith(_BEGINNING_IS_CATEGORY)]
    found = prefix_expression(CODE_STRING, [prefix for prefix in prefixes if prefix not in beginnings])
    for beginning in beginnings:
        found = found | CODE_STRING.str.starts_with(beginning).fill_null(False)
    return found
