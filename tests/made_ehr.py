"""A made health system for the tests: other codes, systems and values than any real source of the project.

Every patient belongs to a hidden disease group. A group has its own diseases, each a pair of codes that
mostly come together, so a masked code is predictable from its neighbours, and better than by copying them.
Heart failure (I50.9) comes later, and more often after risk codes, so an outcome is predictable from the
earlier visits.
"""

import numpy as np
import polars as pl

from medbert_jax.ehr.schema import SCHEMAS, EhrSource, EhrTables

OUTCOME = "ICD10CM/I50.9"
RISK_CODES = ("ICD9CM/401.9", "ICD10CM/I10", "ICD10CM/N18.3")

# Group → disease → (code, its companion).
GROUPS = (
    (("ICD9CM/401.9", "ICD9CM/272.4"), ("ICD10CM/I10", "ICD10CM/E78.5"), ("ICD10CM/N18.3", "ICD10CM/D63.1")),
    (("ICD10CM/I10", "ICD10CM/E66.9"), ("ICD9CM/401.9", "ICD9CM/278.00"), ("ICD10CM/E11.9", "ICD10CM/H36.0")),
    (
        ("ICD9CM/493.90", "ICD9CM/477.9"),
        ("ICD10CM/J45.909", "ICD10CM/J30.9"),
        ("ICD9CM/466.0", "ICD9CM/786.2"),
    ),
    (
        ("ICD10CM/F32.9", "ICD10CM/G47.00"),
        ("ICD9CM/300.00", "ICD9CM/346.90"),
        ("ICD10CM/F10.20", "ICD10CM/K70.30"),
    ),
    (
        ("ICD9CM/715.96", "ICD9CM/724.2"),
        ("ICD10CM/M17.9", "ICD10CM/Z96.651"),
        ("ICD9CM/733.00", "ICD9CM/V58.69"),
    ),
    (
        ("ICD10CM/C50.919", "ICD10CM/Z51.11"),
        ("ICD9CM/174.9", "ICD9CM/V58.11"),
        ("ICD10CM/D70.1", "ICD10CM/R50.81"),
    ),
)
ANYBODY = (
    "ICD9CM/V70.0",
    "ICD10CM/Z00.00",
    "ICD9CM/599.0",
    "ICD10CM/N39.0",
    "ICD9CM/780.60",
    "ICD10CM/R05",
    "ICD9CM/E885.9",
)
DRUGS = ("lisinopril", "metformin", "albuterol", "sertraline", "ibuprofen", "tamoxifen")  # one per group


