"""The runs of an experiment: every model goes the same way, what is done is skipped, a new model registers nothing."""

import json
import os
import shutil
import signal
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import polars as pl
import pytest
from made_datasets import Drawn, write_drawn
from made_sequences import TINY_MODEL

import run_finetune
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.disk.seals import sealed
from medbert_jax.evaluation.predictions import read_predictions
from medbert_jax.evaluation.results import read_results
from medbert_jax.evaluation.tables import auroc_table
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.experiments.running import run_all
from medbert_jax.training.cohort_data import load_cohort
from medbert_jax.training.command_line import run_script
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.disease_model import Fitted
from medbert_jax.training.interruption import Interrupted, Interruption
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sampling import SamplingConfig, training_patients

CODES = ("ICD10CM/A", "ICD10CM/B")
FITTED: dict[str, list] = {}  # by the name of the test's results folder


def patients(prefix: str) -> list[Drawn]:
    """Six patients; the second code makes the case, but for the last one."""
    codes = ([16], [16, 17], [17], [16], [17, 17], [17])
    events = (0, 1, 1, 0, 1, 0)
    return [
        Drawn([(0, 20_000, 1, list(one))], event=event, id=f"{prefix}{number}")
        for number, (one, event) in enumerate(zip(codes, events, strict=True))
    ]


@pytest.fixture
def cohort(tmp_path):
    """A cohort of the pretraining dataset "p"."""
    return write_drawn(
        tmp_path / "cohort" / "1.0.0",
        {name: patients(name) for name in ("train", "validation", "test")},
        kind="cohort",
        codes=CODES,
        members=True,
        cohort={"name": "drawn-failure"},
        split={"counts": dict.fromkeys(("train", "validation", "test"), 6), "key": "k"},
        pretraining_dataset_hash="p",
        time_is_ordinal=True,
    )


@dataclass(frozen=True)
class HasCode:
    """The whole of a new model: has the patient a code at all?"""

    code: int
    size: int
    fits: list = field(default_factory=list)

    def fit(self, train, validation) -> Fitted:
        self.fits.append((train.patient_id.tolist(), validation.patient_id.tolist()))

        def predict(sequences):
            starts = sequences.code_offsets[:-1]
            return 0.25 + 0.5 * np.maximum.reduceat(sequences.code_ids == self.code, starts).astype(float)

        return Fitted(predict, "has_code", str(self.code), {"auroc": 0.75}, f"of {self.size} ids")


@dataclass(frozen=True)
class HasCodeConfig:
    """The whole of its configuration."""

    dataset: str
    results: str
    experiment: str = "made"
    code: int = 17
    train_size: int = 0
    replicate: int = 0

    def model(self, vocabulary: Vocabulary) -> HasCode:
        return HasCode(self.code, vocabulary.size, FITTED.setdefault(self.results, []))


def no_fine_tuning(*_):
    pytest.fail("there is no fine-tuning among these runs")


def test_a_model_with_its_configuration_is_all_that_a_new_row_takes(cohort, tmp_path, capsys):
    runs = [HasCodeConfig(str(cohort), str(tmp_path / "results"), train_size=size) for size in (2, 0)]
    run_all(runs, no_fine_tuning)
    (few, chosen), (whole, same) = FITTED[str(tmp_path / "results")]
    assert len(few) == 2 and set(few) < set(whole) and whole == [b"train%d" % number for number in range(6)]
    assert chosen == same == [b"validation%d" % number for number in range(6)]
    results = read_results(tmp_path / "results")
    assert results.select("cohort", "backbone", "head", "experiment", "stopping_reason").unique().rows() == [
        ("drawn-failure", "has_code", "17", "made", "of 18 ids")
    ]
    assert set(results.select("train_size", "train_size_name").rows()) == {(2, "2"), (6, "all")}
    values = {(split, metric): value for split, metric, value in results.select("split", "metric", "value").rows()}
    assert values["validation", "auroc"] == 0.75  # what the model says
    assert values["test", "auroc"] == pytest.approx((3 * 2 + 3 * 0.5) / 9)  # what evaluation finds: of three, one tied
    assert (values["test", "patients"], values["test", "cases"]) == (6, 3)
    for name in set(results["run_id"]):
        found = read_predictions(tmp_path / "results" / "predictions" / f"{name}.parquet")
        assert found.frame["predicted_boolean_probability"].to_list() == [0.25, 0.75, 0.75, 0.25, 0.75, 0.75]
        assert found.frame["subject_id"].to_list() == [f"test{number}" for number in range(6)]
        assert found.time_is_ordinal is True
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(
        "[1/2] drawn-failure, has_code, 17, 2 training patients, replicate 0: test AUROC 0.8333 ["
    )
    assert said[1].startswith(
        "[2/2] drawn-failure, has_code, 17, 6 training patients, replicate 0: test AUROC 0.8333 ["
    )


