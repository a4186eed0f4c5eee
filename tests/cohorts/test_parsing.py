"""The reading of YAML into dataclasses: what may be written follows from their fields, and from nothing else."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import polars as pl
import pytest
from drawn_patients import fates, person, visit

from medbert_jax.cohorts.conditions import Condition
from medbert_jax.cohorts.counts import CountOfRows
from medbert_jax.cohorts.loading import load_spec, parse_spec
from medbert_jax.cohorts.parsing import Must, Names, Positive, _hints, at_least_one, build, names_in
from medbert_jax.cohorts.spec import Rule


@dataclass(frozen=True, kw_only=True)
class Circle:
    KNOWN_BY: ClassVar[str] = "shape"
    REFUSES: ClassVar[dict[str, str]] = {"width": "has none; give its radius"}
    shape: Literal["circle"] = "circle"
    radius: Positive


@dataclass(frozen=True, kw_only=True)
class Box:
    KNOWN_BY: ClassVar[str] = "shape"
    shape: Literal["box", "crate"]
    width: Positive
    height: Positive | None = None

    def own_faults(self):
        if self.height is not None and self.height > self.width:
            yield "height", "higher than wide"


@dataclass(frozen=True, kw_only=True)
class Filled:
    KNOWN_BY: ClassVar[str] = "filled"
    filled: Annotated[tuple["Circle | Box | Filled | Lined", ...], at_least_one("shape")]


@dataclass(frozen=True, kw_only=True)
class Lined:
    """Known by a key that goes with another one."""

    KNOWN_BY: ClassVar[str] = "ink"
    filled: Annotated[tuple["Circle | Box | Filled | Lined", ...], at_least_one("shape")]
    ink: Annotated[str, Names("inks")]


Shape = Circle | Box | Filled | Lined


def read(value):
    faults = []
    return build(Shape, value, "a", faults), faults


@pytest.mark.parametrize(
    ("value", "built"),
    [
        ({"radius": 2}, Circle(radius=2)),
        ({"shape": "circle", "radius": 2}, Circle(radius=2)),
        ({"shape": "crate", "width": 2}, Box(shape="crate", width=2)),
        ({"filled": [{"radius": 1}]}, Filled(filled=(Circle(radius=1),))),
        ({"filled": [{"radius": 1}], "ink": "red"}, Lined(filled=(Circle(radius=1),), ink="red")),
    ],
)
def test_the_kind_is_told_by_its_key(value, built):
    assert read(value) == (built, [])


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        (3, ["a: must be a mapping of keys to values; got 3"]),
        ({"shape": "oval"}, ["a.shape: must be one of circle, box, crate; got 'oval'"]),
        ({"shape": ["box"], "width": 1}, ["a.shape: must be one of circle, box, crate; got ['box']"]),
        ({"filled": None}, ["a.filled: empty; write a value or leave the key out"]),
        ({"filled": []}, ["a.filled: empty; name at least one shape"]),
        ({"filled": [{"radius": 0}]}, ["a.filled[1].radius: must be 1 or more; got 0"]),
        ({"shape": "circle"}, ["a.radius: missing; shape circle needs it"]),
        ({"shape": "circle", "radius": 1, "width": 1}, ["a.width: shape circle has none; give its radius, it goes with"
         " shape: box or crate"]),
        ({"shape": "circle", "radius": 1, "colour": 1}, ["a.colour: unknown key; the keys here are shape, radius"]),
        ({"shape": "box", "width": 1, "height": None}, ["a.height: empty; write a value or leave the key out"]),
        ({"shape": "box", "width": 1, "height": 2}, ["a.height: higher than wide"]),
        # What no single key shows is asked only where each by itself is right.
        ({"shape": "box", "width": "1", "height": 2}, ["a.width: must be a whole number; got '1'"]),
        ({"shape": "box", "filled": [{"radius": 1}]}, ["a: needs exactly one of shape, filled; got shape, filled"]),
        ({"ink": "red"}, ["a.filled: missing; ink needs it"]),
    ],
)  # fmt: skip
def test_every_fault_has_its_key(value, faults):
    assert read(value)[1] == faults


def test_a_kind_that_nothing_tells_is_refused():
    faults = []
    assert build(Box | Filled, {"width": 1}, "a", faults) is None
    assert faults == ["a: needs exactly one of shape, filled; got none"]


def test_names_are_found_with_their_keys():
    inner = Lined(filled=(Circle(radius=1),), ink="red")
    found = list(names_in(Filled(filled=(inner, Lined(filled=(inner,), ink="blue"))), "a"))
    assert [(key, id) for key, _, id in found] == [
        ("a.filled[1].ink", "red"),
        ("a.filled[2].filled[1].ink", "red"),
        ("a.filled[2].ink", "blue"),
    ]
    assert {names for _, names, _ in found} == {Names("inks")}


def test_a_mark_says_what_came():
    faults, even = [], Annotated[int, Must(lambda number: number % 2 == 0, "must be even; got {}")]
    assert build(tuple[even, ...], [2, 3], "a", faults) == (2, None) and faults == ["a[2]: must be even; got 3"]


@dataclass(frozen=True, kw_only=True)
class Dispositions(CountOfRows):
    """A measure that the package does not have: different dispositions of the whole record."""

    WORDS: ClassVar[str] = "Different dispositions"
    measure: Literal["dispositions"]
    window: Literal["whole_record"] = field()

    def number(self) -> pl.Expr:
        return pl.col("discharge_disposition").drop_nulls().n_unique()


def test_a_new_measure_is_one_class(monkeypatch, request):
    monkeypatch.setitem(Rule.__annotations__, "when", Condition | Dispositions)
    request.addfinalizer(_hints.cache_clear)
    _hints.cache_clear()
    data = load_spec("hf-later").to_dict()
    when = {"measure": "dispositions", "window": "whole_record", "at_least": 2}
    data["rules"].append({"id": "moved", "description": "Two ends", "tag": "ours", "when": when, "action": "leave"})
    ends = [visit("2010-01-01", "401.9"), visit("2010-02-01", "401.9")]
    people = {
        name: person(*({**one, "discharge_disposition": to} for one, to in zip(ends, ways, strict=True)))
        for name, ways in (("moved", ("home", "facility")), ("same", ("home", "home")), ("unknown", ("home", None)))
    }
    spec = parse_spec(data, source="a")
    assert fates(people, spec) == {"moved": "moved", "same": (0, 2, 1), "unknown": (0, 2, 1)}
    assert spec.to_dict() == data and spec.rules[-1].when.words({}) == "Different dispositions"
    with pytest.raises(ValueError, match=r"when\.unknown: measure dispositions counts, and a count is known"):
        parse_spec({**data, "rules": [data["rules"][-1] | {"when": when | {"unknown": True}}]}, source="a")
