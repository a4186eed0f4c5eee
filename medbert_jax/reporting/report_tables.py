"""The tables of a page, each with what its file is called: headline, differences, thresholds, groups, sizes, runs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import polars as pl

from medbert_jax.disk.stored_json import parse_object
from medbert_jax.evaluation.evaluate import EVERYONE
from medbert_jax.evaluation.evaluation_tables import MISSING, NAMES, evaluation_tables
from medbert_jax.evaluation.figures import FIGURE, MODEL_DIFFERENCE
from medbert_jax.evaluation.stored_evaluation import Evaluation
from medbert_jax.printed_tables import Table
from medbert_jax.reporting.question import design_words, tested_words
from medbert_jax.reporting.reported_cohort import ReportedCohort

_HEADLINE = ("auroc", "concordance_within_sets", "average_precision", "brier", "calibration_slope")
_COUNTED = ("patients", "predictions", "cases")
"""Metrics of results that are counts of the test split."""


def headline_table(cohort: ReportedCohort, evaluation: Evaluation) -> Table:
    """The model that the page is about, first, and what it is compared with."""
    figures = evaluation.figures.filter(pl.col("at").is_null(), stratum=EVERYONE)
    values = {
        (name, metric): _interval(value, low, high)
        for name, metric, value, low, high in figures.filter(kind=FIGURE)
        .select("model", "metric", "value", "low", "high")
        .iter_rows()
    }
    less, tests = _gained(figures, cohort.model)
    shown = [place for place, metric in enumerate(_HEADLINE) if any((name, metric) in values for name in cohort.models)]
    by = f" ({', '.join(tests)})" if tests else ""
    ensemble = [name for name, _ in values if name.startswith(f"{cohort.model}, ensemble of ")]
    models = (cohort.model, *dict.fromkeys(ensemble), *cohort.models[1:])
    return Table(
        title=f"{cohort.model}, and what it is compared with",
        columns=("model", *(NAMES[_HEADLINE[place]] for place in shown), "AUROC gained by it", "p (Holm)"),
        rows=tuple(
            (
                name,
                *(values.get((name, _HEADLINE[place]), MISSING) for place in shown),
                *less.get(name, (MISSING, MISSING)),
            )
            for name in models
        ),
        alignment="<" + ">" * (len(shown) + 2),
        notes=(
            design_words(evaluation),
            tested_words(cohort, evaluation),
            f"All models trained on {_size(cohort)} patients; 95 % intervals. AUROC gained: that of {cohort.model}"
            f" minus that of the row, paired by patient{by}; p adjusted by Holm's method for the rows.",
        ),
        bold=frozenset((0, place) for place in range(len(shown) + 1)),
    )


def headline_words(cohort: ReportedCohort, evaluation: Evaluation) -> str:
    """The AUROC with its interval, and what it gains on each model that it is compared with."""
    figures = evaluation.figures.filter(pl.col("at").is_null(), stratum=EVERYONE)
    auroc = figures.filter(kind=FIGURE, model=cohort.model, metric="auroc").select("value", "low", "high").row(0)
    less, _ = _gained(figures, cohort.model)
    gained = "; ".join(f"{less[name][0]} over {name}" for name in cohort.models if name in less)
    return f"AUROC {_interval(*auroc)}" + (f": {gained}" if gained else "")


def _gained(figures: pl.DataFrame, model: str) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Of every other model how much AUROC this one has more, and p; and the tests. Stored is the other minus this."""
    differences = figures.filter(kind=MODEL_DIFFERENCE, metric="auroc", reference=model)
    less = {
        name: (_interval(_turned(value), _turned(high), _turned(low), sign="+"), _p(p))
        for name, value, low, high, p in differences.select("model", "value", "low", "high", "p_holm").iter_rows()
    }
    return less, differences["how"].unique().sort().to_list()


def all_tables(cohort: ReportedCohort, evaluation: Evaluation | None, *, share: bool) -> Iterator[tuple[str, Table]]:
    """Slug and table of what stands in the page's second half."""
    looks = (tested_words(cohort, evaluation),)
    if evaluation is not None:
        slugs = {
            "At thresholds": "thresholds",
            "Best and worst": "bounds",
            "Differences to": "differences",
            "AUROC by group": "groups",
            "AUROC, less": "group-differences",
        }
        for table in evaluation_tables(evaluation):
            slug = next((of for start, of in slugs.items() if table.title.startswith(start)), "metrics")
            yield slug, replace(table, notes=(*table.notes, *looks))
    yield (
        "sizes",
        sizes_table(cohort, evaluation, hides_counts=share and not (evaluation and evaluation.about["counts"])),
    )
    yield "runs", runs_table(cohort)


