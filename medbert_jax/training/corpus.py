"""The corpus on the devices, whole or that of a dispatch: gathered into rows inside the step, without the host."""

import os
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medbert_jax.checked_fields import check_fields
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.training.sharding import replicated

Placement = Literal["replicated", "sharded", "streamed"]
Column = TypeVar("Column")


@dataclass(frozen=True)
class CorpusConfig:
    """Where the training data lie."""

    placement: Literal["auto", "replicated", "sharded", "streamed"] = "auto"
    """replicated: whole on every device; sharded: cut over the data axis; streamed: on the host, each dispatch's
    patients sent ahead. All three train on the same batches, bit for bit. auto: replicated where it takes under a tenth
    of a device's memory, else sharded where that takes under a third, else streamed."""
    steps_per_dispatch: Annotated[int, Ge(1)] = 50
    """Steps that are compiled into one program at most; how many of them run is decided while it runs."""
    dispatch_seconds: Annotated[float, Gt(0)] = 2.0
    """How long a dispatch should take: a run that is asked to stop does so after two at most."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="corpus")


class Corpus(NamedTuple, Generic[Column]):
    """Flat columns of n patients with C codes: arrays of the host or of the devices, or where each of them lies."""

    code_ids: Column
    """(C,) int32."""
    visit_ids: Column
    """(C,) int16, or int32 where the ids need it."""
    serialization_ids: Column
    """(C,) like visit_ids."""
    code_offsets: Column
    """(n + 1,) int32."""
    outcome: Column
    """(n,) int8."""


def narrowest(sequences: PatientSequences) -> type[np.integer]:
    """The type that holds every visit and serialization id."""
    small = all(int(column.max(initial=0)) < 2**15 for column in (sequences.visit_ids, sequences.serialization_ids))
    return np.int16 if small else np.int32


def corpus_columns(sequences: PatientSequences, ids: type[np.integer], outcome: str) -> Corpus[np.ndarray]:
    """The columns, visit and serialization ids as `ids`, and the outcome of this name.

    Raises ValueError where there are more codes than 32-bit offsets can count.
    """
    codes = int(sequences.code_offsets[-1])
    if codes >= 2**31:
        raise ValueError(
            f"a corpus on the devices must have under {2**31:,} codes: got {codes:,}; set corpus.placement to streamed"
        )
    return Corpus(
        np.asarray(sequences.code_ids, np.int32),
        np.asarray(sequences.visit_ids, ids),
        np.asarray(sequences.serialization_ids, ids),
        np.asarray(sequences.code_offsets, np.int32),
        np.asarray(sequences.outcomes[outcome], np.int8),
    )


def with_room(columns: Corpus[np.ndarray], codes: int, patients: int) -> Corpus[np.ndarray]:
    """The columns made as long as so many codes and patients take; nothing refers to what is added."""
    sizes = Corpus(codes, codes, codes, patients + 1, patients)
    return Corpus(*(np.pad(column, (0, size - len(column))) for column, size in zip(columns, sizes, strict=True)))


def rounded_up(size: int) -> int:
    """At least `size`, and one of few numbers: at most a quarter above it from 2,048 on, at least that."""
    quarter = 2 ** max(9, size.bit_length() - 3)
    return max(2048, -(-size // quarter) * quarter)


def choose_placement(config: CorpusConfig, sequences: PatientSequences, mesh: Mesh) -> Placement:
    """What `auto` means for this corpus on these devices; any other placement is taken as it is.

    Several processes take what the first of them chooses, though the memory of their machines may differ.
    """
    if config.placement != "auto":
        return config.placement
    places = get_args(Placement)
    chosen = _what_fits(sequences, mesh)
    if jax.process_count() > 1:
        chosen = places[int(multihost_utils.broadcast_one_to_all(np.int32(places.index(chosen))))]
    return chosen


def _what_fits(sequences: PatientSequences, mesh: Mesh) -> Placement:
    codes = int(sequences.code_offsets[-1])
    size = 8 * codes + 5 * len(sequences)
    memory = _device_memory(mesh)
    if codes >= 2**31:
        return "streamed"
    if size < memory / 10:
        return "replicated"
    return "sharded" if size / mesh.shape["data"] < memory / 3 else "streamed"


def _device_memory(mesh: Mesh) -> float:
    """Bytes of one device; on a CPU its share of the machine's memory."""
    stats = mesh.local_devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(mesh.local_devices)


