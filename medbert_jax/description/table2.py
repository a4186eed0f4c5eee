"""The paper's Table 2 and the measurable rows of its Table 3, of any datasets side by side, to show or to share."""

from collections import Counter
from collections.abc import Callable, Sequence

from medbert_jax.data.vocabulary import FIRST_CODE
from medbert_jax.description.descriptives import DAYS_PER_YEAR, Description
from medbert_jax.description.figure_tables import HIDDEN, UNKNOWN, Figure, FigureTable, number
from medbert_jax.description.paper_cohorts import PAPER_NOTES, PAPER_TABLE2
from medbert_jax.description.shown_figures import HIDING, RACES, ShownColumn, race_name, race_parts, systems_of

PERCENTILES = (5, 25, 50, 75, 95, 99)
TIME_RULES = ("wrong_times", "incorrect_times", "no_admission", "index_undated", "age_unknown")
"""Rules of ledgers under which patients leave for a date that is wrong or missing."""
EHR_COLUMNS = {
    "birth date": "patients.birth_date",
    "length of stay": "visits.length_of_stay",
}
"""What the whole source may not say → its name in source.json."""


def table2(datasets: Sequence[Description], *, paper: Sequence[str] = (), share: bool = False) -> FigureTable:
    """Every row of the paper's Table 2, and what it leaves out: standard deviations, and what is unknown.

    Args:
        datasets: pretraining datasets and cohorts.
        paper: columns of `PAPER_TABLE2` to stand beside them.
        share: hide counts of 1 to 10, percentages and means that rest on so few, and those that give them away.
    """
    columns = [ShownColumn(about, share) for about in datasets]
    names, own_races = list(RACES), sorted(_races(datasets) - set(RACES))
    rows: list[tuple[str, str, Callable[[ShownColumn], Figure]]] = [
        ("source", "", lambda column: Figure(column.about.metadata.get("source", {}).get("format", UNKNOWN.text))),
        ("patients", "patients", _people),
        *([("predictions", "", _predictions)] if any(about.people is not None for about in datasets) else []),
        ("event", "event", lambda column: column.event()),
        ("event, of all patients of the source", "database", _of_database),
        ("age at last or index visit: mean, years", "age", lambda column: _age(column, "mean")),
        ("age: standard deviation, years", "", lambda column: _age(column, "standard_deviation")),
        ("male", "male", lambda column: _sex(column, 2)),
        ("sex unknown", "", lambda column: _sex(column, 0)),
        *((race, race, lambda column, race=race: _race(column, race)) for race in [*names, *own_races]),
        ("race unknown", "", lambda column: _race(column, None)),
        ("visits per patient: mean", "visits", lambda column: _mean(column, "visits")),
        ("codes per patient: mean", "codes", lambda column: _mean(column, "codes")),
        ("vocabulary: different codes used", "vocabulary", _vocabulary),
        ("ICD-10 among the codes", "icd10", lambda column: column.percent(column.about.tally.shares["icd10"])),
        *((f"codes of {name}", "", lambda column, name=name: column.system(name)) for name in _systems(datasets)),
    ]
    notes = [
        "A visit is an encounter with a code; a code is counted once per visit. Percentages of patients are of all"
        f" patients, those of whom it is unknown included. {UNKNOWN.text}: the source does not say it, or it does not"
        " apply.",
        *(f"{about.name}: the event is {_event(about)}." for about in datasets),
        *(
            f"{about.name}: the source has no dates; the age is that at the last visit before the index."
            for about in datasets
            if about.is_cohort and about.metadata.get("time_is_ordinal")
        ),
        *(
            f"{about.name}: a patient may have several predictions; all figures but the first are of predictions."
            for about in datasets
            if about.people is not None
        ),
        *(f"paper, {name}: {PAPER_NOTES[name]}" for name in paper),
        *([HIDING] if share else []),
    ]
    return FigureTable(
        "Cohorts (Table 2)",
        (*(about.name for about in datasets), *(f"paper: {name}" for name in paper)),
        tuple(
            (row, (*(figure(column) for column in columns), *(_printed(PAPER_TABLE2[name], key) for name in paper)))
            for row, key, figure in rows
        ),
        tuple(notes),
    )


