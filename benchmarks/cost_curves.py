"""The cost curves of `pretraining.py` as a picture: processor time per patient, logarithmic both ways.

python benchmarks/cost_curves.py [--record benchmarks/results/pretraining.json] [--out docs/pretraining_cost.svg]
"""

import json
from pathlib import Path

import tyro

from medbert_jax.disk.whole_files import write_whole
from medbert_jax.drawn_figures import COLOURS, new_figure, svg_of

HERE = Path(__file__).parent


def main(
    record: Path = HERE / "results" / "pretraining.json", out: Path = HERE.parent / "docs" / "pretraining_cost.svg"
) -> None:
    """Draw.

    Args:
        record: what `pretraining.py` wrote.
        out: the picture.
    """
    curves = json.loads(record.read_text())["curves"]
    with new_figure(8.0, 5.5) as figure:
        panels = figure.subplots(2, 2, sharey=True).ravel()
        for panel, (name, curve) in zip(panels, curves.items(), strict=False):
            at = [float(value) for value in curve["rates"]]
            costs = [rate["cpu_ms_per_patient"] for rate in curve["rates"].values()]
            middle, lowest, highest = ([cost[of] for cost in costs] for of in ("median", "lowest", "highest"))
            panel.fill_between(at, lowest, highest, color=COLOURS[0], alpha=0.2, linewidth=0)
            panel.plot(at, middle, "o-", color=COLOURS[0], markersize=4)
            panel.set(xscale="log", yscale="log", xlabel=name, title=f"slope {curve['slope of processor time']:.2f}")
            panel.set_xticks(at, [f"{value:,.10g}" for value in at])
            panel.minorticks_off()
        ticks = [1, 2, 5, 10, 20]
        panels[0].set_yticks(ticks, [str(tick) for tick in ticks])
        for panel in panels[::2]:
            panel.set_ylabel("CPU ms per patient")
        write_whole(out, svg_of(figure, "Cost of pretraining"))


if __name__ == "__main__":
    tyro.cli(main)
