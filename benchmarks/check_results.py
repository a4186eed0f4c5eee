"""Recompute the numbers of docs/results.md from what is stored, and fail where one is another.

    python benchmarks/check_results.py

The part that `medbert tables` made is made again from the predictions that it kept (--kept): every number must be the
same to half a unit of its last place (5e-5 of an AUROC), and so must the words between them. Each run's AUROC, and each
row's mean and deviation, are computed besides by scikit-learn and `statistics`, which share nothing with the tables.

Of the part on diabetes130 no predictions were kept: means, deviations and Student's intervals are recomputed from the
AUROCs of the runs in diabetes130.json, and the AUROCs themselves cannot be.
"""

import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from gain_intervals import difference, interval_words
from sklearn.metrics import roc_auc_score

from medbert_jax.disk.stored_json import read_object
from medbert_jax.evaluation.filed_patients import FOLDER, read_filed
from medbert_jax.replication.document import generated_part, markdown
from medbert_jax.replication.drawn import figures
from medbert_jax.replication.estimates import mean_auroc
from medbert_jax.replication.kept import is_kept, probabilities_of, read_rows
from medbert_jax.replication.study import Study, read_study

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 5e-5
MOST_BYTES = 20_000_000
"""Of what is kept in the repository."""
_NUMBER = re.compile(r"[+−-]?\d[\d,]*(?:\.\d+)?")
_ROUNDING = 1e-9


def main(
    page: Path = ROOT / "docs" / "results.md",
    kept: Path = ROOT / "benchmarks" / "results" / "study",
    diabetes130: Path = ROOT / "benchmarks" / "results" / "diabetes130.json",
) -> None:
    """Print what was checked and what could not be; exit code 1 with every difference.

    Args:
        page: the document.
        kept: what `medbert tables --keep` kept.
        diabetes130: every run's AUROC of the part on diabetes130.
    """
    faults = [*faults_of_diabetes130(page, diabetes130), *faults_of_study(page, kept)]
    print(*faults, sep="\n")
    if faults:
        sys.exit(1)


# ── The generated part ────────────────────────────────────────────────────────────────────────────────────────────────


def faults_of_study(page: Path, kept: Path) -> Iterator[str]:
    """What differs between the generated part of the page and the kept predictions."""
    printed = generated_part(page)
    if not is_kept(kept) and not printed:
        print(f"NOT CHECKED: no study results are stored yet, neither in {page} nor in {kept}", file=sys.stderr)
        return
    if not is_kept(kept) or not printed:
        yield f"a generated part and its predictions go together: got only one of {page} and {kept}"
        return
    size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        yield f"kept results take {MOST_BYTES:,} bytes at most: got {size:,} in {kept}"
    rows = read_rows(kept)
    aurocs = aurocs_again(kept, rows)
    yield from faults_of_aurocs(rows, aurocs)
    study = read_study(kept, **settings_of(printed))
    yield from faults_of_cells(study, aurocs)
    again = markdown(study, [*figures(study)], f"{page.stem}/")
    yield from faults_of_text(printed.strip(), again.strip())
    print(f"checked {page.name}: {rows['run_id'].n_unique():,} runs, {len(_NUMBER.findall(printed)):,} numbers, from"
          f" {size:,} bytes in {kept}")  # fmt: skip


def settings_of(printed: str) -> dict:
    """What the page says of how it was made: experiments, draws and seed."""
    said = re.search(r"<!-- experiments: (.*); draws: (\d+); seed: (\d+) -->", printed)
    assert said, "the generated part says its experiments, draws and seed"
    return {"experiments": said[1].split(" + "), "draws": int(said[2]), "seed": int(said[3])}


def aurocs_again(kept: Path, rows) -> dict[str, tuple[float, float]]:
    """Run → AUROC by scikit-learn of the kept probabilities: each patient counted once, and by the design's weights."""
    found = {}
    tested = rows.filter(split="test", metric="auroc")
    for (dataset_hash,), of in tested.group_by("dataset_hash", maintain_order=True):
        path, runs = kept / FOLDER / f"{dataset_hash}.parquet", of["run_id"].to_list()
        if not path.is_file():
            print(f"NOT CHECKED: {len(runs)} runs of dataset {dataset_hash[:8]}, whose test patients are not filed")
            continue
        filed = read_filed(path)
        known = filed.patients.known
        label, weight = filed.patients.label[known], filed.patients.weight[known]
        stored = probabilities_of(kept, filed, runs)
        if lost := len(runs) - len(stored):
            print(f"NOT CHECKED: {lost} runs of dataset {dataset_hash[:8]}, which have no predictions")
        for run, probabilities in stored.items():
            scores = probabilities[known]
            found[run] = roc_auc_score(label, scores), roc_auc_score(label, scores, sample_weight=weight)
    return found


def faults_of_aurocs(rows, again: dict[str, tuple[float, float]]) -> Iterator[str]:
    """Each filed AUROC, in which every patient counts once, against scikit-learn's."""
    for run, said in rows.filter(split="test", metric="auroc").select("run_id", "value").iter_rows():
        if run in again and abs(again[run][0] - said) > TOLERANCE:
            yield f"run {run}: AUROC {said:.6f} is filed, its predictions give {again[run][0]:.6f}"


