"""How figures are drawn with matplotlib: one style, equal bytes for equal figures, legible in grey."""

import io
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A67C00", "#56B4E9", "#000000")
"""Of Okabe and Ito, which the colour-blind tell apart; the yellow ones darkened for paper."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
"""Lines are told apart by them in grey too."""
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8eb",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "path",  # the same on every machine
    "svg.hashsalt": "medbert_jax",
}


@contextmanager
def new_figure(width: float, height: float) -> Generator["Figure"]:
    """Yield an empty figure of so many inches; it is drawn on and written within the `with` block."""
    import matplotlib  # takes seconds, and few commands draw
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def svg_of(figure: "Figure", title: str) -> str:
    """The figure as SVG."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    return text.getvalue()


def png_of(figure: "Figure") -> bytes:
    """The figure as PNG; its layout is that of the SVG, which is written first."""
    content = io.BytesIO()
    figure.set_layout_engine("none")
    figure.savefig(content, format="png", dpi=200, metadata={"Software": None})
    return content.getvalue()
