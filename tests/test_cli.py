"""The `medbert` command and the two scripts as people call them; what is wrong is said before anything is compiled."""

import re
import subprocess
import sys
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from jax.sharding import AbstractMesh
from made_ehr import made_tables

import run_finetune
import run_pretrain
from medbert_jax import cli, commands
from medbert_jax.cohorts.loading import SPECS_DIRECTORY
from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.data.token_store import read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.tables import read_source, write_tables
from medbert_jax.evaluation.results import read_results
from medbert_jax.evaluation.stored_evaluation import read_evaluation
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.options import DoctorOptions
from medbert_jax.training import command_line
from medbert_jax.training.command_line import parse_config, run_script, shipped_preset
from medbert_jax.training.config import FinetuneConfig, PretrainConfig
from medbert_jax.training.manifest import CheckpointError
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sharding import MeshConfig

CHECKOUT = Path(__file__).parents[1]
FOUR_DEVICES = AbstractMesh((4, 1), ("data", "model"))


def medbert(*arguments) -> None:
    """Run the console command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medbert", *map(str, arguments)])
        cli.main()


def refused(capsys, *arguments) -> str:
    """What the command says when it refuses; the exit code is 2 and there is no traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_code:
        medbert(*arguments)
    said = capsys.readouterr()
    assert exit_code.value.code == 2
    assert "Traceback" not in said.err + said.out
    return said.err + said.out


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> tuple[Path, Path]:
    """A pretraining dataset and a cohort, by the commands; the tables are of no real source."""
    folder = tmp_path_factory.mktemp("made")
    write_tables(made_tables(400, seed=9), folder / "ehr")
    medbert("prepare", folder / "ehr", "made", "--data-dir", folder / "data")
    dataset = folder / "data" / "ehr_pretraining" / "made" / "1.0.0"
    options = ("--data-dir", folder / "data", "--pretraining-dataset", dataset)
    medbert("cohort", folder / "ehr", "hf-later", "hf", "--few-cases", *options)
    return dataset, folder / "data" / "disease_cohort" / "hf" / "1.0.0"


@pytest.fixture
def compiled():
    """What was compiled in the course of the test."""
    events = []

    def listen(event: str, seconds: float, **_) -> None:
        if "backend_compile" in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


# ── medbert ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_attrition_draws_the_branches_of_a_dataset(datasets, tmp_path, capsys):
    for dataset, below in zip(datasets, (0, 3), strict=True):
        medbert("attrition", dataset, "--out", tmp_path / "run.v2")
        assert capsys.readouterr().out == f"{tmp_path / 'run.v2.csv'}, {tmp_path / 'run.v2.svg'}\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run.v2.csv", "run.v2.svg"]
        rows = pl.read_csv(tmp_path / "run.v2.csv").filter(
            pl.col("rule") == "branch", ~pl.col("text").str.contains(":")
        )
        counts = read_metadata(dataset)["split"]["counts"]
        assert dict(rows.select("text", "patients_kept").iter_rows()) == counts
        chart = (tmp_path / "run.v2.svg").read_text()
        assert all(f">{split}</text>" in chart for split in counts) and chart.count(">cases</text>") == below
    said = refused(capsys, "attrition", tmp_path)
    assert f"must hold ledger.json: got {tmp_path}; `medbert ingest`" in said


@pytest.mark.parametrize("command", [(), ("demo",), ("ingest",), ("prepare",), ("cohort",), ("report",)])
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as exit_code:
        medbert(*command, "--help")
    assert exit_code.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(" ".join(["usage: medbert", *command]))
    assert command or all(name in said for name in ("demo", "ingest", "prepare", "cohort", "report", "doctor"))


def test_the_doctor_tells_versions_and_devices(capsys):
    medbert("doctor")
    said = capsys.readouterr().out
    assert f"jax {jax.__version__}" in said and "medbert-jax" in said
    assert f"device 0: {jax.devices()[0].device_kind}" in said
    assert "is missing" not in said
    asked = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert all(f"  {re.split('[^a-z0-9-]', line)[0]} " in said for line in asked)


