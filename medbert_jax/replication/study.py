"""A results folder as the paper's tables need it: runs judged on the filed test patients, all on the same draws.

Nothing but the folder is read: rows, predictions and `test_patients/`; or what was kept of it (`kept`).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.evaluation.filed_patients import FOLDER, FiledPatients, read_filed
from medbert_jax.evaluation.measures import Key, Measures
from medbert_jax.evaluation.reruns import VARIANT, with_variants
from medbert_jax.metrics.bootstrap import DRAWS, SEED
from medbert_jax.metrics.discrimination import order_nobody
from medbert_jax.metrics.weighted_ranks import RankedPatients
from medbert_jax.replication.kept import begun_runs, probabilities_of, read_rows
from medbert_jax.replication.paper import ROWS, paper_column

PERMUTED = "labels permuted"
"""What the name of an experiment begins with whose labels were permuted before the split: a negative control."""
SPECIFICITIES = (0.9,)
_SITE = re.compile(r"Site (\w+), world ([\w-]+)")
_WORLD = "rich"


@dataclass(frozen=True, eq=False)
class JudgedRun:
    """A run on the test patients."""

    run_id: str
    replicate: int
    auroc: float
    draws: np.ndarray
    """(draws,) AUROC of every draw."""
    further: dict[Key, float]
    """All metrics that the design allows."""


@dataclass(frozen=True)
class Model:
    """A row of a table at one training size."""

    experiment: str
    backbone: str
    head: str
    size: str
    """What was asked for: "300" or "all"."""

    @property
    def row(self) -> tuple[str, str]:
        """Backbone and head."""
        return self.backbone, self.head


@dataclass(frozen=True, eq=False)
class TestedCohort:
    """A cohort dataset with the runs that were judged on its test patients."""

    __test__ = False  # pytest takes the name for that of tests

    filed: FiledPatients
    site: str
    """Of simulated records; empty of others."""
    cells: dict[Model, tuple[JudgedRun, ...]]
    """By replicate."""
    trained_on: dict[Model, tuple[int, int, float | None, float | None]]
    """Least and most training patients of the replicates, and least and most cases among them."""
    looks: int
    """Runs that were judged on the test split."""
    without_auroc: int
    """Of these, those without stored predictions, or whose scores order nobody."""
    title: str
    """Cohort and site, and that they are simulated; where several datasets are of one, the dataset too."""

    @property
    def name(self) -> str:
        """Of the cohort, without its site, where its spec is called after that too."""
        return self.filed.patients.name.removesuffix(f"-{self.site}")

    @property
    def column(self) -> str:
        """The column of the paper's Table 4 that it stands beside, or nothing."""
        return paper_column(self.name, self.site)

    @property
    def is_permuted(self) -> bool:
        """Whether it is a negative control and nothing else."""
        return all(model.experiment.startswith(PERMUTED) for model in self.cells)

    def sizes(self, experiment: str) -> list[str]:
        """Names of the training sizes of an experiment, ascending."""
        most: dict[str, int] = {}
        for model, (_, high, *_) in self.trained_on.items():
            if model.experiment == experiment:
                most[model.size] = max(high, most.get(model.size, 0))
        return sorted(most, key=lambda size: (most[size], size))


@dataclass(frozen=True, eq=False)
class Study:
    """All cohorts of a results folder."""

    cohorts: tuple[TestedCohort, ...]
    experiment: str
    """Whose rows stand beside the paper's."""
    results: pl.DataFrame
    unfiled: tuple[str, ...]
    """Datasets of results whose test patients are not filed: nothing is recomputed of them."""
    begun: int
    """Runs that were begun and not filed."""
    draws: int
    seed: int

    @property
    def has_simulated(self) -> bool:
        """Whether a cohort is."""
        return any(cohort.filed.is_simulated for cohort in self.cohorts)


def read_study(
    folder: str | Path,
    *,
    experiments: Sequence[str] = (),
    draws: int = DRAWS,
    seed: int = SEED,
    tell: Callable[[str], None] = lambda line: None,
) -> Study:
    """Read and judge every run of a results folder that has predictions.

    `experiments`: whose rows stand beside the paper's, taken as one; none: that with most of them. `tell` gets a line
    per cohort.

    Raises ValueError where a file is damaged, predictions are not those of the filed patients, no test patients are
    filed at all, or an experiment is not there.
    """
    folder = Path(folder)
    results, main = _as_one(read_rows(folder), experiments)
    unfiled, cohorts = [], []
    hashes = results.select("cohort", "dataset_hash").unique().sort("cohort", "dataset_hash")
    for name, dataset_hash in hashes.iter_rows():
        path = folder / FOLDER / f"{dataset_hash}.parquet"
        if not path.is_file():
            unfiled.append(f"{name} ({dataset_hash[:8]})")
            continue
        runs = with_variants(results.filter(dataset_hash=dataset_hash))
        tell(f"judging {runs['run_id'].n_unique()} runs of {name} on {draws:,} draws")
        cohorts.append(_judged(folder, read_filed(path), runs, draws, seed))
    if not cohorts:
        raise ValueError(
            f"tables beside the paper's need the test patients that predictions are of, in {folder / FOLDER}: got none;"
            " file them, with --cohorts DATA_DIR/disease_cohort/NAME/1.0.0 …"
        )
    main = main or _fullest(cohorts)
    return Study(_told_apart(cohorts, main), main, results, tuple(unfiled), begun_runs(folder), draws, seed)


