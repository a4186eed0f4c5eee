"""Random patients of a kind that no source should send but some do, as text for `literal_patients`.

Dates fall on and beside every boundary of the definitions on purpose; codes come from every set and from its
neighbours; times are wrong or missing; a few records are out of order. The same seed gives the same patients.
"""

import re
from datetime import date, timedelta
from random import Random

TYPE_2 = "250.00 250.02 250.60 250.92 E11.9 E11.65 E11"
DIABETES = "250 250.0 250.4 E13.9 E13.65"
EXCLUDED = (
    "253.5 588.1 E23.2 N25.1 648.03 648 O24.419 Z86.32 V12.21 775.1 P70.2 249.00 E08.9 E09.65 250.01 250.53 E10.9"
)
HEART_FAILURE = (
    "428 428.0 428.21 404.03 404.13 402.11 404.11 402.01 404.01 402.91 398.91 404.93 404.91 I50.9 I50.23 I11.0 "
    "I09.81 I13.2 I97.13 I97.131 I13.0"
)
PANCREAS = "157.0 157.9 157 C25.9 C25"
CANCER = "153.9 174.9 197.7 209.00 140 C50.911 C78.7 C97 C00.0 C4A.9 C7A.010 C43.9"
NEIGHBOURS = (
    "401.9 I10 272.4 E78.5 427.31 402.90 404.02 404.92 398.90 I11.9 I13.10 I97.190 I51.9 ICD9CM/4280 ICD10/I50.9 "
    "ICD10GM/E11.9 ICD10GM/C25.9 253.6 588.81 E23.3 649.03 O25.10 Z86.31 V12.29 774.6 P71.0 251.3 E07.9 790.29 "
    "R73.03 173.0 C44.01 D03.9 235.2 239.9 210.1 139.8 V10.00 ICD9CM/2500 ICD9CM/1570"
)

DIABETES_DRUGS = [
    "metformin", "Metformin Hydrochloride", "insulin glargine", "insulin", "sitagliptin / metformin", "glipizide",
    "empagliflozin and linagliptin", "pioglitazone, glimepiride", "acarbose;miglitol", "Alogliptin+Pioglitazone",
]  # fmt: skip
DIURETICS = ["furosemide", "Torsemide", "lisinopril and hydrochlorothiazide", "amiloride / furosemide", "eplerenone",
             "ethacrynic acid", "spironolactone"]  # fmt: skip
OTHER_DRUGS = ["empagliflozin", "lisinopril", "candesartan", "insulinoma marker", "metforminum", "chlorothiazide",
               "semaglutide", "hydrochlorothiazidex", "proinsulin"]  # fmt: skip
LABS = [
    "4548-4 6.4 %", "4548-4 6.5 %", "4548-4 6.5", "4548-4 6.4", "4549-2 7 g/dL", "17856-6 47 mmol/mol", "4548-4 5.1 %",
    "59261-8 48 mmol/mol", "59261-8 47 mmol/mol", "2345-7 180 mg/dL", "30934-4 100 pg/mL", "30934-4 101 pg/mL",
    "42637-9 101 ng/L", "42637-9 101", "30934-4 900 pmol/L", "33762-6 300 pg/mL", "33762-6 301 pg/mL", "71425-3 301",
    "33762-6 200 pg/mL", "71425-3 999 ng/mL",
]  # fmt: skip
PROCEDURES = [
    "CPT4 90935", "CPT4 90950", "CPT4 90951", "CPT4 90970", "CPT4 90971", "CPT4 33975", "CPT4 33984", "CPT4 33990",
    "CPT4 33926", "CPT4 33929", "HCPCS 90935", "ICD9Proc 39.95", "ICD9Proc 37.61", "ICD9Proc 37.66", "ICD10PCS 5A1D70Z",
    "ICD10PCS 5A1C00Z", "ICD10PCS 02HA0QZ", "ICD10PCS 02HB0QZ",
]  # fmt: skip
GAPS = [0, 0, 1, 1, 5, 17, 28, 29, 30, 31, 45, 60, 89, 90, 91, 120, 180, 334, 335, 363, 364, 365, 366, 367, 400, 500]
STAYS = [0, 0, 0, 0, 0, 1, 1, 2, 4, 8, 15, 30, 90, 400]


def messy_patients(how_many: int, seed: int, matchable: bool = False) -> dict[str, str]:
    """Texts by patient id. `matchable`: more of them have diabetes, heart failure and little else."""
    chance = Random(seed)
    return {f"messy {seed} {number}": _patient(chance, matchable) for number in range(how_many)}


