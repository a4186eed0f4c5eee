"""`paca-matched` in plain loops, from docs/cohorts.md; what is not quoted there is as in `cohort_loops`."""

from datetime import date, timedelta

from cohorts.independent.cohort_loops import (
    CONTROL_POOL,
    CONTROLS_PER_CASE,
    Cut,
    In,
    Left,
    Patient,
    age_at,
    first_with,
    has_incorrect_times,
    hashes,
    last_begun,
    matched_row,
    read_up_to,
    told_before,
    told_day,
    visits_with,
)


def paca_matched(shard_records: dict[str, Patient], last_day: date) -> dict[str, Left | In]:
    """One shard. Beside `unmatched` and `short_at_risk` whoever leaves does so as `not_case`, `not_control` or
    `not_drawn`."""
    ids = list(shard_records)
    roles = dict(zip(ids, hashes(ids, "paca-matched/role"), strict=True))
    place = dict(zip(ids, hashes(ids, "paca-matched/draw"), strict=True))
    outcomes: dict[str, Left | In] = {}
    cases: list[tuple[Patient, date, int]] = []
    pool: list[tuple[Patient, date]] = []
    # "By a hash of their id 30 % of the patients may be controls and no cases, the others cases and no controls."
    for patient in shard_records.values():
        start = since_45(patient)
        if roles[patient.patient_id] / 2**64 < CONTROL_POOL:
            outcomes[patient.patient_id] = Left("not_control")
            if start is not None:
                pool.append((patient, start))
            continue
        # "A case's date is that of his first encounter with it"; "one code makes a case".
        first = first_with(patient.visits, "pancreatic_cancer")
        outcomes[patient.patient_id] = Left("not_case")
        if first is None or first.date is None or not is_free_of_cancer(patient, first.date):
            continue
        # "short_at_risk (a case under 30 days after the first encounter at 45 or more, or of unknown age)"
        if start is None or (first.date - start).days < 30:
            outcomes[patient.patient_id] = Left("short_at_risk")
        elif has_input(patient, first.date):
            cases.append((patient, first.date, (first.date - start).days))
    # "The cases come in the order of a second hash, and each takes the first two eligible controls, in the order of the
    # same hash, whom no earlier case took."
    cases.sort(key=lambda case: place[case[0].patient_id])
    pool.sort(key=lambda control: place[control[0].patient_id])
    used: set[str] = set()
    for case, cut, waited in cases:
        eligible = []
        for control, start in pool:
            # "As many days after his own T as the case's after his; only where that is in the calendar year of the
            # case's date, 30 days or more after T, and not after the last day of the source."
            day = start + timedelta(days=waited)
            if control.patient_id in used or day.year != cut.year or day > last_day:
                continue
            if is_free_of_cancer(control, day, control=True) and has_input(control, day):
                eligible.append((control, day))
                outcomes[control.patient_id] = Left("not_drawn")
        drawn = eligible[:CONTROLS_PER_CASE]
        if len(drawn) < CONTROLS_PER_CASE:  # "A case who finds fewer than two leaves (unmatched) and takes none."
            outcomes[case.patient_id] = Left("unmatched")
            continue
        # "A case 1 / 0.7, a control as many as were eligible at that moment for each one taken."
        outcomes[case.patient_id] = matched_row(case, cut, 1, 1 / (1 - CONTROL_POOL))
        for control, day in drawn:
            used.add(control.patient_id)
            outcomes[control.patient_id] = matched_row(control, day, 0, len(eligible) / len(drawn))
    return outcomes


def since_45(patient: Patient) -> date | None:
    """ "In `paca-matched` the time goes since the first encounter at 45 years or more." """
    for visit in patient.visits:
        age = age_at(patient, visit)
        if age is not None and age >= 45:
            return visit.date
    return None


def is_free_of_cancer(patient: Patient, cut: date, control: bool = False) -> bool:
    """`incorrect_times`, `other_cancer_before`, `paca_before_index`, `paca_by_index` and `died_before_index`, by
    days."""
    before = [visit for visit in patient.visits if visit.date is not None and visit.date < cut]
    if has_incorrect_times(patient, before) or (patient.death_date is not None and patient.death_date < cut):
        return False
    if any(told_before(visit, "other_cancer", cut) for visit in visits_with(before, "other_cancer")):
        return False
    for visit in visits_with(patient.visits, "pancreatic_cancer"):
        # "There such a stay counts with its day, so that nobody is a control who may have had the outcome."
        day = told_day(visit, "pancreatic_cancer") or visit.date
        if told_before(visit, "pancreatic_cancer", cut) or (control and day is not None and day <= cut):
            return False
    return True


def has_input(patient: Patient, cut: date) -> bool:
    """ "At least one diagnosis code must be in it." """
    before = Cut(day=cut - timedelta(days=1))
    return bool(read_up_to(patient.visits, before, last_begun(patient.visits, before, len(patient.visits))))
