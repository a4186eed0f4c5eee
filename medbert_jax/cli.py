"""The `medbert` command: thin over the same functions as the two scripts. Heavy imports wait for the command itself."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import tyro

from medbert_jax import commands
from medbert_jax.command_end import told
from medbert_jax.experiments.study_options import StudyOptions
from medbert_jax.options import (
    AttritionOptions,
    DemoOptions,
    DescribeOptions,
    DoctorOptions,
    EvaluateOptions,
    HealthOptions,
    IngestCommand,
    NoReader,
    ReportOptions,
    SimulateOptions,
    ValidateOptions,
)
from medbert_jax.prediction.command import external_validation, predict
from medbert_jax.prediction.options import ExternalValidationOptions, PredictOptions
from medbert_jax.replication.command import tables
from medbert_jax.replication.options import TablesOptions
from medbert_jax.sharing.command import export, import_
from medbert_jax.sharing.options import ExportOptions, ImportOptions
from medbert_jax.study_command import study
from medbert_jax.training.code_vectors_command import code_vectors
from medbert_jax.training.code_vectors_options import CodeVectorsOptions
from medbert_jax.visualization.attention_command import attention
from medbert_jax.visualization.codes_command import codes
from medbert_jax.visualization.inside_options import AttentionOptions, CodesOptions
from tfds_builders.options import CohortOptions, PrepareOptions

COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "demo": (DemoOptions, commands.demo),
    "ingest": (IngestCommand[NoReader], commands.ingest),
    "validate": (ValidateOptions, commands.validate),
    "prepare": (PrepareOptions, commands.prepare),
    "cohort": (CohortOptions, commands.cohort),
    "attention": (AttentionOptions, attention),
    "attrition": (AttritionOptions, commands.attrition),
    "code-vectors": (CodeVectorsOptions, code_vectors),
    "codes": (CodesOptions, codes),
    "describe": (DescribeOptions, commands.describe),
    "evaluate": (EvaluateOptions, commands.evaluate),
    "predict": (PredictOptions, predict),
    "external-validation": (ExternalValidationOptions, external_validation),
    "export": (ExportOptions, export),
    "import": (ImportOptions, import_),
    "health": (HealthOptions, commands.health),
    "report": (ReportOptions, commands.report),
    "tables": (TablesOptions, tables),
    "simulate": (SimulateOptions, commands.simulate),
    "study": (StudyOptions, study),
    "doctor": (DoctorOptions, commands.doctor),
}
"""Command → its options, and what it does with them."""
SCRIPTS = {"pretrain": commands.pretrain, "finetune": commands.finetune}
"""Their options are the fields of a preset: the scripts' own parser reads them."""


def parse(arguments: list[str]) -> Any:
    """Return the options that the command gets: one of `COMMANDS`."""
    kinds: dict[str, Callable[..., Any]] = {name: kind for name, (kind, _) in COMMANDS.items()}
    if arguments[:1] == ["ingest"]:
        kinds["ingest"] = _ingest_kind(arguments[1:])
    kinds |= SCRIPTS
    return tyro.extras.subcommand_cli_from_dict(kinds, prog="medbert", description=__doc__, args=arguments)


def _ingest_kind(arguments: list[str]) -> type:
    """Return the options of `ingest` with those of the format's reader, so that each is checked and has help."""
    from medbert_jax.ingest.formats import FORMATS, get_reader

    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    named.add_argument("--format", nargs="?")
    format = named.parse_known_args(arguments)[0].format
    # Of a wrong format the whole parser says what is wrong.
    options = get_reader(format).options if format in FORMATS else NoReader
    return IngestCommand[options]  # ty: ignore[invalid-type-form]  # for tyro, which reads it: known at run time


def main() -> None:
    """Do what the process's arguments say; wrong input ends with its three-part message, without a traceback."""
    command, rest = next(iter(sys.argv[1:]), ""), sys.argv[2:]
    if command in SCRIPTS:
        SCRIPTS[command](rest)
        return
    with told("medbert", again="the same command begins again"):
        options = parse(sys.argv[1:])
        COMMANDS[command][1](options)
