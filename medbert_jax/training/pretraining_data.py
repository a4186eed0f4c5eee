"""The patients of a pretraining dataset as a run sees them: cut to the model, and laid out in rows."""

from dataclasses import replace
from typing import Literal

from medbert_jax.data.negative_control import exchange_codes
from medbert_jax.data.row_plan import RowPlan, plan_rows
from medbert_jax.data.rows import fit_to_model
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.patient_labels import with_labels
from medbert_jax.training.progress import say
from medbert_jax.training.sampling import training_subset


def load_split(
    config: PretrainConfig, vocabulary: Vocabulary, split: Literal["train", "validation"], *, groups: int
) -> tuple[PatientSequences, RowPlan]:
    """The patients of a split and their rows, which `groups` devices share.

    Every validation patient counts once in an epoch, whatever the batching of the training.
    """
    sequences, rows = open_token_store(config.dataset, split, config.cache_dir, say), config.rows
    length = config.model.max_length
    if config.patient_labels:
        sequences = with_labels(sequences, config.patient_labels)
    if config.exchange_codes:  # of each split by itself: no code of a validation patient is trained on
        sequences = exchange_codes(sequences, seed=int(split == "validation"))
    if split == "validation":
        rows = replace(rows, batching="rows", short_row=min(rows.short_row, length), long_row=0)
        if 0 < config.validation_size < len(sequences):
            sequences = sequences.take(training_subset(sequences.patient_id, config.validation_size, 0))
    limits = {"vocabulary_size": vocabulary.size, "max_visits": config.model.max_visits, "max_length": length}
    sequences, note = fit_to_model(sequences, **limits, keep=config.too_long)
    say(f"{split}: {note}")
    return sequences, plan_rows(sequences.lengths, rows, max_length=length, groups=groups)