def test_the_doctor_names_windows_as_unsupported(capsys, monkeypatch):
    monkeypatch.setattr(commands.sys, "platform", "win32")
    commands.doctor(DoctorOptions())
    assert "Windows is not supported (array-record has no wheel for it): use WSL" in capsys.readouterr().out


def test_the_package_is_the_command():
    call = [sys.executable, "-m", "medbert_jax", "--help"]
    done = subprocess.run(call, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("usage: medbert")


def test_the_installed_command_ends_without_a_traceback(tmp_path):
    call = [sys.executable, "-c", "from medbert_jax.cli import main; main()"]
    done = subprocess.run([*call, "ingest", tmp_path, tmp_path / "ehr", "--format", "diabetes130"], cwd=CHECKOUT,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.startswith("medbert: a source of format diabetes130 must have its files")
        and "Traceback" not in done.stderr
    )


def test_a_demo_of_too_few_patients_is_refused_before_the_pretraining(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "demo", "--patients", "2000")
    assert "simulated" in said and "dhf" in said and "cases" in said
    assert not (tmp_path / "demo" / "pretraining").exists()
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"ehr", "truth", "data"}


def test_a_demo_goes_from_nothing_to_a_table(capsys, tmp_path, monkeypatch):
    """With a tiny model in place of the small one."""
    tiny = ModelConfig(hidden_size=32, layers=1, heads=2, feed_forward_size=32, vocabulary_size=10_000, max_length=64)
    pretraining = replace(shipped_preset("pretrain_small"), model=tiny, rows=RowsConfig(batch_size=256, short_row=32))
    head = HeadConfig(gru_hidden=8)
    finetuning = replace(shipped_preset("finetune_small"), head=head, batch_size=256, max_epochs=1)
    presets = {"pretrain_small": pretraining, "finetune_small": finetuning}
    monkeypatch.setattr(command_line, "shipped_preset", presets.__getitem__)
    report = commands.report  # with as few draws as there may be
    monkeypatch.setattr(commands, "report", lambda options: report(replace(options, draws=100)))
    demo = ("demo", "--out", tmp_path / "demo", "--patients", "14000", "--cohort", "los-next", "--train-size", "200")
    medbert(*demo, "--pretraining-epochs", "0.1")
    said = capsys.readouterr().out
    assert "Simulated data: no patient is real." in said
    results = read_results(tmp_path / "demo" / "results")
    beside = {"logistic_regression", "age_band", "age_sex", "record_shape"}
    assert {*results["backbone"]} == {"pretrained", "untrained"} | beside
    assert said.endswith(f"report in {tmp_path / 'demo' / 'results' / 'report' / 'report.html'}\n")
    assert results.filter(metric="auroc", split="test")["value"].is_between(0, 1).all()
    for backbone in ("pretrained", "untrained"):
        assert backbone in said
    again = refused(capsys, *demo[:4], "14001", *demo[5:])
    assert "a demo must have a folder of its own" in again and "14000 simulated patients, seed 0" in again
    assert "where one of 14000 simulated" in refused(capsys, "demo", "--out", tmp_path / "demo", "--data", tmp_path)


def test_a_demo_does_not_replace_tables_that_were_ingested(capsys, tmp_path):
    before = write_tables(made_tables(40), tmp_path / "demo" / "ehr").content_hash
    said = refused(capsys, "demo", "--out", tmp_path / "demo", "--patients", "2000")
    assert "where one of a source that was ingested is" in said
    assert read_source(tmp_path / "demo" / "ehr").content_hash == before


