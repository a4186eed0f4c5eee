"""A results folder as `run_finetune.py` files it, of simulated patients whose AUROC is known, without the training."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from evaluation.made_patients import made_patients
from scipy.special import expit, ndtri

from medbert_jax.evaluation.design import MATCHED, Design
from medbert_jax.evaluation.filed_patients import FOLDER, FiledPatients, write_filed
from medbert_jax.evaluation.predictions import write_predictions
from medbert_jax.evaluation.results import RunRecord, result_rows, write_results
from medbert_jax.metrics.discrimination import auroc, order_nobody

SITES = {"cerner": "Site cerner, world rich, seed 0, engine 2.", "truven": "Site truven, world rich, seed 0, engine 2."}
IN_SETS = Design("matched sets", "score", None, MATCHED)


def file_cohort(
    folder: Path,
    labels,
    *,
    name: str = "dhf-matched",
    site: str = "cerner",
    dataset_hash: str = "a" * 64,
    design: Design = IN_SETS,
    training: tuple[int, int] = (3000, 900),
    **columns,
) -> FiledPatients:
    """File test patients with these labels (n,), in sets of three where the design has sets."""
    if design.sampling == "matched sets":
        columns = {"sets": np.char.mod("s%04d", np.arange(len(labels)) // 3)} | columns
    patients = replace(made_patients(labels, design, **columns), name=name, dataset_hash=dataset_hash)
    assumed = ["Simulated data: no patient is real.", SITES[site]] if site else []
    filed = FiledPatients(patients, {"format": "simulated" if site else "own", "assumptions": assumed}, *training)
    write_filed(folder / FOLDER / f"{dataset_hash}.parquet", filed)
    return filed


def file_run(
    folder: Path,
    filed: FiledPatients,
    probabilities,
    *,
    backbone: str,
    head: str,
    size: int = 3000,
    replicate: int = 0,
    experiment: str = "made",
    cases: int | None = 900,
    **configuration,
) -> str:
    """File a run with these probabilities (n,); its id."""
    of = filed.patients
    configuration |= {
        "backbone": backbone,
        "head": head,
        "size": size,
        "experiment": experiment,
        "replicate": replicate,
    }
    record = RunRecord(
        configuration | {"dataset": of.dataset_hash}, replicate, "c" * 40, of.dataset_hash, "v", "k", "", "cpu", 1.0, 1,
        "patience",
    )  # fmt: skip
    test = {"patients": float(len(of.label)), "cases": float(np.sum(of.label))}
    test |= {} if order_nobody(probabilities) else {"auroc": auroc(of.label, probabilities)}
    rows = []
    trained = {} if cases is None else {"cases": float(cases)}
    for split, metrics in (("train", trained), ("test", test)):
        rows += result_rows(
            metrics, experiment=experiment, cohort=of.name, backbone=backbone, head=head, train_size=size,
            train_size_name=str(size), replicate=replicate, split=split,
        )  # fmt: skip
    write_predictions(
        folder / "predictions" / f"{record.run_id}.parquet", subject_id=of.subject, prediction_time=of.time,
        labels=of.label, probabilities=probabilities, time_is_ordinal=False, run_id=record.run_id,
    )  # fmt: skip
    write_results(folder, record, rows)
    return record.run_id


def scores(labels, auroc: float, seed) -> np.ndarray:
    """Probabilities (n,) that order cases before controls with about this chance; what is noise is the seed's."""
    shift = np.sqrt(2) * ndtri(auroc)
    return expit(np.asarray(labels) * shift + np.random.default_rng(seed).normal(size=len(labels)) - shift / 2)


def file_grid(
    folder: Path, filed: FiledPatients, aurocs: Mapping[tuple[str, str, int], float], replicates: Iterable[int], **named
) -> None:
    """File runs of (backbone, head, size) with these AUROCs; a replicate is other noise, half of it its patients'."""
    labels = filed.patients.label
    for (backbone, head, size), wanted in aurocs.items():
        for replicate in replicates:
            own = scores(labels, wanted, [replicate, size, *backbone.encode(), *head.encode()])
            shared = scores(labels, wanted, 1)
            file_run(folder, filed, (own + 3 * shared) / 4, backbone=backbone, head=head, size=size,
                     replicate=replicate, cases=3 * size // 10, **named)  # fmt: skip
