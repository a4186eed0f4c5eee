"""Marginals of the simulated site beside those that the paper prints (Table 2), over the patients pretraining keeps.

    python benchmarks/simulate_marginals.py

Kept are patients with at least 3 different codes and no wrong time. The share of ICD-10 is that of code occurrences.
"""

import json
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import tyro
from provenance import simulated_by

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.serialization import SerializationConfig, order_histories
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.simulation.parameters import load_parameters
from medbert_jax.simulation.simulate import simulate

# (paper's value, tolerance: relative); median and 99th percentile are aims of our own, not printed in Table 2.
PAPER = {
    "visits per patient": (8, 0.05),
    "codes per patient": (15, 0.05),
    "codes per patient, median": (9, 0.20),
    "codes per patient, 99th percentile": (94, 0.20),
    "prolonged length of stay": (0.15, 0.05),
    "mean age at the last visit": (41, 0.05),
    "male": (0.45, 0.05),
    "ICD-10 codes": (0.338, 0.05),
    "White": (0.68, 0.05),
    "African American": (0.15, 0.05),
    "Asian/Pacific Islander": (0.02, 0.20),
    "kept of patients with diagnoses": (28_490_650 / 39_398_846, 0.05),
}


def main(
    patients: int = 60_000,
    site: Literal["cerner", "truven"] = "cerner",
    seed: int = 0,
    workers: int = 2,
    out: Path | None = Path(__file__).parent / "results" / "simulate_marginals.json",
) -> None:
    """Simulate, measure, print, write the JSON.

    Args:
        patients: simulated.
        site: whose records; the aims are those of cerner alone.
        seed: of the simulation.
        workers: processes.
        out: where the figures go.
    """
    with tempfile.TemporaryDirectory() as folder:
        simulate(folder + "/ehr", patients=patients, site=site, seed=seed, workers=workers, announce=lambda line: None)
        found = measure(folder + "/ehr")
    rows = []
    print(f"{'':38}{'simulated':>12}{'paper':>10}{'ratio':>8}  within")
    for name, value in found.items():
        paper, tolerance = PAPER.get(name, (None, None)) if site == "cerner" else (None, None)
        ratio = value / paper if paper else None
        fits = None if paper is None else bool(abs(ratio - 1) <= tolerance)
        rows.append({"name": name, "simulated": value, "paper": paper, "tolerance": tolerance, "within": fits})
        of_paper = f"{paper:>10.4g}{ratio:>8.3f}  {'yes' if fits else 'NO'} ({tolerance:.0%})" if paper else ""
        print(f"{name:38}{value:>12.4g}{of_paper}")
    if out:
        record = {"patients": patients, "seed": seed, "site": site, "world": "rich",
                  **simulated_by(load_parameters(site)), "rows": rows}  # fmt: skip
        out.write_text(json.dumps(record, indent=1) + "\n")


def measure(folder) -> dict[str, float]:
    """The marginals of a folder of EHR tables."""
    sums: dict[str, float] = {}
    lengths, with_codes = [], 0
    for shard in range(read_source(folder).shards):
        tables = read_shard(folder, shard)
        races = tuple(sorted(tables.patients["race"].drop_nulls().unique()))
        sequences, codes, _ = order_histories(tables, SerializationConfig(), races=races)
        lengths.append(sequences.lengths)
        with_codes += tables.diagnoses["patient_id"].n_unique()
        for name, value in _sums(tables, sequences, codes, races).items():
            sums[name] = sums.get(name, 0.0) + value
    length = np.concatenate(lengths)
    kept, tokens = len(length), length.sum()
    return {
        "visits per patient": sums["visits"] / kept,
        "codes per patient": tokens / kept,
        "codes per patient, median": float(np.median(length)),
        "codes per patient, 99th percentile": float(np.percentile(length, 99)),
        "prolonged length of stay": sums["prolonged"] / kept,
        "mean age at the last visit": sums["age"] / sums["aged"],
        "male": sums["male"] / sums["sexed"],
        "ICD-10 codes": sums["ICD-10"] / tokens,
        **{race: sums.get(race, 0.0) / kept for race in ("White", "African American", "Asian/Pacific Islander")},
        "kept of patients with diagnoses": kept / with_codes,
        "longest": float(length.max()),
        "longer than 512, share": float((length > 512).mean()),
        "different codes": float(sums["codes"] / read_source(folder).shards),
        "type 2 diabetes": sums["type_2"] / kept,
        "heart failure": sums["heart_failure"] / kept,
        "heart failure among type 2 diabetes": sums["both"] / sums["type_2"],
        "pancreatic cancer": sums["pancreatic_cancer"] / kept,
        "recorded deaths": sums["dead"] / kept,
    }


def _sums(
    tables: EhrTables, sequences: PatientSequences, codes: np.ndarray, races: tuple[str, ...]
) -> dict[str, float]:
    last = sequences.visit_offsets[1:] - 1
    age = sequences.age_days[last]
    kinds = pl.Series(codes.astype(str).tolist(), dtype=pl.String)
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)

    def having(pattern: str) -> np.ndarray:
        of = kinds.str.contains(pattern).to_numpy()[sequences.code_ids]
        return np.bincount(owner[of], minlength=len(sequences)) > 0

    type_2 = having(r"^ICD9CM/250\.\d[02]$|^ICD10CM/E11")
    heart_failure = having(r"^ICD9CM/428|^ICD10CM/I50")
    dead = tables.patients.filter(pl.col("death_date").is_not_null())["patient_id"]
    return {
        "visits": len(sequences.visit_days),
        "prolonged": float(sequences.outcomes["prolonged_los"].sum()),
        "age": float(age[age >= 0].sum() / 365.25),
        "aged": float((age >= 0).sum()),
        "male": float((sequences.sex == 2).sum()),
        "sexed": float((sequences.sex > 0).sum()),
        "ICD-10": float(kinds.str.starts_with("ICD10").to_numpy()[sequences.code_ids].sum()),
        **{race: float((sequences.race == place).sum()) for place, race in enumerate(races, start=1)},
        "codes": float(len(codes)),
        "type_2": float(type_2.sum()),
        "heart_failure": float(heart_failure.sum()),
        "both": float((type_2 & heart_failure).sum()),
        "pancreatic_cancer": float(having(r"^ICD9CM/157|^ICD10CM/C25").sum()),
        "dead": float(pl.Series(sequences.patient_id.astype(str)).is_in(dead.implode()).sum()),
    }


if __name__ == "__main__":
    tyro.cli(main)
