"""What a shared page shows gives no small count away: pages are attacked by linear algebra, and it is shown to bite."""

import itertools

import numpy as np
import pytest
from reporting.made_report import MODEL, made_attrition, made_evaluation

from medbert_jax.attrition.ledger import Counts, Ledger
from medbert_jax.attrition.steps import Attrition
from medbert_jax.evaluation.evaluate import EVERYONE
from medbert_jax.evaluation.figures import FIGURE, GROUP_DIFFERENCE
from medbert_jax.reporting.grouped_attrition import grouped
from medbert_jax.reporting.report import hides_test
from medbert_jax.reporting.shared_evaluation import (
    Cut,
    choose_cuts,
    kept_cuts,
    shareable,
    shown_group_counts,
)

SMALL = range(1, 11)


class System:
    """Cells that nobody may know, and what a page says of their sums."""

    def __init__(self):
        self.cells: list[int] = []
        self.equations: list[dict[int, int]] = []

    def cell(self, count: int) -> int:
        self.cells.append(count)
        return len(self.cells) - 1

    def say(self, *cells: int) -> None:
        self.equations.append(dict.fromkeys(cells, 1))

    def recovered(self) -> list[int]:
        """Counts of 1 to 10 that the equations determine: whose unit vector lies in their row space."""
        matrix = np.zeros((len(self.equations), len(self.cells)))
        for row, equation in enumerate(self.equations):
            matrix[row, list(equation)] = list(equation.values())
        _, values, rows = np.linalg.svd(matrix, full_matrices=False)
        inside = (rows[values > 1e-9] ** 2).sum(0)  # 1 where the unit vector is a sum of the rows
        return [count for count, share in zip(self.cells, inside, strict=True) if share > 1 - 1e-6 and count in SMALL]


def random_count(random) -> int:
    return int(random.choice([0, random.integers(1, 11), random.integers(11, 60), random.integers(60, 900)]))


def add_flow(system: System, random, *, share: bool) -> tuple[bool, tuple[int, int], tuple[int, int]]:
    """A flow chart with splits: whether the test split may be counted, its cells, and its counts."""
    sizes = {split: {"cases": random_count(random), "controls": random_count(random)} for split in ("train", "test")}
    lines = [random_count(random) for _ in range(random.integers(1, 12))]
    kept = sum(sum(of.values()) for of in sizes.values())
    ledger = Ledger.start("made", patients=kept + sum(lines))
    for number, count in enumerate(lines):
        ledger.leave(f"rule_{number}", "Rule", patients=count)
    branches = {split: {name: Counts(count) for name, count in of.items()} for split, of in sizes.items()}
    attrition = grouped(Attrition([ledger], branches), most=int(random.integers(2, 9)))
    left, remain, ends = attrition.cells(share=share)["patients"]
    of_lines = [system.cell(line.left.patients) for step in attrition.steps for line in step.lines]
    of_ends = [[system.cell(count) for count in of.values()] for of in sizes.values()]
    flat = [*of_lines, *(cell for of in of_ends for cell in of)]
    for cell, shown in zip(of_lines, left, strict=True):
        if isinstance(shown, int):
            system.say(cell)
    for number, shown in enumerate(remain):
        if isinstance(shown, int):
            system.say(*flat[number:])
    for (_, inside), shown in zip(attrition.groups(), ends, strict=True):
        if isinstance(shown, int):
            system.say(*flat[len(of_lines) + inside.start : len(of_lines) + inside.stop])
    return not (share and hides_test(attrition)), tuple(of_ends[1]), tuple(sizes["test"].values())


def add_groups(system: System, random, totals: tuple[int, int], cells: tuple[int, int], *, share: bool) -> None:
    """Two groups, each of which every patient of the test split has a level of."""
    for _ in range(2):
        parts = random.integers(2, 7)
        of_level = [random.multinomial(total, random.dirichlet(np.full(parts, 0.5))) for total in totals]
        levels = [tuple(map(int, level)) for level in zip(*of_level, strict=True)]
        shown = [level for level in levels if min(level) >= 11]
        rest = [tuple(map(int, level)) for level in levels if min(level) < 11]
        unknown = [[system.cell(count) for count in level] for level in shown]
        others = [system.cell(sum(level[place] for level in rest)) for place in (0, 1)]
        for place in (0, 1):  # the levels are all patients: their sum is the split's, which the page may say
            parts_of = [*(level[place] for level in unknown), others[place]]
            system.equations.append(dict.fromkeys(parts_of, 1) | {cells[place]: -1})
        if len(shown) < 2:
            continue
        said = shown_group_counts(shown, totals) if share else shown
        for (of_cases, of_controls), (cases, controls) in zip(unknown, said, strict=True):
            if cases is not None:
                system.say(of_cases)
            if cases is not None and controls is not None:
                system.say(of_cases, of_controls)


