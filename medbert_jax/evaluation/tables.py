"""Tables of mean (standard deviation) over replicates, made from results alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from medbert_jax.evaluation.held_out import DEGENERATE
from medbert_jax.evaluation.reruns import VARIANT, with_variants
from medbert_jax.printed_tables import Table

BACKBONE_ORDER = (
    "age_band",
    "age_sex",
    "record_shape",
    "logistic_regression",
    "random_forest",
    "boosting",
    "none",
    "tw2v",
    "untrained",
    "frozen",
    "pretrained",
)
"""Backbones from the humblest to the one under test; others follow in alphabetical order."""

MISSING = "–"
"""What an empty cell, or the standard deviation of one replicate, shows."""

NO_NUMBER = "—"
"""What a cell shows whose runs were done and have no such metric: see `held_out.DEGENERATE`."""

_BLOCK = ["experiment", "cohort", "dataset_hash"]


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation over `replicates` runs; `text` is how it is printed."""

    mean: float | None
    """None where no run has the metric."""
    standard_deviation: float | None
    replicates: int
    text: str


@dataclass(frozen=True)
class ResultsTable:
    """One dataset's block: `cells[row][column]`, None where nothing was run."""

    title: str
    row_headers: tuple[str, ...]
    columns: tuple[str, ...]
    row_names: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    notes: tuple[str, ...]

    @property
    def printed(self) -> Table:
        """The block as it is printed."""
        texts = (tuple(MISSING if cell is None else cell.text for cell in cells) for cells in self.cells)
        names = len(self.row_headers)
        return Table(
            title=self.title,
            columns=(*self.row_headers, *self.columns),
            rows=tuple(names + cells for names, cells in zip(self.row_names, texts, strict=True)),
            alignment="<" * names + ">" * len(self.columns),
            notes=self.notes,
        )


def auroc_table(
    results: pl.DataFrame,
    *,
    metric: str = "auroc",
    split: str = "test",
    experiment: str | None = None,
    designs: Mapping[str, str] | None = None,
) -> list[ResultsTable]:
    """For every dataset of a cohort a block: rows backbone × head, columns training sizes, cells "0.665 (0.004)".

    No cell is marked as the best: the deviation does not hold the chance of the test patients, and intervals are in an
    evaluation. Runs whose scores were all equal or not finite have
    no AUROC: they are in no mean, and the note counts them. A model that was run again has a row for each
    configuration. `results` come from `read_results`; `designs`: dataset hash → a sentence on estimand and sampling.
    ValueError when nothing matches.
    """
    chosen = _choose(results, metric, split, experiment)
    tables, looks = [], _looks(results, split, designs or {})
    for block, runs in _blocks(chosen):
        order = {name: i for i, name in enumerate(BACKBONE_ORDER)}
        names = sorted(
            runs.select("backbone", "head").unique().iter_rows(),
            key=lambda name: (order.get(name[0], len(order)), name),
        )
        title, measure = _title(block, chosen), f"{split} {metric}"
        tables.append(_table(title, ["backbone", "head"], names, runs, measure, looks[block[-1]]))
    return tables


def paired_table(
    results: pl.DataFrame,
    *,
    backbone: str = "pretrained",
    reference: str = "untrained",
    metric: str = "auroc",
    split: str = "test",
    experiment: str | None = None,
    designs: Mapping[str, str] | None = None,
) -> list[ResultsTable]:
    """For every dataset of a cohort a block: rows heads, columns training sizes, cells backbone − reference.

    The difference is taken within each replicate (same training patients), then mean and sample standard
    deviation over replicates: "+0.022 (0.004)". Runs without their partner are left out and counted in the
    note. ValueError as in `auroc_table`, and when no run has a partner.
    """
    looks = _looks(results, split, designs or {})
    chosen = _choose(results, metric, split, experiment)
    pair = [*_BLOCK, "head", "train_size", "train_size_name", "replicate"]
    ours, theirs = (chosen.filter(pl.col("backbone") == name).select(*pair, "value") for name in (backbone, reference))
    paired = ours.join(theirs, on=pair, suffix="_reference").with_columns(
        value=pl.col("value") - pl.col("value_reference")
    )
    if not paired.height:
        raise ValueError(
            "a paired table needs both backbones run on the same head, training size and replicate: "
            f"got {ours.height} runs of {backbone}, {theirs.height} of {reference}, none in common; "
            "run the missing backbone, or name the two that were run"
        )
    alone = pl.concat([ours, theirs]).join(paired, on=pair, how="anti")
    tables = []
    for block, runs in _blocks(paired):
        heads = sorted(runs.select("head").unique().iter_rows())
        measure = f"{split} {metric}, {backbone} − {reference}"
        count = alone.join(runs.select(_BLOCK).unique(), on=_BLOCK, how="semi").height
        if count:
            measure += f" ({count} runs without a partner left out)"
        tables.append(_table(_title(block, paired), ["head"], heads, runs, measure, looks[block[-1]], signed=True))
    return tables


