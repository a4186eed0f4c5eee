"""EHR tables of one shard → patient sequences: who stays (and the ledger), visits, order of codes."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import polars as pl
from annotated_types import Ge

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.checked_fields import check_fields
from medbert_jax.data.code_order import code_numbers, distinct, in_order, priority_rank, random_rank
from medbert_jax.data.example_records import OUTCOMES
from medbert_jax.data.sequences import PatientSequences, offsets_of
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.known import PREDICTION, input_diagnoses, input_visits
from medbert_jax.ehr.schema import SEXES, EhrTables

VisitRule = Literal["encounter", "discharge_date"]
CodeOrder = Literal["priority", "random"]
IN_LEDGER = "serialization:"
"""Before the names of its lines, where they follow those of a cohort's selection."""


@dataclass(frozen=True)
class SerializationConfig:
    """How histories become sequences. A cohort inherits it from its pretraining dataset."""

    minimum_codes: Annotated[int, Ge(1)] = 3
    """Patients with fewer codes leave. Paper: 3. Released code: no such filter (1). Cohorts: 1."""
    unique: bool = True
    """Whether minimum_codes counts different codes (paper, Fig. 1) or the codes of all visits (Methods)."""
    prolonged_los_days: Annotated[int, Ge(0)] = 7
    """A stay is prolonged when it lasts more days than this: 7 is not, 8 is."""
    visit_rule: VisitRule = "encounter"
    """A visit is an encounter (paper), or all encounters that end on one date (released code)."""
    code_order: CodeOrder = "priority"
    """Order within a visit: the paper's, or one drawn from the patient, visit and code (its ablation)."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


def serialize(
    tables: EhrTables,
    vocabulary: Vocabulary,
    config: SerializationConfig,
    *,
    until: pl.DataFrame | None = None,
    races: tuple[str, ...] = (),
) -> tuple[PatientSequences, Ledger]:
    """Return the sequences of one shard, sorted by patient_id, or by `PREDICTION`, and the ledger of who left.

    A pure function of the shard's tables: `order_histories`, then `with_vocabulary`. The builders call the two
    apart, since a vocabulary is fitted in between. Arguments, rules and errors are those of `order_histories`;
    codes that the vocabulary does not know become UNK.
    """
    histories, codes, ledger = order_histories(tables, config, until=until, races=races)
    return with_vocabulary(histories, codes, vocabulary), ledger


def with_vocabulary(histories: PatientSequences, codes: np.ndarray, vocabulary: Vocabulary) -> PatientSequences:
    """Return the histories of `order_histories` with ids of the vocabulary, UNK where it has no such code."""
    return replace(histories, code_ids=vocabulary.encode(codes)[histories.code_ids])


def count_patients(histories: PatientSequences, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that these histories hold, and how many patients have each: for `fit_vocabulary`."""
    patient = np.repeat(np.arange(len(histories)), histories.lengths)
    pairs = distinct(patient * len(codes) + histories.code_ids)
    patients = np.bincount(pairs % max(len(codes), 1), minlength=len(codes))
    return codes[patients > 0], patients[patients > 0]


def order_histories(
    tables: EhrTables,
    config: SerializationConfig,
    *,
    until: pl.DataFrame | None = None,
    races: tuple[str, ...] = (),
    several: bool = False,
) -> tuple[PatientSequences, np.ndarray, Ledger]:
    """Return sequences whose code_ids index the second value, the shard's own codes; and the ledger.

    Who leaves, each counted under the first rule that applies:
    1. patients without a diagnosis code (paper, Fig. 1);
    2. patients with a wrong recorded time in any visit: a discharge before its admission, a negative length
       of stay, an admission before that of an earlier visit (paper, Fig. 1: "such as");
    3. patients with fewer than `minimum_codes` codes (paper, Fig. 1);
    4. visits without codes: they get no number, but their length of stay counts for prolonged_los, and
       visit_days are counted from the first visit even if that has no codes;
    5. a code that its visit already has, which keeps its first place.

    Within a visit, codes are in the order of `priority_rank` (paper, Methods) and, where it says nothing, of
    the code strings. prolonged_los is 1 when any of the patient's visits, those without codes too, is known
    to last more than `prolonged_los_days`; so a patient whose stays are all unknown has 0.

    Args:
        tables: one shard, checked, as `read_shard` gives it: every row of its patients.
        config: what the rules leave open.
        until: None, or a cohort as `select_cohort` gives it: a sequence for each of its rows, of the visits up to
            input_until alone, of these the diagnoses that were known (`ehr.known`), with its label, index_day,
            index_order and prediction_time as outcomes instead of prolonged_los. Nothing after the cut is looked at:
            a visit that was not over has neither a discharge nor a length of stay.
        races: the names behind the numbers 1, 2, … of race; others are 0.
        several: whether a patient may have several rows of `until`: the ledger then counts predictions too, and a
            patient leaves with his last one.

    Raises:
        ValueError: visit_rule "discharge_date" on a source without dates, cohort patients that the tables do
            not hold, or a shard too large to sort.
    """
    encounters, diagnoses, patients = _encounters(tables, until)
    encounters, visits = _visits(encounters, tables, config)
    diagnoses, visit = _with_visit(diagnoses, encounters)
    codes, code = code_numbers(diagnoses)
    owner = visits["patient"].to_numpy().astype(np.int64)
    if config.code_order == "random":
        number = np.arange(len(visits)) - np.searchsorted(owner, owner)
        rank = random_rank((patients["patient_id"], owner[visit]), number[visit], (codes, code))
    else:
        rank = priority_rank(diagnoses)
    codes_in = np.bincount(owner[visit], minlength=len(patients))
    visit, code = in_order(visit, code, rank)
    whose = owner, patients["patient_id"].rle_id().to_numpy() if several else np.arange(len(patients))
    stays, ledger = _who_stays(tables.source.format, visits, whose, codes_in, visit, code, config, several=several)
    visit, code = visit[stays[owner[visit]]], code[stays[owner[visit]]]
    stay = visits["length_of_stay"].fill_null(-1).to_numpy() > config.prolonged_los_days
    patients = patients.with_columns(prolonged_los=np.bincount(owner, stay, len(patients)) > 0)
    kind = "pretraining" if until is None else "cohort"
    sequences = _columns(patients, visits, stays, visit, code, OUTCOMES[kind], races)
    ledger.check(**sequences.counts(several=several))
    return sequences, codes, ledger


