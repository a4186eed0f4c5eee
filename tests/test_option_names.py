"""Every option that a message, a help text or a docstring names is one that somebody can type."""

import ast
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import tyro

from medbert_jax import cli
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.ingest.formats import FORMATS, get_reader
from medbert_jax.options import IngestCommand
from medbert_jax.training.config import FinetuneConfig, PretrainConfig

CHECKOUT = Path(__file__).parents[1]
FILES = sorted(
    path
    for place in ("medbert_jax", "tfds_builders", "configs", "run_pretrain.py", "run_finetune.py")
    for path in [*(CHECKOUT / place).rglob("*.py"), CHECKOUT / place]
    if path.suffix == ".py"
)
OPTION = re.compile(r"(?<![\w(-])--[a-z][\w.-]*\w(?!\w*:)|(?<=\()(?<!var\()--[a-z][\w.-]*\w")  # not the names of CSS
OF_OTHERS = {"--porcelain", "--array", "--dependency", "--install"}  # git's, sbatch's and wsl's
OF_ANY_FIELD = {"--field.name"}


@cache
def options() -> set[str]:
    """The names of all options of all commands and scripts, as their parsers have them."""
    kinds = [kind for kind, _ in cli.COMMANDS.values()] + [PretrainConfig, FinetuneConfig, GridConfig]
    kinds += [IngestCommand[get_reader(name).options] for name in FORMATS]
    with warnings.catch_warnings():  # what takes its place is not there yet
        warnings.simplefilter("ignore", DeprecationWarning)
        return {name for kind in kinds for name in tyro.extras.get_parser(kind)._option_string_actions}


def named_in(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every option that the texts of this Python name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node.lineno, name) for name in OPTION.findall(node.value))


def strangers(source: str) -> list[tuple[int, str]]:
    return [(line, name) for line, name in named_in(source) if name not in options() | OF_OTHERS | OF_ANY_FIELD]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_options_that_are_named_exist(path):
    assert not strangers(path.read_text(encoding="utf-8"))


def test_an_option_that_nobody_has_is_found():
    planted = (
        'def f(x):\n    """Give `--few-cases`."""\n    raise ValueError(f"{x}; use --no-rows.packed or --rows.packing")'
    )
    assert strangers(planted) == [(3, "--no-rows.packed"), (3, "--rows.packing")]
    assert not strangers('raise ValueError("(--options.us-icd)")') and strangers('raise ValueError("(--options.us)")')
    assert len(options()) > 60 and sum(len([*named_in(path.read_text(encoding="utf-8"))]) for path in FILES) > 30
