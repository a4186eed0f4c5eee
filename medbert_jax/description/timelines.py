"""Example timelines, as in the paper's Fig. 2: individual-level data, to be looked at and never to be shared.

By day from the patient's first visit only: no date, no id.
"""

from collections.abc import Sequence

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store, read_vocabulary
from medbert_jax.data.vocabulary import UNK, Vocabulary
from medbert_jax.description.chart import AGAIN, Annotation, Chart, Entry, Visit, person_words
from medbert_jax.description.descriptives import DAYS_PER_YEAR, Description
from medbert_jax.ehr.schema import SEXES

PERCENTILES = (5, 25, 50, 75, 95)
LONGEST = 12  # visits that are told in lines of text
_OUTSIDE = "a code that is not in the vocabulary"


def choose_patients(lengths: np.ndarray, percentiles: Sequence[int], seed: int) -> dict[int, int]:
    """Return percentile → number of a patient whose length stands there; who, among equals, is drawn by the seed.

    Percentiles that fall on one patient, in a small dataset, give the first of them only.
    """
    order = np.lexsort([np.random.default_rng(seed).random(len(lengths)), lengths])
    places = {max(-(-percent * len(order) // 100), 1) - 1: percent for percent in reversed(percentiles)}
    return {percent: int(order[place]) for place, percent in sorted(places.items())}


def example_charts(directory, about: Description, *, seed: int = 0, cache_dir=None) -> list[Chart]:
    """Return the charts, "patient 1" to 5, of a dataset's training patients (nobody looks at those of the test split).

    They stand at `PERCENTILES` of the number of codes. `cache_dir` as in `open_token_store`.
    """
    counts = about.metadata["split"]["counts"]
    split = next(split for split in ("train", *counts) if counts.get(split))
    patients = open_token_store(directory, split, cache_dir)
    chosen = choose_patients(patients.lengths, PERCENTILES, seed)
    vocabulary = read_vocabulary(directory)
    few = patients.take(np.array([*chosen.values()]))
    return [_chart(few.take([place]), place, percent, about, vocabulary) for place, percent in enumerate(chosen)]


def summary(chart: Chart) -> str:
    """As "female, 61 years; label 1; 9 codes (percentile 50) in 4 visits"."""
    return f"{chart.person}; {chart.outcome}"


def chart_text(chart: Chart) -> str:
    """The chart in lines of text, the first and last visits of those who have more than `LONGEST`."""
    span = [visit.day for visit in chart.visits if visit.day is not None]
    days = f" over {span[-1] - span[0]:,} days" if len(span) > 1 else ""
    lines = [f"{chart.name}: {summary(chart)}{days}"]
    skipped = chart.visits[LONGEST // 2 : -LONGEST // 2] if len(chart.visits) > LONGEST else ()
    for visit in chart.visits:
        if visit not in skipped:
            lines.append(f"  {visit.heading}")
            lines += [
                f"    {'=' if AGAIN in one.marks else '+'} {one.code}  {one.title}".rstrip() for one in visit.codes
            ]
        elif visit is skipped[0]:
            lines.append(f"  … {len(skipped)} more visits …")
    lines += [f"  day {one.day}: {one.text}" for one in chart.annotations]
    return "\n".join(lines)


def _chart(patient: PatientSequences, place: int, percent: int, about: Description, vocabulary: Vocabulary) -> Chart:
    days, stays = (
        [None if value < 0 else value for value in column.tolist()]
        for column in (patient.visit_days, patient.length_of_stay)
    )
    visits, seen = [], set()
    for number, (day, stay) in enumerate(zip(days, stays, strict=True), start=1):
        codes = []
        for id in patient.code_ids[patient.visit_ids == number].tolist():
            code, title = vocabulary.code(id), vocabulary.title(id)
            title = _OUTSIDE if id == UNK else "" if title == code else title
            marks = (AGAIN,) if code in seen and id != UNK else ()  # two of them are hardly the same
            codes.append(Entry("diagnosis", day, number, code, title, marks=marks))
        seen.update(code.code for code in codes)
        visits.append(Visit(number, day, stay, None, tuple(codes)))
    sex, age = int(patient.sex[0]), int(patient.age_days[0])
    outcomes = {name: int(values[0]) for name, values in patient.outcomes.items()}
    if about.is_cohort:
        outcome = "censored, label unknown" if outcomes["label"] < 0 else f"label {outcomes['label']}"
    else:
        outcome = "a prolonged stay" if outcomes["prolonged_los"] else "no prolonged stay"
    count, index = len(patient.code_ids), outcomes.get("index_day", -1)
    codes = f"{count} code{'s' if count > 1 else ''} (percentile {percent})"
    return Chart(
        name=f"patient {place + 1}",
        person=person_words(SEXES[sex - 1] if sex else None, None if age < 0 else int(age / DAYS_PER_YEAR)),
        outcome=f"{outcome}; {codes} in {len(visits)} visit{'s' if len(visits) > 1 else ''}",
        visits=tuple(visits),
        annotations=() if index < 0 else (Annotation("index", "index", index),),
    )
