"""Nobody is lost and every planted error is found: the ledgers of simulated patients, against what was planted in them.

    medbert simulate EHR --patients 1000000 --truth TRUTH
    python benchmarks/simulate_ledger.py EHR TRUTH --out benchmarks/results/simulate_ledger.json

Shard by shard, with one in memory at a time:

*Ledgers* of pretraining (`medbert prepare`'s rules) and of the cohorts: what came in is counted in the tables, what is
kept in the sequences, in the visits that may be read and in those of their diagnoses that were known, and both are held
against what the ledger says has left.

*Planted errors*, as the truth counts them, beside what reports them: a rule of `medbert validate`, unknown cells of the
tables, or a line of a ledger. Three need a word. Who is recorded dead too early has all his visits after death; they
are taken off the rule `after_death`, to leave the planted visits. He himself leaves paca under its first rule, together
with those whose times are wrong, who are taken off. Records can lack diagnoses by nature, too: patients without any and
without this error are taken off the rule `patient_without_codes`. Drugs and results that are not there are reported by
nobody: counted are the patients who should have none, and those of them who have none.

*Who leaves for an error*, patient by patient, where an error and an earlier rule can meet: the first rule wins.
Pretraining: of the patients with diagnoses (tables) those with a discharge before its admission or an order against
time (truth) leave under wrong_times; of the others those with fewer than three different codes (tables) leave; all
others stay, and must be the patients of the sequences, one by one. Their codes of one visit twice are the planted
ones. Every line's patients, visits and codes are compared. Cohorts: patients with a wrong or missing time, an early
death or no birth date (truth) are judged from the tables by the plain loops of tests/cohorts/independent, which were
written apart from the package (for dhf-matched by `matched_rule` here); whom these take out under incorrect_times or
age_unknown the package must take out under the same rule, each of them, and the ledger must have no one else there.

All differences are sums of absolute values over the shards. One that is not 0 ends the script with exit status 1.
"""

import dataclasses
import json
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import tyro
from provenance import machine

from medbert_jax.attrition.ledger import LEVELS, Counts, Ledger
from medbert_jax.cohorts.judging import judge
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.data.serialization import SerializationConfig, order_histories
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.quality.frames import count_faults
from medbert_jax.simulation.block import World
from medbert_jax.simulation.parameters import load_parameters
from medbert_jax.simulation.truth import check_truth

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cohorts.independent import cohort_loops as loops

COHORTS = ("dhf", "dhf-matched", "dhf-landmark", "paca")
TRANSFERS = ("dhf", "paca")  # the index is a visit that the input does not hold: what ends as it begins was over
RULES = ("incorrect_times", "age_unknown")
"""Rules of cohorts that planted errors make hold, each after others."""
LACKING = ("diagnoses", "medications", "measurements")
"""Tables in which some patients were left out."""
VISIT = ["patient_id", "visit_id"]

Planted = dict[str, dict[str, int]]
"""Kind → patient → how many."""


@dataclass
class Found:
    """What all shards together show; a shard's difference cannot make up for another's."""

    ledgers: dict[str, Ledger] = field(default_factory=dict)
    unbalanced: Counter = field(default_factory=Counter)
    errors: dict[str, Counter] = field(default_factory=dict)
    leavers: dict[str, Counter] = field(default_factory=dict)
    by: dict[str, str] = field(default_factory=dict)

    def balance(self, name: str, ledger: Ledger, tables: EhrTables, kept: Counts) -> None:
        """Hold a shard's ledger against its tables and what was kept of them, and add it to the others."""
        came = Counts(tables.patients.height, tables.visits.height, tables.diagnoses.height)
        left = sum((line.left for line in ledger.lines), Counts())
        self.unbalanced[name] += absolute(came - left - kept) + absolute(came - ledger.came)
        self.ledgers[name] = self.ledgers[name].merge(ledger) if name in self.ledgers else ledger

    def compare(self, name: str, expected: set[str], found: set[str], counted: int) -> None:
        """Patients who should leave under a rule, those of them and of other planted ones who do, and all who do."""
        off = max(len(expected ^ found), abs(counted - len(expected)))
        self.leavers.setdefault(name, Counter()).update(expected=len(expected), found=counted, difference=off)

    def report(self, kind: str, by: str, planted: int, reported: int) -> None:
        """One kind of error of a shard, and what reports it."""
        self.by[kind] = by
        self.errors.setdefault(kind, Counter()).update(
            planted=planted, reported=reported, difference=abs(planted - reported)
        )

    def to_dict(self) -> dict:
        """JSON-ready, with the sum of all differences."""
        ledgers = {
            name: {
                "came": ledger.came.to_dict(),
                "kept": ledger.kept.to_dict(),
                "left": {line.rule: dataclasses.asdict(line.left) for line in ledger.lines},
                "difference": self.unbalanced[name],
            }
            for name, ledger in self.ledgers.items()
        }
        errors = {kind: {**counts, "reported_by": self.by[kind]} for kind, counts in sorted(self.errors.items())}
        leavers = {name: dict(counts) for name, counts in self.leavers.items()}
        whole = sum(one["difference"] for part in (ledgers, errors, leavers) for one in part.values())
        return {"ledgers": ledgers, "planted": errors, "leavers": leavers, "difference": whole}