def characteristics(datasets: Sequence[Description], *, share: bool = False) -> list[FigureTable]:
    """The measurable rows of the paper's Table 3: what is missing, wrong or too long; then distributions."""
    columns = [ShownColumn(about, share) for about in datasets]
    lengths = sorted({about.max_length for about in datasets})
    shares = (
        (f"patients with more than {'/'.join(map(str, lengths))} codes", "too_long", 2),
        ("codes that are cut at that length", "codes_cut", 2),
        ("codes that the vocabulary does not know", "unknown_codes", 2),
        ("visits of unknown day", "no_day", 1),
        ("visits of unknown age", "no_age", 1),
        ("visits of unknown length", "no_stay", 1),
    )
    rows = [
        (row, tuple(column.percent(column.about.tally.shares[key], decimals) for column in columns))
        for row, key, decimals in shares
    ]
    for what, key in EHR_COLUMNS.items():
        rows.append((f"EHR tables: {what} unknown", tuple(_not_known(column, key) for column in columns)))
    for rule, text in _time_rules(datasets).items():
        rows.append((f"patients who left: {text.lower()}", tuple(column.left(rule) for column in columns)))
    tables = [FigureTable("Missing, wrong, too long (Table 3)", tuple(c.about.name for c in columns), tuple(rows))]
    quantities = (
        ("visits per patient", "visits"),
        ("codes per patient", "codes"),
        ("codes per visit", "codes_per_visit"),
        ("days to next visit", "gaps"),
        ("days, first to last", "history"),
        ("days of a stay", "stays"),
    )
    statistics = ["mean", "SD", *(f"{percent} %" if percent != 50 else "median" for percent in PERCENTILES), "largest"]
    for column in columns:
        measured = []
        for _, key in quantities:
            of = column.about.tally.distributions[key]
            figures = [column.statistic(of, of.mean, 1), column.statistic(of, of.standard_deviation, 1)]
            measured.append([*figures, *(column.percentile(of, percent) for percent in (*PERCENTILES, 100))])
        notes = ("A percentile is the smallest value that so many of the values do not exceed.",)
        rows = tuple(zip(statistics, zip(*measured, strict=True), strict=True))
        title, heads = f"{column.about.name}: distributions (Table 3)", tuple(head for head, _ in quantities)
        tables.append(FigureTable(title, heads, rows, notes + (HIDING,) * share))
    return tables


def _event(about: Description) -> str:
    if about.is_cohort:
        cohort = about.metadata["cohort"]
        return (
            f"“{cohort['outcome']['description'] if 'outcome' in cohort else cohort['title']}”"  # labels have a title
        )
    return f"a stay of more than {about.metadata['serialization']['prolonged_los_days']} days at any visit"


def _people(column: ShownColumn) -> Figure:
    people = column.about.people
    return column.patients if people is None else number(people)


def _predictions(column: ShownColumn) -> Figure:
    return UNKNOWN if column.about.people is None else column.patients


def _of_database(column: ShownColumn) -> Figure:
    if not column.about.is_cohort or column.about.attrition is None or column.about.people is not None:
        return UNKNOWN
    return column.event(2, of=column.about.attrition.steps[0].came.patients)


def _age(column: ShownColumn, statistic: str) -> Figure:
    ages = column.about.tally.distributions["age"]
    days = getattr(ages, statistic)
    return column.statistic(ages, None if days is None else days / DAYS_PER_YEAR, 1)


def _mean(column: ShownColumn, quantity: str) -> Figure:
    of = column.about.tally.distributions[quantity]
    return column.statistic(of, of.mean, 1)


def _vocabulary(column: ShownColumn) -> Figure:
    used = int((column.about.tally.code_uses[FIRST_CODE:] > 0).sum())
    return HIDDEN if column.too_small else number(used)


def _sex(column: ShownColumn, place: int) -> Figure:
    counts = column.about.tally.sex.tolist()
    return UNKNOWN if place and not any(counts[1:]) else column.part(counts, place)


def _race(column: ShownColumn, name: str | None) -> Figure:
    """Patients of a race as the tables call it; None: of unknown race."""
    parts = race_parts(column.about)
    # A race that the source has no name for is unknown in it, not absent.
    if name not in parts or (name is not None and parts[None] == column.about.patients):
        return UNKNOWN
    return column.part([*parts.values()], [*parts].index(name))


def _races(datasets: Sequence[Description]) -> set[str]:
    return {race_name(raw) for about in datasets for raw in about.metadata.get("races", ())}


def _systems(datasets: Sequence[Description]) -> list[str]:
    """The code systems that are in use, that with most codes first."""
    uses = Counter()
    for about in datasets:
        uses.update({name: share.count for name, share in systems_of(about).items()})
    return [name for name, _ in sorted(uses.items(), key=lambda one: (-one[1], one[0]))]


def _time_rules(datasets: Sequence[Description]) -> dict[str, str]:
    """Rule → its words, of the rules about times that any of the ledgers has."""
    lines = [line for about in datasets if about.attrition for line in about.attrition.steps[0].lines]
    return {line.rule.rpartition(":")[2]: line.text for line in lines if line.rule.rpartition(":")[2] in TIME_RULES}


def _not_known(column: ShownColumn, key: str) -> Figure:
    """Rows of the EHR tables that do not say it; how many patients that is nobody counted, so it is not shared."""
    known = column.about.metadata.get("source", {}).get("known", {}).get(key)
    if known is None:
        return UNKNOWN
    return HIDDEN if column.share and 0 < known < 1 else number(100 * (1 - known), 1, unit="%")


def _printed(figures: dict[str, float | None], key: str) -> Figure:
    """A figure of the paper with the decimals that it prints."""
    value = figures.get(key)
    counts = key in ("patients", "vocabulary", "age", "visits", "codes")
    decimals = len(str(value).partition(".")[2])
    return number(value, decimals, unit="" if counts else "%")
