"""What a page says of one dataset of a cohort: its runs, their evaluation, and who its patients are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from medbert_jax.attrition.files import read_attrition
from medbert_jax.attrition.steps import Attrition
from medbert_jax.cohorts.loading import stored_spec
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.metadata import read_metadata
from medbert_jax.description.descriptives import Description, describe_dataset
from medbert_jax.disk.whole_files import sha256_of
from medbert_jax.evaluation.compared_models import read_models
from medbert_jax.evaluation.evaluate import EvaluationSettings, evaluate
from medbert_jax.evaluation.evaluated_patients import read_evaluated
from medbert_jax.evaluation.reruns import with_variants
from medbert_jax.evaluation.stored_evaluation import ABOUT, Evaluation, read_evaluation, write_evaluation
from medbert_jax.reporting.reported_models import headline, in_order, largest_size, with_names

EVALUATIONS = "evaluations"
"""Folder below the results."""


@dataclass(frozen=True, eq=False)
class ReportedCohort:
    """One dataset of a cohort; what is None is not known, because the dataset is not there."""

    experiment: str
    name: str
    dataset_hash: str
    runs: pl.DataFrame
    """Results with `variant` and `model`."""
    size: str
    """Name of the training size that the evaluation is of."""
    model: str
    """That the page is about."""
    models: tuple[str, ...]
    """All that are compared, it first; of several replicates without their ensembles."""
    evaluation: Evaluation | None = None
    missing: str = ""
    """Why there is no evaluation."""
    metadata: dict | None = None
    spec: CohortSpec | None = None
    description: Description | None = None
    attrition: Attrition | None = None
    directory: Path | None = None

    @property
    def looks(self) -> int:
        """Runs that were judged on the test split, each once."""
        return self.runs.filter(split="test")["run_id"].n_unique()

    @property
    def unpredicted(self) -> int:
        """Runs of the size whose predictions are not in the evaluation: they gave none, or the files are gone."""
        if self.evaluation is None:
            return 0
        return self.of_size["run_id"].n_unique() - sum(len(one["files"]) for one in self.evaluation.about["models"])

    @property
    def of_size(self) -> pl.DataFrame:
        """The runs that the evaluation is of."""
        return self.runs.filter(train_size_name=self.size)


def report_cohorts(
    results: pl.DataFrame,
    folder: Path,
    *,
    cohorts: Sequence[Path] = (),
    data_dir: Path = Path("data"),
    ehr: Path | None = None,
    settings: EvaluationSettings | None = None,
    cache_dir: str = "",
    tell: Callable[[str], None] = print,
) -> list[ReportedCohort]:
    """Everything about the datasets of `results`, which lie in `folder`; evaluations that are not there are made there.

    Args:
        results: as `read_results` gives them.
        folder: of the results, with predictions/.
        cohorts: directories of cohort datasets; none: those below `data_dir`. They are known by their hash.
        data_dir: folder of datasets.
        ehr: EHR tables that the datasets were made of, whose ledger then stands before theirs.
        settings: of evaluations; the reference is the model that the page is about.
        cache_dir: as in `open_token_store`.
        tell: gets a line for each evaluation.

    Raises:
        ValueError: a directory of `cohorts` that is no dataset of these results.
    """
    known = _datasets(results, cohorts, data_dir)
    found = []
    for (experiment, name, dataset_hash), runs in sorted(
        with_names(with_variants(results)).group_by("experiment", "cohort", "dataset_hash"), key=lambda one: one[0]
    ):
        size = largest_size(runs)
        of_size = runs.filter(train_size_name=size)
        model = headline(of_size)
        models = tuple(in_order(of_size.select("backbone", "model").iter_rows(), model))
        one = ReportedCohort(experiment, name, dataset_hash, runs, size, model, models)
        if directory := known.get(dataset_hash):
            evaluation, missing = _evaluation(folder, directory, one, settings, cache_dir, tell)
            found.append(_with_dataset(one, directory, evaluation, missing, ehr, cache_dir))
        else:
            missing = "its dataset was not found; give its directory (--cohorts DATA_DIR/disease_cohort/NAME/1.0.0)"
            found.append(replace(one, missing=missing))
    return found


def _datasets(results: pl.DataFrame, cohorts: Sequence[Path], data_dir: Path) -> dict[str, Path]:
    """Hash → directory of the datasets of these results."""
    wanted, found = set(results["dataset_hash"]), {}
    paths = [Path(path) / "metadata.json" for path in cohorts] or sorted(
        Path(data_dir).glob("disease_cohort/*/*/metadata.json")
    )
    for path in paths:
        try:
            metadata = read_metadata(path.parent)
        except (OSError, ValueError):
            if cohorts:
                raise
            continue  # another dataset, which nobody asked for
        if metadata["dataset_hash"] in wanted:
            found.setdefault(metadata["dataset_hash"], path.parent)
        elif cohorts:
            raise ValueError(
                f"a cohort of a report must be one that its results are of: got {path.parent}, whose hash no run has;"
                " give the dataset that was fine-tuned on, or run on this one"
            )
    return found


def _with_dataset(
    one: ReportedCohort, directory: Path, evaluation: Evaluation | None, missing: str, ehr: Path | None, cache_dir: str
) -> ReportedCohort:
    metadata = read_metadata(directory)
    has_spec = "outcome" in (metadata["cohort"] or {})  # MEDS labels have none
    return replace(
        one,
        models=one.models if evaluation is None else tuple(name for name in one.models if _is_in(evaluation, name)),
        evaluation=evaluation,
        missing=missing,
        metadata=metadata,
        spec=stored_spec(metadata["cohort"], source=str(directory)) if has_spec else None,
        description=describe_dataset(directory, cache_dir=cache_dir or None),
        attrition=_attrition(directory, ehr),
        directory=directory,
    )


def _evaluation(
    folder: Path,
    directory: Path,
    one: ReportedCohort,
    settings: EvaluationSettings | None,
    cache_dir: str,
    tell: Callable[[str], None],
) -> tuple[Evaluation | None, str]:
    """The stored evaluation of these very predictions, or a new one, which is stored; or why there is none."""
    models = one.models
    place = {name: number for number, name in enumerate(models)}
    in_order = (pl.col("model").replace_strict(place, return_dtype=pl.Int64), pl.col("replicate"))
    of_runs = one.of_size.select("run_id", "model", "replicate").unique().sort(in_order)
    files = {run: folder / "predictions" / f"{run}.parquet" for run in of_runs["run_id"]}
    there = [(run, model) for run, model, _ in of_runs.iter_rows() if files[run].is_file()]
    if models[0] not in {model for _, model in there}:
        return None, f"the predictions of {models[0]} are not in {folder / 'predictions'}"
    paths, names = [files[run] for run, _ in there], [model for _, model in there]
    settings = replace(settings or EvaluationSettings(), reference=models[0])
    stored = folder / EVALUATIONS / f"{one.name}-{one.experiment}-{one.dataset_hash[:12]}"
    if (stored / ABOUT).is_file():
        evaluation = read_evaluation(stored)
        files_of = {model["name"]: model["files"] for model in evaluation.about["models"]}
        if files_of == _files(paths, names) and _asked(evaluation) == _settings(settings):
            return evaluation, ""
    tell(f"evaluating {len(names)} predictions of {one.name}, {settings.draws:,} draws")
    patients = read_evaluated(directory, cache_dir=cache_dir)
    evaluation = evaluate(patients, read_models(paths, patients, names), settings)
    try:
        write_evaluation(evaluation, stored)
    except OSError as error:  # results may be read-only: they are reported all the same
        tell(f"the evaluation is not kept for the next report: {error}")
    return evaluation, ""


def _files(paths: Sequence[Path], names: Sequence[str]) -> dict[str, list]:
    found: dict[str, list] = {}
    for path, name in zip(paths, names, strict=True):
        found.setdefault(name, []).append([path.name, sha256_of(path)])
    return found


def _asked(evaluation: Evaluation) -> tuple:
    about = evaluation.about
    return tuple(about["risks"]), tuple(about["specificities"]), about["draws"], about["seed"], about["reference"]


def _settings(asked: EvaluationSettings) -> tuple:
    return tuple(asked.risks), tuple(asked.specificities), asked.draws, asked.seed, asked.reference


def _is_in(evaluation: Evaluation, model: str) -> bool:
    return any(one["name"] == model for one in evaluation.about["models"])


def _attrition(directory: Path, ehr: Path | None) -> Attrition | None:
    if not (directory / "ledger.json").is_file():
        return None
    return read_attrition([directory] if ehr is None else [ehr, directory])