def main(
    ehr: tyro.conf.Positional[Path],
    truth: tyro.conf.Positional[Path],
    /,
    out: Path = Path(__file__).parent / "results" / "simulate_ledger.json",
) -> None:
    """Compare, print, write the JSON; exit status 1 where a difference is not 0.

    Args:
        ehr: folder of EHR tables, simulated.
        truth: what is hidden, of the same run of `medbert simulate`.
        out: where the figures go.
    """
    source, started, found = read_source(ehr), time.perf_counter(), Found()
    said = json.loads((truth / "truth.json").read_bytes())
    check_truth(World(load_parameters(said["site"], said["world"])), truth, source)
    for shard in range(source.shards):
        name = f"shard-{shard:05d}-of-{source.shards:05d}.parquet"
        check_shard(found, read_shard(ehr, shard), planted_in(pl.read_parquet(truth / "errors" / name)), shard)
        print(f"shard {shard + 1}/{source.shards}: {time.perf_counter() - started:.0f} s", flush=True)
    record = {
        "machine": machine(),
        "source": source.assumptions,
        "content_hash": source.content_hash,
        "shards": source.shards,
        **found.to_dict(),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    for part in ("ledgers", "planted", "leavers"):
        for name, one in record[part].items():
            print(f"{name}: " + ", ".join(f"{key} {n:,}" for key, n in one.items() if isinstance(n, int)))
    if record["difference"]:
        sys.exit(f"every difference must be 0: got {record['difference']:,} in all; see {out}")


def planted_in(errors: pl.DataFrame) -> Planted:
    """The errors of a shard's truth."""
    planted: Planted = {}
    for patient, kind, count in errors.group_by("patient_id", "kind").agg(pl.col("count").sum()).iter_rows():
        planted.setdefault(kind, {})[patient] = count
    return planted


def check_shard(found: Found, tables: EhrTables, planted: Planted, shard: int) -> None:
    """Everything of one shard."""
    pretraining(found, tables, planted)
    kinds = ("discharge_before_admission", "no_admission", "death_before_first_visit", "unknown_birth")
    wrong = set().union(*(planted.get(kind, {}) for kind in kinds))
    theirs = of_patients(tables, wrong)
    records = loops.records_of({name: frame.to_dicts() for name, frame in theirs.present().items()})
    left = {}
    for name in COHORTS:
        spec = load_spec(name)
        frame, ledger = select_cohort(tables, spec)
        read = tables.visits.join(frame.select("patient_id", "input_until", "prediction_time"), on="patient_id")
        read = read.filter(pl.col("order") <= pl.col("input_until"))
        codes = known_codes(tables, read, transfers=name in TRANSFERS)
        found.balance(name, ledger, tables, Counts(frame.height, read.height, codes))
        left[name] = {line.rule: line.left.patients for line in ledger.lines}
        expected = {one: rule_of(name, patient, tables.source.last_day) for one, patient in records.items()}
        # Whether these two rules take somebody does not depend on who else is there, in a matched cohort either.
        judged, _ = judge(theirs, spec, every_rule=True)
        says = dict(judged.select("patient_id", "leaves_under").iter_rows())
        for rule in RULES:
            sets = [{one for one, said in which.items() if said == rule} for which in (expected, says)]
            found.compare(f"{name}: {rule}", *sets, left[name][rule])
    report_errors(found, tables, planted, shard, dead_early=left["paca"]["incorrect_times"])


def known_codes(tables: EhrTables, read: pl.DataFrame, *, transfers: bool) -> int:
    """How many diagnoses of the visits that may be read were known, by the table of docs/cohorts.md, "What was known".

    `read`: those visits with `prediction_time`, 1 µs before the index begins. `transfers`: was a visit over that ended
    at that very time?
    """
    by = pl.col("prediction_time") + pl.duration(microseconds=int(transfers))
    contact = pl.col("discharge_time").is_null() & (pl.col("visit_type") != "inpatient").fill_null(True)
    over = contact | (pl.col("discharge_time") <= by).fill_null(False)
    visits = read.select(*VISIT, "prediction_time", "discharge_time", over=over)
    rows = tables.diagnoses.join(visits, on=VISIT)
    told = (pl.col("time") <= pl.col("prediction_time")).fill_null(False)
    within = (pl.col("time") <= pl.col("discharge_time")).fill_null(False)
    billed = pl.col("captured_at_billing").fill_null(False)
    of_over = pl.col("time").is_null() | told | within
    return rows.filter(pl.when("over").then(of_over).otherwise(told & ~billed)).height


def pretraining(found: Found, tables: EhrTables, planted: Planted) -> None:
    """The ledger of pretraining, line by line, and the patients whom it keeps, one by one."""
    sequences, _, ledger = order_histories(tables, SerializationConfig())
    kept = Counts(len(sequences), len(sequences.visit_days), len(sequences.code_ids))
    found.balance("pretraining", ledger, tables, kept)
    stay, expected = expected_of_pretraining(tables, planted)
    said = {line.rule: line.left for line in ledger.lines} | {"kept": ledger.kept}
    for rule in sorted(expected.keys() | said.keys()):
        of, there = expected.get(rule, Counts()), said.get(rule, Counts())
        counts = {f"expected_{level}": getattr(of, level) for level in LEVELS}
        counts |= {f"found_{level}": getattr(there, level) for level in LEVELS}
        found.leavers.setdefault(f"pretraining: {rule}", Counter()).update(counts, difference=absolute(of - there))
    names = {one.decode() for one in sequences.patient_id}
    found.compare("pretraining: the patients kept", stay, names, len(sequences))


def expected_of_pretraining(tables: EhrTables, planted: Planted) -> tuple[set[str], dict[str, Counts]]:
    """Who must stay, and what must leave under each line, by the truth and the tables."""
    visits, codes, different = (
        dict(frame.group_by("patient_id").agg(pl.len()).iter_rows())
        for frame in (
            tables.visits,
            tables.diagnoses,
            tables.diagnoses.select("patient_id", "code_system", "code").unique(),
        )
    )
    wrong = planted.get("discharge_before_admission", {}).keys() | planted.get("order_against_time", {}).keys()
    leaves = {"no_diagnoses": set(), "wrong_times": set(), "minimum_codes": set(), "kept": set()}
    for patient in tables.patients["patient_id"]:
        if patient not in codes:
            rule = "no_diagnoses"
        elif patient in wrong:
            rule = "wrong_times"
        else:
            rule = "minimum_codes" if different[patient] < 3 else "kept"
        leaves[rule].add(patient)
    expected = {
        rule: Counts(len(who), sum(visits.get(one, 0) for one in who), sum(codes.get(one, 0) for one in who))
        for rule, who in leaves.items()
    }
    stay = leaves["kept"]
    without = tables.visits.join(tables.diagnoses, on=VISIT, how="anti")["patient_id"]
    expected["no_codes"] = Counts(visits=sum(one in stay for one in without))
    twice = planted.get("duplicate_code", {})
    expected["repeated_in_visit"] = Counts(codes=sum(count for one, count in twice.items() if one in stay))
    expected["kept"] -= expected["no_codes"] + expected["repeated_in_visit"]
    return stay, expected


def rule_of(name: str, patient: loops.Patient, last_day: str) -> str | None:
    """The rule under which the plain loops take a patient out; None: he stays, or leaves dhf-matched later."""
    if name == "dhf-matched":
        return matched_rule(patient)
    if name == "dhf-landmark":
        outcome = loops.dhf_landmark_of(patient, date.fromisoformat(last_day))
    else:
        outcome = {"dhf": loops.dhf_of, "paca": loops.paca_of}[name](patient)
    return outcome.rule if isinstance(outcome, loops.Left) else None


def matched_rule(patient: loops.Patient) -> str | None:
    """The rule under which a patient leaves dhf-matched, up to age_unknown; None: none of these.

    Only a case has a date by himself; a control with such an error before a date is never given that date. Without a
    date, what is asked "before the date" holds where it would at any date. Visits without an admission time are before
    no date.
    """
    visits, failures = patient.visits, loops.visits_with(patient.visits, "heart_failure")
    if not visits:
        return loops.NO_VISITS
    for condition in ("diabetes", "type_2"):
        if not loops.visits_with(visits, condition):
            return f"no_{condition}"
    day = None
    (role,) = loops.hashes([patient.patient_id], "dhf-matched/role")
    if failures and role / 2**64 >= loops.CONTROL_POOL:
        if len(failures) < 2:
            return "hf_one_encounter"
        if not loops.heart_failure_is_verified(patient):
            return "hf_unverified"
        day = failures[0].date
    before = [visit for visit in visits if visit.date is not None and (day is None or visit.date < day)]
    if len(loops.visits_with(before, "diabetes")) < 2:
        return "one_diabetes_encounter"
    first = visits[0].date
    dead = patient.death_date is not None and first is not None and patient.death_date < first
    if dead or (day is not None and loops.has_incorrect_times(patient, before)):
        return "incorrect_times"
    if day is not None and (rule := loops.excluded_diabetes(before)):
        return rule
    if not loops.diabetes_is_verified(patient, until=None if day is None else day - timedelta(days=1)):
        return "diabetes_unverified"
    return loops.too_young(patient, loops.visits_with(visits, "diabetes")[0], 18)


def report_errors(found: Found, tables: EhrTables, planted: Planted, shard: int, *, dead_early: int) -> None:
    """Every kind of planted error beside what reports it.

    `dead_early`: patients who leave paca for wrong times or an early death.
    """
    faults, _ = count_faults(tables.present(), today=date.today(), dated=True, shard=shard, shards=tables.source.shards)
    many = {kind: sum(patients.values()) for kind, patients in planted.items()}
    early = planted.get("death_before_first_visit", {})
    ghosts = faults["after_death", "visits"] - of_patients(tables, set(early)).visits.height
    wrong = {*planted.get("discharge_before_admission", {}), *planted.get("no_admission", {})}
    reported = {
        kind: (f"validation: {rule}", faults[rule, table])
        for kind, rule, table in (
            ("discharge_before_admission", "discharge_before_admission", "visits"),
            ("order_against_time", "order_against_time", "visits"),
            ("no_admission", "no_admission", "visits"),
            ("same_times", "same_times", "visits"),
            ("duplicate_code", "duplicate_code", "diagnoses"),
            ("no_unit", "value_without_unit", "measurements"),
            ("unknown_sex", "unknown_sex", "patients"),
        )
    }
    reported |= {
        "visit_after_death": ("validation: after_death", ghosts),
        "death_before_first_visit": ("ledger of paca: incorrect_times", dead_early - len(wrong)),
        "unknown_birth": ("unknown cells: patients.birth_date", tables.patients["birth_date"].null_count()),
        "no_discharge": ("unknown cells: visits.discharge_time", tables.visits["discharge_time"].null_count()),
    }
    has_rows = {name: set(getattr(tables, name)["patient_id"].unique()) for name in LACKING}
    lacking = {name: planted.get(f"no_{name}", {}).keys() for name in LACKING}
    many |= {f"no_{name}": len(who) for name, who in lacking.items()}
    for name in ("medications", "measurements"):
        reported[f"no_{name}"] = (f"patients without {name}", len(lacking[name] - has_rows[name]))
    by_nature = set(tables.patients["patient_id"]) - has_rows["diagnoses"] - lacking["diagnoses"]
    uncoded = faults["patient_without_codes", "patients"] - len(by_nature)
    reported["no_diagnoses"] = ("validation: patient_without_codes", uncoded)
    for kind in sorted(reported.keys() | many.keys()):
        by, count = reported.get(kind, ("nothing", 0))
        found.report(kind, by, many.get(kind, 0), count)


def of_patients(tables: EhrTables, patients: set[str]) -> EhrTables:
    """The tables of some patients."""
    who = pl.DataFrame({"patient_id": pl.Series(sorted(patients), dtype=pl.String)})
    frames = {name: table.join(who, on="patient_id", how="semi") for name, table in tables.present().items()}
    return dataclasses.replace(tables, **frames)


def absolute(counts: Counts) -> int:
    """Patients, visits and codes without their signs, together."""
    return sum(abs(getattr(counts, level)) for level in LEVELS)


if __name__ == "__main__":
    tyro.cli(main)