def _encounters(tables: EhrTables, until: pl.DataFrame | None) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return the encounters that may be read, by patient and order, their diagnoses, and the patients by id."""
    visits, diagnoses = tables.visits, tables.diagnoses
    patients = tables.patients.select("patient_id", "birth_date", "sex", "race")
    each = ["patient_id"]
    if until is not None:
        each = [*PREDICTION]
        patients = patients.join(until, on="patient_id")
        if len(patients) != len(until):
            raise ValueError(
                "every patient of a cohort must be in the tables it is read from: got"
                f" {len(until) - len(patients)} of {len(until)} who are not; select it from the same shard"
            )
    patients = patients.sort(each).with_row_index("patient")
    if until is not None:
        visits = input_visits(tables, until)
        diagnoses = input_diagnoses(tables, visits)
    people = patients.select("patient", *each, "birth_date")
    encounters = visits.join(people, on=each).sort("patient", "order")
    admitted = pl.col("admit_time").dt.date()
    age = (admitted - pl.col("birth_date")).dt.total_days()
    backwards = pl.col("admit_time") < pl.col("admit_time").cum_max().over("patient")
    wrong = (pl.col("discharge_time") < pl.col("admit_time")) | (pl.col("length_of_stay") < 0) | backwards
    columns = (*each, "visit_id", "patient", "order", "admit_time", "discharge_time", "length_of_stay")
    encounters = encounters.select(
        *columns,
        # A birth date is more exact than an age band; an age below 0 is not known.
        pl.coalesce(age, "age_days").clip(lower_bound=-1).alias("age_days"),
        (admitted - admitted.first().over("patient")).dt.total_days().alias("visit_days"),
        wrong.fill_null(False).alias("wrong"),
    )
    return encounters, diagnoses, patients


def _visits(
    encounters: pl.DataFrame, tables: EhrTables, config: SerializationConfig
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the encounters with the number of their visit, and one row per visit, by patient and order."""
    if config.visit_rule == "encounter":
        encounters = encounters.with_row_index("visit")
        return encounters, encounters.with_columns(encounters=pl.lit(1))
    if not tables.source.has_dates:
        raise ValueError(
            "visit_rule 'discharge_date' needs discharge dates: got a source without dates"
            f" ({tables.source.format}); use visit_rule 'encounter'"
        )
    # Released code: encounters that end on one date are one visit, from the earliest admission on. An unknown
    # discharge ends on no other's date. The merged visit takes the place of its first encounter.
    ends = pl.col("discharge_time").dt.date()
    place = pl.when(ends.is_null()).then("order").otherwise(pl.col("order").min().over("patient", ends))
    place = pl.col("patient").cast(pl.Int64) * 2**32 + place
    encounters = encounters.with_columns(visit=place.rank("dense").cast(pl.UInt32) - 1)
    whole_days = (ends.first() - pl.col("admit_time").min().dt.date()).dt.total_days()
    visits = encounters.group_by("visit").agg(
        pl.col("patient").first(),
        pl.len().alias("encounters"),
        pl.coalesce(whole_days, pl.col("length_of_stay").first()).alias("length_of_stay"),
        pl.col("age_days", "visit_days").first(),
        pl.col("wrong").any(),
    )
    return encounters, visits.sort("visit")