def sizes_table(cohort: ReportedCohort, evaluation: Evaluation | None, *, hides_counts: bool) -> Table:
    """Every metric that results hold of the test split, per model and training size: mean and deviation."""
    test = cohort.runs.filter(split="test")
    if hides_counts:
        test = test.filter(~pl.col("metric").is_in(_COUNTED))
    cells = (
        test.group_by("metric", "model", "train_size_name")
        .agg(
            pl.col("value").mean().alias("mean"),
            pl.col("value").std(ddof=1).alias("sd"),
            pl.len().alias("runs"),
            pl.col("train_size").max().alias("size"),
        )
        .sort("metric", "size", "model", nulls_last=True)
    )
    of_model: dict[tuple[str, str], dict[str, str]] = {}
    for metric, model, name, mean, sd, _, size in cells.iter_rows():
        text = f"{mean:,.0f}" if metric in _COUNTED else f"{mean:.4f}" + (f" ({sd:.4f})" if sd is not None else "")
        of_model.setdefault((metric, size_words(name, size)), {})[model] = text.replace("-", "−")
    models = list(cells["model"].unique().sort())
    rows = tuple(
        (metric.replace("_", " "), size, *(of.get(model, MISSING) for model in models))
        for (metric, size), of in of_model.items()
    )
    design = (design_words(evaluation),) if evaluation is not None else ()
    return Table(
        title="Every metric by model and number of training patients",
        columns=("metric", "training patients", *models),
        rows=rows,
        alignment="<>" + ">" * len(models),
        notes=(
            "Test split: mean (sample standard deviation) over replicates.",
            tested_words(cohort, evaluation),
            *design,
        ),
    )


def runs_table(cohort: ReportedCohort) -> Table:
    """Each run: what makes its numbers again."""
    heads = {
        "run_id": "run",
        "model": "model",
        "train_size": "training patients",
        "replicate": "replicate",
        "seed": "seed",
        "commit": "commit",
        "checkpoint": "checkpoint",
        "device": "device",
        "epochs": "epochs",
        "wall_time_s": "seconds",
        "stopping_reason": "stopped by",
    }
    runs = cohort.runs.select(*heads).unique("run_id").sort("model", "train_size", "replicate", "run_id")
    shown = runs.with_columns(
        pl.col("train_size").map_elements("{:,}".format, return_dtype=pl.String).fill_null("all"),
        pl.col("wall_time_s").round().cast(pl.Int64),
        pl.col("commit", "checkpoint").str.slice(0, 12),
    )
    rows = tuple(tuple(str(cell) or MISSING for cell in row) for row in shown.iter_rows())
    return Table("Runs", tuple(heads.values()), rows, "<<>>><<<>><")


def environment_rows(cohort: ReportedCohort, evaluation: Evaluation | None) -> list[tuple[str, str]]:
    """Versions, keys and hashes that the numbers depend on."""
    runs = cohort.runs
    versions: dict[str, set[str]] = {}
    for text in runs["versions"].unique():
        for name, version in parse_object(text).items():
            versions.setdefault(name, set()).add(str(version))
    rows = [(name, ", ".join(sorted(of))) for name, of in sorted(versions.items())]
    rows += [
        ("dataset hash", cohort.dataset_hash),
        *(("vocabulary hash", of) for of in runs["vocabulary_hash"].unique().sort()),
        *(("split key", of) for of in runs["split_key"].unique().sort()),
    ]
    if (content := (cohort.metadata or {}).get("source", {}).get("content_hash")) is not None:
        rows.append(("EHR tables' hash", content))
    if evaluation is not None:
        about = evaluation.about
        rows.append(("evaluation", f"{about['draws']:,} draws of {about['resampled']}, seed {about['seed']}"))
        rows += [(f"predictions: {model['name']}", ", ".join(f"{name} {of[:16]}" for name, of in model["files"]))
                 for model in about["models"]]  # fmt: skip
    return rows


def size_words(name: str, size: int | None) -> str:
    """A training size: its number, and whether these are all; without it, where it is hidden."""
    return name if size is None else f"{size:,}" + " (all)" * (name == "all")


def _size(cohort: ReportedCohort) -> str:
    sizes: Sequence[int] = cohort.of_size["train_size"].drop_nulls().unique().sort().to_list()
    if not sizes:
        return "all training"
    return f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"


def _interval(value: float | None, low: float | None, high: float | None, *, sign: str = "") -> str:
    if value is None:
        return MISSING
    # z: no minus before a zero
    form = "z.3f" if abs(value) < 100 else ",.0f"
    text = f"{value:{sign}{form}}" + (f" [{low:{form}}, {high:{form}}]" if low is not None and high is not None else "")
    return text.replace("-", "−")


def _turned(value: float | None) -> float | None:
    return None if value is None else -value


def _p(p: float | None) -> str:
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
