"""Every field of every configuration is checked: ranges, choices, types; from Python and on the command line."""

import dataclasses
import importlib
import math
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt

import run_finetune
import run_pretrain
from medbert_jax.checked_fields import check_fields
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.training.command_line import parse_config
from medbert_jax.training.config import FinetuneConfig, PretrainConfig

KNOWN = {
    "PretrainConfig", "FinetuneConfig", "ModelConfig", "HeadConfig", "RowsConfig", "MaskingConfig", "OptimizerConfig",
    "TasksConfig", "MeshConfig", "ProcessesConfig", "CorpusConfig", "SerializationConfig", "GridConfig",
    "BaselineConfig", "IngestOptions", "OmopOptions", "MedsOptions", "MedBertOptions",
}  # fmt: skip


OF_TFDS = {"SequencesConfig", "PretrainingConfig", "CohortConfig"}
"""Subclasses of TFDS's BuilderConfig, made by the package from what a user has set, never by the user."""

CHECKOUT = Path(__file__).parents[1]
# Found in the text: what is collected needs no import.
CONFIGURATIONS = sorted(
    (name, ".".join(file.relative_to(CHECKOUT).with_suffix("").parts))
    for folder in ("medbert_jax", "tfds_builders")
    for file in (CHECKOUT / folder).rglob("*.py")
    for name in re.findall(r"^class (\w+(?:Config|Options))\b", file.read_text(), re.MULTILINE)
    if name not in OF_TFDS
)
EACH = pytest.mark.parametrize(("name", "module"), CONFIGURATIONS, ids=[name for name, _ in CONFIGURATIONS])


def numbers_without_range(kind: Any, marks: tuple = ()) -> Iterator[type]:
    """The number types within an annotation at which no bound stands."""
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        yield from numbers_without_range(parts[0], parts[1:])
    elif kind in (int, float):
        if not any(isinstance(mark, Ge | Gt | Le | Lt | Interval) for mark in marks):
            yield kind
    elif get_origin(kind) is not Literal:
        for part in parts:
            yield from numbers_without_range(part)


def wrong_values(kind: Any) -> Iterator[Any]:
    """Values that no field of this annotation may have."""
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        yield from wrong_values(parts[0])
        for mark in parts[1:]:
            for attribute, beyond in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
                if (limit := getattr(mark, attribute, None)) is not None:
                    yield limit + beyond
    elif origin in (Union, UnionType):
        found = (wrong for part in parts if part is not type(None) for wrong in wrong_values(part))
        yield from (wrong for wrong in found if wrong is not None or type(None) not in parts)
    elif origin is tuple and parts[-1] is ...:
        yield "no tuple"
        yield from ((wrong,) for wrong in wrong_values(parts[0]))
    else:
        kinds = {int: (True, 1.5, "3", None), float: (math.nan, math.inf, True, "3", None), bool: (1, "yes", None)}
        yield from kinds.get(origin, (object(), "no such choice") if origin is Literal else (object(),))


def made(kind: type, /, **change: Any) -> Any:
    """An instance with its defaults, something plausible where there are none, and this change."""
    plausible = {Path: Path("there"), str: "there", int: 1, tuple[Path, ...]: (Path("there"),)}
    needed = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}
    hints = get_type_hints(kind)
    return kind(**{name: plausible[hints[name]] for name in needed} | change)


def test_the_configurations_are_found():
    assert {name for name, _ in CONFIGURATIONS} >= KNOWN


@EACH
def test_every_number_of_a_configuration_has_its_range(name, module):
    kind = getattr(importlib.import_module(module), name)
    assert is_dataclass(kind) and kind.__dataclass_params__.frozen
    hints = get_type_hints(kind, include_extras=True)
    assert [name for name, hint in hints.items() if any(numbers_without_range(hint))] == []


@EACH
def test_every_field_of_a_configuration_is_checked(name, module):
    kind = getattr(importlib.import_module(module), name)
    made(kind)
    for place, hint in get_type_hints(kind, include_extras=True).items():
        for wrong in wrong_values(hint):
            with pytest.raises(ValueError) as error:
                made(kind, **{place: wrong})
            lines = str(error.value).splitlines()
            named = [re.split(r" must be |\[", line)[0].split(".")[-1] for line in lines]
            assert place in named, (place, wrong)
            assert all(": got " in line and "; " in line for line in lines)


@dataclass(frozen=True)
class Careless:
    number: int = 0
    several: tuple[float, ...] = ()
    maybe: Annotated[float, "a word"] | None = None
    fine: tuple[Annotated[int, Ge(0)], ...] = ()


def test_a_number_without_range_is_found():
    hints = get_type_hints(Careless, include_extras=True)
    assert [name for name, hint in hints.items() if any(numbers_without_range(hint))] == ["number", "several", "maybe"]


# ── check_fields ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Inner:
    rate: Annotated[float, Gt(0)] = 1.0