def another_table(path):
    pl.DataFrame({"encounter_id": ["1"], "patient_nbr": ["2"]}).write_parquet(path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("diabetic_data.parquet", another_table, "diag_1, diag_2, diag_3 is missing; export it with this"),
        ("diabetic_data.parquet", lambda path: path.write_bytes(b""), "[unreadable_file] is truncated, damaged or no"),
        ("diabetic_data.csv", lambda path: path.write_bytes(b""), "[unreadable_file] has no header line that can be"),
        ("diabetic_data.parquet", lambda path: path.write_text("a,b\n1,2\n" * 9), "[unreadable_file] is truncated"),
        ("diabetic_data.csv", lambda path: path.write_text("a,b\n1,2\n"), "[missing_column] column encounter_id"),
        ("notes.txt", lambda path: path.write_text("a,b\n1,2\n"), "[missing_file] is not in source; put it there"),
    ],
)
def test_a_wrong_source_is_refused(capsys, tmp_path, name, write, message):
    source = tmp_path / "source"
    source.mkdir()
    write(source / name)
    said = refused(capsys, "ingest", source, tmp_path / "ehr", "--format", "diabetes130")
    assert said.startswith("medbert: a source of format diabetes130 must have its files as published: got 1 fault(s)")
    assert message in said
    assert not (tmp_path / "ehr").exists()


