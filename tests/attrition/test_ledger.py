import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import pytest

from medbert_jax.attrition.disclosure import hidden_cells
from medbert_jax.attrition.ledger import Counts, Ledger
from medbert_jax.attrition.steps import Attrition


def figure_1() -> Ledger:
    ledger = Ledger.start("pretraining cohort", patients=68_696_329)
    ledger.leave("diagnoses", "no diagnosis", tag="paper", patients=68_696_329 - 39_398_846)
    ledger.leave("times", "wrong recorded time", tag="paper", patients=196_319)
    ledger.leave("minimum_codes", "fewer than three unique codes", tag="paper", patients=10_711_877)
    return ledger


@pytest.mark.parametrize(
    "record", [{}, [], {"lines": [{}]}, {"title": "", "came": {"people": 1}, "lines": [], "kept": {}}]
)
def test_what_is_no_ledger_is_told(record):
    with pytest.raises(ValueError, match="a ledger must have title, came, lines and kept: got something else; give"):
        Ledger.from_dict(record)


def test_figure_1_of_the_paper_adds_up():
    # It does, to the patient: 39,398,846 − 196,319 − 10,711,877 = 28,490,650. The figure prints no count of those
    # without a diagnosis; it is the difference of the first two.
    ledger = figure_1()
    assert ledger.lines[0].left.patients == 29_297_483
    assert ledger.kept == Counts(28_490_650, 0, 0)
    ledger.check(patients=28_490_650, visits=0, codes=0)


def test_check_sees_a_difference_of_one_at_each_level():
    ledger = Ledger.start("step", patients=10, visits=30, codes=90)
    ledger.leave("few", "fewer than two encounters", patients=1, visits=1, codes=3)
    ledger.check(patients=9, visits=29, codes=87)
    for off in ({"patients": 8}, {"visits": 30}, {"codes": 86}):
        with pytest.raises(ValueError, match=f"{next(iter(off))} .* and .* \\(ledger and data\\); find"):
            ledger.check(**{"patients": 9, "visits": 29, "codes": 87, **off})
    with pytest.raises(ValueError, match="patients 9 and 1; visits 29 and 2; codes 87 and 3"):
        ledger.check(patients=1, visits=2, codes=3)


def test_goes_through_json():
    ledger = figure_1()
    again = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    assert again == ledger
    again.lines.pop()
    assert again != ledger
    record = ledger.to_dict()
    record["kept"]["patients"] += 1
    with pytest.raises(ValueError, match="difference 0"):
        Ledger.from_dict(record)


def test_merging_shards_adds_counts_and_keeps_both_alone():
    one = Ledger.start("step", patients=5, visits=9, codes=20)
    one.leave("a", "rule a", patients=1, visits=2, codes=3)
    one.leave("b", "rule b")
    two = Ledger.start("step", patients=7, visits=8, codes=9)
    two.leave("b", "rule b", visits=1)
    two.leave("c", "rule c", tag="group", codes=4)
    both = one.merge(two)
    assert both.came == Counts(12, 17, 29) and both.kept == Counts(11, 14, 22)
    assert [line.rule for line in both.lines] == ["a", "b", "c"]
    assert both.lines[1].left == Counts(0, 1, 0) and one.lines[1].left == Counts()
    assert one.kept == Counts(4, 7, 17) and two.kept == Counts(7, 7, 5)


def test_merging_another_step_is_refused():
    one, two = Ledger.start("step", patients=1), Ledger.start("step", patients=1)
    one.leave("a", "rule a")
    two.leave("a", "rule a in other words")
    with pytest.raises(ValueError, match="other words for a"):
        one.merge(two)
    with pytest.raises(ValueError, match='got "step" and "other"'):
        one.merge(Ledger.start("other", patients=1))


def test_refuses_impossible_counts():
    ledger = Ledger.start("step", patients=5, visits=5, codes=5)
    ledger.leave("a", "rule a", patients=3)
    with pytest.raises(ValueError, match="each rule once: got a again"):
        ledger.leave("a", "rule a", patients=1)
    with pytest.raises(ValueError, match="kept after b must be at least 0: got patients -1, codes -2"):
        ledger.leave("b", "rule b", patients=3, codes=7)
    with pytest.raises(ValueError, match="leaves under c must be at least 0: got visits -1"):
        ledger.leave("c", "rule c", visits=-1)
    with pytest.raises(ValueError, match='one of paper, group, ehrshot, fomoh, ours: got "theirs"'):
        ledger.leave("d", "rule d", tag="theirs")
    assert [line.rule for line in ledger.lines] == ["a"]


