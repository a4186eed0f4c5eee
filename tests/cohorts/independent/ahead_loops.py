"""The cohorts of outcomes ahead, and of death in a stay, in plain loops, from the written definition (docs/cohorts.md).

As `cohort_loops`, of which it has the records, codes and times; nothing here imports `medbert_jax.cohorts`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from cohorts.independent.cohort_loops import (
    NO_VISITS,
    Cut,
    Event,
    In,
    Left,
    Patient,
    Visit,
    falls_under,
    first_to_come,
    last_begun,
    read_up_to,
    too_young,
)

CODES = {
    "acute_mi": (["410"], ["I21", "I22"]),
    "ischaemic_stroke": (
        ["433.01", "433.11", "433.21", "433.31", "433.81", "433.91", "434.01", "434.11", "434.91", "436"],
        ["I63"],
    ),
    "hypertension": (["401", "402", "403", "404", "405"], ["I10", "I11", "I12", "I13", "I15", "I16"]),
    "type_2_diabetes": ([f"250.{x}{y}" for x in range(10) for y in (0, 2)], ["E11"]),
    "diabetes": (["249", "250"], ["E08", "E09", "E10", "E11", "E13"]),
    "atrial_fibrillation": (["427.3"], ["I48"]),
    "stage_3": (["585.3"], ["N18.3"]),
    "stage_4": (["585.4", "585.5", "585.6"], ["N18.4", "N18.5", "N18.6"]),
}


def is_of(name: str, code) -> bool:
    systems = dict(zip(("ICD9CM", "ICD10CM"), CODES[name], strict=True))
    return any(falls_under(code.code, prefix) for prefix in systems.get(code.system, ()))


def told(visit: Visit, name: str):
    """None: with its visit; "never": in an open stay, without a time."""
    times = [code.time for code in visit.codes if is_of(name, code)]
    timed = [time for time in times if time is not None]
    if len(timed) < len(times) and not visit.is_open:
        return None
    return min(timed) if timed else "never"


def told_day(visit: Visit, name: str) -> date | None:
    when = told(visit, name)
    if when is None or when == "never":
        return visit.date if when is None else None
    return when.date() if visit.date is None else max(visit.date, when.date())


def having(patient: Patient, name: str) -> list[Visit]:
    return [visit for visit in patient.visits if any(is_of(name, code) for code in visit.codes)]


def had_by(patient: Patient, name: str, index: Visit, cut: Cut, t0: date) -> bool:
    """ "through_index" or "by_index_date": told by the end of the index, or of a visit admitted by its day."""
    for visit in having(patient, name):
        when = told(visit, name)
        at_end = (
            when not in (None, "never")
            and visit.discharge is not None
            and when <= visit.discharge
            and cut.has_discharge(visit.discharge)
        )
        if visit.order <= index.order and (when is None or (when != "never" and (cut.has(when) or at_end))):
            return True
        admitted = visit.date is not None and visit.date <= t0
        if admitted and (when is None or when == "never" or when.date() <= t0):
            return True
    return False


def code_days(patient: Patient, name: str, t0: date) -> list[date]:
    """ "Of a visit that had begun before, the day is that on which the code was told." """
    days = [
        told_day(visit, name) if visit.date <= t0 else visit.date
        for visit in having(patient, name)
        if visit.date is not None
    ]
    return [day for day in days if day is not None and day > t0]


def predicted_at_the_end(
    patient: Patient,
    index: Visit,
    horizon: int,
    last_day: date,
    event: Callable[[date], date | None],
    leaves: Callable[[Cut, date], str | None],
    competes: bool = False,
) -> Left | In:
    """What all of them share from the end of the index on: rules, then the end of the source, then the input."""
    if index.end is None:
        return leaves(Cut(time=None), None) or Left("index_undated")
    cut, t0 = Cut(time=index.end), index.end.date()
    if rule := leaves(cut, t0):
        return Left(rule)
    if t0 + timedelta(days=horizon) > last_day:
        return Left("short_follow_up")
    last = last_begun(patient.visits, cut, index.order)
    if last < index.order:
        return Left("visit_open")
    if not (read := read_up_to(patient.visits, cut, last)):
        return Left("input_codes")
    happened = event(t0)
    if happened is not None and (happened - t0).days > horizon:
        happened = None
    label, *days = first_to_come(patient, t0, happened, horizon)
    return In(label, t0, index.order, index.order, 1.0, competes and days[1] is not None, read, *days)


def by_age(patient: Patient, visit: Visit) -> str | None:
    return too_young(patient, visit, 18)


def stays(patient: Patient) -> list[Visit]:
    """Visits that are neither outpatient nor emergency ones."""
    return [visit for visit in patient.visits if visit.kind not in ("outpatient", "emergency")]


def first_living_stay(patient: Patient) -> Visit | str:
    found = [visit for visit in stays(patient) if visit.disposition != "expired"]
    if found:
        return found[0]
    # "Everyone leaves under the rule that took his last possible index visit": the later of the two in the file.
    return "died_at_index" if stays(patient) else "outpatient"


def new_diagnosis(records, last_day: date, name: str, before: str | None = None) -> dict[str, Left | In]:
    """acute-mi-1y, ischaemic-stroke-1y, hypertension-1y, type-2-diabetes-1y."""
    return {id: new_diagnosis_of(one, last_day, name, before or name) for id, one in records.items()}


def new_diagnosis_of(patient: Patient, last_day: date, name: str, before: str) -> Left | In:
    if not patient.visits:
        return Left(NO_VISITS)
    index = first_living_stay(patient)
    if isinstance(index, str):
        return Left(index)

    def leaves(cut: Cut, t0: date) -> str | None:
        if rule := by_age(patient, index):
            return rule
        if index.discharge is None:
            # Chosen: where the end is unknown, so is what was told by it: the visit counts; and "where a date is
            # unknown fewer_than holds".
            had = any(visit.order <= index.order for visit in having(patient, before))
            return f"{before}_before" if had else "short_lookback"
        if patient.death_date is not None and patient.death_date <= t0:
            return "died_before_index"
        if had_by(patient, before, index, cut, t0):
            return f"{before}_before"
        since = patient.followed_since(t0)
        return "short_lookback" if since is None or (t0 - since).days < 365 else None

    def event(t0: date) -> date | None:
        return min(code_days(patient, name, t0), default=None)

    if index.discharge is None:
        return Left(leaves(Cut(time=None), None))
    return predicted_at_the_end(patient, index, 365, last_day, event, leaves, competes=True)


def after_first(patient: Patient, name: str) -> Visit | None:
    """ "The first encounter that ends on or after the day of the first one" known with a code of the set."""
    days = [day for visit in having(patient, name) if (day := told_day(visit, name)) is not None]
    for visit in patient.visits:
        if days and visit.end is not None and visit.end.date() >= min(days):
            return visit
    return None


def af_after_hypertension(records, last_day: date) -> dict[str, Left | In]:
    return {
        id: after_disease(one, last_day, "hypertension", "atrial_fibrillation", 365, "fibrillation_before")
        for id, one in records.items()
    }


def ckd_progression(records, last_day: date) -> dict[str, Left | In]:
    return {
        id: after_disease(one, last_day, "stage_3", "stage_4", 1095, "stage_4_before", low_rates)
        for id, one in records.items()
    }


def after_disease(
    patient: Patient, last_day: date, since: str, name: str, horizon: int, before: str, or_results=None
) -> Left | In:
    if not patient.visits:
        return Left(NO_VISITS)
    if not having(patient, since):
        return Left(f"no_{since}")
    index = after_first(patient, since)
    if index is None:
        return Left("no_index_visit")

    def leaves(cut: Cut, t0: date) -> str | None:
        if rule := by_age(patient, index):
            return rule
        if patient.death_date is not None and patient.death_date <= t0:
            return "died_before_index"
        return before if had_by(patient, name, index, cut, t0) else None

    def event(t0: date) -> date | None:
        days = [day for day in code_days(patient, name, t0) if (day - t0).days <= horizon]
        if or_results is not None:
            within = sorted(day for day in or_results(patient) if 1 <= (day - t0).days <= horizon)
            days += [day for day in within if (day - within[0]).days >= 90]
        return min(days, default=None)

    return predicted_at_the_end(patient, index, horizon, last_day, event, leaves, competes=or_results is None)


def low_rates(patient: Patient) -> list[date]:
    """Days with an estimated glomerular filtration rate under 30."""
    return [event.date for event in patient.measurements if (rate := glomerular_rate(patient, event)) and rate < 30]


def glomerular_rate(patient: Patient, event: Event) -> float | None:
    """ "CKD-EPI 2021 … in mg/dL or µmol/L … of an adult whose sex is known" """
    if event.system != "LOINC" or event.code not in ("2160-0", "38483-4", "14682-9", "77140-2", "59826-8"):
        return None
    unit = (event.unit or "").strip().lower()
    if event.value is None or event.value <= 0 or event.date is None:
        return None
    if unit == "mg/dl":
        creatinine = event.value
    elif unit in ("umol/l", "\u00b5mol/l", "\u03bcmol/l"):
        creatinine = event.value / 88.4
    else:
        return None
    born, day = patient.birth_date, event.date
    if born is None or patient.sex not in ("female", "male"):
        return None
    age = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
    if age < 18:
        return None
    if patient.sex == "female":
        rate = 142 * (creatinine / 0.7) ** (-0.241 if creatinine <= 0.7 else -1.2) * 1.012
    else:
        rate = 142 * (creatinine / 0.9) ** (-0.302 if creatinine <= 0.9 else -1.2)
    return rate * 0.9938**age


# ------------------------------------------------------------------------------------------------- stays with transfers


@dataclass
class Stay:
    """ "Hospital stays of which the next begins within 12 hours of the end (by days alone, on the same or the next day)
    are one." Of other types, each is alone."""

    visits: list[Visit]  # in the order of admission

    @property
    def first(self) -> Visit:
        return min(self.visits, key=lambda visit: visit.order)

    @property
    def last(self) -> Visit:
        return max(self.visits, key=lambda visit: visit.order)

    @property
    def end(self) -> datetime | None:
        """ "unknown where that of the stay admitted last is" """
        if len(self.visits) == 1:
            return self.visits[0].discharge
        return None if self.visits[-1].discharge is None else max(over(visit) for visit in self.visits)

    @property
    def disposition(self) -> str | None:
        """ "the disposition of the stay that ends last (`expired` where one of them is)" """
        if any(visit.disposition == "expired" for visit in self.visits):
            return "expired"
        return sorted(self.visits, key=over)[-1].disposition if len(self.visits) > 1 else self.visits[0].disposition


