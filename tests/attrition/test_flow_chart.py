import re
import xml.etree.ElementTree as ElementTree

import pytest

from medbert_jax.attrition.flow_chart import PADDING, flow_chart, text_width, wrap
from medbert_jax.attrition.ledger import Counts, Ledger

SVG = "{http://www.w3.org/2000/svg}"


def figure_1() -> Ledger:
    ledger = Ledger.start("Health Facts", patients=68_696_329)
    ledger.leave("diagnoses", "No diagnosis", tag="paper", patients=29_297_483)
    ledger.leave("times", "Wrong recorded time", tag="paper", patients=196_319)
    ledger.leave("minimum_codes", "Fewer than three unique codes", tag="paper", patients=10_711_877)
    return ledger


def steps() -> tuple[Ledger, ...]:
    read = Ledger.start("read omop", patients=1_000, visits=3_000, codes=9_000)
    read.leave("unlisted", "Rows of strangers & <others>", patients=4, visits=30, codes=70)
    read.leave("idle", "Took none")
    read.leave("birth", "Before birth", visits=200, codes=100)
    made = Ledger.start("omop → patient sequences", patients=996, visits=2_770, codes=8_830)
    made.leave("few", "Fewer than 3 codes", tag="paper", patients=96, visits=170, codes=200)
    words = "Any heart-failure code, but no case: " + "a_rule_without_a_blank_" * 5
    cohort = Ledger.start("omop → dhf", patients=900, visits=2_600, codes=8_630)
    cohort.leave("unqualified", words, tag="group", patients=100, visits=600, codes=630)
    return read, made, cohort


def boxes(svg: str) -> list[tuple[float, float, float, float, list[str]]]:
    """Boxes with the texts inside: left, top, right, bottom, lines."""
    root = ElementTree.fromstring(svg)
    found = []
    for frame in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(frame.get(key)) for key in ("x", "y", "width", "height"))
        inside = [
            text.text
            for text in root.iter(f"{SVG}text")
            if x < float(text.get("x")) < x + width and y < float(text.get("y")) < y + height
        ]
        found.append((x, y, x + width, y + height, inside))
    return found


def test_figure_1_of_the_paper():
    splits = {"train": Counts(19_943_455), "validation": Counts(2_849_065), "test": Counts(5_698_130)}
    drawn = [lines for *_, lines in boxes(flow_chart([figure_1()], branches=splits))]
    assert drawn[:4] == [
        ["In", "Health Facts", "68,696,329 patients"],
        ["Kept", "39,398,846 patients"],
        ["Kept", "39,202,527 patients"],
        ["Kept", "Health Facts", "28,490,650 patients"],
    ]
    assert drawn[4:7] == [
        ["No diagnosis (paper)", "−29,297,483 patients"],
        ["Wrong recorded time (paper)", "−196,319 patients"],
        ["Fewer than three unique codes (paper)", "−10,711,877 patients"],
    ]
    assert drawn[7:] == [
        ["train", "19,943,455 patients"],
        ["validation", "2,849,065 patients"],
        ["test", "5,698,130 patients"],
    ]


