"""A picture of a page of `medbert attention`: its third layer, as a browser shows it.

    python docs/inside.py attention.html docs/inside.png

Needs chromium, and Pillow, which matplotlib brings. Only pages of simulated patients may be pictured here.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from chromium import browser  # noqa: E402
from PIL import Image  # noqa: E402

WIDTH, LAYER, COLOURS = 1200, 3, 64


def picture(page: Path, out: Path) -> None:
    """Write the PNG."""
    with browser() as tab:
        tab.open(page.resolve().as_uri(), width=WIDTH)
        while tab.run("document.body.dataset.pictures") != "drawn":
            pass
        tab.run(
            f"{{ const one = document.getElementById('layer'); one.value = '{LAYER - 1}';"
            " one.dispatchEvent(new Event('input', { bubbles: true })); }"
        )
        tab.screenshot(out)
    Image.open(out).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    picture(Path(sys.argv[1]), Path(sys.argv[2]))