def over(visit: Visit) -> datetime:
    return max(visit.admit, visit.discharge or visit.admit)


def by_days(visit: Visit) -> bool:
    return all(moment is None or moment.time() == time(0) for moment in (visit.admit, visit.discharge))


def goes_on(later: Visit, earlier: Visit) -> bool:
    if by_days(later) or by_days(earlier):
        return (later.admit.date() - over(earlier).date()).days <= 1
    return later.admit - over(earlier) <= timedelta(hours=12)


def joined_stays(patient: Patient) -> list[Stay]:
    """Those that are neither outpatient nor emergency, in the order of the visit that stands for each."""
    found: list[Stay] = []
    inside = [visit for visit in patient.visits if visit.kind == "inpatient" and visit.admit is not None]
    for visit in sorted(inside, key=lambda visit: (visit.admit, visit.order)):
        if found and any(goes_on(visit, earlier) for earlier in found[-1].visits):
            found[-1].visits.append(visit)
        else:
            found.append(Stay([visit]))
    return found + [Stay([visit]) for visit in stays(patient) if visit not in inside]


def mortality_30d(records, last_day: date) -> dict[str, Left | In]:
    return {id: mortality_of(one, last_day) for id, one in records.items()}


def mortality_of(patient: Patient, last_day: date) -> Left | In:
    if not patient.visits:
        return Left(NO_VISITS)
    found = sorted(joined_stays(patient), key=lambda stay: stay.last.order)
    living = [stay for stay in found if stay.disposition != "expired"]
    if not living:
        return Left("died_at_index" if found else "outpatient")
    stay = living[0]
    if rule := by_age(patient, stay.last):
        return Left(rule)
    if stay.end is None:
        return Left("short_follow_up")
    t0, cut, whole = stay.end.date(), Cut(time=stay.end), stay.last.order
    if patient.death_date is not None and patient.death_date < t0:
        return Left("died_before_discharge")
    if t0 + timedelta(days=30) > last_day:
        return Left("short_follow_up")
    if patient.lifeless:
        return Left("died_before_first_visit")
    if last_begun(patient.visits, cut, whole) < whole:
        return Left("visit_open")
    if not (read := read_up_to(patient.visits, cut, whole)):
        return Left("input_codes")
    died = patient.death_date if patient.death_date and (patient.death_date - t0).days <= 30 else None
    label, *days = first_to_come(patient, t0, died, 30)
    return In(label, t0, whole, whole, 1.0, False, read, *days)


def in_hospital_mortality(records) -> dict[str, Left | In]:
    return {id: in_hospital_of(one) for id, one in records.items()}


def in_hospital_of(patient: Patient) -> Left | In:
    visits = patient.visits
    if not visits:
        return Left(NO_VISITS)
    found = sorted(joined_stays(patient), key=lambda stay: stay.first.order)
    if len(found) < 2:
        return Left("no_second_stay" if len(stays(patient)) == len(visits) else "outpatient")
    stay = found[1]
    index = stay.first
    if rule := by_age(patient, index):
        return Left(rule)
    if patient.lifeless:
        return Left("died_before_first_visit")
    if index.admit is None:
        return Left("index_undated")
    if stay.disposition is None and stay.end is None:
        return Left("outcome_unknown")
    cut = Cut(index=index)
    last = last_begun(visits, cut, index.order - 1)
    if not (read := read_up_to(visits, cut, last)):
        return Left("input_codes")
    return In(int(stay.disposition == "expired"), index.date, index.order, last, input=read)
