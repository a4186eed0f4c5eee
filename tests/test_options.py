"""What is typed after `medbert` becomes one class of options a command, and is written nowhere else."""

import datetime
import importlib.util
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

import run_finetune
import run_pretrain
from medbert_jax import cli
from medbert_jax.experiments.study_options import StudyOptions
from medbert_jax.ingest.formats import FORMATS, get_reader
from medbert_jax.ingest.readers.mimic_iv import MIMIC_IV
from medbert_jax.ingest.readers.omop_options import OmopOptions
from medbert_jax.options import (
    AttritionOptions,
    DemoOptions,
    DescribeOptions,
    DoctorOptions,
    EvaluateOptions,
    HealthOptions,
    IngestCommand,
    ReportOptions,
    SimulateOptions,
    ValidateOptions,
)
from medbert_jax.prediction.options import ExternalValidationOptions, PredictOptions
from medbert_jax.replication.options import TablesOptions
from medbert_jax.sharing.options import ExportOptions, ImportOptions
from medbert_jax.training.code_vectors_options import CodeVectorsConfig, CodeVectorsOptions
from medbert_jax.training.command_line import parse_config, shipped_preset
from medbert_jax.training.config import FinetuneConfig, PretrainConfig
from medbert_jax.visualization.inside_options import AttentionOptions, CodesOptions
from tfds_builders.options import CohortOptions, PrepareOptions

CHECKOUT = Path(__file__).parents[1]
EHR = Path("ehr")


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        ("demo --patients 20000 --pretraining-epochs 0.5", DemoOptions(patients=20_000, pretraining_epochs=0.5)),
        ("demo --data there", DemoOptions(data=Path("there"))),
        ("ingest source ehr --format omop --outpatient-los-zero --options.unlinked drop",
         IngestCommand(Path("source"), EHR, "omop", outpatient_los_zero=True, options=OmopOptions(unlinked="drop"))),
        ("ingest --options.us-icd --format=omop --shards 3 source ehr",
         IngestCommand(Path("source"), EHR, "omop", shards=3, options=OmopOptions(us_icd=True))),
        ("ingest source ehr --format mimic-iv --workers 2",
         IngestCommand(Path("source"), EHR, "mimic-iv", workers=2, options=MIMIC_IV.options())),
        ("validate ehr --json-out report.json", ValidateOptions(EHR, Path("report.json"))),
        ("prepare ehr made", PrepareOptions(EHR, "made")),
        ("prepare ehr made --data-dir d --preset released_code --split-key k --minimum-patients 5 --vocabulary v.tsv"
         " --unknown-code-limit 0.1 --back-off --exclude-cohort c --workers 2 --shard 1/8 --beam runner=F x=y"
         " --replace",
         PrepareOptions(EHR, "made", Path("d"), "released_code", "k", 5, Path("v.tsv"), 0.1, True, Path("c"), 2, "1/8",
                        ("runner=F", "x=y"), True)),
        ("cohort ehr dhf made --pretraining-dataset p", CohortOptions(EHR, "dhf", "made", Path("p"))),
        ("cohort ehr dhf made --pretraining-dataset p --data-dir d --gap-days 30 --test-from 2015-01-01 --few-cases"
         " --unknown-code-limit 0.1 --back-off --review 3 --review-seed 4 --why me --workers 2 --shard 1/8 --beam x=y"
         " --replace",
         CohortOptions(EHR, "dhf", "made", Path("p"), Path("d"), None, 30, datetime.date(2015, 1, 1), True, 0.1, True,
                       3, 4, "me", 2, "1/8", ("x=y",), True)),
        ("cohort ehr mine.yaml mine --check --json-out found.json",
         CohortOptions(EHR, "mine.yaml", "mine", check=True, json_out=Path("found.json"))),
        ("code-vectors data v.npz --size 8 --window-days 90 --cache-dir c",
         CodeVectorsOptions(Path("data"), Path("v.npz"), CodeVectorsConfig(8, 90), Path("c"))),
        ("attention run data id:12 --beside tuned --split train --patients 50 --show-id --json-out s.json",
         AttentionOptions(Path("run"), Path("data"), "id:12", beside=Path("tuned"), split="train", patients=50,
                          show_id=True, json_out=Path("s.json"))),
        ("codes run ICD10CM/E11.9 ICD10CM/I10 --nearest 5 --vectors v.npz",
         CodesOptions(Path("run"), ("ICD10CM/E11.9", "ICD10CM/I10"), 5, Path("v.npz"))),
        ("attrition ehr data --out run --share", AttritionOptions((EHR, Path("data")), Path("run"), True)),
        ("describe a b --paper DHF-Cerner PaCa-Truven --max-length 64",
         DescribeOptions((Path("a"), Path("b")), paper=("DHF-Cerner", "PaCa-Truven"), max_length=64)),
        ("evaluate one.parquet cohort --draws 100", EvaluateOptions((Path("one.parquet"), Path("cohort")), draws=100)),
        ("predict model ehr out --patients ids.txt --threshold 0.1",
         PredictOptions(Path("model"), EHR, Path("out"), patients=Path("ids.txt"), threshold=0.1)),
        ("predict model ehr out --at 2016-01-01",
         PredictOptions(Path("model"), EHR, Path("out"), at=datetime.date(2016, 1, 1))),
        ("external-validation model ehr out --fit-share 0.3 --draws 100",
         ExternalValidationOptions(Path("model"), EHR, Path("out"), fit_share=0.3, draws=100)),
        ("export run out --to huggingface --min-patients 20",
         ExportOptions(Path("run"), Path("out"), "huggingface", 20)),
        ("import in run", ImportOptions(Path("in"), Path("run"))),
        ("health run data --patients 9", HealthOptions(Path("run"), Path("data"), 9)),
        ("report results --out table.md", ReportOptions(Path("results"), Path("table.md"))),
        ("report results --share --cohorts one two --ehr ehr --draws 500",
         ReportOptions(Path("results"), share=True, cohorts=(Path("one"), Path("two")), ehr=EHR, draws=500)),
        ("tables results docs/results.md --experiments whole sizes --keep kept --draws 500",
         TablesOptions(Path("results"), Path("docs/results.md"), ("whole", "sizes"), keep=Path("kept"), draws=500)),
        ("simulate ehr --patients 100 --site truven --truth hidden",
         SimulateOptions(EHR, 100, "truven", truth=Path("hidden"))),
        ("study study_cpu out --results r --data d --dry-run --only tables table-4 --part 1 --parts 2 --workers 1",
         StudyOptions("study_cpu", Path("out"), Path("r"), Path("d"), True, ("tables", "table-4"), 1, 2, 1)),
        ("doctor", DoctorOptions()),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_typed_is_the_options(typed, options):
    assert cli.parse(typed.split()) == options


