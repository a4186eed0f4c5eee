"""benchmarks/check_results.py: today's document passes, and a number that is not the predictions' is found."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from replication.made_study import file_cohort, file_run, scores

from medbert_jax.evaluation.design import Design
from medbert_jax.replication.document import BEGIN, END, write_tables
from medbert_jax.replication.kept import keep_results
from medbert_jax.replication.study import read_study

ROOT = Path(__file__).parents[2]
OLD = ROOT / "docs" / "results.md"
STORED = ROOT / "benchmarks" / "results" / "diabetes130.json"


@pytest.fixture
def checking(monkeypatch):
    """The script, which finds those beside it as when it is run."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import check_results

    yield check_results
    for name in ("check_results", "gain_intervals"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_the_document_is_what_is_stored(checking, capsys):
    checking.main()
    said = capsys.readouterr()
    assert "checked diabetes130: " in said.out and "AUROCs themselves, whose predictions were not kept" in said.out
    assert ("checked results.md: " in said.out) != ("NOT CHECKED: no study results are stored yet" in said.err)


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("page.md", "| +0.048 [0.032, 0.063] |", "| +0.048 [0.032, 0.064] |"),
        ("page.md", "| −0.023 [−0.055, 0.009] |", "| +0.023 [−0.055, 0.009] |"),
        ("diabetes130.md", "0.594 (0.025)", "0.595 (0.025)"),
        ("diabetes130.md", "| +0.048 (", "| +0.049 ("),
    ],
)
def test_another_number_of_diabetes130_is_found(checking, tmp_path, file, right, wrong):
    page, stored = tmp_path / "page.md", tmp_path / "diabetes130.json"
    page.write_text(OLD.read_text())
    stored.write_bytes(STORED.read_bytes())
    stored.with_suffix(".md").write_text(STORED.with_suffix(".md").read_text())
    assert list(checking.faults_of_diabetes130(page, stored)) == []
    content = (tmp_path / file).read_text()
    assert right in content
    (tmp_path / file).write_text(content.replace(right, wrong, 1))
    (fault,) = checking.faults_of_diabetes130(page, stored)
    assert "the runs give" in fault


@pytest.fixture(scope="module")
def whole(made, made_folder, tmp_path_factory):
    """A document with its generated part, and what was kept of the runs."""
    folder = tmp_path_factory.mktemp("generated")
    page = folder / "results.md"
    page.write_text(f"# Results\n\n{BEGIN}\n{END}\n")
    write_tables(made, page)
    return page, keep_results(made_folder, folder / "kept")


@pytest.fixture
def generated(whole, tmp_path):
    """The same, to be changed; what was kept is not."""
    page, kept = whole
    return shutil.copy(page, tmp_path / "results.md"), kept


def test_a_generated_part_is_made_again_from_what_was_kept(checking, generated, capsys):
    assert list(checking.faults_of_study(*generated)) == []
    assert "checked results.md: 122 runs, " in capsys.readouterr().out


@pytest.mark.parametrize(
    "place", ["| GRU + Med-BERT |", "GRU + Med-BERT − GRU", "| 300 (90 cases) | LR |", "runs are filed"]
)
def test_another_number_or_word_of_it_is_found(checking, generated, place):
    page, kept = generated
    lines = page.read_text().splitlines()
    numbers = [number for number, line in enumerate(lines) if place in line and re.search(r"\d", line)]
    line = lines[numbers[0]]
    digit = list(re.finditer(r"\d", line))[-1].start()
    lines[numbers[0]] = f"{line[:digit]}{(int(line[digit]) + 1) % 10}{line[digit + 1 :]}"
    page.write_text("\n".join(lines) + "\n")
    (fault,) = checking.faults_of_study(page, kept)
    assert fault.startswith("line ") and line in fault
    page.write_text("\n".join([*lines[: numbers[0]], f"{line} indeed", *lines[numbers[0] + 1 :]]) + "\n")
    assert len(list(checking.faults_of_study(page, kept))) == 1


def test_a_filed_auroc_that_the_predictions_do_not_give_is_found(checking, generated, made):
    _, kept = generated
    rows = checking.read_rows(kept)
    again = checking.aurocs_again(kept, rows)
    assert len(again) == 122 and list(checking.faults_of_aurocs(rows, again)) == []
    is_one = (pl.col("metric") == "auroc") & (pl.col("run_id") == rows["run_id"][0])
    changed = rows.with_columns(value=pl.when(is_one).then(0.5).otherwise("value"))
    (fault,) = checking.faults_of_aurocs(changed, again)
    assert "AUROC 0.500000 is filed" in fault
    assert list(checking.faults_of_cells(made, again)) == []
    other = again | {rows["run_id"][0]: (0.5, 0.5)}
    assert len(list(checking.faults_of_cells(made, other))) == 2  # mean and deviation


def test_of_weighted_patients_the_tables_have_the_weighted_auroc(checking, tmp_path):
    labels = np.tile([1, 0, 0], 20)
    weight = np.where(labels == 1, 1.0, np.arange(60) % 7 + 1.0)
    design = Design("sampled controls", "risk", 365)
    filed = file_cohort(tmp_path / "results", labels, weight=weight, design=design)
    file_run(tmp_path / "results", filed, scores(labels, 0.7, 0), backbone="none", head="gru")
    kept = keep_results(tmp_path / "results", tmp_path / "kept")
    ((once, weighted),) = checking.aurocs_again(kept, checking.read_rows(kept)).values()
    study = read_study(kept, draws=0)
    (runs,) = study.cohorts[0].cells.values()
    assert runs[0].auroc == pytest.approx(weighted, abs=1e-12) and abs(once - weighted) > 1e-3


def test_one_without_the_other_and_too_much_are_found(checking, generated, tmp_path, monkeypatch):
    page, kept = generated
    (fault,) = checking.faults_of_study(page, tmp_path / "none")
    assert "go together" in fault
    (tmp_path / "other.md").write_text("# Results\n")
    (fault,) = checking.faults_of_study(tmp_path / "other.md", kept)
    assert "go together" in fault
    monkeypatch.setattr(checking, "MOST_BYTES", 1000)
    (fault,) = checking.faults_of_study(page, kept)
    assert "take 1,000 bytes at most" in fault


@pytest.mark.parametrize(
    ("printed", "again", "other"),
    [("85.39", "85.39", False), ("85.39", "85.40", True), ("0.6650", "0.66504", False), ("0.6650", "0.66506", True),
     ("−1.20", "1.20", True), ("1,000", "1,000", False), ("1,000", "1,001", True)],
)  # fmt: skip
def test_numbers_may_differ_by_half_a_unit_of_the_last_place(checking, printed, again, other):
    assert checking.differs(printed, again) == other
