"""`readmission-30d` and `los-next` once more, in plain loops, from the definition alone (see `cohort_loops`).

The definition is that of docs/cohorts.md, "Death and episodes"; quotations are its lines.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from cohorts.independent.cohort_loops import (
    NO_VISITS,
    Cut,
    In,
    Left,
    Patient,
    Visit,
    first_to_come,
    last_begun,
    read_up_to,
)

STAYS = ("inpatient", "emergency")


@dataclass
class Episode:
    visits: list[Visit]  # in the order of admission

    @property
    def begin(self) -> date | None:
        return self.visits[0].date

    @property
    def end(self) -> datetime | None:
        """ "it has the end of the episode (unknown where that of the stay admitted last is)" """
        if self.visits[-1].discharge is None:
            return None
        return max(end_of(visit) for visit in self.visits) if len(self.visits) > 1 else self.visits[0].discharge

    @property
    def disposition(self) -> str | None:
        """ "the disposition of the stay that ends last (`expired` where one of them is)" """
        if any(visit.disposition == "expired" for visit in self.visits):
            return "expired"
        latest = self.visits[0]
        for visit in self.visits[1:]:
            if end_of(visit) >= end_of(latest):
                latest = visit
        return latest.disposition


def end_of(visit: Visit) -> datetime:
    """ "The admission stands in for an end that is unknown." Chosen: and for one that comes before it."""
    return max(visit.admit, visit.discharge or visit.admit)


def days_alone(visit: Visit) -> bool:
    """ "days alone (admission and discharge at midnight)" """
    return all(moment is None or moment.time() == time(0) for moment in (visit.admit, visit.discharge))


def goes_on(later: Visit, earlier: Visit) -> bool:
    day, last_day = later.admit.date(), end_of(earlier).date()
    if days_alone(later) or days_alone(earlier):
        close = (day - last_day).days <= 1
    else:
        close = later.admit - end_of(earlier) <= timedelta(hours=12)
    return close or (later.kind == "inpatient" and earlier.kind == "emergency" and last_day >= day)


def episodes_of(patient: Patient) -> list[Episode]:
    """ "In the order of admission a stay of the named types goes on with one before it"; others are alone."""
    episodes: list[Episode] = []
    stays = [visit for visit in patient.visits if visit.kind in STAYS and visit.admit is not None]
    for stay in sorted(stays, key=lambda visit: (visit.admit, visit.order)):
        if episodes and any(goes_on(stay, earlier) for earlier in episodes[-1].visits):
            episodes[-1].visits.append(stay)
        else:
            episodes.append(Episode([stay]))
    return episodes + [Episode([visit]) for visit in patient.visits if visit not in stays]


def all_visits(patient: Patient) -> list[Visit]:
    """ "The input ends with the first visit that had not begun at the prediction time": one after the death too."""
    return sorted([*patient.visits, *patient.late_visits], key=lambda visit: visit.order)


def readmission_30d(patient: Patient, last_day: date) -> Left | In:
    if not patient.visits:
        return Left(NO_VISITS)
    # "its last encounter, by order, where the index is read through"
    candidates = [(max(visit.order for visit in one.visits), one) for one in episodes_of(patient)]
    candidates.sort(key=lambda pair: pair[0])
    reasons = []
    for order, episode in candidates:
        index = next(visit for visit in patient.visits if visit.order == order)
        if index.kind == "outpatient":
            reasons.append(0)
        elif episode.disposition == "expired":
            reasons.append(1)
        elif episode.disposition == "hospice":
            reasons.append(2)
        else:
            break
    else:
        return Left(("outpatient_at_index", "died_at_index", "hospice_at_index")[max(reasons)])
    if patient.lifeless:
        return Left("died_before_first_visit")
    end = episode.end
    if end is None:
        return Left("index_undated")
    cut = Cut(time=end)
    if last_begun(all_visits(patient), cut, order) < order:
        return Left("visit_open")
    # "A readmission is a stay of `readmission_types` of a later episode, and the day on which that began counts."
    gaps = []
    for _, other in candidates:
        if other is not episode:
            again = [visit for visit in other.visits if visit.kind == "inpatient" and visit.order > order]
            gaps += [None if other.begin is None else (other.begin - end.date()).days for _ in again]
    is_again = any(gap is not None and 0 <= gap <= 30 for gap in gaps)
    if (last_day - end.date()).days < 30 or (not is_again and None in gaps):
        return Left("outcome_unknown")
    if not (read := read_up_to(patient.visits, cut, order)):
        return Left("input_codes")
    # "the event is the day on which the episode of the first such stay began"
    first = min((gap for gap in gaps if gap is not None and 0 <= gap <= 30), default=None)
    event = None if first is None else end.date() + timedelta(days=first)
    label, *days = first_to_come(patient, end.date(), event, 30)
    return In(label, end.date(), order, order, 1.0, days[1] is not None, read, *days)


def los_next(patient: Patient, lengths: dict[str, int | None]) -> Left | In:
    """`lengths`: what the source says of each visit, by id, in days."""
    if not patient.visits:
        return Left(NO_VISITS)
    if len(patient.visits) < 2:
        return Left("two_encounters")
    if patient.lifeless:
        return Left("died_before_first_visit")
    # "else its first"
    order, episode = max(((min(visit.order for visit in one.visits), one) for one in episodes_of(patient)),
                         key=lambda pair: pair[0])  # fmt: skip
    index = next(visit for visit in patient.visits if visit.order == order)
    if index.admit is None:
        return Left("index_undated")
    # "of several stays the days from the first admission to that end as its length"
    if len(episode.visits) > 1:
        days = None if episode.end is None else (episode.end.date() - episode.begin).days
    else:
        days = lengths[index.visit_id]
    if days is None:
        return Left("outcome_unknown")
    cut = Cut(index=index)
    last = last_begun(all_visits(patient), cut, order - 1)
    if not (read := read_up_to(patient.visits, cut, last)):
        return Left("input_codes")
    return In(int(days > 7), index.date, order, last, input=read)
