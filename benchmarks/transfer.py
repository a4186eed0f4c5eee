"""The worked example of docs/predict.md: its commands, as they stand there, one after the other, and what comes out.

    python benchmarks/transfer.py --work FOLDER

All patients are simulated. Figures: seconds of each command, cases of both cohorts, test AUROCs of both fine-tunings
with their intervals, and the external validation's figures.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import tyro
import yaml
from provenance import machine

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.data.metadata import read_metadata
from medbert_jax.evaluation.results import read_results
from medbert_jax.evaluation.stored_evaluation import read_evaluation

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
METRICS = ("auroc", "observed_to_expected", "calibration_in_the_large", "calibration_slope", "brier")


def worked() -> tuple[dict, list[list[str]]]:
    """What is added to the spec, and the words of each command."""
    section = (ROOT / "docs" / "predict.md").read_text().split("## Worked")[1].split("\n## ")[0]
    blocks = dict(FENCE.findall(section))
    lines = [shlex.split(line, comments=True) for line in blocks["bash"].replace("\\\n", " ").splitlines()]
    return yaml.safe_load(blocks["yaml"]), [words for words in lines if words]


def main(
    work: Path,
    patients: int = 0,
    spec: str = "paca",
    out: Path = Path(__file__).parent / "results" / "transfer.json",
) -> None:
    """Run and write the JSON.

    Args:
        work: folder for everything that is made.
        patients: simulated at each site, in place of what the document says; 0: as it says.
        spec: built-in cohort in place of `paca`: a commoner disease, to try this out with few patients.
        out: where the figures go.
    """
    added, commands = worked()
    work.mkdir(parents=True, exist_ok=True)
    cohort = load_spec(spec).to_dict() | added
    (work / "paca.yaml").write_text(yaml.safe_dump(cohort, sort_keys=False))
    environment, seconds = os.environ | {"PYTHONPATH": str(ROOT)}, {}
    for _, *words in commands:
        if patients and "--patients" in words:
            words[words.index("--patients") + 1] = str(patients)
        if patients and "--minimum-patients" in words:  # or most codes of so few are unknown
            words[words.index("--minimum-patients") + 1] = "2"
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "medbert_jax", *words], cwd=work, env=environment, check=True)
        seconds[shlex.join(["medbert", *words])] = round(time.perf_counter() - began, 1)
    folders = {site: work / "data" / "disease_cohort" / f"paca-{site}" / "1.0.0" for site in ("cerner", "truven")}
    hashes = {read_metadata(folder)["dataset_hash"]: site for site, folder in folders.items()}
    results = (
        read_results(work / "results")
        .filter(split="test")
        .with_columns(site=pl.col("dataset_hash").replace_strict(hashes))
    )
    tested = results.filter(pl.col("metric").is_in(("auroc", "auroc_low", "auroc_high", "cases")))
    figures = read_evaluation(work / "elsewhere").figures.filter(kind="figure", stratum="everyone")
    figures = figures.filter(pl.col("metric").is_in(METRICS), pl.col("at").is_null())
    record = {
        "machine": machine(),
        "simulated": True,
        "spec": spec,
        "seconds": seconds,
        "cases": {site: read_metadata(folder)["cases"] for site, folder in folders.items()},
        "codes_unknown": {site: read_metadata(folder)["unknown_code_share"] for site, folder in folders.items()},
        "test": tested.select("site", "backbone", "head", "metric", "value").sort(pl.all()).to_dicts(),
        "external_validation": figures.select("model", "metric", "value", "low", "high", "n", "cases").to_dicts(),
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
