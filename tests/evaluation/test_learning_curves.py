"""Learning curves: every record of the metrics is a point of the picture, and the same metrics the same bytes."""

import json
import xml.etree.ElementTree as ET

from medbert_jax.evaluation.learning_curves import PANELS, draw_curves


def written(folder, rows, tail=""):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return folder


def records(steps: int) -> list[dict]:
    train = [{"kind": "train", "step": step, **{name: 1 / step for name, _ in PANELS[:3]}} for step in range(1, steps)]
    seen = [{"kind": "validation", "step": 5, **{name: 0.5 for name, _ in PANELS}}]
    return train + seen + [{"kind": "validation", "step": 9, "prolonged_los_auroc": None}]


def points(svg: bytes) -> int:
    """Corners of the drawn lines: `M` and `L` of paths that are clipped to the axes."""
    lines = [node for node in ET.fromstring(svg).iter() if node.get("clip-path") and node.tag.endswith("path")]
    return sum(
        sum(letter in "ML" for letter in node.get("d")) for node in lines if "stroke: #0072b2" in node.get("style")
    )


def test_every_record_is_a_point(tmp_path):
    path = draw_curves(written(tmp_path / "a", records(20), tail='{"kind": "tra'))
    svg = path.read_bytes()
    assert points(svg) == 3 * 19
    for _, label in PANELS:
        assert label.encode() in svg
    assert points(draw_curves(written(tmp_path / "b", records(19))).read_bytes()) == 3 * 18


def test_the_same_metrics_give_the_same_bytes(tmp_path):
    one, other = (draw_curves(written(tmp_path / name, records(20))) for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_without_a_record_there_is_no_picture(tmp_path):
    assert draw_curves(written(tmp_path / "a", [])) is None
    assert not (tmp_path / "a" / "curves.svg").exists()