def _judged(folder: Path, filed: FiledPatients, runs: pl.DataFrame, draws: int, seed: int) -> TestedCohort:
    patients = filed.patients
    # A rerun with another configuration is a row of its own, as in `evaluation.tables`.
    other = pl.when(pl.col(VARIANT) != "").then(pl.format(" ({})", VARIANT)).otherwise(pl.lit(""))
    runs = runs.with_columns(head=pl.col("head") + other)
    key = ("experiment", "backbone", "head", "train_size_name")
    tested = runs.filter(split="test").select("run_id", "replicate", *key).unique().sort(*key, "replicate", "run_id")
    # Of scores that order nobody the formula makes one half, which reads like a finding.
    probabilities = {
        run: of
        for run, of in probabilities_of(folder, filed, tested["run_id"]).items()
        if not order_nobody(of[patients.known])
    }
    judged = judge(filed, probabilities, draws, seed)
    cells: dict[Model, list[JudgedRun]] = {}
    for run, replicate, *named in tested.iter_rows():
        cells.setdefault(Model(*named), [])
        if run in judged:
            cells[Model(*named)].append(JudgedRun(run, replicate, *judged[run]))
    size, cases = pl.col("train_size"), pl.col("value").filter(split="train", metric="cases")
    trained = runs.group_by(*key).agg(size.min(), size.max().alias("most"), cases.min(), cases.max().alias("cases"))
    assumed = filed.source.get("assumptions", ()) if filed.is_simulated else ()
    site, world = next((match.groups() for line in assumed if (match := _SITE.match(line))), ("", _WORLD))
    site += f", world {world}" * (world != _WORLD)  # such patients stand beside nobody else's
    return TestedCohort(
        filed,
        site,
        {model: tuple(of) for model, of in cells.items()},
        {Model(*of[: len(key)]): of[len(key) :] for of in trained.iter_rows()},
        len(tested),
        len(tested) - len(probabilities),
        patients.name.removesuffix(f"-{site}") + (f", {site}" if site else "") + " (simulated)" * filed.is_simulated,
    )  # fmt: skip


def judge(
    filed: FiledPatients, probabilities: dict[str, np.ndarray], draws: int, seed: int
) -> dict[str, tuple[float, np.ndarray, dict[Key, float]]]:
    """Run → AUROC of the sample, of every draw, and all metrics of the sample; all runs on the same draws.

    probabilities: run → (n,) in the order of the patients.
    """
    patients = filed.patients
    known = patients.known
    labels, weight = patients.label[known].astype(np.float64), patients.weight[known]
    parts: dict[str, list[np.ndarray]] = {run: [] for run in probabilities}
    for weights in patients.draws(draws, seed).weights() if draws else ():
        for run, of in probabilities.items():  # ranked anew: what keeps its last weights would keep them of all runs
            parts[run].append(RankedPatients(labels, of[known]).auroc(weights))
    found = {}
    for run, of in probabilities.items():
        measures = Measures(
            labels,
            of[known],
            absolute=patients.design.absolute,
            risks=(),
            specificities=SPECIFICITIES,
            sets=None if patients.sets is None else patients.sets[known],
        )
        further = {key: float(value) for key, value in measures(weight).items()}
        drawn = np.concatenate(parts[run]) if parts[run] else np.zeros(0)
        found[run] = further["auroc", None], drawn, further
    return found


def _told_apart(cohorts: Sequence[TestedCohort], main: str) -> tuple[TestedCohort, ...]:
    """The cohorts with the dataset in the titles of those that would be called as another one is.

    One that has the rows beside the paper's keeps its title against those of other experiments.
    """

    def is_main(cohort: TestedCohort) -> bool:
        return any(model.experiment == main for model in cohort.cells)

    taken = Counter((cohort.title, is_main(cohort)) for cohort in cohorts)
    found = []
    for cohort in cohorts:
        others = taken[cohort.title, True] + (0 if is_main(cohort) else taken[cohort.title, False])
        named = f"{cohort.title}, dataset {cohort.filed.patients.dataset_hash[:8]}"
        found.append(replace(cohort, title=named) if others > 1 and not cohort.is_permuted else cohort)
    return tuple(found)


def _as_one(results: pl.DataFrame, experiments: Sequence[str]) -> tuple[pl.DataFrame, str]:
    """The results with these experiments under one name, and that name; empty where none is asked for."""
    if missing := sorted(set(experiments) - set(results["experiment"])):
        there = ", ".join(sorted(set(results["experiment"])))
        raise ValueError(f"experiments must be among the results: got {', '.join(missing)}; use some of {there}")
    name = " + ".join(experiments)
    is_one = pl.col("experiment").is_in(list(experiments))
    return results.with_columns(experiment=pl.when(is_one).then(pl.lit(name)).otherwise(pl.col("experiment"))), name


def _fullest(cohorts: Sequence[TestedCohort]) -> str:
    """The experiment with most of the paper's rows, summed over cohorts and sizes; no negative control."""
    counts: dict[str, int] = {}
    for cohort in cohorts:
        for model in cohort.cells:
            counts[model.experiment] = counts.get(model.experiment, 0) + (model.row in ROWS)
    return max(sorted(counts), key=lambda name: (not name.startswith(PERMUTED), counts[name]))
