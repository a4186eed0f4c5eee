"""The stages of a study: in which order, what each is known by, and whether its result is there, as it was written.

A stage that is done has a receipt, STUDY/stages/KIND-NAME.json: what was asked for, with what it was made from, and the
hash of what came out. A stage is done where the receipt says so of what is there; nothing that the plan asks for
otherwise is replaced.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.data.metadata import read_metadata
from medbert_jax.disk.seals import changed_files
from medbert_jax.disk.stored_json import read_object
from medbert_jax.disk.versions import refuse_newer
from medbert_jax.disk.whole_files import canonical_json, sha256_of, write_json
from medbert_jax.ehr.tables import listed_files, read_source
from medbert_jax.experiments.settings import read_tuning
from medbert_jax.experiments.study_plan import Block, Cohort, Simulated, StudyPlan, needs_of
from medbert_jax.identity import identity
from medbert_jax.training.checkpointing import latest_good_step, step_fingerprint
from medbert_jax.training.stored_vectors import CodeVectors

KINDS = ("tables", "datasets", "cohorts", "pretrainings", "vectors", "tunings", "blocks")
"""In the order in which a block has them made. A cohort may be refused: not after hours of training."""
VERSION = 1
"""Of a receipt."""


@dataclass(frozen=True)
class Stage:
    """One item of a plan."""

    kind: str
    item: Any
    needs: tuple[str, ...]
    """Keys of what must be done before it."""

    @property
    def key(self) -> str:
        """Its name in a study."""
        return f"{self.kind}/{self.item.name}"


class Receipt(TypedDict):
    """What is said of a done stage."""

    version: int
    asked: str
    """Hash of the item, and of the results that it was made from."""
    path: str
    """Of the result, below the study's folder."""
    found: str
    """What identifies the result's content."""
    seconds: float
    """That making it took; 0 where a part of it had been made before."""


def stages_of(plan: StudyPlan) -> list[Stage]:
    """All stages: block by block what each needs, then the block; at the end what no block needs."""
    items = {f"{kind}/{item.name}": (kind, item) for kind in KINDS for item in getattr(plan, kind)}
    ordered: dict[str, Stage] = {}

    def closure(key: str) -> set[str]:
        kind, item = items[key]
        needs = {f"{of}/{name}" for of, name in needs_of(kind, item)}
        return {key}.union(*(closure(need) for need in needs))

    def place(keys: set[str]) -> None:
        # Of one kind in the order of the plan, but for tables and datasets that are made from others.
        for key in sorted(keys, key=[*items].index):
            if key not in ordered:
                kind, item = items[key]
                needs = tuple(f"{of}/{name}" for of, name in needs_of(kind, item))
                place({need for need in needs if need not in ordered})
                ordered[key] = Stage(kind, item, needs)

    for block in plan.blocks:
        place(closure(f"blocks/{block.name}"))
    place(set(items))
    return [*ordered.values()]


def asked_for(stage: Stage, plan: StudyPlan, made_from: Mapping[str, str]) -> str:
    """The hash of what a stage is asked for, with what identifies the results that it needs."""
    known = {"kind": stage.kind, "split_key": plan.split_key, "made_from": dict(made_from)}
    known["item"] = {name: value for name, value in identity(stage.item).items() if name != "expected"}
    specs = stage.item.keep if isinstance(stage.item, Simulated) else ()
    specs = (stage.item.spec,) if isinstance(stage.item, Cohort) else specs
    known["specs"] = [load_spec(name).to_dict() for name in specs]
    return hashlib.sha256(canonical_json(json.loads(json.dumps(known)))).hexdigest()


def found_at(kind: str, path: Path) -> str | None:
    """What identifies the result of a stage in `path`, whose files are all compared; None where there is none.

    ValueError, or CheckpointError, where it is not as it was written.
    """
    if not path.exists():
        return None
    match kind:
        case "tables":
            files = listed_files(path)
            changed = [name for name, sha256 in files.items() if _sha256(path / name) != sha256]
            _refuse(changed, path)
            return read_source(path).content_hash
        case "datasets" | "cohorts":
            metadata = read_metadata(path)
            _refuse(changed_files(path, metadata), path)
            return f"{metadata['dataset_hash']} after {metadata.get('pretraining_dataset_hash', 'none')}"
        case "pretrainings":
            step = latest_good_step(path)
            return None if step is None else step_fingerprint(path, step)
        case "vectors":
            return CodeVectors.read(path).fingerprint
    tuning = read_tuning(path)
    return hashlib.sha256(canonical_json([tuning["dataset_hash"], tuning["chosen"]])).hexdigest()


def place_of(out: Path, kind: str, name: str) -> Path:
    """Where the result of a stage is made; of a dataset the folder of its versions."""
    places = {
        "tables": f"ehr/{name}",
        "datasets": f"data/ehr_pretraining/{name}",
        "pretrainings": f"pretraining/{name}",
        "vectors": f"vectors/{name}.npz",
        "cohorts": f"data/disease_cohort/{name}",
        "tunings": f"tunings/{name}.json",
    }
    return out / places[kind]


def receipt_path(out: Path, stage: Stage) -> Path:
    """Where the receipt of a stage is."""
    return out / "stages" / f"{stage.kind}-{stage.item.name}.json"


def read_receipt(out: Path, stage: Stage) -> Receipt | None:
    """The receipt of a stage; None where there is none. ValueError where it is damaged or of a newer version."""
    path = receipt_path(out, stage)
    if not path.exists():
        return None
    receipt = cast(Receipt, read_object(path, Receipt, cure="delete it, and the stage is made again"))
    refuse_newer(str(path), receipt["version"], VERSION)
    return receipt


def write_receipt(out: Path, stage: Stage, receipt: Receipt) -> None:
    """Write the receipt of a stage whose result is on disk."""
    receipt_path(out, stage).parent.mkdir(parents=True, exist_ok=True)
    write_json(receipt_path(out, stage), receipt)


def result_of(out: Path, stage: Stage, plan: StudyPlan, made_from: Mapping[str, str]) -> tuple[Path, str] | None:
    """(path, what identifies it) of the result of a done stage; None where it is to be made.

    ValueError where what is there was asked for otherwise, or is not as it was written.
    """
    assert not isinstance(stage.item, Block)  # whose results say themselves whether they are there
    receipt = read_receipt(out, stage)
    if receipt is None:
        return None
    if receipt["asked"] != asked_for(stage, plan, made_from):
        raise ValueError(
            f"a study's folder is of one plan: got {stage.key} in {out}, which was made by other settings, or from "
            f"what is now otherwise; give another folder, or delete {receipt_path(out, stage)} and {receipt['path']}"
        )
    path = out / receipt["path"]
    found = found_at(stage.kind, path)
    if found is None:
        return None
    if found != receipt["found"]:
        raise ValueError(
            f"the result of a stage must be the one that was made: got another in {path}; put it back from a copy, or "
            f"delete it, and {stage.key} is made again"
        )
    return path, found


def _sha256(path: Path) -> str:
    return sha256_of(path) if path.is_file() else ""


def _refuse(changed: list[str], path: Path) -> None:
    if changed:
        raise ValueError(
            f"the files of a result must be those that were written: got others as {', '.join(changed[:8])} in {path}; "
            "put them back from a copy, or delete the folder and give the command again"
        )