def _with_visit(diagnoses: pl.DataFrame, encounters: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """Return the diagnoses of these encounters and the number of the visit of each (int64)."""
    # A visit id is unique within its patient only. Looking up two columns is twice as fast as joining all.
    key = [name for name in (*PREDICTION, "visit_id") if name in encounters.columns]
    places = encounters.select(*key, "visit")
    visit = diagnoses.select(key).join(places, on=key, how="left", maintain_order="left")["visit"]
    if visit.has_nulls():  # of patients that the tables lack, which the ledger will miss
        diagnoses, visit = diagnoses.filter(visit.is_not_null()), visit.drop_nulls()
    return diagnoses, visit.to_numpy().astype(np.int64)


def _who_stays(
    source: str,
    visits: pl.DataFrame,
    whose: tuple[np.ndarray, np.ndarray],
    codes_in: np.ndarray,
    visit: np.ndarray,
    code: np.ndarray,
    config: SerializationConfig,
    *,
    several: bool,
) -> tuple[np.ndarray, Ledger]:
    """Return which rows stay, and the ledger; `visit` and `code` have each code once per visit.

    A row is a patient or, of `several`, a prediction. `whose`: the row of each visit, the patient's number of each row.
    """
    owner, person = whose
    n, per_visit = len(codes_in), visits["encounters"].to_numpy().astype(np.int64)
    encounters_in = np.bincount(owner, per_visit, n).astype(np.int64)
    counted = owner[visit]
    if config.unique:
        names = 1 + int(code.max(initial=0))
        counted = distinct(counted * names + code) // names
    words = f"Fewer than {config.minimum_codes} {'different ' if config.unique else ''}codes"
    stays, people = np.ones(n, bool), int(person[-1]) + 1 if n else 0
    ledger = Ledger.start(
        f"{source} → patient sequences",
        patients=people,
        visits=encounters_in.sum(),
        codes=codes_in.sum(),
        predictions=n if several else 0,
    )
    for rule, text, applies in (
        ("no_diagnoses", "Patients without a diagnosis code", codes_in == 0),
        ("wrong_times", "A wrong recorded time", np.bincount(owner, visits["wrong"].to_numpy(), n) > 0),
        ("minimum_codes", words, np.bincount(counted, minlength=n) < config.minimum_codes),
    ):
        left = stays & applies
        counts = {"visits": encounters_in[left].sum(), "codes": codes_in[left].sum()}
        counts |= {"predictions": left.sum()} if several else {}
        before = len(distinct(person[stays]))
        stays &= ~applies
        ledger.leave(rule, text, tag="paper", patients=before - len(distinct(person[stays])), **counts)
    theirs, has_codes = stays[owner], np.bincount(visit, minlength=len(owner)) > 0
    if config.visit_rule == "discharge_date":
        text = "Encounters that are one visit with another of the same discharge date"
        ledger.leave("same_discharge_date", text, tag="group", visits=(per_visit[theirs] - 1).sum())
    ledger.leave("no_codes", "Visits without a code", visits=(theirs & ~has_codes).sum())
    repeated = codes_in[stays].sum() - theirs[visit].sum()
    ledger.leave("repeated_in_visit", "Codes that their visit has already", tag="group", codes=repeated)
    return stays, ledger


def _columns(
    patients: pl.DataFrame,
    visits: pl.DataFrame,
    stays: np.ndarray,
    visit: np.ndarray,
    code: np.ndarray,
    outcomes: dict[str, type],
    races: tuple[str, ...],
) -> PatientSequences:
    """Return the sequences of the patients who stay; `visit` and `code` are theirs, in order."""
    has_codes = np.bincount(visit, minlength=len(visits)) > 0
    patients, visits = patients.filter(stays), visits.filter(has_codes)
    owner = (np.cumsum(stays) - 1)[visits["patient"].to_numpy()]
    visit_offsets = offsets_of(np.bincount(owner, minlength=len(patients)))
    visit = (np.cumsum(has_codes) - 1)[visit]
    lengths = np.bincount(visit, minlength=len(visits))
    return PatientSequences(
        patient_id=np.array([patient_id.encode() for patient_id in patients["patient_id"]], dtype="S"),
        code_offsets=offsets_of(lengths)[visit_offsets],
        code_ids=code.astype(np.int32),
        visit_ids=(visit - visit_offsets[owner[visit]] + 1).astype(np.int32),
        serialization_ids=(np.arange(len(visit)) - np.repeat(offsets_of(lengths)[:-1], lengths)).astype(np.int32),
        visit_offsets=visit_offsets,
        **{
            name: visits[name].fill_null(-1).cast(pl.Int32).to_numpy()
            for name in ("visit_days", "age_days", "length_of_stay")
        },
        sex=_numbered(patients["sex"], SEXES),
        race=_numbered(patients["race"], races),
        outcomes={
            name: patients[name].to_physical().cast(pl.Int64).to_numpy().astype(dtype)
            for name, dtype in outcomes.items()
        },
    )


def _numbered(values: pl.Series, names: tuple[str, ...]) -> np.ndarray:
    """Return the place of each value among the names, from 1; 0 for others and unknown (int32)."""
    places = {name: place for place, name in enumerate(names, start=1)}
    return values.replace_strict(places, default=0, return_dtype=pl.Int32).to_numpy()
