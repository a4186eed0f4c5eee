"""The confirmatory family, which Holm adjusts, and the negative controls; all other differences are descriptive."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medbert_jax.metrics.bootstrap import holm
from medbert_jax.printed_tables import Table
from medbert_jax.replication.estimates import Estimate, difference, mean_auroc
from medbert_jax.replication.paper import BASE, BASES, CONFIRMATORY, MED_BERT, printed_difference
from medbert_jax.replication.study import PERMUTED, Model, Study, TestedCohort
from medbert_jax.replication.table4 import largest
from medbert_jax.replication.words import MISSING, UNITS, hundredths, interval_words, p_words, row_words

TESTS = len(CONFIRMATORY) * len(BASES)


@dataclass(frozen=True)
class Test:
    """One difference of the family."""

    __test__ = False  # pytest takes the name for that of tests

    cohort: TestedCohort | None
    """None: no such cohort is among the results."""
    of: str
    """The cohort in words."""
    head: str
    gain: Estimate | None
    p_holm: float


def confirmatory(study: Study) -> list[Test]:
    """Base + Med-BERT minus base, three bases × three cohorts, at the largest training size of each.

    A test that was not run stays in the family: Holm counts nine, as if its p were 1.
    """
    there = [cohort for cohort in study.cohorts if largest(study, cohort) is not None]
    found = []
    for name, site in CONFIRMATORY:
        datasets = [cohort for cohort in there if (cohort.name, cohort.site) == (name, site)]
        if len(datasets) > 1:
            titles = ", ".join(one.title for one in datasets)
            raise ValueError(
                f"the confirmatory family has one dataset of each cohort: got {titles} in {study.experiment}; name"
                " experiments (--experiments) that have one"
            )
        cohort = datasets[0] if datasets else None
        for head in BASES:
            gain = None
            if cohort is not None:
                size = largest(study, cohort)
                assert size is not None  # else it would not be among the places
                models = (Model(study.experiment, backbone, head, size) for backbone in (MED_BERT, BASE))
                gain = difference(study, cohort, *models)
            found.append((cohort, cohort.title if cohort else f"{name}, {site}", head, gain))
    # What has no p counts as 1: a family does not become smaller because some of it was not run.
    ps = [1.0 if gain is None or not np.isfinite(gain.p) else gain.p for *_, gain in found]
    return [Test(*one, float(p)) for one, p in zip(found, holm(ps), strict=True)]


def confirmatory_table(study: Study) -> Table:
    """The family as it is printed, the paper's difference beside ours."""
    rows = []
    for test in confirmatory(study):
        gain, column = test.gain, test.cohort.column if test.cohort else ""
        printed = printed_difference(column, (MED_BERT, test.head), (BASE, test.head)) if column else None
        name = f"{row_words((MED_BERT, test.head))} − {row_words((BASE, test.head))}"
        paper = MISSING if printed is None else f"{printed:+.2f}".replace("-", "−")
        if gain is None:
            rows.append((test.of, name, paper, "not run", MISSING, MISSING, MISSING))
            continue
        ours = hundredths(gain.value, signed=True), interval_words(gain, signed=True)
        rows.append((test.of, name, paper, *ours, p_words(gain.p), p_words(test.p_holm)))
    return Table(
        "Confirmatory family: base + Med-BERT minus base",
        ("cohort", "difference", "paper", "ours", "95 %", "p", "p (Holm)"),
        tuple(rows),
        "<<>>>>>",
        (
            f"{UNITS}. {study.draws:,} draws of test patients (of matched cohorts whole sets) and replicates together,"
            f" paired by both; p is at least 2 / (draws + 1). Holm adjusts these {TESTS} tests, those not run counted"
            " with p = 1. The intervals are of each difference by itself. Every other difference on this page is"
            " descriptive and adjusted for nothing.",
        ),
    )


def control_rows(study: Study) -> Iterator[tuple[str, str, int, float, float, bool]]:
    """Of labels permuted before the split: cohort, row, permutations n, mean AUROC, 3 · SE / √n, whether it is inside.

    Every dataset of such an experiment is a permutation: the replicates on it share its test labels, so that their mean
    is one number, with the standard error of its test patients. SE is the mean of these.
    """
    of_row: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cohort in study.cohorts:
        for model in cohort.cells:
            if model.experiment.startswith(PERMUTED) and (mean := mean_auroc(study, cohort, model)) is not None:
                name = f"{row_words(model.row)}, {model.size}"
                of_row.setdefault((cohort.title, name), []).append((mean.value, mean.sampling_error))
    for (title, name), found in sorted(of_row.items()):
        aurocs, errors = np.array(found).T
        bound = 3 * errors.mean() / np.sqrt(len(found))
        yield title, name, len(found), float(aurocs.mean()), float(bound), bool(abs(aurocs.mean() - 0.5) <= bound)


def control_table(study: Study) -> Table | None:
    """The negative controls; None where no labels were permuted."""
    rows = [
        (title, name, str(n), hundredths(mean), f"50.00 ± {hundredths(bound)}", "yes" if holds else "no")
        for title, name, n, mean, bound, holds in control_rows(study)
    ]
    if not rows:
        return None
    return Table(
        "Negative controls: labels permuted before the split",
        ("cohort", "row, trained on", "permutations", f"mean {UNITS}", "50 ± 3 · SE / √permutations", "inside"),
        tuple(rows),
        "<<>>><",
        (
            "No label can be told here: a mean outside is a leak, or chance (about 3 in 1,000 of such means). SE: that"
            " of the test patients, whom the replicates of a permutation share.",
        ),
    )