def _patient(chance: Random, matchable: bool) -> str:
    likely = chance.random
    # What this patient has at each visit, so that every way through the rules is taken by some.
    of_diabetes = chance.choice([0.0, 0.3, 0.8, 0.8, 0.8])
    of_excluded = chance.choice([0.0, 0.0, 0.0, 0.02, 0.1])
    of_failure = chance.choice([0.0, 0.0, 0.15, 0.3, 0.5])
    of_pancreas = chance.choice([0.0, 0.0, 0.0, 0.2])
    of_cancer = chance.choice([0.0, 0.0, 0.0, 0.05, 0.2])
    careless = chance.choice([0.0, 0.0, 0.0, 0.0, 0.1])  # share of wrong times
    matchable = matchable and likely() < 0.8
    if matchable:
        of_diabetes, of_excluded, careless = 0.9, chance.choice([0.0, 0.0, 0.0, 0.05]), 0.0
        of_failure = chance.choice([0.0, 0.7, 0.7])
    midnight = likely() < 0.3  # a source of days only
    failure_from = chance.choice([0, 2, 3, 4])

    visits, days = [], []
    day = date(2008, 1, 1) + timedelta(days=chance.randrange(800 if matchable else 4300))
    for number in range(chance.choice([0, 1, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 7, 9])):
        day += timedelta(days=chance.choice(GAPS) if number else 0)
        codes = []
        for share, some in (
            (of_diabetes, TYPE_2), (of_diabetes / 5, DIABETES), (of_excluded, EXCLUDED), (of_cancer, CANCER),
            (of_failure if number >= failure_from else 0.0, HEART_FAILURE), (of_pancreas, PANCREAS),
            (0.6, NEIGHBOURS), (0.3, NEIGHBOURS),
        ):  # fmt: skip
            if likely() < share:
                codes.append(chance.choice(some.split()))
        visits.append([_times(chance, day, midnight, careless), "", *codes])
        days.append(day)
    if likely() < 0.04 and len(visits) > 1:
        one = chance.randrange(len(visits) - 1)
        visits[one], visits[one + 1] = visits[one + 1], visits[one]

    facts = []
    how = likely()
    if how < 0.55:
        facts.append(f"born {date(chance.randrange(1925, 1970), chance.randrange(1, 13), chance.randrange(1, 29))}")
    elif how < 0.85 and days:
        facts.append(f"born {_born_years_before(chance, chance.choice(days))}")
    elif how < 0.97:
        for visit in visits:
            if likely() < 0.9:
                visit[1] = f"age={chance.choice([6573, 6574, 6575, 6576, 16436, 16437, 16435, 20000, 12000, 16500])}"
                if likely() < 0.5:
                    visit[1] += f" width={chance.choice([1, 30, 365, 3652])}"
    if likely() < 0.3 and days:
        died = chance.choice(days) + timedelta(days=chance.choice([-1, 0, 1, 2, 30, 364, 365, 366]))
        facts.append(f"died {died}{'T12:15' if died.toordinal() % 3 == 0 else ''}")  # by the clock

    deadly = Random(day.toordinal())  # of its own: what else is drawn stays as it is
    if visits and deadly.random() < 0.1:
        deadly.choice(visits)[1] += " to=expired"

    events = []
    for share, kind, some in (
        (0.9 if matchable else 0.7, "rx", DIABETES_DRUGS), (0.9 if matchable else 0.5, "rx", DIURETICS),
        (0.4, "rx", OTHER_DRUGS), (0.4, "lab", LABS), (0.4, "lab", LABS), (0.2, "px", PROCEDURES),
    ):  # fmt: skip
        if likely() < share and days:
            events.append(f"{kind} {_day_of_event(chance, days)} {chance.choice(some)}")
    return "\n".join(facts + [" ".join(visit) for visit in visits] + events)


def _times(chance: Random, day: date, midnight: bool, careless: float) -> str:
    if midnight:
        start, end = f"{day}T00:00", f"{day + timedelta(days=chance.choice(STAYS))}T00:00"
    else:
        start = f"{day}T{chance.choice(['00:00', '08:00', '08:00', '12:30', '23:59'])}"
        end = f"{day + timedelta(days=chance.choice(STAYS))}T{chance.choice(['23:59', '23:59', '12:30'])}"
        if end < start:
            end = start
    if chance.random() < 0.06:
        end = "?"
    if chance.random() < careless:
        wrong = chance.randrange(3)
        if wrong == 0:
            start = "?"
        elif wrong == 1:
            start = end = "?"
        else:
            end = f"{day - timedelta(days=1)}T12:00"
    return f"{start}/{end}"


def _born_years_before(chance: Random, day: date) -> date:
    """18 or 45 years before a day, a day more or less; sometimes 29 February."""
    year = day.year - chance.choice([18, 45])
    if chance.random() < 0.2:
        return date(year - year % 4, 2, 29)
    born = date(year, day.month, min(day.day, 28 if day.month == 2 else day.day))
    return born + timedelta(days=chance.choice([-31, -1, 0, 1, 31]))


def _day_of_event(chance: Random, days: list[date]) -> str:
    how = chance.random()
    if how < 0.05:
        return "?"
    if how < 0.2:
        return f"visit{chance.randrange(len(days)) + 1}"
    return str(chance.choice(days) + timedelta(days=chance.choice([-400, -1, 0, 0, 1, 14, 364, 365, 366])))


def with_times(patients: dict[str, str], seed: int) -> dict[str, str]:
    """The same patients where visits have a type, stays may be open, and codes have times, on and beside every end."""
    chance = Random(seed)
    return {
        name: "\n".join(_with_times(line, chance) for line in re.split(r"\n|;\s", text))
        for name, text in patients.items()
    }


def _with_times(line: str, chance: Random) -> str:
    words = line.split()
    if not words or not re.match(r"\d{4}-|\?", words[0]):
        return line
    begin, _, end = words[0].partition("/")
    kind = chance.choice(["inpatient", "inpatient", "outpatient", ""])
    if chance.random() < 0.25:
        end = "?"
    words[0] = f"{begin}/{end}" if end else begin
    day = next((date.fromisoformat(part[:10]) for part in (begin, end) if part not in ("", "?")), None)
    ends = date.fromisoformat(end[:10]) if end not in ("", "?") else day
    for place, word in enumerate(words[1:], 1):
        if "=" in word or day is None or chance.random() < 0.4:
            continue
        at = chance.choice([day, ends]) + timedelta(days=chance.choice([-3, 0, 0, 0, 1, 5, 29, 60, 200, 365, 400, 900]))
        hour = chance.choice(["", "T00:00", "T08:00", "T12:00", "T17:00", "T23:30"])
        words[place] = f"{word}@{at}{hour}{chance.choice(['', '', '$'])}"
    return " ".join([words[0], *([f"kind={kind}"] if kind else []), *words[1:]])