def test_table_for_the_eye():
    ledger = Ledger.start("diabetes130 → hf-later", patients=71_518, visits=101_766, codes=303_496)
    ledger.leave("min_visits", "fewer than two encounters", patients=54_745, visits=54_745, codes=160_000)
    assert ledger.render().splitlines() == [
        "diabetes130 → hf-later",
        "                                 patients   visits     codes",
        "────────────────────────────────────────────────────────────",
        "in                                 71,518  101,766   303,496",
        "fewer than two encounters  ours   −54,745  −54,745  −160,000",
        "kept                               16,773   47,021   143,496",
    ]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def two_steps() -> tuple[Ledger, Ledger]:
    one = Ledger.start("read", patients=1_000, visits=3_000, codes=9_000)
    one.leave("unlisted", 'ids that "person" lacks, or blank', patients=4, visits=30, codes=70)
    one.leave("birth", "before birth", visits=200, codes=5)
    one.leave("idle", "took nothing")
    two = Ledger.start("sequences", patients=996, visits=2_770, codes=8_925)
    two.leave("few", "fewer than three codes", tag="paper", patients=96, visits=170, codes=200)
    return one, two


def test_csv_has_a_row_per_rule_that_adds_up():
    table = rows(Attrition(two_steps(), {"cases": Counts(100, 600), "controls": Counts(800, 2_000)}).to_csv())
    assert [row["rule"] for row in table] == ["unlisted", "birth", "idle", "few", "branch", "branch"]
    assert table[0]["text"] == 'ids that "person" lacks, or blank' and table[3]["tag"] == "paper"
    assert [row["step"] for row in table] == ["read"] * 3 + ["sequences"] * 3
    for level in ("patients", "visits", "codes"):
        came, left, kept = ([int(row[f"{level}_{move}"]) for row in table[:4]] for move in ("came", "left", "kept"))
        assert [a - b for a, b in zip(came, left, strict=True)] == kept and came[1:] == kept[:-1]
    assert [row["patients_kept"] for row in table[4:]] == ["100", "800"]
    assert [row["codes_kept"] for row in table[4:]] == ["", ""]  # no branch counts codes
    assert rows(Attrition((figure_1(),)).to_csv())[-1]["patients_kept"] == "28490650"


def test_steps_that_do_not_hand_over_are_refused():
    one, two = two_steps()
    with pytest.raises(
        ValueError, match=r'"read" keeps and "sequences" takes 996 and 995 patients; .* 8,925 and 8,924'
    ):
        Attrition((one, Ledger.start("sequences", patients=995, visits=2_770, codes=8_924)))
    with pytest.raises(ValueError, match='"sequences" keeps and cases, controls are 900 and 901 patients; give'):
        Attrition((one, two), {"cases": Counts(101), "controls": Counts(800)})
    with pytest.raises(ValueError, match="at least one ledger: got none"):
        Attrition(())


def test_shared_csv_hides_small_counts_and_what_gives_them_away():
    one, two = two_steps()
    table = rows(Attrition((one, two)).to_csv(share=True))
    # No other rule of the first step took patients: the second step's goes with it, and what remains between them.
    assert [row["patients_left"] for row in table] == ["<11", "0", "0", "hidden"]
    assert [row["patients_kept"] for row in table] == ["hidden", "hidden", "hidden", "900"]
    assert [row["visits_left"] for row in table] == ["30", "200", "0", "170"]
    assert [row["codes_left"] for row in table] == ["hidden", "<11", "0", "200"]
    assert [row["codes_came"] for row in table] == ["9000", "hidden", "8925", "8925"]
    # Alone, the first step can only hide what it kept.
    alone = rows(Attrition((one,)).to_csv(share=True))
    assert [row["patients_left"] for row in alone] == ["<11", "0", "0"] and alone[-1]["patients_kept"] == "hidden"
    branches = {"cases": Counts(7), "controls": Counts(893)}
    ends = rows(Attrition((one, two), branches).to_csv(share=True))
    assert [row["patients_kept"] for row in ends[-3:]] == ["900", "<11", "hidden"]
    few = Ledger.start("read", patients=9, visits=25, codes=0)
    few.leave("birth", "before birth", patients=2, visits=12)
    assert Attrition((few,)).to_csv(share=True).splitlines()[1].endswith(",ours,hidden,<11,<11,25,12,13,0,0,0")


def published(parts: tuple[int, ...], groups: tuple[int, ...]) -> tuple:
    """All that a reader of shared figures sees of parts and remainders."""
    hidden, remainders = hidden_cells(parts, groups)
    shown = ["<11" if 0 < count < 11 else "hidden" if part in hidden else count for part, count in enumerate(parts)]
    return *shown, *("hidden" if n in remainders else sum(parts[n:]) for n in range(len(parts)))


def possible(tables: Iterable[tuple[int, ...]], publish: Callable[[tuple[int, ...]], tuple]) -> list[tuple[int, int]]:
    """Of every set of figures that is published: how many small counts, and how many values these may have together."""
    found = defaultdict(set)
    for parts in tables:
        found[publish(parts)].add(tuple(count for count in parts if 0 < count < 11))
    return [(len(min(values)), len(values)) for values in found.values()]