@dataclass(frozen=True)
class Probe:
    count: Annotated[int, Ge(1)] = 1
    share: Annotated[float, Interval(ge=0, lt=1), "another mark"] = 0.5
    days: Annotated[int, Ge(0)] | None = None
    place: Path | None = None
    kind: Literal["a", "b"] = "a"
    kinds: tuple[Literal["a", "b"], ...] = ("a",)
    sizes: tuple[Annotated[int, Ge(0), Le(9)], ...] = (1, 2)
    pair: tuple[str, Annotated[float, Lt(3)]] = ("x", 1)
    name: str = ""
    flag: bool = False
    inner: Inner = field(default_factory=Inner)
    anything: Any = None

    def __post_init__(self):
        check_fields(self, at="probe", also=self._disagreements())

    def _disagreements(self):
        if self.count > 5 and not self.days:
            yield f"probe.count above 5 needs days: got {self.count}; give days"
        if self.count > len(self.sizes) + 5:
            yield "more: got that; do this"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"count": 0}, "probe.count must be at least 1: got 0; raise it"),
        ({"count": True}, "probe.count must be a whole number: got True; give a whole number"),
        ({"count": 2.0}, "probe.count must be a whole number: got 2.0; give a whole number"),
        ({"share": 1}, "probe.share must be at least 0 and below 1: got 1; lower it"),
        ({"share": -0.1}, "probe.share must be at least 0 and below 1: got -0.1; raise it"),
        ({"share": math.nan}, "probe.share must be a finite number: got nan; give a finite number"),
        ({"share": -math.inf}, "probe.share must be a finite number: got -inf; give a finite number"),
        ({"days": -1}, "probe.days must be at least 0: got -1; raise it"),
        ({"place": "there"}, "probe.place must be a Path or None: got 'there'; give one of them"),
        ({"kind": "c"}, "probe.kind must be one of a, b: got 'c'; choose one of them"),
        ({"kinds": ("a", "c")}, "probe.kinds[1] must be one of a, b: got 'c'; choose one of them"),
        ({"kinds": "a"}, "probe.kinds must be a tuple: got 'a'; give a tuple"),
        ({"sizes": (3, 10)}, "probe.sizes[1] must be at least 0 and at most 9: got 10; lower it"),
        ({"pair": ("x", 3.0)}, "probe.pair[1] must be below 3: got 3.0; lower it"),
        ({"pair": ("x",)}, "probe.pair must be 2 values: got ('x',); give as many"),
        ({"name": None}, "probe.name must be text: got None; give text"),
        ({"flag": 1}, "probe.flag must be True or False: got 1; give True or False"),
        ({"inner": None}, "probe.inner must be a Inner: got None; give a Inner"),
        ({"count": 6}, "probe.count above 5 needs days: got 6; give days"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_rule_value_and_cure(change, line):
    with pytest.raises(ValueError) as error:
        Probe(**change)
    assert str(error.value) == line


@pytest.mark.parametrize(
    "change",
    [{"share": 0}, {"share": 0.999}, {"days": 0}, {"days": 3, "count": 6}, {"place": Path()}, {"kinds": ()},
     {"sizes": (0, 9)}, {"pair": ("", -(10**400))}, {"anything": object()}],
)  # fmt: skip
def test_what_is_within_its_range_passes(change):
    assert dataclasses.replace(Probe(), **change) != Probe()


def test_all_faults_are_in_one_error_those_over_several_fields_too():
    with pytest.raises(ValueError) as error:
        Probe(count=9, kind="z", share=2.0)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "probe.share must be at least 0 and below 1",
        "probe.kind must be one of a, b",
        "probe.count above 5 needs days",
        "more",
    ]


def test_a_rule_over_fields_that_cannot_be_asked_hides_no_fault():
    with pytest.raises(ValueError, match=r"^probe\.count must be a whole number: got '3'; give a whole number$"):
        Probe(count="3")


def test_a_rule_that_is_itself_wrong_is_seen():
    with pytest.raises(ZeroDivisionError):
        check_fields(Inner(), also=(str(1 / zero) for zero in (0,)))


# ── the command line ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("script", "arguments", "line"),
    [
        (run_pretrain, ["pretrain_small", "--masking.share", "25"],
         "masking.share must be at least 0 and at most 1: got 25.0; lower it"),
        (run_pretrain, ["--masking.share", "nan"],
         "masking.share must be a finite number: got nan; give a finite number"),
        (run_pretrain, ["pretrain_paper", "--optimizer.learning-rate", "-1e-4"],
         "optimizer.learning_rate must be at least 0: got -0.0001; raise it"),
        (run_pretrain, ["--masking.mask-token", "0.9", "--masking.random-token", "0.2"],
         "masking.mask_token and masking.random_token must be at most 1 together: got 0.9 and 0.2; lower one of them"),
        (run_finetune, ["finetune_small", "--optimizer.learning-rate", "-1"],
         "optimizer.learning_rate must be at least 0: got -1.0; raise it"),
        (run_finetune, ["diabetes130", "--finetune.optimizer.learning-rate", "-1"],
         "optimizer.learning_rate must be at least 0: got -1.0; raise it"),
        (run_finetune, ["diabetes130", "--train-sizes", "300", "-1"],
         "train_sizes[1] must be at least 0: got -1; raise it"),
        (run_pretrain, ["--seed", str(2**32)],
         f"seed must be at least 0 and below {2**32}: got {2**32}; lower it"),
    ],
)  # fmt: skip
def test_the_command_line_refuses_what_python_refuses(capsys, script, arguments, line):
    kinds = PretrainConfig if script is run_pretrain else (FinetuneConfig, GridConfig)
    with pytest.raises(SystemExit) as exit_code:
        parse_config(kinds, arguments, program=Path(script.__file__).name)
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert exit_code.value.code == 2 and line in said
