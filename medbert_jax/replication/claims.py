"""The paper's claims one by one: its number, ours with its interval, and a verdict no firmer than the interval."""

from collections.abc import Iterator, Sequence

from medbert_jax.printed_tables import Table
from medbert_jax.replication.estimates import Estimate, combination, difference
from medbert_jax.replication.paper import (
    BASE,
    BASES,
    DHF,
    MED_BERT,
    ONLY,
    PACA,
    REGRESSION,
    TRUVEN,
    UNTRAINED,
    VECTORS,
    Row,
    printed_difference,
)
from medbert_jax.replication.sizes import bracket_words, curve
from medbert_jax.replication.study import Model, Study, TestedCohort
from medbert_jax.replication.table4 import largest
from medbert_jax.replication.variants import variant_rows
from medbert_jax.replication.words import MISSING, UNITS, estimate_words, hundredths, row_words

FEW = 500
"""Training patients above which the paper has RETAIN gain more on DHF."""
TARGET = 0.75
"""AUROC of which the paper says how many labels it needs."""
NOT_RUN = "not run"
_NOTE = (
    "95 % intervals of each difference by itself, adjusted for nothing: Holm's p is in the confirmatory family alone."
)
_Line = tuple[str, str, str, str]
"""What, paper, ours, verdict."""


def claim_tables(study: Study) -> Iterator[Table]:
    """One table for each claim, (a) to (h), and the counts over base × cohort."""
    titles = {
        "(a) Med-BERT adds 1.21 (GRU, DHF) to 6.14 (Bi-GRU, PaCa-Cerner) to a base model": _gains(study),
        "(b) The same AUROC with fewer labels": _labels(study),
        f"(c) On DHF, RETAIN gains more above {FEW} patients, and Bi-GRU gains less than GRU": _of_dhf(study),
        "(d) The order of the codes within a visit adds only very little": variant_rows(study, "order"),
        "(e) Mortality and early readmission as pretraining tasks are learned at once": _other_tasks(study),
        "(f) Untrained, it beats LR on DHF and loses on both PaCa": _pairs(
            study, [(column, UNTRAINED, REGRESSION) for column in (DHF, PACA, TRUVEN)]
        ),
        "(g) Exceptions: where t-W2V beats Med-BERT, or hurts": _pairs(
            study,
            [
                (PACA, (VECTORS, "retain"), (MED_BERT, "retain")),
                (TRUVEN, (VECTORS, "gru"), (BASE, "gru")),
                (DHF, (VECTORS, "gru"), (BASE, "gru")),
            ],
        ),
        "(h) Pretrained minus untrained: 2.4, 6.5 and 4.1": _pairs(
            study, [(column, ONLY, UNTRAINED) for column in (DHF, PACA, TRUVEN)]
        ),
        "Over base × cohort": _counts(study),
    }
    for title, lines in titles.items():
        rows = tuple(lines) or (("no cohort or row that it is about", MISSING, NOT_RUN, "nothing is said"),)
        yield Table(title, ("what", "paper", f"ours, {UNITS}", "verdict"), rows, "<>><", (_NOTE,))


def verdict(printed: float | None, ours: Estimate | None, *, simulated: bool, sign: int = 0) -> str:
    """What the interval lets be said of a difference that the paper prints, AUROC × 100.

    `sign`: of one that it only shows or tells, its direction.
    """
    if ours is None:
        return NOT_RUN
    where = " on simulated patients" if simulated else ""
    low, high = 100 * ours.low, 100 * ours.high
    if not low <= high:
        return f"no interval{where}: nothing is said"
    size = ""
    if printed is not None:
        place = "inside" if low <= printed <= high else "above" if printed > high else "below"
        size, sign = f"; the paper's size is {place} the interval", 1 if printed > 0 else -1
    if not ours.excludes_zero:
        return f"not decided{where}: 0 is inside{size}"
    return f"{'' if (low > 0) == (sign > 0) else 'against '}the paper's direction{where}{size}"


def _cohorts(study: Study, column: str) -> list[tuple[TestedCohort, str]]:
    """Cohorts that stand beside a column of the paper, each with its largest size."""
    found = ((cohort, largest(study, cohort)) for cohort in study.cohorts if cohort.column == column)
    return [(cohort, size) for cohort, size in found if size is not None]


def _pairs(study: Study, pairs: Sequence[tuple[str, Row, Row]]) -> Iterator[_Line]:
    for column, one, other in pairs:
        printed = printed_difference(column, one, other)
        for cohort, size in _cohorts(study, column):
            ours = difference(study, cohort, *(Model(study.experiment, *row, size) for row in (one, other)))
            yield (
                f"{row_words(one)} − {row_words(other)}, {cohort.title}",
                MISSING if printed is None else f"{printed:+.2f}".replace("-", "−"),
                NOT_RUN if ours is None else estimate_words(ours, signed=True),
                verdict(printed, ours, simulated=cohort.filed.is_simulated),
            )