def attacked_page(seed: int, *, share: bool) -> list[int]:
    random, system = np.random.default_rng(seed), System()
    counted, cells, totals = add_flow(system, random, share=share)
    counted = counted and not (share and any(count in SMALL for count in totals))
    if counted:
        for cell in cells:
            system.say(cell)
        add_groups(system, random, totals, cells, share=share)
    return system.recovered()


def test_of_1000_suppressed_pages_no_cell_is_recovered():
    assert [seed for seed in range(1000) if attacked_page(seed, share=True)] == []


def test_the_attack_recovers_what_is_not_suppressed():
    found = [seed for seed in range(50) if attacked_page(seed, share=False)]
    assert len(found) > 40


def test_hiding_small_cells_alone_is_not_enough_for_this_attack():
    """Without a partner the rest of a group is its total less what is shown."""
    system = System()
    of = [system.cell(count) for count in (40, 30, 4)]
    system.say(*of), system.say(of[0]), system.say(of[1])
    assert system.recovered() == [4]
    assert shown_group_counts([(40, 90), (30, 80)], (74, 170)) in ([(None, 90), (30, 80)], [(40, 90), (None, 80)])


@pytest.mark.parametrize("seed", range(40))
def test_between_two_cuts_lie_eleven_or_none(seed):
    random = np.random.default_rng(seed)
    label = random.random(n := int(random.integers(40, 2000))) < random.uniform(0.05, 0.5)
    risk = np.clip(random.beta(1, random.uniform(1, 9), n) + 0.1 * label, 0, 1)
    found = [Cut(at, int((risk[label] >= at).sum()), int((risk[~label] >= at).sum())) for at in np.arange(1, 100) / 100]
    kept = choose_cuts(found, (0.1, 0.3), Cut(0.0, int(label.sum()), int((~label).sum())))
    assert [cut.risk for cut in kept] == sorted({cut.risk for cut in kept})
    for one, two in itertools.pairwise(kept):
        step = one.cases - two.cases, one.controls - two.controls
        assert len(kept) == 2 or (any(step) and all(count == 0 or count >= 11 for count in step))


def test_a_shared_evaluation_has_only_points_of_its_cuts():
    evaluation = made_evaluation()
    shared, counts = shareable(evaluation), evaluation.about["counts"]
    cuts = kept_cuts(evaluation, MODEL)
    assert len(cuts) > 5 and 0.1 in {cut.risk for cut in cuts}
    allowed = {(cut.cases / counts["cases"], 1 - cut.controls / counts["controls"]) for cut in cuts}
    roc = shared.curves.filter(model=MODEL, curve="roc").select("y", "x").rows()
    assert len(roc) == len(cuts)
    assert all(any(abs(y - one) + abs(1 - x - two) < 1e-9 for one, two in allowed) for y, x in roc)
    for curve in ("sensitivity", "specificity", "ppv", "npv", "flagged", "decision"):
        points = shared.curves.filter(model=MODEL, curve=curve)
        assert 0 < len(points) <= len(cuts) - 2 and set(points["x"]) <= {cut.risk for cut in cuts}
    bars = shared.curves.filter(model=MODEL, curve="histogram")
    assert bars["n"].min() >= 11 and bars["y"].sum() == pytest.approx(1)
    smooth = shared.curves.filter(model=MODEL, curve="calibration")["x"]
    assert (100 * smooth - (100 * smooth).round()).abs().max() < 1e-9  # and no patient's own risk
    at = shared.figures.filter(model=MODEL, kind=FIGURE).drop_nulls("at")
    assert set(at["at"]) <= {cut.risk for cut in cuts} and "sensitivity_at_specificity" not in set(at["metric"])
    groups = shared.figures.filter(
        (shared.figures["stratum"] != EVERYONE) | (shared.figures["kind"] == GROUP_DIFFERENCE)
    )
    assert set(groups["metric"]) == {"auroc", "brier", "observed_to_expected"}


def test_race_has_a_rest_of_few_and_hides_a_level_behind_it():
    evaluation = made_evaluation()
    levels = evaluation.figures.filter(kind=FIGURE, metric="auroc", model=MODEL)
    of = {stratum: (n, cases) for stratum, n, cases in levels.select("stratum", "n", "cases").iter_rows()}
    assert 0 < of[EVERYONE][0] - of["race: White"][0] - of["race: Asian"][0] < 30  # race unknown
    shared = shareable(evaluation).figures.filter(kind=FIGURE, metric="auroc", model=MODEL)
    shown = dict(shared.select("stratum", "n").iter_rows())
    assert shown["sex: male"] == of["sex: male"][0]
    assert None in (shown["race: White"], shown["race: Asian"])


def test_where_the_flow_hides_the_test_split_nothing_that_is_counted_stays():
    evaluation = made_evaluation()
    shared = shareable(evaluation, hides_totals=True)
    assert shared.about["counts"] == {} and len(shared.curves) == 0
    assert shared.figures["n"].null_count() == len(shared.figures) > 0
    assert set(shared.figures["stratum"]) == {EVERYONE} and shared.figures["at"].null_count() == len(shared.figures)
    assert hides_test(made_attrition(5, 700)) and not hides_test(made_attrition(50, 700))