def faults_of_cells(study: Study, again: dict[str, tuple[float, float]]) -> Iterator[str]:
    """Mean and deviation of every row against those of scikit-learn's AUROCs, by the design's weights."""
    for cohort in study.cohorts:
        for model, runs in cohort.cells.items():
            of = mean_auroc(study, cohort, model)
            if of is None:
                continue
            values = [again[run.run_id][1] for run in runs]
            pairs = [(of.value, statistics.mean(values))]
            pairs += [(of.deviation, statistics.stdev(values))] if len(values) > 1 else []
            for ours, other in pairs:
                if not abs(ours - other) <= TOLERANCE:
                    yield f"{cohort.title}, {model}: {ours:.6f} in the tables, {other:.6f} by scikit-learn"


def faults_of_text(printed: str, again: str) -> Iterator[str]:
    """Lines that are not the same, but for numbers within half a unit of their last place."""
    lines, others = printed.splitlines(), again.splitlines()
    if len(lines) != len(others):
        yield f"the generated part has {len(lines)} lines, and {len(others)} when it is made again"
    for number, (line, other) in enumerate(zip(lines, others, strict=False), start=1):
        if _NUMBER.sub("#", line) != _NUMBER.sub("#", other) or any(
            differs(one, two) for one, two in zip(_NUMBER.findall(line), _NUMBER.findall(other), strict=True)
        ):
            yield f"line {number} of the generated part is\n  {line}\nand when it is made again\n  {other}"


def differs(printed: str, again: str) -> bool:
    """Whether two numbers are further apart than half a unit of the printed one's last place."""
    one, two = (float(text.replace(",", "").replace("−", "-")) for text in (printed, again))
    return abs(one - two) > 0.5 * 10.0 ** -len(printed.partition(".")[2]) + _ROUNDING


# ── diabetes130 ───────────────────────────────────────────────────────────────────────────────────────────────────────


def faults_of_diabetes130(page: Path, stored: Path) -> Iterator[str]:
    """Every cell of the page's interval tables, and of the table of means beside the stored runs, made again."""
    record = read_object(stored)
    cells, checked = record["cells"], 0
    means = stored.with_suffix(".md")
    for file, made_again in ((page, interval_cells), (means, mean_cells)):
        for *place, cell, again in made_again(file.read_text(encoding="utf-8"), cells):
            checked += 1
            if cell != again:
                yield f"{file.name}, {', '.join(place)}: {cell} is printed, the runs give {again}"
    if not checked:
        yield f"the part on diabetes130 must have its tables: got none in {page} and {means}"
    print(f"checked diabetes130: {checked} cells from the {record['runs']} AUROCs in {stored.name}. NOT CHECKED: these"
          " AUROCs themselves, whose predictions were not kept, and the numbers in the text")  # fmt: skip


def interval_cells(text: str, cells: list[dict]) -> Iterator[tuple[str, ...]]:
    """Cohort, row, column, printed cell and the cell made again, of the tables of differences with intervals."""
    for _, cohort, columns, rows in markdown_tables(text):
        for name, *printed in rows if cohort in {cell["cohort"] for cell in cells} else ():
            kind, head = name.rsplit(", ", 1)
            model = ("pretrained", head.replace(" ", "_"))
            of_gain = kind == "pretrained − untrained"
            pair = (model, ("untrained", model[1])) if of_gain else (("logistic_regression", "codes+age"), model)
            for column, cell in zip(columns, printed, strict=True):
                yield cohort, name, column, cell, interval_words(difference(cells, cohort, _size(column), *pair))


def mean_cells(text: str, cells: list[dict]) -> Iterator[tuple[str, ...]]:
    """The same of the tables of means (deviations), and of those of differences within replicates."""
    of = {(cell["cohort"], cell["backbone"], cell["head"], cell["train_size_name"]): cell["value"] for cell in cells}
    for cohort, first, columns, rows in markdown_tables(text):
        for row in rows:
            named, printed = (row[:2], row[2:]) if first == "backbone" else (row[:1], row[1:])
            for column, cell in zip(columns[len(named) - 1 :], printed, strict=True):
                head, size = named[-1].replace(" ", "_"), _size(column)
                if first == "backbone":
                    values, sign = np.array(of[cohort, named[0].replace(" ", "_"), head, size]), ""
                else:
                    values, sign = difference(cells, cohort, size, ("pretrained", head), ("untrained", head)), "+"
                again = f"{values.mean():{sign}z.3f} ({values.std(ddof=1):.3f})".replace("-", "−")
                yield cohort, *named, column, cell, again


def _size(column: str) -> str:
    """The name of a training size, of the head of its column."""
    return "all" if column.startswith("all") else column.replace(",", "")


def markdown_tables(text: str) -> Iterator[tuple[str, str, list[str], list[list[str]]]]:
    """The heading above each table, the head of its first column, those of the others, and its rows."""
    heading, block = "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if block:
            (first, *columns), _, *rows = block
            yield heading, first, columns, rows
        block = []
        heading = line.lstrip("# ") if line.startswith("#") else heading


if __name__ == "__main__":
    tyro.cli(main)