def test_splits_fall_into_cases_and_controls():
    branches = {
        "train": {"cases": Counts(70), "controls": Counts(490)},
        "validation": {"cases": Counts(9), "controls": Counts(71)},
        "test": {"cases": Counts(18), "controls": Counts(142)},
    }
    svg = flow_chart(steps(), branches=branches)
    drawn = {(lines[0], lines[-1]): box for *box, lines in boxes(svg)}
    kept = drawn["Kept", "2,000 visits · 8,000 codes"]
    for name, whole, cases, controls in (("train", 560, 70, 490), ("validation", 80, 9, 71), ("test", 160, 18, 142)):
        left, top, right, _ = drawn[name, f"{whole} patients"]
        below = [drawn["cases", f"{cases} patients"], drawn["controls", f"{controls} patients"]]
        assert kept[3] < top and all(drawn[name, f"{whole} patients"][3] < box[1] for box in below)
        assert left == below[0][0] and below[0][2] < below[1][0] and below[1][2] == pytest.approx(right, abs=0.01)
    paths = [path.get("d") for path in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    points = [(float(x), float(y)) for path in paths for x, y in re.findall(r"L([\d.]+) ([\d.]+)L", path)]
    for left, top, right, _ in (box for (name, _), box in drawn.items() if name in ("train", "cases", "controls")):
        assert any((x, y) == pytest.approx(((left + right) / 2, top), abs=0.01) for x, y in points)  # an arrow's point
    shared = [lines for *_, lines in boxes(flow_chart(steps(), branches=branches, share=True))]
    assert ["cases", "<11 patients"] in shared and ["controls", "patients hidden"] in shared
    assert ["validation", "80 patients"] in shared and ["train", "560 patients"] in shared


@pytest.mark.parametrize("groups", [0, 2, 3, 9, "nested"])
@pytest.mark.parametrize("share", [False, True])
def test_nothing_overlaps_and_every_text_fits(groups, share):
    if groups == "nested":
        branches = {"train": {"cases": Counts(12), "controls": Counts(300)}, "a" * 90: Counts(400),
                    "test": {f"Group {n} with a name that is long": Counts(29) for n in range(3)},
                    "empty": {"cases": Counts(1), "controls": Counts()}}  # fmt: skip
    else:
        branches = {f"Group {n} with a name that is long": Counts(800 // groups) for n in range(groups)}
        branches |= {"rest": Counts(800 % groups)} if groups and 800 % groups else {}
    svg = flow_chart(steps(), branches=branches, share=share)
    root, drawn = ElementTree.fromstring(svg), boxes(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    for n, (left, top, right, bottom, lines) in enumerate(drawn):
        assert left >= 0 and top >= 0 and right <= width and bottom <= height
        assert lines and all(text_width(line) <= right - left - 2 * PADDING for line in lines)
        for other in drawn[:n]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top
    in_boxes = sum(len(lines) for *_, lines in drawn)
    assert len(list(root.iter(f"{SVG}text"))) == in_boxes + share  # the note is the only text outside
    texts = " ".join(text.text for text in root.iter(f"{SVG}text"))
    assert "Rows of strangers & <others> (ours)" in texts and "Took nothing: Took none" in texts
    assert ("−4 patients" in texts) is not share and ("<11 patients" in texts) is share


def test_shared_chart_hides_what_would_give_small_counts_away():
    drawn = [lines for *_, lines in boxes(flow_chart(steps(), branches={"a": Counts(3), "b": Counts(797)}, share=True))]
    assert ["a", "<11 patients"] in drawn and ["b", "patients hidden"] in drawn
    kept = [lines[-2] for lines in drawn if lines[0] == "Kept"]
    assert kept == ["patients hidden", "patients hidden", "900 patients", "800 patients"]


def test_is_xml_whatever_the_words_and_needs_nothing_else():
    odd = Ledger.start('a "title" & <tag> \x00\x1b\ufffe', patients=50)
    odd.leave("rule", "]]> </text><script>alert(1)</script> &amp; 患者\ud800", patients=20)
    svg = flow_chart([odd], branches={"<b>": Counts(30)})
    root = ElementTree.fromstring(svg)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {"svg", "title", "g", "path", "rect", "text"}
    assert svg.count("http") == 1 and "href" not in svg and "url(" not in svg
    svg.encode()  # a lone surrogate would not
    assert ElementTree.fromstring(flow_chart([Ledger.start("empty", patients=0)])) is not None


def test_steps_that_do_not_add_up_are_refused():
    read, made, cohort = steps()
    with pytest.raises(ValueError, match="each step must take what the one before kept"):
        flow_chart([read, cohort])
    with pytest.raises(ValueError, match="cases are 800 and 799 patients"):
        flow_chart([read, made, cohort], branches={"cases": Counts(799)})


def test_wraps_words_and_cuts_what_is_wider():
    assert wrap("", 100) == [] and wrap("one two", 1_000) == ["one two"]
    lines = wrap("short " + "x" * 60 + " end", 200)
    assert "".join(lines).replace(" ", "") == "short" + "x" * 60 + "end"
    assert all(text_width(line) <= 200 for line in lines) and len(lines) >= 3
    assert wrap("mmmmmmmmmm mmmmmmmmmm", 200, bold=True) > ["mmmmmmmmmm"] and text_width("m", bold=True) > text_width(
        "m"
    )
