"""Commands as documents show them, given to the parsers that read them when they are typed."""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tyro

from medbert_jax import cli
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.experiments.tuning import TuningConfig
from medbert_jax.ingest.formats import FORMATS
from medbert_jax.training.command_line import parse_config
from medbert_jax.training.config import FinetuneConfig, PretrainConfig

ROOT = Path(__file__).parents[1]
KINDS = {"pretrain": (PretrainConfig,), "finetune": (FinetuneConfig, GridConfig, TuningConfig)}
PRESETS = {
    "pretrain": ["medbert pretrain pretrain_small"],
    "finetune": ["medbert finetune finetune_small", "medbert finetune diabetes130", "medbert finetune table4_tune"],
}
PLANS = [path.stem for path in (ROOT / "configs").glob("study_*.py")]
OURS = ("medbert", "python", "python3", "bash", "pip")
FOREIGN = {"--dependency"}
"""Options that documents show of other programs."""
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
FIELD = re.compile(r"((?:model|rows|masking|tasks|optimizer|corpus|mesh|processes|head)\.\w+)(?:=\w+)?")


def read(words: list[str]) -> None:
    """Give a command to the parser that reads it when it is typed; raises, or exits, where that refuses it."""
    match words:
        case ["python", "-m", "medbert_jax", *rest]:
            read(["medbert", *rest])
        case ["medbert", "pretrain" | "finetune" as command, *rest]:
            parse_config(KINDS[command], rest, program=command)
        case ["medbert", "study", *rest]:
            options = cli.parse(["study", *rest])
            assert options.plan in PLANS or not options.plan.startswith("study_"), f"there is no {options.plan}"
        case ["medbert", *rest]:
            cli.parse(rest)
        case ["python" | "python3", "run_pretrain.py" | "run_finetune.py" as script, *rest]:
            parse_config(KINDS[script[4:-3]], rest, program=script)
        case ["python" | "python3" | "bash", script, *rest] if not script.startswith("-"):
            assert (ROOT / script).is_file(), f"there is no {script}"
            if main := argument_parser(script):
                tyro.cli(main, args=rest)
        case ["pip", *rest]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            named = {name for word in rest for names in re.findall(r"\[(.+)\]", word) for name in names.split(",")}
            assert named <= set(extras), f"there is no extra {sorted(named - set(extras))}"


@functools.cache
def argument_parser(script: str) -> Callable | None:
    """What takes the arguments of a script's main, and does nothing; None where tyro does not read them."""
    if "tyro.cli(main)" not in (ROOT / script).read_text():
        return None
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend((ROOT / script).parent)
        spec = importlib.util.spec_from_file_location(f"documented_{Path(script).stem}", ROOT / script)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return functools.wraps(module.main)(lambda *_, **__: None)


@functools.cache
def refusal(command: str) -> str | None:
    """What a parser has against a whole command, one of each where it says this|that; None: nothing."""
    words = shlex.split(re.sub(r"\[(--[^]]*)\]", r"\1", command), comments=True)
    if "…" in words[-1:] and not words[-2].startswith("--"):  # and so on
        words.pop()
    choices = max((word.split("|") for word in words), key=len)
    for choice in choices:
        chosen, said = [choice if word.split("|") == choices else word for word in words], io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                read(chosen)
        except SystemExit as end:
            if end.code:
                return f"{shlex.join(chosen)}: {said.getvalue().strip()}"
        except (ValueError, OSError, AssertionError) as fault:
            return f"{shlex.join(chosen)}: {fault}"
    return None


@functools.cache
def options_of(command: str) -> frozenset[str]:
    """The options that a command of ours, or a script, says it has."""
    *words, said = *command.split(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        read([*words, "--help"])
    return frozenset(OPTION.findall(said.getvalue()))


def wrong_mention(span: str) -> str | None:
    """Of a command that is only named, with none or some of its options, what there is not."""
    command, options = span.split()[1], OPTION.findall(span)
    if command not in {*cli.COMMANDS, *cli.SCRIPTS, "COMMAND"}:
        return f"{span}: there is no such command"
    commands = [f"medbert {command}"] if command in cli.COMMANDS else PRESETS[command]
    commands += [f"medbert ingest --format {format}" for format in FORMATS] * (command == "ingest")
    missing = set(options) - {"--help"} - {option for one in commands for option in options_of(one)}
    return f"{span}: there is no option {', '.join(sorted(missing))}" if missing else None


@functools.cache
def every_option() -> frozenset[str]:
    """The options of all commands, readers, presets and benchmarks."""
    commands = [f"medbert {name}" for name in cli.COMMANDS] + [one for some in PRESETS.values() for one in some]
    commands += [f"medbert ingest --format {format}" for format in FORMATS]
    scripts = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "benchmarks").glob("*.py"))]
    commands += [f"python {script}" for script in scripts if argument_parser(script)]
    return frozenset(option for one in commands for option in options_of(one)) | FOREIGN


def faults_of_shell(text: str) -> Iterator[str]:
    """Of lines that are typed into a shell: what is refused."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in line.split(" #")[0].split("&&"):
            words = command.split()
            start = next((place for place, word in enumerate(words) if word in OURS), None)
            if start is not None and (start == 0 or words[0] == "sbatch"):
                found = refusal(" ".join(words[start:]))
                yield from [found] if found else []


def faults_of_span(span: str) -> Iterator[str]:
    """Of a piece of code within prose: a command, whole or named; an option; a field; a module."""
    span = " ".join(span.split())
    if span.startswith("--"):
        yield from [f"{option}: nothing has it" for option in OPTION.findall(span) if option not in every_option()]
    if match := FIELD.fullmatch(span):
        yield from [f"{span}: no such field"] * (not is_field(match[1]))
    if re.match(r"medbert [a-z]", span):
        third = span.split()[2:3]
        whole = third and not third[0].startswith("-") and third != ["…"]
        found = refusal(span) if whole else wrong_mention(span)
        yield from [found] if found else []
    if re.match(r"(python3? [\w/]+\.py|pip install)", span):
        found = refusal(span if len(span.split()) > 2 else f"{span} --help")  # or it is only named
        yield from [found] if found else []


def is_field(name: str) -> bool:
    """Whether a configuration has the field, as rows.batching."""
    part, field = name.split(".")
    kinds = [type(getattr(config, part)) for config in (PretrainConfig(), FinetuneConfig()) if hasattr(config, part)]
    return any(field in {one.name for one in dataclasses.fields(kind)} for kind in kinds)
