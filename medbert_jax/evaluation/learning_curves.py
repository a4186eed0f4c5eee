"""The learning curves of a run as a picture, from its metrics alone."""

from pathlib import Path

from medbert_jax.disk.whole_files import write_whole
from medbert_jax.drawn_figures import COLOURS, new_figure, svg_of
from medbert_jax.training.progress import metrics_row

PANELS = (
    ("masked_code_loss", "masked-code loss (nats)"),
    ("masked_code_accuracy", "masked-code accuracy"),
    ("prolonged_los_loss", "prolonged-LOS loss (nats)"),
    ("prolonged_los_auroc", "prolonged-LOS AUROC"),
)
"""Metric → what stands at its axis."""
KINDS = {"train": ("training", "-", 1.0), "validation": ("validation", "o--", 1.6)}
"""Kind of record → its name, line and width."""


def draw_curves(run: str | Path) -> Path | None:
    """Write `curves.svg` into the run directory and return its path; None where nothing was recorded.

    Training loss and accuracy are of codes of which a tenth is shown unchanged, validation's are not: they are higher
    by up to a tenth.
    """
    metrics, path = Path(run) / "metrics.jsonl", Path(run) / "curves.svg"
    lines = metrics.read_bytes().split(b"\n") if metrics.exists() else []
    rows = [row for row in map(metrics_row, lines) if row]
    if not rows:
        return None
    with new_figure(9, 6) as figure:
        axes = figure.subplots(2, 2, sharex=True).ravel()
        for place, (metric, label) in zip(axes, PANELS, strict=True):
            for colour, (kind, (name, line, width)) in zip(COLOURS, KINDS.items(), strict=False):
                of_kind = [row for row in rows if row["kind"] == kind and row.get(metric) is not None]
                points = sorted((row["step"], row[metric]) for row in of_kind)
                if points:
                    place.plot(*zip(*points, strict=True), line, color=colour, lw=width, ms=3, label=name)
            place.set_ylabel(label)
        for place in axes[2:]:
            place.set_xlabel("step")
        axes[0].legend()
        write_whole(path, svg_of(figure, "Learning curves"))
    return path
