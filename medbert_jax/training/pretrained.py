"""A trained model out of its run folder, on whatever devices are there, with nothing else to pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from medbert_jax.data.buckets import bucket_batches
from medbert_jax.data.rows import fit_to_model, padded_batch
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import apply, init, masked_code_logits
from medbert_jax.training.checkpointing import latest_good_step, restore_step, stored_parameters
from medbert_jax.training.manifest import CheckpointError, verify_step
from medbert_jax.training.merging import differences, leaf_shapes
from medbert_jax.training.progress import say
from medbert_jax.training.stored_config import VOCABULARY, RunDirectoryError, read_config, stored_model

_BACKBONE = ("embeddings", "encoder")


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model and everything that is needed to use it."""

    config: ModelConfig
    vocabulary: Vocabulary
    params: dict
    """As in training, heads included, on the first device of this process."""
    step: int
    run_config: dict
    """The whole configuration of the run that trained it; fields that came after it have their defaults."""

    def __repr__(self) -> str:
        """What it is, in a few lines; the parameters are counted."""
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        sizes, parts = self.config, ", ".join(self.params)
        return "\n".join(
            (
                f"Pretrained(step {self.step:,}, {count:,} parameters: {parts}",
                f"  {sizes.layers} layers, width {sizes.hidden_size}, at most {sizes.max_length:,} codes",
                f"  {self.vocabulary!r})",
            )
        )

    def encode(self, sequences: PatientSequences, *, batch_size: int = 32) -> list[np.ndarray]:
        """Contextual state of every code: n float32 arrays (codes, D), in the order of the patients.

        Histories longer than the model's max_length are truncated as in training, so the rows of a patient
        are the codes of `sequences.truncate(config.max_length)`. Compiles once per length bucket (powers of
        two). Raises ValueError for ids that the model has no rows for.
        """
        sequences = self._fitted(sequences)
        states: list[np.ndarray] = [np.empty(0)] * len(sequences)
        lengths = sequences.lengths
        for patients, batch in _batches(sequences, batch_size):
            hidden_BLD = np.asarray(_hidden(self._backbone, batch, config=self.config))
            for row in np.flatnonzero(patients >= 0):
                states[patients[row]] = hidden_BLD[row, : lengths[patients[row]]].copy()
        return states

    def masked_code_probabilities(
        self, sequences: PatientSequences, positions: np.ndarray | Sequence[int], *, batch_size: int = 32
    ) -> np.ndarray:
        """What the model expects in place of one hidden code per patient: (n, V) float32, rows sum to 1.

        `positions` (n,) counts from 0 within each patient of `sequences`, which must not be longer than the
        model's max_length. Raises ValueError for other sequences and for a model without its pretraining
        head.
        """
        if "masked_code_head" not in self.params:
            raise ValueError(
                f"predicting codes needs the masked-code head: got a model with {', '.join(self.params)}; "
                "load the pretrained model, not a fine-tuned one"
            )
        lengths, positions = sequences.lengths, np.asarray(positions)
        wrong = int((lengths > self.config.max_length).sum())
        if positions.shape != lengths.shape or wrong or ((positions < 0) | (positions >= lengths)).any():
            raise ValueError(
                f"positions must name one code of each patient, none over {self.config.max_length} codes "
                f"long: got shape {positions.shape} for {len(lengths)} patients, {wrong} of them longer; "
                "truncate the sequences first and count positions from 0 within each patient"
            )
        sequences = self._fitted(sequences)
        out = np.zeros((len(sequences), self.config.vocabulary_size), np.float32)
        params = self._backbone | {"masked_code_head": self.params["masked_code_head"]}
        for patients, batch in _batches(sequences, batch_size):
            real = patients >= 0
            places = np.where(real, positions[patients], 0)
            out[patients[real]] = np.asarray(_masked(params, batch, places, config=self.config))[real]
        return out

    @property
    def _backbone(self) -> dict:
        return {name: self.params[name] for name in _BACKBONE}

    def _fitted(self, sequences: PatientSequences) -> PatientSequences:
        config = self.config
        return fit_to_model(
            sequences,
            vocabulary_size=config.vocabulary_size,
            max_visits=config.max_visits,
            max_length=config.max_length,
        )[0]


def load_pretrained(path: str | Path, step: int | None = None) -> Pretrained:
    """Load the model of a run folder: any device count, CPU or accelerator, whatever it was trained on.

    `step` None takes the newest intact one; a damaged newer one is told as a warning. Raises
    RunDirectoryError where there is no run, CheckpointError where there is no intact step, every damaged
    file named.
    """
    run_config = read_config(path, tell=say)
    if step is not None:
        verify_step(path, step)
    elif (step := latest_good_step(path)) is None:
        raise CheckpointError(
            f"a run must have a committed step: got none in {path}; let the training reach its first one"
        )
    config = stored_model(run_config, path)
    stored = stored_parameters(path, step)
    expected = leaf_shapes(jax.eval_shape(partial(init, config), jax.random.key(0)))
    used = {name: kind for name, kind in expected.items() if name.split("/")[0] in _BACKBONE}
    found = {name: kind for name, kind in leaf_shapes(stored).items() if name.split("/")[0] in _BACKBONE}
    if lines := differences(used, found):
        raise CheckpointError(
            f"the parameters of step {step} must fit the model of {path}: got differences\n"
            + "\n".join(lines)
            + "\nload it with the version of medbert_jax that its README.md names"
        )
    # An encoder of no layers has no parameters, and nothing of it is stored.
    params = {name: {} for name in _BACKBONE} | restore_step(path, step, stored).params
    vocabulary = Vocabulary.read(Path(path) / VOCABULARY)
    if vocabulary.size != config.vocabulary_size:
        raise RunDirectoryError(
            f"the vocabulary must have one id per row of the code table: got {vocabulary.size} ids and "
            f"{config.vocabulary_size} rows in {path}; take the vocabulary.tsv the model was trained with"
        )
    return Pretrained(config, vocabulary, params, step, run_config)


def _batches(sequences: PatientSequences, batch_size: int) -> Iterator[tuple[np.ndarray, dict]]:
    for length, patients in bucket_batches(sequences.lengths, batch_size):
        batch = padded_batch(sequences, patients, length)
        del batch["patients"]
        yield patients, batch


@partial(jax.jit, static_argnames="config")
def _hidden(params: dict, batch: Batch, *, config: ModelConfig) -> Float32[Array, "B L D"]:
    return apply(params, batch, config=config)[0].astype(jnp.float32)


@partial(jax.jit, static_argnames="config")
def _masked(params: dict, batch: Batch, places_B: Int[Array, "B"], *, config: ModelConfig) -> Float32[Array, "B V"]:
    rows_B = jnp.arange(len(places_B))
    hidden = batch | {"code_ids": batch["code_ids"].at[rows_B, places_B].set(config.mask_id)}
    states_BLD, _ = apply(params, hidden, config=config)
    logits_BV = masked_code_logits(params, states_BLD[rows_B, places_B], config=config)
    return jax.nn.softmax(logits_BV)
