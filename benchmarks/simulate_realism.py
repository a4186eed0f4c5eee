"""Realism that the simulation was never tuned on: which codes go together, and how often a code comes back.

    medbert simulate ehr-rich --patients 200000 --seed 7
    medbert simulate ehr-truven --patients 200000 --seed 7 --site truven
    python benchmarks/simulate_realism.py ehr-rich ehr-truven ehr-desynpuf ehr-diabetes130

For each source of EHR tables, by categories (three characters of an ICD-9-CM or ICD-10-CM code):

- repeated: of the categories of a visit that has a next one, the share that the next visit has too.
- lift: of pairs of categories that at least 30 patients have together, observed / expected if each patient drew as many
  categories as he has, at random (else long records alone would make every pair frequent); quantiles of its base-2
  logarithm, and the share of pairs above 2 and below 1/2.

Beside real data (DE-SynPUF is synthetic itself, made from real claims; diabetes130 has three codes per encounter, all
of them of patients with diabetes), a number may well be unlike: sources differ from each other, too. Both are of
hospital stays alone, so the simulated sites are shown by their stays as well. Patients of fewer than three visits count
for lift alone.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from provenance import how_simulated
from scipy import sparse

from medbert_jax.ehr.tables import read_shard, read_source

FEWEST = 30
COMMONEST = 400
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def categories(ehr: Path, most: int, visits: pl.Expr) -> pl.DataFrame:
    """patient_id, order, category: distinct rows of such visits in the first shards that hold `most` patients."""
    frames, patients, source = [], 0, read_source(ehr)
    for shard in range(source.shards):
        tables = read_shard(ehr, shard)
        rows = tables.diagnoses.filter(pl.col("code_system").is_in(["ICD9CM", "ICD10CM"]))
        chosen = tables.visits.filter(visits).select("patient_id", "visit_id", "order")
        rows = rows.join(chosen, on=["patient_id", "visit_id"])
        category = pl.col("code").str.split(".").list.first()
        frames.append(rows.select("patient_id", "order", category=pl.concat_str("code_system", category)).unique())
        patients += frames[-1]["patient_id"].n_unique()
        if patients >= most:
            break
    return pl.concat(frames)


def repeated(rows: pl.DataFrame) -> float:
    """Share of the categories of a visit that are at the patient's next coded visit as well."""
    visits = rows.select("patient_id", "order").unique().sort("patient_id", "order")
    visits = visits.with_columns(next=pl.col("order").shift(-1).over("patient_id")).drop_nulls()
    before = rows.join(visits, on=["patient_id", "order"])
    again = before.join(rows, left_on=["patient_id", "next", "category"], right_on=["patient_id", "order", "category"],
                        how="semi")  # fmt: skip
    return again.height / before.height


def lift(rows: pl.DataFrame) -> dict:
    """How much more often pairs of the commonest categories share a patient than by chance."""
    pairs = rows.select("patient_id", "category").unique()
    common = pairs["category"].value_counts().sort(["count", "category"], descending=[True, False]).head(COMMONEST)
    common = common.with_row_index("column")
    people = pairs.select("patient_id").unique().with_row_index("row")
    pairs = pairs.join(common, on="category").join(people, on="patient_id")
    shape = (people.height, common.height)
    has = sparse.csr_matrix((np.ones(pairs.height), (pairs["row"].to_numpy(), pairs["column"].to_numpy())), shape)
    together = (has.T @ has).toarray()
    alone = np.diag(together)
    length = pairs.group_by("patient_id").len()["len"].to_numpy().astype(float)
    expected = np.outer(alone, alone) * (length * (length - 1)).sum() / length.sum() ** 2
    # ICD-9 and ICD-10 of one site exclude each other by the calendar, which says nothing of diseases.
    system = np.array([name.startswith("ICD10") for name in common["category"].to_list()])
    upper = np.triu(system[:, None] == system[None, :], 1)
    found = upper & (together >= FEWEST)
    log = np.log2(together[found] / expected[found])
    enough = upper & (expected >= FEWEST)
    return {
        "pairs": int(found.sum()),
        "log2_quantiles": dict(zip(map(str, QUANTILES), np.quantile(log, QUANTILES).round(3).tolist(), strict=True)),
        "share_above_2": float((log > 1).mean()),
        "share_below_half": float((together[enough] < expected[enough] / 2).mean()),
    }


def main(ehr: tyro.conf.Positional[tuple[Path, ...]], /, patients: int = 100_000, out: Path | None = None) -> None:
    """Print and write the figures.

    Args:
        ehr: folders of EHR tables.
        patients: as many patients of each, at most a shard more.
        out: where the JSON goes.
    """
    record, kinds = {}, {"all visits": pl.lit(True), "hospital stays": pl.col("visit_type") == "inpatient"}
    for folder in ehr:
        source = read_source(folder)
        said = how_simulated(source.assumptions)
        record[folder.name] = {"format": source.format, "assumptions": said}
        for kind, visits in kinds.items():
            rows = categories(folder, patients, visits)
            if rows.is_empty():
                continue
            of_each = rows.group_by("patient_id").agg(pl.col("order").n_unique())
            several = rows.join(of_each.filter(pl.col("order") >= 3), on="patient_id", how="semi")
            record[folder.name][kind] = {
                "patients": of_each.height,
                "categories": rows["category"].n_unique(),
                "repeated": repeated(several),
                "lift": lift(rows),
            }
        print(json.dumps({folder.name: record[folder.name]}, indent=1), flush=True)
    if out is not None:
        out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