def made_tables(patients: int = 400, seed: int = 0, dates: bool = True) -> EhrTables:
    """Made EHR tables: 1–8 visits, ICD-9 and ICD-10 codes, medications and measurements, no procedures.

    About 6 % of the patients have fewer than three codes and 1 % none. `dates=False` is the same people as a
    source without dates tells of them: no dates, ten-year age bands, readmission within 30 days as a flag.
    """
    rng = np.random.default_rng(seed)
    patient_ids = np.char.mod("made-%05d", np.arange(patients))
    group = rng.integers(len(GROUPS), size=patients)
    kind = rng.random(patients)  # < 0.01: no codes; < 0.07: fewer than three

    # Visits
    visits_of = np.where(kind < 0.07, 1, 1 + rng.binomial(7, rng.beta(1.2, 2.0, patients)))
    owner = np.repeat(np.arange(patients), visits_of)
    first = np.concatenate([[0], np.cumsum(visits_of)[:-1]])
    order = np.arange(len(owner)) - first[owner] + 1
    last = order == visits_of[owner]
    stay = rng.geometric(1 / np.where(group[owner] % 2 == 1, 6.5, 3.0)) - 1  # whole days
    gap = 1 + rng.exponential(110, len(owner)).astype(int)  # days since the discharge before
    day = np.where(order == 1, 0, gap + np.roll(stay, 1))
    day = np.cumsum(day)
    day = day - day[first][owner] + rng.integers(0, 2500, patients)[owner]  # from 2008-01-01
    minute = day * 1440 + rng.integers(0, 20 * 60, len(owner))
    admit = np.datetime64("2008-01-01", "us") + minute.astype("timedelta64[m]")
    discharge = admit + (stay * 1440 + rng.integers(1, 180, len(owner))).astype("timedelta64[m]")
    soon = np.roll(np.where(order > 1, gap, 10**6), -1) <= 30
    dies = (rng.random(patients) < 0.04)[owner] & last
    way = rng.choice(["home", "facility", "other", "hospice", None], len(owner), p=[0.7, 0.16, 0.05, 0.01, 0.08])

    # Diagnoses: disease pairs of the group and codes of anybody, one visit after the other in `visit`
    few = (kind < 0.07)[owner]
    pairs = np.where(few, 0, 1 + rng.binomial(2, 0.4, len(owner)))
    visit = np.repeat(np.arange(len(owner)), pairs)
    book = np.array(GROUPS)
    preferred = rng.integers(3, size=patients)[owner][visit]  # a patient has one disease more often than the others
    start = np.where((rng.random(len(owner)) < 0.6)[visit], preferred, rng.integers(3, size=len(owner))[visit])
    place = np.arange(len(visit)) - np.searchsorted(visit, visit)  # 0, 1, 2 within the visit
    place = np.where(rng.random(len(visit)) < 0.1, 0, place)  # now and then a disease is written down twice
    disease = (start + place) % 3
    chosen = book[group[owner][visit], disease]
    together = rng.random(len(visit)) < 0.85
    loose = np.where(few, (kind < 0.01)[owner] * -1 + 1 + (kind > 0.04)[owner], rng.binomial(2, 0.35, len(owner)))
    loose_visit = np.repeat(np.arange(len(owner)), loose)
    common = np.array(ANYBODY)[rng.integers(len(ANYBODY), size=len(loose_visit))]
    at_risk = np.bincount(visit, np.isin(chosen[:, 0], RISK_CODES), minlength=len(owner))
    before = np.cumsum(at_risk) - at_risk
    before = before - before[first][owner]  # risk codes in earlier visits
    chance = np.where(order == 1, 0.03, 1 / (1 + np.exp(3.2 - 1.3 * np.minimum(before, 3))))
    fails = (rng.random(len(owner)) < chance) & ~few
    at = np.concatenate([visit, visit[together], loose_visit, np.flatnonzero(fails)])
    code = np.concatenate([chosen[:, 0], chosen[together, 1], common, np.full(fails.sum(), OUTCOME)])
    shuffled = np.lexsort([rng.random(len(at)), at])
    at, code = at[shuffled], code[shuffled]
    unknown = rng.random((3, len(at))) < 0.1

    visit_ids = np.char.add(patient_ids[owner], np.char.mod("-v%02d", order))
    birth_day = admit[first].astype("datetime64[D]") - rng.integers(20 * 365, 88 * 365, patients)
    age_days = (admit.astype("datetime64[D]") - birth_day[owner]).astype(int)
    band = (age_days / 365.25).astype(int) // 10 * 10
    died = np.full(patients, np.datetime64("NaT", "D"))
    died[owner[dies]] = discharge[dies].astype("datetime64[D]")
    patient_table = pl.DataFrame(
        {
            "patient_id": patient_ids,
            "birth_date": birth_day,
            "sex": rng.choice(["female", "male", None], patients, p=[0.55, 0.43, 0.02]).tolist(),
            "race": rng.choice(["Amber", "Cobalt", "Jade", None], patients, p=[0.6, 0.2, 0.15, 0.05]).tolist(),
            "death_date": died,
        }
    )
    visit_table = pl.DataFrame(
        {
            "visit_id": visit_ids,
            "patient_id": patient_ids[owner],
            "order": order,
            "admit_time": admit,
            "discharge_time": discharge,
            "length_of_stay": stay,
            "visit_type": np.where(stay > 0, "inpatient", "outpatient"),
            "age_days": ((band + 5) * 365.25).astype(int),
            "age_precision_days": np.full(len(owner), 3652),
            "discharge_disposition": np.where(dies, "expired", way).tolist(),
            "readmitted_30d": soon,
        }
    )
    diagnosis_table = (
        pl.DataFrame(
            {
                "patient_id": patient_ids[owner][at],
                "visit_id": visit_ids[at],
                "name": code,
                "present_on_admission": rng.random(len(at)) < 0.7,
                "captured_at_billing": rng.random(len(at)) < 0.3,
            }
        )
        .with_columns(
            pl.col("name").str.extract("^(.*)/").alias("code_system"),
            pl.col("name").str.extract("/(.*)$").alias("code"),
            pl.int_range(1, pl.len() + 1).over("visit_id").alias("priority"),
        )
        .with_columns(
            pl.when(~pl.Series(unknown[i])).then(pl.col(column)).alias(column)
            for i, column in enumerate(["present_on_admission", "captured_at_billing", "priority"])
        )
    )
    treated = np.flatnonzero(rng.random(len(owner)) < 0.5)
    measured = np.flatnonzero(rng.random(len(owner)) < 0.3)
    drug = np.array(DRUGS)[group[owner[treated]]]
    events = {
        "medications": _events(patient_ids[owner], visit_ids, admit, treated)
        .with_columns(code_system=pl.lit("name"), code=pl.Series(drug), ingredient=pl.Series(drug)),
        "measurements": _events(patient_ids[owner], visit_ids, admit, measured)
        .with_columns(
            pl.lit("LOINC").alias("code_system"),
            pl.lit("4548-4").alias("code"),
            pl.Series("value", rng.normal(6.3, 0.9, len(measured)).round(1)),
            pl.lit("%").alias("unit"),
        ),
    }  # fmt: skip
    frames = {"patients": patient_table, "visits": visit_table, "diagnoses": diagnosis_table, **events}
    hidden = ("age_days", "age_precision_days", "readmitted_30d")
    if not dates:
        hidden = ("birth_date", "death_date", "admit_time", "discharge_time", "time")
    return EhrTables(
        **{
            name: frame.select(
                (pl.col(column) if column in frame.columns and column not in hidden else pl.lit(None))
                .cast(dtype)
                .alias(column)
                for column, dtype in SCHEMAS[name].items()
            )
            for name, frame in frames.items()
        },
        source=EhrSource("made", has_dates=dates, age_precision="days" if dates else "ten-year bands"),
    )


def _events(patient_ids, visit_ids, admit, rows) -> pl.DataFrame:
    return pl.DataFrame({"patient_id": patient_ids[rows], "visit_id": visit_ids[rows], "time": admit[rows]})