def tables_of(parts: int, least: int, total: int) -> Iterator[tuple[int, ...]]:
    if not parts:
        yield ()
        return
    for first in range(least, total - least * (parts - 1) + 1):
        for others in tables_of(parts - 1, least, total - first):
            yield first, *others


# The total of all tables ends where every way to hide has been taken: three small parts behind one of more than 11 are
# shown from 42, one behind three from 44. Zeros are shown, so that four parts with some are three.
@pytest.mark.parametrize(
    ("groups", "least"),
    [((0, -1), 0), ((0, 0, -1), 0), ((0, -1, -1), 0), ((0, 1, -1), 0), ((0, 1, 1, -1), 1)],
)
def test_who_knows_the_rule_cannot_rule_out_any_small_counts(groups, least):
    # Of all tables that publish the same figures, the small ones together take every combination of 1 to 10.
    seen = possible(tables_of(len(groups), least, 44), lambda parts: published(parts, groups))
    assert all(values == 10**small for small, values in seen)
    assert {small for small, _ in seen} == set(range(len(groups) + 1))


def test_who_reads_a_shared_csv_cannot_rule_out_any_small_counts():
    def csv_of(parts):
        ledger = Ledger.start("step", patients=sum(parts))
        for rule, count in zip("ab", parts, strict=False):
            ledger.leave(rule, f"rule {rule}", patients=count)
        branches = {"cases": Counts(parts[2]), "controls": Counts(parts[3])} if len(parts) == 4 else {}
        return Attrition((ledger,), branches).to_csv(share=True)

    assert all(values == 10**small for small, values in possible(tables_of(3, 0, 33), csv_of))
    three = ((0, *parts) for parts in tables_of(3, 1, 33))
    assert all(values == 10**small for small, values in possible(three, csv_of))


def test_branches_of_branches_add_up_and_tell_no_small_counts():
    def ends(parts, share=True):
        ledger = Ledger.start("step", patients=sum(parts))
        branches = {"train": {"cases": Counts(parts[0]), "controls": Counts(parts[1])}, "test": Counts(parts[2])}
        return rows(Attrition((ledger,), branches).to_csv(share=share))

    table = ends((30, 70, 50), share=False)
    assert [row["text"] for row in table] == ["train", "train: cases", "train: controls", "test"]
    assert [row["patients_kept"] for row in table] == ["100", "30", "70", "50"]
    assert [row["patients_kept"] for row in ends((3, 70, 50))] == ["73", "<11", "hidden", "50"]
    assert [row["patients_kept"] for row in ends((3, 12, 50))] == ["hidden", "<11", "hidden", "hidden"]
    assert [row["patients_kept"] for row in ends((30, 70, 5))] == ["hidden", "30", "hidden", "<11"]
    assert [row["patients_kept"] for row in ends((3, 0, 50))] == ["hidden", "<11", "0", "hidden"]
    seen = possible(tables_of(3, 0, 33), lambda parts: tuple(row["patients_kept"] for row in ends(parts)))
    assert all(values == 10**small for small, values in seen)


def test_hiding_a_big_enough_partner_alone_is_seen_to_tell():
    # What was done once: 1 of 21 hidden behind 20, since 20 stays above 10 with whatever may be hidden there. But with
    # 2 of 21 all was hidden, so that a total of 21 said 1.
    def once(parts):
        small = [0 < count < 11 for count in parts]
        if sum(small) == 1 and max(parts) >= 20:
            return *small, sum(parts)
        return *small, "all hidden" if any(small) else parts

    assert (1, 1) in possible(tables_of(2, 0, 46), once)


def test_hides_no_more_than_it_needs():
    groups = (0, 0, 0, 1, 1, -1)
    assert hidden_cells((30, 0, 500, 90, 12, 9_000), groups) == (set(), set())
    # Behind one of its own step; two behind the same one; a partner that is too small takes the next to it.
    assert hidden_cells((30, 4, 500, 90, 12, 9_000), groups) == ({0, 1}, {1})
    assert hidden_cells((30, 4, 3, 90, 12, 9_000), groups) == ({0, 1, 2}, {1, 2})
    assert hidden_cells((30, 0, 500, 5, 12, 9_000), groups) == ({3, 4, 2}, {3, 4})
    # Two sets far from each other leave what is between them.
    assert hidden_cells((30, 4, 500, 90, 5, 9_000), groups) == ({0, 1, 3, 4}, {1, 4})
    assert hidden_cells((12, 4, 5, 0), (0, 0, 0, -1)) == ({0, 1, 2}, {0, 1, 2, 3, 4})