def test_wrong_arguments_are_refused(capsys, tmp_path, datasets):
    assert "invalid choice" in refused(capsys, "ingest", tmp_path, tmp_path / "ehr", "--format", "diabetes13").lower()
    assert "source.json" in refused(capsys, "prepare", tmp_path, "made", "--data-dir", tmp_path)
    said = refused(capsys, "cohort", tmp_path, "hf-latr", "hf", "--pretraining-dataset", datasets[0])
    names = ", ".join(sorted(path.stem for path in SPECS_DIRECTORY.glob("*.yaml")))
    assert "got 'hf-latr'; use " in said and f"{names}, or the path of a .yaml file" in said
    assert "must hold one Parquet per run: got none in" in refused(capsys, "report", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_goes_from_tables_to_the_report(capsys, tmp_path, datasets):
    results = str(tmp_path / "results")
    run_finetune.main(
        GridConfig(
            datasets=(str(datasets[1]),),
            finetune=FinetuneConfig(results=results),
            train_sizes=(100, 0),
            replicates=2,
            heads=(),
        )
    )
    capsys.readouterr()
    medbert("report", results, "--out", tmp_path / "table.md")
    printed, table = capsys.readouterr().out, (tmp_path / "table.md").read_text()
    for said in (printed, table):
        assert "logistic regression" in said and "age band" in said and "2 replicates" in said
    assert table.startswith("### hf-later\n\n| backbone | head | 100 | all (")
    assert not (tmp_path / "results" / "report").exists()  # tables alone were asked for
    asked = ("--cohorts", datasets[1], "--draws", 100)
    medbert("report", results, *asked)
    first = capsys.readouterr().out
    medbert("report", results, *asked, "--share", "--out", tmp_path / "shared")
    again = capsys.readouterr().out
    assert "evaluating 4 predictions of hf-later, 100 draws" in first and "evaluating" not in again
    assert f"report in {tmp_path / 'results' / 'report' / 'report.html'}" in first
    page = (tmp_path / "results" / "report" / "report.html").read_text()
    assert "No evaluation" not in page and "Cohorts (Table 2)" in page and "Took nothing" not in page
    assert "Shared" not in page and "No patient-level data" in (tmp_path / "shared" / "report.html").read_text()

    predictions = sorted((tmp_path / "results" / "predictions").glob("*.parquet"))
    medbert("evaluate", *predictions, datasets[1], "--out", tmp_path / "evaluation", "--draws", "100")
    printed, found = capsys.readouterr().out, read_evaluation(tmp_path / "evaluation")
    names = {"age band age 100", "age band age all", "logistic regression codes 100", "logistic regression codes all"}
    assert {one["name"] for one in found.about["models"]} == names
    assert {one["replicates"] for one in found.about["models"]} == {2}
    # The same figure that the run filed, of a model of which all replicates are one.
    filed = read_results(results).filter(metric="auroc", split="test", backbone="age_band", train_size_name="all")
    figures = found.figures.filter(kind="figure", metric="auroc", stratum="everyone", model="age band age all")
    assert figures["value"].item() == pytest.approx(filed["value"][0], abs=1e-12)
    assert (
        "Differences to " in printed and "calibration slope" in (tmp_path / "evaluation" / "evaluation.md").read_text()
    )
    assert "got 1 alone; give the cohort at last" in refused(capsys, "evaluate", predictions[0])


# ── run_pretrain.py and run_finetune.py ───────────────────────────────────────────────────────────────────────────────


def test_a_preset_and_options_are_a_configuration():
    options = ["--dataset", "there", "--model.layers", "2", "--mesh.model", "2"]
    for preset in ("pretrain_small", "pretrain_small.py", str(CHECKOUT / "configs" / "pretrain_small.py")):
        config = parse_config(PretrainConfig, [preset, *options], program="run_pretrain.py")
        assert (config.dataset, config.model.layers, config.mesh) == ("there", 2, MeshConfig(model=2))
        assert config.masking.share == 0.25  # the preset's
    both = (FinetuneConfig, GridConfig)
    for kind, typed in ((GridConfig, ["diabetes130", "--datasets", "a", "b"]), (FinetuneConfig, ["finetune_paper"])):
        assert isinstance(parse_config(both, typed, program="run_finetune.py"), kind)


@pytest.mark.parametrize(
    ("script", "kinds", "preset", "message"),
    [
        (run_pretrain, PretrainConfig, "pretrain_smal",
         "the first argument must be a preset: got pretrain_smal; use a path or one of diabetes130.py, "),
        (run_pretrain, PretrainConfig, "finetune_small",
         "a preset for run_pretrain.py must define CONFIG as a PretrainConfig: got FinetuneConfig in "),
        (run_finetune, (FinetuneConfig, GridConfig), "pretrain_paper",
         "a preset for run_finetune.py must define CONFIG as a FinetuneConfig or GridConfig: got PretrainConfig in "),
    ],
)  # fmt: skip
def test_a_wrong_preset_is_refused(capsys, monkeypatch, script, kinds, preset, message):
    monkeypatch.setattr(sys, "argv", [Path(script.__file__).name, preset])
    with pytest.raises(SystemExit) as exit_code:
        run_script(script.main, kinds, Path(script.__file__).name)
    said = capsys.readouterr()
    assert exit_code.value.code == 2 and "Traceback" not in said.err
    assert said.err.startswith(f"{Path(script.__file__).name}: {message}")


def test_presets_that_are_not_installed_are_told(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command_line, "PRESETS", tmp_path)
    with pytest.raises(SystemExit):
        run_script(run_pretrain.main, PretrainConfig, "run_pretrain.py", ["pretrain_small"])
    assert f"use a path or install medbert_jax anew, whose presets {tmp_path} lacks" in capsys.readouterr().err


def made_run(path: Path, vocabulary: Vocabulary, dataset_hash: str) -> str:
    """A run folder of another training, before its first checkpoint."""
    config = {"model": asdict(ModelConfig(vocabulary_size=vocabulary.size)), "dataset_hash": dataset_hash}
    RunDirectory.create_or_open(path, config=config, vocabulary=vocabulary).close()
    return str(path)


OTHER = Vocabulary(("ICD9CM/428.0",), np.array([3]), ("",))
OTHER_VOCABULARY = (
    r"must be serialized with the checkpoint's vocabulary: got \d+ ids \(hash .{12}\) in the dataset and 17 ids "
    r"\(hash .{12}\) in .*other; make the dataset from the same pretraining dataset"
)
MESH = r"must equal the number of devices: got 3 × 1 and \d+; set data to 0 and model to a divisor of the devices"
BATCH = "batch_size must be divisible by the number of devices: got 30 and 4; use 28 or 32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder, data: {"dataset": str(data[1])},
         "the dataset must be of kind pretraining: got cohort; pass another directory"),
        (lambda folder, data: {"dataset_preset": "released_code"},
         r"must be prepared with the run's preset:\n  − released_code \(dataset_preset\)\n  \+ paper \(dataset\)\n"
         r"prepare it with --preset released_code, or set dataset_preset to paper"),
        (lambda folder, data: {"dataset": str(folder / "nowhere")},
         r"a dataset directory must hold metadata.json: got .*nowhere; pass DATA_DIR/ehr_pretraining/NAME"),
        (lambda folder, data: {"rows": RowsConfig(batch_size=30)}, BATCH),
        (lambda folder, data: {"mesh": MeshConfig(data=3)}, MESH),
        (lambda folder, data: {"init_from": made_run(folder / "other", OTHER, "")}, OTHER_VOCABULARY),
        (lambda folder, data: {"init_from": str(folder / "nowhere")}, "a run folder must hold a readable config.json"),
    ],
    ids=["kind", "preset", "missing", "batch", "mesh", "vocabulary", "no run"],
)  # fmt: skip
def test_wrong_input_of_a_pretraining_is_refused(tmp_path, monkeypatch, datasets, compiled, change, message):
    if message == BATCH:
        monkeypatch.setattr(run_pretrain, "make_mesh", lambda config: FOUR_DEVICES)
    config = PretrainConfig(dataset=str(datasets[0]), run=str(tmp_path / "run"), steps=2)
    with pytest.raises((ValueError, OSError), match=message):
        run_pretrain.main(replace(config, **change(tmp_path, datasets)))
    assert not (tmp_path / "run").exists() and compiled == []


