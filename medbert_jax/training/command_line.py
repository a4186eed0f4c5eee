"""How a preset file and the command line give a run's configuration, and how the command ends."""

import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro

from medbert_jax.command_end import told

Config = TypeVar("Config")

PRESETS = Path(__file__).resolve().parents[2] / "configs"
"""The shipped ones, beside the package in a checkout as where a wheel is installed; files, because an import of
`configs` would find a folder of that name where the user is."""


def read_preset(path: Path) -> Any:
    """Return the CONFIG of a preset file, None where it has none. Raises ValueError, with the line, where it fails."""
    try:
        return runpy.run_path(str(path)).get("CONFIG")
    except Exception as fault:
        kind = type(fault).__name__
        frames = traceback.extract_tb(fault.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        if isinstance(fault, SyntaxError) and fault.filename == str(path):
            lines, fault = [fault.lineno or 1], fault.msg
        raise ValueError(
            f"a preset must be a Python file that runs: got '{fault}' ({kind}) in {path}"
            f"{f', line {lines[-1]}' if lines else ''}; correct it"
        ) from None


def shipped_preset(name: str) -> Any:
    """Return the CONFIG of configs/`name`.py."""
    return read_preset(PRESETS / f"{name}.py")


def named_preset(name: str, kinds: tuple[type[Config], ...], *, program: str) -> Config:
    """Return the CONFIG of a preset that the user names: a path, or one that ships with the package.

    Raises ValueError when there is none, or it is of none of these kinds.
    """
    candidates = [Path(name), PRESETS / Path(name).name, PRESETS / f"{name}.py"]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    names = sorted(p.name for p in PRESETS.glob("*.py") if p.name != "__init__.py")
    known = f"one of {', '.join(names)}" if names else f"install medbert_jax anew, whose presets {PRESETS} lacks"
    if path is None:
        raise ValueError(f"the first argument must be a preset: got {name}; use a path or {known}")
    config = read_preset(path)
    if not isinstance(config, kinds):
        raise ValueError(
            f"a preset for {program} must define CONFIG as a {' or '.join(k.__name__ for k in kinds)}: got "
            f"{type(config).__name__} in {path}; use another, or {known}"
        )
    return config


def parse_config(
    kinds: type[Config] | tuple[type[Config], ...], arguments: list[str] | None = None, *, program: str
) -> Config:
    """Configuration from `PRESET.py --field.name value …`: the file gives the defaults, every field is an option.

    PRESET is a path, or the name of a preset that ships with the package. `arguments` are those of the process, where
    none are given; `program` is what the user typed before them. Raises ValueError when it is no preset of these kinds.
    """
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0].startswith("-"):
        return tyro.cli(kinds[0], prog=program, args=arguments)
    config = named_preset(arguments[0], kinds, program=program)
    return tyro.cli(type(config), prog=program, default=config, args=arguments[1:])


def run_script(
    main: Callable[[Config], object],
    kinds: type[Config] | tuple[type[Config], ...],
    program: str,
    arguments: list[str] | None = None,
) -> None:
    """Run `main` on the command line's configuration and print what it returns.

    Wrong input, a damaged checkpoint and a diverged run end with their message and exit code 2, without a traceback; a
    run that was asked to stop, and has saved, with exit code 75; one that Ctrl-C ended at once, with 130.
    """
    with told(program, again="the same command goes on from what was saved before"):
        print(main(parse_config(kinds, arguments, program=program)))