def corpus_shardings(placement: Placement, mesh: Mesh) -> Corpus[NamedSharding]:
    """Where each column lies; the columns of patients, and what is streamed, are small and lie everywhere."""
    everywhere = replicated(mesh)
    codes = NamedSharding(mesh, PartitionSpec("data")) if placement == "sharded" else everywhere
    return Corpus(codes, codes, codes, everywhere, everywhere)


def gather_patients(
    corpus: Corpus[jax.Array],
    places_BP: jax.Array,
    row_length: int,
    *,
    outcome: str = "prolonged_los",
    sharded_over: Mesh | None = None,
) -> dict[str, jax.Array]:
    """`data.rows.gather_rows` inside jit, with the outcome (B, P) besides: the same int32 arrays, bit for bit.

    Who the patients are, "patients" among those arrays, is left to the caller: a place tells it of a whole corpus only.

    Args:
        corpus: flat columns.
        places_BP: places in the corpus of the patients of every row, −1 where there is none; they fit into it.
        row_length: slots of a row.
        outcome: the name of the corpus's outcome.
        sharded_over: the mesh over whose data axis the codes are cut; None where they lie on every device.
    """
    who_BP = jnp.maximum(places_BP, 0)
    first_BP = corpus.code_offsets[who_BP]
    lengths_BP = jnp.where(places_BP >= 0, corpus.code_offsets[who_BP + 1] - first_BP, 0)
    ends_BP = jnp.cumsum(lengths_BP, axis=1)
    slots_L = jnp.arange(row_length, dtype=jnp.int32)
    # The patient of a slot, counted in its row: how many of the row end before it.
    place_BL = jnp.sum(ends_BP[:, :, None] <= slots_L[None, None, :], axis=1, dtype=jnp.int32)
    real_BL = slots_L[None, :] < ends_BP[:, -1:]
    place_BL = jnp.minimum(place_BL, places_BP.shape[1] - 1)
    # Where a patient's codes begin in the corpus, less where they begin in the row.
    shift_BL = jnp.take_along_axis(first_BP, place_BL, axis=1)
    begin_BL = jnp.take_along_axis(ends_BP - lengths_BP, place_BL, axis=1)
    within_BL = jnp.where(real_BL, slots_L[None, :] - begin_BL, 0)
    source_BL = jnp.where(real_BL, shift_BL + within_BL, 0)

    def filled(column):
        found_BL = column[source_BL] if sharded_over is None else _take_sharded(column, source_BL, sharded_over)
        return jnp.where(real_BL, found_BL.astype(jnp.int32), 0)

    return {
        "code_ids": filled(corpus.code_ids),
        "visit_ids": filled(corpus.visit_ids),
        "serialization_ids": filled(corpus.serialization_ids),
        "patient_slots": jnp.where(real_BL, place_BL + 1, 0),
        "positions": within_BL,
        outcome: jnp.where(places_BP >= 0, corpus.outcome[who_BP].astype(jnp.int32), 0),
    }


def _take_sharded(column: jax.Array, places_BL: jax.Array, mesh: Mesh) -> jax.Array:
    """column[places] where the column is cut over the data axis: the places travel, the corpus stays where it is."""

    def local(column, places_BL):
        wanted_BL = jax.lax.all_gather(places_BL, "data", tiled=True)
        here_BL = wanted_BL - jax.lax.axis_index("data") * column.shape[0]
        inside_BL = (here_BL >= 0) & (here_BL < column.shape[0])
        found_BL = jnp.where(inside_BL, column[jnp.clip(here_BL, 0, column.shape[0] - 1)].astype(jnp.int32), 0)
        return jax.lax.psum_scatter(found_BL, "data", tiled=True)

    rows = PartitionSpec("data")
    return jax.shard_map(local, mesh=mesh, in_specs=(rows, rows), out_specs=rows)(column, places_BL)