def test_every_command_has_been_parsed_above():
    parsed = {case[0].split()[0] for case in test_what_is_typed_is_the_options.pytestmark[0].args[1]}
    assert parsed == set(cli.COMMANDS)


def help_of(capsys, *arguments) -> str:
    """The help without its frames and line breaks."""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.parse([*arguments, "--help"])
    return re.sub(r"[\s│]+", " ", capsys.readouterr().out)


def test_the_formats_are_those_of_the_readers(capsys):
    assert get_args(IngestCommand.__annotations__["format"]) == FORMATS
    assert "--options" not in help_of(capsys, "ingest")


@pytest.mark.parametrize("format", FORMATS)
def test_the_help_of_a_format_has_the_options_of_its_reader(capsys, format):
    said = help_of(capsys, "ingest", "--format", format)
    assert said.startswith("usage: medbert ingest [-h] [INGEST OPTIONS] PATH PATH Read a source into EHR tables.")
    shown = set(re.findall(r"--options\.([a-z0-9-]+)", said))
    options = {field.name.replace("_", "-") for field in fields(get_reader(format).options)}
    assert shown - {name for name in shown if name.startswith("no-")} == options


def test_options_of_another_reader_are_refused(capsys):
    for format, option in (("omop", "--options.nothing"), ("mimic-iv", "--options.unlinked")):
        with pytest.raises(SystemExit) as exit_code:
            cli.parse(["ingest", "source", "ehr", "--format", format, option, "drop"])
        assert exit_code.value.code == 2
        assert f"Unrecognized options: {option}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "script", "kind", "preset"),
    [("pretrain", run_pretrain, PretrainConfig, "pretrain_small"),
     ("finetune", run_finetune, FinetuneConfig, "finetune_small")],
)  # fmt: skip
def test_a_training_is_its_script(capsys, monkeypatch, command, script, kind, preset):
    configs = []
    monkeypatch.setattr(script, "main", lambda config: configs.append(config) or "done")
    typed = [preset, "--dataset", "there", "--evaluate-every", "7"]
    monkeypatch.setattr(sys, "argv", ["medbert", command, *typed])
    cli.main()
    assert capsys.readouterr().out == "done\n"
    assert configs == [parse_config(kind, typed, program="any")] and configs[0].evaluate_every == 7
    monkeypatch.setattr(sys, "argv", ["medbert", command, "nothing"])
    with pytest.raises(SystemExit) as exit_code:
        cli.main()
    assert exit_code.value.code == 2
    assert capsys.readouterr().err.startswith(f"medbert {command}: the first argument must be a preset: got nothing")


def test_a_folder_of_that_name_does_not_shadow_the_presets(tmp_path, monkeypatch):
    mine = tmp_path / "configs"
    mine.mkdir()
    for name in ("__init__", "pretrain_small"):
        (mine / f"{name}.py").write_text("CONFIG = None")
    expected = shipped_preset("pretrain_small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "configs", raising=False)
    assert Path(importlib.util.find_spec("configs").origin).parent == mine  # an import would find it
    assert isinstance(expected, PretrainConfig) and shipped_preset("pretrain_small") == expected
    assert parse_config(PretrainConfig, ["pretrain_small"], program="run_pretrain.py") == expected
    with pytest.raises(ValueError, match="must define CONFIG as a PretrainConfig: got NoneType in configs"):
        parse_config(PretrainConfig, ["configs/pretrain_small.py"], program="run_pretrain.py")  # a path is a path


def test_the_module_is_the_command():
    call = [sys.executable, "-m", "medbert_jax", "report", "--help"]
    done = subprocess.run(call, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("usage: medbert report [-h]")