def test_what_is_done_is_skipped_and_what_differs_is_not(cohort, tmp_path, capsys):
    run = HasCodeConfig(str(cohort), str(tmp_path / "results"))
    run_all([run, run], no_fine_tuning)
    fits = FITTED[run.results]
    assert len(fits) == 1
    (name,) = set(read_results(run.results)["run_id"])
    assert capsys.readouterr().err.splitlines()[1] == f"[2/2] done before: {name} in {run.results}"
    run_all([replace(run, code=16), replace(run, replicate=1), run], no_fine_tuning)
    assert len(fits) == 3 and read_results(run.results)["run_id"].n_unique() == 3


def test_the_test_patients_are_read_after_the_fit_and_by_evaluation_alone(cohort, tmp_path, monkeypatch):
    opened = []

    def open_split(dataset, split, cache_dir, tell):
        opened.append(split)
        return open_token_store(dataset, split)

    for module in ("training.cohort_data", "evaluation.held_out", "evaluation.evaluated_patients"):
        monkeypatch.setattr(f"medbert_jax.{module}.open_token_store", open_split)
    fit = HasCode.fit
    monkeypatch.setattr(HasCode, "fit", lambda *parts: opened.append("fit") or fit(*parts))
    run_all([HasCodeConfig(str(cohort), str(tmp_path / "results"))], no_fine_tuning)
    # Validation twice: whether the dataset can be filed. Test twice: to be judged, and to be filed.
    assert opened == ["train", "validation", "validation", "fit", "test", "test"]


def test_a_dataset_whose_patients_cannot_be_filed_is_refused_before_the_training(cohort, tmp_path, monkeypatch):
    there = shutil.copytree(cohort, tmp_path / "older" / "1.0.0")
    (there / "cohort.parquet").unlink()
    monkeypatch.setattr(HasCode, "fit", lambda *_: pytest.fail("it was trained, and would be lost"))
    with pytest.raises(FileNotFoundError, match=r"cohort\.parquet.*prepare the cohort again"):
        run_all([HasCodeConfig(str(there), str(tmp_path / "results"))], no_fine_tuning)


def test_a_cell_of_too_few_training_cases_is_empty_and_says_so_and_the_others_run_on(cohort, tmp_path, capsys):
    run = HasCodeConfig(str(cohort), str(tmp_path / "results"))
    run_all([replace(run, train_size=2), run], no_fine_tuning, minimum_cases=3)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(
        "[1/2] left empty: drawn-failure, 2 training patients, replicate 0: a run needs 3 training"
    )
    assert said[1].startswith("[2/2] drawn-failure, has_code, 17, 6 training patients")
    assert said[2].startswith("a cell must rest on 3 training cases: 1 of 2 runs were not made") and len(said) == 3
    assert set(read_results(run.results)["train_size_name"]) == {"all"}


def test_a_run_is_trained_on_the_patients_that_its_sampling_draws(cohort, tmp_path):
    @dataclass(frozen=True)
    class Drawing(HasCodeConfig):
        sampling: SamplingConfig = field(default_factory=SamplingConfig)

    run = Drawing(str(cohort), str(tmp_path / "results"), train_size=2, replicate=5)
    stratified = SamplingConfig(stratified=True, resample="bootstrap")
    run_all([run, replace(run, sampling=stratified)], no_fine_tuning)
    by_hash, drawn = (train for train, _ in FITTED[run.results])
    train = load_cohort(cohort).train
    for sampling, found in ((SamplingConfig(), by_hash), (stratified, drawn)):
        chosen = training_patients(train.patient_id, train.outcomes["label"], 2, 5, sampling)
        assert found == train.patient_id[chosen].tolist()
    assert read_results(run.results)["run_id"].n_unique() == 2


@dataclass(frozen=True)
class Says:
    """A model that learned nothing: every patient gets `score`, but for one who gets `other`."""

    score: float
    other: float

    def fit(self, train, validation) -> Fitted:
        def predict(sequences):
            return np.array([self.other] + [self.score] * (len(sequences) - 1))

        return Fitted(predict, "says", "it", {"auroc": float("nan"), "best_step": 3}, "patience")


@dataclass(frozen=True)
class SaysConfig(HasCodeConfig):
    """Its configuration."""

    score: float = 0.3
    other: float = 0.3

    def model(self, vocabulary: Vocabulary) -> Says:
        return Says(self.score, self.other)


