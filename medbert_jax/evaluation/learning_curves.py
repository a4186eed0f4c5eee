"""The learning curves of a run as a picture, from its metrics alone."""

import io
from pathlib import Path

from medbert_jax.disk.whole_files import write_whole
from medbert_jax.training.progress import metrics_row

PANELS = (
    ("masked_code_loss", "masked-code loss (nats)"),
    ("masked_code_accuracy", "masked-code accuracy"),
    ("prolonged_los_loss", "prolonged-LOS loss (nats)"),
    ("prolonged_los_auroc", "prolonged-LOS AUROC"),
)
"""Metric → what stands at its axis."""
KINDS = {"train": ("training", "#0072B2", "-", 1.0), "validation": ("validation", "#D55E00", "o-", 1.6)}
"""Kind of record → its name, colour (Okabe & Ito's, told apart by the colour-blind), line and width."""


def draw_curves(run: str | Path) -> Path | None:
    """Write `curves.svg` into the run directory and return its path; None where nothing was recorded yet.

    Training loss and accuracy are of codes of which a tenth is shown unchanged, validation's are not: they are higher
    by up to a tenth.
    """
    from matplotlib import rc_context  # takes seconds, and nobody else needs it
    from matplotlib.figure import Figure

    run = Path(run)
    lines = (run / "metrics.jsonl").read_bytes().split(b"\n")
    rows = [row for row in map(metrics_row, lines) if row]
    if not rows:
        return None
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).ravel()
    for place, (metric, label) in zip(axes, PANELS, strict=True):
        for kind, (name, colour, line, width) in KINDS.items():
            points = [(row["step"], row[metric]) for row in rows if row["kind"] == kind and row.get(metric) is not None]
            if points:
                place.plot(*zip(*sorted(points), strict=True), line, color=colour, lw=width, ms=3, label=name)
        place.set_ylabel(label)
        place.grid(alpha=0.3)
        place.spines[["top", "right"]].set_visible(False)
    for place in axes[2:]:
        place.set_xlabel("step")
    axes[0].legend(frameon=False)
    with rc_context({"svg.hashsalt": "medbert_jax", "svg.fonttype": "none"}):  # same metrics, same bytes; text is text
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    path = run / "curves.svg"
    write_whole(path, buffer.getvalue())
    return path