def _gains(study: Study) -> Iterator[_Line]:
    columns = (DHF, PACA, TRUVEN)
    return _pairs(study, [(column, (MED_BERT, head), (BASE, head)) for column in columns for head in BASES])


def _labels(study: Study) -> Iterator[_Line]:
    for cohort, size in _cohorts(study, PACA):
        said = " (simulated)" if cohort.filed.is_simulated else ""
        for row, paper in (((MED_BERT, "gru"), "1,000"), ((BASE, "gru"), "over 10,000")):
            if points := curve(study, cohort, row):
                yield (
                    f"patients for {hundredths(TARGET)}: {row_words(row)}, {cohort.title}",
                    paper,
                    bracket_words(points, TARGET),
                    f"a bracket of the means{said}; it has no interval",
                )
        ours, theirs = (MED_BERT, "bi_gru"), (BASE, "bi_gru")
        whole = Model(study.experiment, *theirs, size)
        for smaller in cohort.sizes(study.experiment)[:-1]:
            found = difference(study, cohort, Model(study.experiment, *ours, smaller), whole)
            if found is not None:
                yield (
                    f"{row_words(ours)} at {_patients(cohort, study, smaller)} − {row_words(theirs)} at"
                    f" {_patients(cohort, study, size)}, {cohort.title}",
                    "slightly above 0 (5,000, over 50,000)",
                    estimate_words(found, signed=True),
                    verdict(None, found, simulated=cohort.filed.is_simulated, sign=1),
                )


def _of_dhf(study: Study) -> Iterator[_Line]:
    for cohort, _ in _cohorts(study, DHF):
        simulated, sizes = cohort.filed.is_simulated, cohort.sizes(study.experiment)
        of = {size: _most(cohort, study, size) for size in sizes}
        few, many = ([size for size in sizes if (of[size] <= FEW) is is_few] for is_few in (True, False))
        for size in many if few else ():
            terms = [(1, _model(study, MED_BERT, "retain", size)), (-1, _model(study, BASE, "retain", size))]
            terms += [(-sign, Model(one.experiment, *one.row, few[-1])) for sign, one in terms]
            if (found := combination(study, cohort, terms)) is not None:
                what = f"RETAIN's gain at {of[size]:,} − that at {of[few[-1]]:,}, {cohort.title}"
                said = verdict(None, found, simulated=simulated, sign=1)
                yield what, "above 0 (Fig. 4)", estimate_words(found, signed=True), said
        for size in sizes:
            terms = [(1, _model(study, MED_BERT, "bi_gru", size)), (-1, _model(study, BASE, "bi_gru", size))]
            terms += [(-1, _model(study, MED_BERT, "gru", size)), (1, _model(study, BASE, "gru", size))]
            if (found := combination(study, cohort, terms)) is not None:
                what = f"Bi-GRU's gain − GRU's at {of[size]:,}, {cohort.title}"
                said = verdict(None, found, simulated=simulated, sign=-1)
                yield what, "below 0 (Fig. 4); +1.36 (Table 4)", estimate_words(found, signed=True), said


def _other_tasks(study: Study) -> Iterator[_Line]:
    yield (
        "accuracy of the pretraining task, and the share of its commoner class",
        "over 99 %",
        "not in results of fine-tunings",
        "nothing is said: `medbert health` has a pretraining's figures",
    )
    for task in ("mortality", "readmission"):
        yield from variant_rows(study, task)


def _counts(study: Study) -> Iterator[_Line]:
    kinds = (
        ("Med-BERT above the base", MED_BERT, BASE, "9 of 9"),
        ("t-W2V above the base", VECTORS, BASE, "8 of 9, one within noise"),
        ("Med-BERT above t-W2V", MED_BERT, VECTORS, "8 of 9"),
    )
    cohorts = [pair for column in (DHF, PACA, TRUVEN) for pair in _cohorts(study, column)]
    simulated = any(cohort.filed.is_simulated for cohort, _ in cohorts)
    for what, one, other, paper in kinds:
        found = [
            difference(study, cohort, _model(study, one, head, size), _model(study, other, head, size))
            for cohort, size in cohorts
            for head in BASES
        ]
        there = [of for of in found if of is not None]
        if there:
            above, sure, under = (
                sum(test(of) for of in there)
                for test in (lambda of: of.value > 0, lambda of: of.low > 0, lambda of: of.high < 0)
            )
            yield (
                what,
                paper,
                f"{above} of {len(there)}",
                f"of the means{' on simulated patients' * simulated}; intervals above 0: {sure}, below 0: {under}",
            )


def _model(study: Study, backbone: str, head: str, size: str) -> Model:
    return Model(study.experiment, backbone, head, size)


def _most(cohort: TestedCohort, study: Study, size: str) -> int:
    return max(
        of[1] for model, of in cohort.trained_on.items() if (model.experiment, model.size) == (study.experiment, size)
    )


def _patients(cohort: TestedCohort, study: Study, size: str) -> str:
    return f"{_most(cohort, study, size):,}"
