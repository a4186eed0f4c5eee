"""Datasets drawn by hand for tests: patients as Python literals → a dataset's directory."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from array_record.python import array_record_module

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.data.example_records import encode_records
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.disk.seals import SUMS, sealed
from medbert_jax.disk.whole_files import sha256_of


@dataclass(frozen=True)
class Drawn:
    """A patient: visits are (day, age in days, length of stay, codes); −1 is unknown."""

    visits: list[tuple[int, int, int, list[int]]]
    sex: int = 0
    race: int = 0
    event: int = 0
    """prolonged_los, or the label of a cohort."""
    index_day: int = -1
    id: str = "somebody"


def drawn_sequences(patients: list[Drawn], kind: str = "pretraining") -> PatientSequences:
    visits = [visit for patient in patients for visit in patient.visits]
    owner_of_visit = [len(patient.visits) for patient in patients]
    codes_of = [sum(len(codes) for *_, codes in patient.visits) for patient in patients]
    event = np.array([patient.event for patient in patients], np.int32)
    outcomes = {"prolonged_los": event}
    if kind == "cohort":
        index_day = np.array([patient.index_day for patient in patients], np.int32)
        outcomes = {"label": event, "index_day": index_day, "index_order": np.array(owner_of_visit, np.int32) + 1,
                    "prediction_time": np.full(len(patients), 1_234_567_890_000_000)}  # fmt: skip
    numbered = [(number, codes) for patient in patients for number, (*_, codes) in enumerate(patient.visits, start=1)]

    def whole(values) -> np.ndarray:
        return np.array(list(values), np.int32)

    return PatientSequences(
        patient_id=np.array([patient.id.encode() for patient in patients], "S"),
        code_offsets=np.concatenate([[0], np.cumsum(codes_of)]),
        code_ids=whole(code for _, codes in numbered for code in codes),
        visit_ids=whole(number for number, codes in numbered for _ in codes),
        serialization_ids=whole(rank for _, codes in numbered for rank in range(len(codes))),
        visit_offsets=np.concatenate([[0], np.cumsum(owner_of_visit)]),
        visit_days=whole(day for day, *_ in visits),
        age_days=whole(age for _, age, *_ in visits),
        length_of_stay=whole(stay for _, _, stay, _ in visits),
        sex=whole(patient.sex for patient in patients),
        race=whole(patient.race for patient in patients),
        outcomes=outcomes,
    )


def write_drawn(
    directory: Path,
    splits: dict[str, list[Drawn]],
    *,
    kind: str = "pretraining",
    codes: tuple[str, ...],
    titles: tuple[str, ...] | None = None,
    races: tuple[str, ...] = (),
    ledger: Ledger | None = None,
    members: bool = False,
    **metadata,
) -> Path:
    """Write the files that readers of a dataset ask for; `metadata` is added to what every dataset says of itself."""
    sequences = {name: drawn_sequences(patients, kind) for name, patients in splits.items()}
    vocabulary = Vocabulary(codes, np.ones(len(codes), np.int64), titles or ("",) * len(codes))
    more = {"races": races, "ledger": ledger, "members": members}
    return write_dataset(directory, sequences, kind=kind, vocabulary=vocabulary, **more, **metadata)


def write_dataset(
    directory: Path,
    splits: dict[str, PatientSequences],
    *,
    kind: str,
    vocabulary: Vocabulary,
    races: tuple[str, ...] = (),
    ledger: Ledger | None = None,
    members: bool = False,
    **metadata,
) -> Path:
    """The same of sequences that are there; `members`: with cohort.parquet, where each stands for himself."""
    directory.mkdir(parents=True)
    counts = {name: len(splits.get(name, ())) for name in ("train", "validation", "test")}
    for name, sequences in splits.items():
        path = directory / f"drawn-{name}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for record in encode_records(sequences):
            writer.write(record)
        writer.close()
    info = {"name": "drawn", "splits": [{"name": name, "shardLengths": [str(len(splits[name]))]} for name in splits]}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    vocabulary.write(directory / "vocabulary.tsv")
    if ledger:
        (directory / "ledger.json").write_text(json.dumps(ledger.to_dict()))
    record = {
        "kind": kind,
        "dataset_hash": f"hash of {directory.parent.name}",
        "vocabulary_hash": vocabulary.hash,
        "serialization": {"prolonged_los_days": 7},
        "cohort": {"outcome": {"description": "heart failure"}} if kind == "cohort" else None,
        "split": {"counts": counts},
        "races": list(races),
        "source": {"format": "drawn", "known": {"patients.birth_date": 0.75}},
        "time_is_ordinal": False,
    }
    if members:
        frames = [
            pl.DataFrame(
                {
                    "patient_id": [one.decode() for one in part.patient_id.tolist()],
                    "prediction_time": pl.Series(part.outcomes["prediction_time"]).cast(pl.Datetime("us")),
                    "label": part.outcomes["label"],
                }
            ).with_columns(split=pl.lit(name), weight=pl.lit(1.0))
            for name, part in splits.items()
        ]
        pl.concat(frames).write_parquet(directory / "cohort.parquet")
    sums = {path.name: sha256_of(path) for path in sorted(directory.iterdir())}
    (directory / "metadata.json").write_text(json.dumps(sealed(record | {SUMS: sums} | metadata)))
    return directory
