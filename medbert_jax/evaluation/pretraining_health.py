"""Whether a pretraining learned from its patients: the two tasks beside what needs no model."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from medbert_jax.baselines.logistic_regression import CodesLogisticRegression, multi_hot
from medbert_jax.data.rows import fit_to_model
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.metrics.discrimination import auroc_delong, delong_difference, order_nobody
from medbert_jax.metrics.masked_codes import Accuracy, MaskedCodes, accuracy, accuracy_difference, guess_ranks
from medbert_jax.printed_tables import Table
from medbert_jax.training.lineage import check_dataset
from medbert_jax.training.masked_ranks import answer_masked_codes
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.pretrained import load_pretrained
from medbert_jax.training.sampling import training_subset
from medbert_jax.training.stored_config import read_config

MODEL = "med_bert"
TOP = (1, 10)
C_GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Of the regression of prolonged stays; chosen on a fifth of its training patients."""
_REGRESSION_PATIENTS = 25_000
"""Training patients, at most, of the regression and its choice of C."""


class Auroc(NamedTuple):
    """An AUROC, or a difference of two, with DeLong's 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PretrainingHealth:
    """What was found on n validation patients."""

    run: str
    step: int
    dataset_hash: str
    patients: int
    masked_codes: dict[str, dict[str, dict[str, Accuracy]]]
    """which ("all", "found elsewhere", "new": nowhere else in the record) → guesser or `MODEL` → "top 1", "top 10"."""
    against: dict[str, dict[str, tuple[str, Accuracy]]]
    """which → "top 1", "top 10" → the best guesser there, and the model minus it."""
    prolonged_los: dict[str, Auroc]
    """`MODEL`, regression, difference; empty where nobody or everybody had a prolonged stay."""
    prolonged_share: float

    def to_dict(self) -> dict:
        """As JSON data."""
        return {"version": 1, **asdict(self)} | {
            "masked_codes": _plain(self.masked_codes),
            "against": _plain(self.against),
            "prolonged_los": _plain(self.prolonged_los),
        }

    def tables(self) -> list[Table]:
        """Masked codes and prolonged stays, as they are printed."""
        return [self._masked_codes(), self._prolonged_los()]

    def _masked_codes(self) -> Table:
        groups = [name for name, found in self.masked_codes.items() if next(iter(found[MODEL].values())).codes]
        heads = [(group, top) for group in groups for top in self.masked_codes[group][MODEL]]
        names = list(self.masked_codes["all"])
        values = [[self.masked_codes[group][name][top].value for group, top in heads] for name in names]
        best = {(int(np.argmax(column)), place + 1) for place, column in enumerate(zip(*values, strict=True))}
        notes = [f"Step {self.step:,}, {self.patients:,} validation patients, every masked code shown as [MASK]."]
        for group in groups:
            codes = self.masked_codes[group][MODEL]["top 1"].codes
            parts = [
                f"{top} {_signed(found)} against {name.replace('_', ' ')}"
                for top, (name, found) in self.against[group].items()
            ]
            notes.append(f"{group}: {codes:,} masked codes; the model minus the best guess: {', '.join(parts)}.")
        return Table(
            title="Masked codes",
            columns=("guess", *(f"{group}, {top}" for group, top in heads)),
            rows=tuple(
                (name.replace("_", " "), *(f"{value:.3f}" for value in row))
                for name, row in zip(names, values, strict=True)
            ),
            alignment="<" + ">" * len(heads),
            notes=tuple(notes),
            bold=frozenset(best),
        )

    def _prolonged_los(self) -> Table:
        rows = tuple(
            (name.replace("_", " "), f"{found.value:.3f}" if name != "difference" else _signed(found))
            for name, found in self.prolonged_los.items()
        )
        note = f"{self.prolonged_share:.1%} of the patients had a stay over 7 days"
        note += "." if rows else ": without and with are both needed for an AUROC."
        if rows:
            note += " Regression: L2, on which codes there are, and how many codes and visits."
        return Table("Prolonged length of stay, AUROC", ("", "AUROC"), rows, "<>", (note,))


def pretraining_health(
    run: str | Path, dataset: str | Path, *, patients: int = 0, cache_dir: str | Path | None = None
) -> PretrainingHealth:
    """Ask the newest good step of a run on validation patients of the dataset that it was pretrained on.

    The codes asked for are those of the run's own validations. `patients` 0 takes all. ValueError where the dataset is
    another one, or the run is no pretraining.
    """
    check_dataset(read_metadata(dataset), kind="pretraining")
    dataset_hash = read_metadata(dataset)["dataset_hash"]
    pretrained, config = load_pretrained(run), read_config(run)
    if "masked_code_head" not in pretrained.params:
        raise ValueError(
            f"the health of a pretraining is asked of its own run: got {run}, which has no masked-code head; give the"
            " run directory of run_pretrain.py"
        )
    if config["dataset_hash"] != dataset_hash:
        raise ValueError(
            "the health of a pretraining is asked on its own dataset, whose validation patients it has not seen: got"
            f" dataset {dataset_hash[:12]} and a run on {config['dataset_hash'][:12]}; give the one that config.json"
            " names"
        )
    model = pretrained.config
    limits = {name: getattr(model, name) for name in ("vocabulary_size", "max_visits", "max_length")}
    kept = str(cache_dir or "")
    train, held_out = (
        fit_to_model(open_token_store(dataset, split, kept), **limits, keep=config.get("too_long", "recent"))[0]
        for split in ("train", "validation")
    )
    if 0 < patients < len(held_out):
        held_out = held_out.take(training_subset(held_out.patient_id, patients, 0))
    answers = answer_masked_codes(
        pretrained.params, model, held_out, masking=MaskingConfig(**config["masking"]), seed=config["seed"]
    )
    asked = MaskedCodes(held_out, answers.is_masked)
    ranks = guess_ranks(train, asked, model.vocabulary_size) | {MODEL: answers.ranks}
    masked, against = _of_groups(asked, ranks)
    prolonged = np.asarray(held_out.outcomes["prolonged_los"])
    return PretrainingHealth(
        str(run),
        pretrained.step,
        dataset_hash,
        len(held_out),
        masked,
        against,
        _prolonged_los(train, held_out, answers.prolonged_los_logits, pretrained.vocabulary),
        float(prolonged.mean()),
    )


def _of_groups(asked: MaskedCodes, ranks: dict[str, np.ndarray]) -> tuple[dict, dict]:
    elsewhere, whose = asked.found_elsewhere(), asked.patients
    groups = {"all": np.ones(len(elsewhere), bool), "found elsewhere": elsewhere, "new": ~elsewhere}
    masked, against = {}, {}
    for group, chosen in groups.items():
        masked[group] = {
            name: {f"top {top}": accuracy(found[chosen], whose[chosen], top) for top in TOP}
            for name, found in ranks.items()
        }
        against[group] = {}
        for top in TOP:
            guesses = {name: masked[group][name][f"top {top}"].value for name in ranks if name != MODEL}
            best = max(guesses, key=lambda name: np.nan_to_num(guesses[name]))
            found = accuracy_difference(ranks[MODEL][chosen], ranks[best][chosen], whose[chosen], top)
            against[group][f"top {top}"] = best, found
    return masked, against


def _prolonged_los(
    train: PatientSequences, held_out: PatientSequences, logits: np.ndarray, vocabulary: Vocabulary
) -> dict[str, Auroc]:
    labels = np.asarray(held_out.outcomes["prolonged_los"])
    train = train.take(training_subset(train.patient_id, min(len(train), _REGRESSION_PATIENTS), 1))
    cut = len(train) // 5  # by a hash of the patients, as `training_subset` orders nobody by their length
    chosen = training_subset(train.patient_id, cut, 2)
    fitted = np.setdiff1d(np.arange(len(train)), chosen)
    outcome = np.asarray(train.outcomes["prolonged_los"])
    if any(len(np.unique(some)) < 2 for some in (labels, outcome[fitted], outcome[chosen])) or order_nobody(logits):
        return {}

    features = [_los_features(some, vocabulary) for some in (train.take(fitted), train.take(chosen), held_out)]
    regression = CodesLogisticRegression(C_grid=C_GRID, tol=1e-4)
    regression.fit(features[0], outcome[fitted], features[1], outcome[chosen])
    theirs = regression.decision_function(features[2])
    found = {name: auroc_delong(labels, scores) for name, scores in ((MODEL, logits), ("regression", theirs))}
    difference = delong_difference(labels, logits, theirs)
    return {name: Auroc(one.auroc, one.low, one.high) for name, one in found.items()} | {
        "difference": Auroc(difference.difference, difference.low, difference.high)
    }


def _los_features(sequences: PatientSequences, vocabulary: Vocabulary) -> sparse.csr_matrix:
    """Which codes there are, and the logarithms of how many codes and visits."""
    counts = np.log1p(np.stack([sequences.lengths, np.diff(sequences.visit_offsets)], axis=1).astype(np.float64))
    return sparse.hstack([multi_hot(sequences, vocabulary.size), sparse.csr_matrix(counts)], format="csr")


def _signed(found: Accuracy | Auroc) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]".replace("-", "−")


def _plain(found):
    if isinstance(found, Accuracy | Auroc):
        return {name: None if value != value else value for name, value in found._asdict().items()}
    if isinstance(found, dict):
        return {name: _plain(value) for name, value in found.items()}
    return [_plain(value) for value in found] if isinstance(found, tuple | list) else found