def _choose(results: pl.DataFrame, metric: str, split: str, experiment: str | None) -> pl.DataFrame:
    run = [*_BLOCK, "backbone", "head", "train_size_name", "replicate"]
    # A rerun is a row of its own: its variant stands at its head.
    other = pl.when(pl.col(VARIANT) != "").then(pl.format(" ({})", VARIANT)).otherwise(pl.lit(""))
    named = with_variants(results).with_columns(head=pl.col("head") + other)
    chosen = named.filter(pl.col("split") == split)
    if experiment is not None:
        chosen = chosen.filter(pl.col("experiment") == experiment)
    degenerate = chosen.filter(pl.col("metric") == DEGENERATE).with_columns(value=pl.lit(None, pl.Float64))
    chosen = chosen.filter(pl.col("metric") == metric)
    chosen = pl.concat([chosen, degenerate.join(chosen, on=["run_id", *run], how="anti")])
    if not chosen.height:
        there = {name: ", ".join(results[name].unique().sort()) for name in ("experiment", "split", "metric")}
        raise ValueError(
            "a table needs results to average: "
            f"got none of metric {metric}, split {split}, experiment {experiment or 'any'}; "
            f"choose among {'; '.join(f'{name}: {values}' for name, values in there.items())}"
        )
    # Sums depend on their order in the last bit; sorted, the table does not depend on the order of files.
    return chosen.sort(run)


def _blocks(runs: pl.DataFrame):
    return sorted(runs.partition_by(_BLOCK, as_dict=True).items())


def _title(block: tuple[str, str, str], runs: pl.DataFrame) -> str:
    experiment, cohort, dataset = block
    datasets = runs.filter(cohort=cohort)["dataset_hash"].unique()
    name = cohort if len(datasets) == 1 else f"{cohort}, dataset {dataset[:8]}"
    return name if runs["experiment"].n_unique() == 1 else f"{experiment}: {name}"


def _looks(results: pl.DataFrame, split: str, designs: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Dataset → what stands under its tables: patients and cases of the split, looks at it, the design."""
    found = {}
    for (dataset,), runs in results.filter(split=split).group_by("dataset_hash", maintain_order=True):
        looks = runs["run_id"].n_unique()
        counts = ("patients", "predictions", "cases")  # predictions where patients have several
        of = {name: runs.filter(metric=name)["value"].unique().sort().to_list() for name in counts}
        counted = ", ".join(f"{count:,.0f} {name}" for name, counts in of.items() for count in counts[-1:])
        times = "once" if looks == 1 else f"{looks:,} times, once by each run"
        said = f"{split}: {f'{counted}; ' if counted else ''}looked at {times}."
        found[dataset] = (said, designs[dataset]) if dataset in designs else (said,)
    return found


def _table(title, row_headers, names, runs, measure, looks, *, signed=False) -> ResultsTable:
    """Build one block; `signed` prints differences."""
    cell = [*row_headers, "train_size_name"]
    usual = runs.group_by(cell).len()["len"].max()
    value = pl.col("value")
    summary = runs.group_by(cell).agg(value.mean().alias("mean"), value.std(ddof=1).alias("sd"), value.count())
    found = {}
    for *key, mean, deviation, replicates in summary.iter_rows():
        if mean is None:
            found[tuple(key)] = Cell(mean, deviation, replicates, NO_NUMBER)
            continue
        # z: no minus before a zero
        number = f"{mean:+z.3f}".replace("-", "−") if signed else f"{mean:.3f}"
        text = f"{number} ({MISSING if deviation is None else f'{deviation:.3f}'})"
        if replicates < usual:
            text += f" [{replicates}]"
        found[tuple(key)] = Cell(mean, deviation, replicates, text)
    sizes = (
        runs.group_by("train_size_name")
        .agg(low=pl.col("train_size").min(), high=pl.col("train_size").max())
        .sort("high", "train_size_name")
    )
    columns, rows = [], [[] for _ in names]
    for size, low, high in sizes.iter_rows():
        patients = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        columns.append(f"{int(size):,}" if size.isdecimal() else f"{size} ({patients})")
        for row, name in zip(rows, names, strict=True):
            row.append(found.get((*name, size)))
    spread = "mean (sample standard deviation)"
    fewer = ", fewer where [n] says so" if any(0 < c.replicates < usual for c in found.values()) else ""
    replicates = f"{usual} replicate{'s' if usual > 1 else ''}{fewer}"
    note = f"{measure}: {spread} over {replicates}; columns: training patients."
    if lost := runs["value"].null_count():
        note += f" {NO_NUMBER} or left out: {lost} of {len(runs)} whose scores were all equal or not finite."
    return ResultsTable(
        title=title,
        row_headers=tuple(row_headers),
        columns=tuple(columns),
        row_names=tuple(tuple(part.replace("_", " ") for part in name) for name in names),
        cells=tuple(map(tuple, rows)),
        notes=(note, *looks),
    )
