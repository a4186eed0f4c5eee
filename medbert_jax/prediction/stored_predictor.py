"""What a model that was trained must say of itself to be used: predictor.json beside its parameters and vocabulary.

Whom the cohort's spec lets in, how a record becomes a sequence, what the validation patients say of the probabilities,
and what was found on the test patients. Nothing else of where it was trained is needed.
"""

from pathlib import Path
from typing import Any, Literal, TypedDict

from medbert_jax.data.metadata import Serialization
from medbert_jax.disk.seals import SUMS, check_files, check_seal, sealed
from medbert_jax.disk.stored_json import check_form, read_object
from medbert_jax.disk.versions import refuse_newer
from medbert_jax.disk.whole_files import canonical_json, sha256_of, write_whole
from medbert_jax.prediction.validated import Validated
from medbert_jax.training.stored_config import CONFIG, VOCABULARY

PREDICTOR, ARRAYS = "predictor.json", "arrays.npz"
VERSION = 1
"""Of predictor.json."""
_AGAIN = "fine-tune again with --run"


class Model(TypedDict):
    """What gives the probabilities."""

    kind: Literal["finetuned", "baseline"]
    backbone: str
    head: str
    parameters: str
    """Of a fine-tuned model the fingerprint of its step; empty for a baseline, whose file has a sha256."""


class DesignSaid(TypedDict):
    """`evaluation.design.Design`, as JSON data."""

    sampling: Literal["everybody", "sampled controls", "matched sets"]
    estimand: Literal["risk", "score", "as labelled"]
    horizon_days: int | None
    refused: str


class Trained(TypedDict):
    """Whom it was trained on."""

    patients: int
    predictions: int
    cases: int


class About(TypedDict):
    """What predictor.json says."""

    version: int
    model: Model
    run_id: str
    cohort: dict[str, Any]
    dataset_hash: str
    ehr_content_hash: str
    vocabulary_hash: str
    preset: str
    serialization: Serialization
    back_off: bool
    design: DesignSaid
    train: Trained
    validation: Validated
    test: dict[str, float]
    sha256: dict[str, str]
    own_sha256: str


def write_predictor(folder: str | Path, about: dict[str, Any]) -> None:
    """Write predictor.json of the files that are in the folder; `about` is `About` without version and sums."""
    folder = Path(folder)
    names = [name for name in (VOCABULARY, ARRAYS) if (folder / name).is_file()]
    sums = {name: sha256_of(folder / name) for name in names}
    write_whole(folder / PREDICTOR, canonical_json(sealed({"version": VERSION, **about, SUMS: sums})))


def is_kept(folder: str | Path) -> bool:
    """Whether a model is there, with all that it needs to predict."""
    return (Path(folder) / PREDICTOR).is_file()


def read_predictor(folder: str | Path) -> About:
    """What predictor.json says. ValueError, with what to give instead, where there is none, or it is damaged."""
    folder = Path(folder)
    path = folder / PREDICTOR
    if not path.is_file():
        config = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        kind = config.get("kind", "pretrain") if config else None
        if kind == "finetune" and not config.get("dataset"):
            raise ValueError(
                f"what predicts must have been trained on a cohort, whose spec says whom it predicts, and when: got"
                f" {folder}, a MedBertClassifier that was fitted in Python; score sequences with"
                " MedBertClassifier.load(FOLDER).predict_proba, or make a cohort and fine-tune on it with --run"
            )
        got = {None: "no run there", "pretrain": "a pretraining, which predicts no disease"}.get(
            kind, f"a fine-tuned run without {PREDICTOR}, as earlier versions wrote it"
        )
        cure = "give the folder of run_finetune.py … --run FOLDER" if kind in (None, "pretrain") else _AGAIN
        raise ValueError(f"what predicts must be a fine-tuned run or a kept baseline: got {folder}, {got}; {cure}")
    about = read_object(path, cure=_AGAIN)
    refuse_newer(str(path), about.get("version"), VERSION)
    check_form(about, About, path, cure=_AGAIN)
    check_seal(path, about, _AGAIN)
    check_files(path, about, about[SUMS], _AGAIN)
    return about  # ty: ignore[invalid-explicit-return]  # `check_form` has looked at all of it