@pytest.mark.parametrize(
    ("other", "words", "there"),
    [
        (0.3, "got the same score for all of 6 patients", {"brier", "log_loss", "expected_calibration_error"}),
        (0.3 * (1 + 1e-7), "got the same score for all of 6", {"brier", "log_loss", "expected_calibration_error"}),
        (float("nan"), "got scores that are not finite, among those of 6 patients", set()),
        (float("inf"), "got scores that are not finite, among those of 6 patients", set()),
    ],
)
def test_scores_that_order_nobody_have_no_auroc_and_say_so(cohort, tmp_path, capsys, other, words, there):
    run = SaysConfig(str(cohort), str(tmp_path / "results"), other=other)
    run_all([run, HasCodeConfig(run.dataset, run.results), run], no_fine_tuning)
    said = capsys.readouterr().err.splitlines()
    assert "no test AUROC, which needs finite scores that differ: " + words in said[0] and "use a lower" in said[0]
    assert "0.5000" not in said[0]
    assert "test AUROC 0.8333" in said[1] and "done before" in said[2]  # the others are not held up
    found = read_results(run.results).filter(pl.col("backbone") == "says").select("split", "metric", "value").rows()
    assert ("validation", "degenerate", 1.0) in found and ("validation", "best_step", 3.0) in found
    assert {metric for split, metric, _ in found if split == "test"} == {"degenerate", "patients", "cases", *there}
    (table,) = auroc_table(read_results(run.results))
    assert table.cells[1][0].text == "—" and table.cells[0][0].text == "0.833 (–)"
    assert "1 of 2 whose scores were all equal or not finite" in table.notes[0]


# ── Fine-tunings among them ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def checkpoint(tmp_path):
    """A pretraining on the cohort's dataset, before its first step."""
    config = {"model": asdict(TINY_MODEL), "dataset_hash": "p"}
    vocabulary = Vocabulary(CODES, np.ones(2, np.int64), ("", ""))
    RunDirectory.create_or_open(tmp_path / "run", config=config, vocabulary=vocabulary).close()
    return str(tmp_path / "run")


def test_a_fine_tuning_is_made_by_the_script_from_one_checkpoint(cohort, checkpoint, tmp_path):
    config = FinetuneConfig(str(cohort), checkpoint, results=str(tmp_path / "results"), backbone="untrained")
    given, baseline = [], HasCodeConfig(str(cohort), str(tmp_path / "results"))

    def fine_tuning(run, cohort, opened, unfinished):
        given.append((run, cohort.name, opened))
        return HasCode(17, run.replicate)

    runs = [config, baseline, replace(config, replicate=1)]
    run_all(runs, fine_tuning)
    assert [run for run, *_ in given] == [runs[0], runs[2]]
    assert given[0][2] is given[1][2] and given[0][2].path == checkpoint
    assert read_results(tmp_path / "results").filter(pl.col("metric") == "auroc").height == 3 * 2
    # Results alone are not what is asked for where the fine-tuned model is to be kept.
    run_all([config, replace(config, run=str(tmp_path / "model"))], fine_tuning)
    assert len(given) == 3 and given[2][0].run


def test_a_cohort_of_another_pretraining_is_refused_before_any_fit(cohort, checkpoint, tmp_path):
    metadata = read_metadata(cohort) | {"pretraining_dataset_hash": "q"}
    (cohort / "metadata.json").write_text(json.dumps(sealed(metadata)))
    config = FinetuneConfig(str(cohort), checkpoint, results=str(tmp_path / "results"), backbone="untrained")
    with pytest.raises(ValueError, match="must have the split and vocabulary of the checkpoint's pretraining dataset"):
        run_all([config], no_fine_tuning)
    run_all([HasCodeConfig(str(cohort), str(tmp_path / "results"))], no_fine_tuning)  # baselines know of no checkpoint


# ── Asked to stop ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_grid_that_is_asked_in_a_run_files_it_and_goes_on(cohort, tmp_path, monkeypatch, keyboard, by):
    runs = [HasCodeConfig(str(cohort), str(tmp_path / "results"), replicate=number) for number in range(3)]
    before, fit = signal.getsignal(signal.SIGTERM), HasCode.fit

    def asked(*parts):
        os.kill(os.getpid(), by)
        return fit(*parts)

    with monkeypatch.context() as patch:
        patch.setattr(HasCode, "fit", asked)
        with pytest.raises(Interrupted, match=r"is done is in .*results; the same command"), Interruption() as asking:
            run_all(runs, no_fine_tuning, asking)
    assert read_results(tmp_path / "results")["replicate"].unique().to_list() == [0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (keyboard, before)
    run_all(runs, no_fine_tuning)
    assert len(FITTED[str(tmp_path / "results")]) == 3
    # Asked in the last run: there is nothing more to do.
    with monkeypatch.context() as patch, Interruption() as asking:
        patch.setattr(HasCode, "fit", asked)
        run_all([replace(runs[0], code=16)], no_fine_tuning, asking)


def test_no_checkpoint_is_told_with_what_to_do(cohort, tmp_path, capsys):
    words = ["finetune_small", "--dataset", str(cohort), "--results", str(tmp_path), "--backbone", "none"]
    with pytest.raises(SystemExit) as left:
        run_script(run_finetune.main, (FinetuneConfig, GridConfig), "run_finetune.py", words)
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert "got no --checkpoint; give the run directory that run_pretrain.py printed" in said