def of_this_dataset(folder: Path, data: tuple[Path, Path]) -> str:
    """The folder of a pretraining on the right dataset that has not come to its first checkpoint."""
    vocabulary = Vocabulary.read(data[0] / "vocabulary.tsv")
    return made_run(folder / "right", vocabulary, read_metadata(data[0])["dataset_hash"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder, data: {"dataset": str(data[0])},
         "the dataset must be of kind cohort: got pretraining; pass another directory"),
        (lambda folder, data: {"checkpoint": made_run(folder / "other", OTHER, "")}, OTHER_VOCABULARY),
        (lambda folder, data: {
            "checkpoint": made_run(folder / "other", Vocabulary.read(data[0] / "vocabulary.tsv"), "0" * 64)},
         r"the checkpoint's pretraining dataset: got dataset .{12} for the cohort and 000000000000 for .*other; make "
         "the cohort with --pretraining-dataset"),
        (lambda folder, data: {"checkpoint": str(folder / "nowhere")},
         r"a run folder must hold a readable config.json: got .*nowhere .*; give the folder that the training printed"),
        (lambda folder, data: {"backbone": "pretrained"},
         "a checkpoint must hold a committed step: got none in .*right; pass the run directory that run_pretrain.py"),
        (lambda folder, data: {"batch_size": 30}, BATCH),
        (lambda folder, data: {"mesh": MeshConfig(data=3)}, MESH),
        (lambda folder, data: {"train_size": 10_000},
         r"train_size must not exceed the cohort's training patients: got 10000 and \d+; use 0 for all of them"),
    ],
    ids=["kind", "vocabulary", "split", "no run", "no step", "batch", "mesh", "size"],
)  # fmt: skip
def test_wrong_input_of_a_fine_tuning_is_refused(tmp_path, monkeypatch, datasets, compiled, change, message):
    if message == BATCH:
        monkeypatch.setattr(run_finetune, "make_mesh", lambda config: FOUR_DEVICES)
    config = FinetuneConfig(
        dataset=str(datasets[1]),
        checkpoint=of_this_dataset(tmp_path, datasets),
        results=str(tmp_path / "results"),
        backbone="untrained",
    )
    with pytest.raises((ValueError, OSError, CheckpointError), match=message):
        run_finetune.main(replace(config, **change(tmp_path, datasets)))
    assert not (tmp_path / "results").exists() and compiled == []


def test_compilations_are_noticed(compiled):
    jax.jit(lambda x: x * 3.125 + len(compiled))(1.0)
    assert compiled
