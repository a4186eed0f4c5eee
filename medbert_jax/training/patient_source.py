"""The patients of one split on their way to the devices: the whole corpus once, then a feed for every dispatch."""

from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medbert_jax.data.row_plan import RowPlan
from medbert_jax.data.rows import gather_rows
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.training.corpus import (
    Corpus,
    CorpusConfig,
    choose_placement,
    corpus_shardings,
    gather_patients,
    upload,
)
from medbert_jax.training.sharding import put_global, replicated

_ROW_ARRAYS = ("code_ids", "visit_ids", "serialization_ids", "patient_slots", "positions", "prolonged_los")


class PatientSource:
    """Feeds of a plan, each a pure function of (seed, first step, count); the next one is made while this one trains.

    Where the corpus is on the devices a feed says which patients share a row, and `rows_of` gathers them inside the
    program; where it is streamed the rows themselves are sent, equal bit for bit. Close it, or use it in a `with`
    statement: it holds threads.
    """

    def __init__(
        self,
        sequences: PatientSequences,
        plan: RowPlan,
        mesh: Mesh,
        config: CorpusConfig,
        *,
        seed: int,
        total: int,
    ):
        """Upload the corpus, unless it is streamed.

        Args:
            sequences: patients that fit the model.
            plan: their rows.
            mesh: devices.
            config: where the corpus is to lie, and the most steps of a feed.
            seed: of the order of patients.
            total: steps that will be asked for, over all epochs; no epoch is planned after them.
        """
        self.sequences, self.plan, self.seed = sequences, plan, seed
        self.steps, self._total, self._mesh = min(config.steps_per_dispatch, total), total, mesh
        self.placement = choose_placement(config, sequences, mesh)
        self.corpus = upload(sequences, self.placement, mesh)
        self.shardings = corpus_shardings(self.placement, mesh), self._feed_shardings()
        """Of the corpus, and of a feed."""
        self._feeding, self._planning = (ThreadPoolExecutor(1, name) for name in ("feed", "plan"))
        self._epochs: dict[int, Future] = {}  # touched by the feeding thread alone
        self._ahead: tuple[tuple[int, int], Future] | None = None

    def __enter__(self) -> "PatientSource":
        """Return the source itself."""
        return self

    def __exit__(self, *_) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let the threads go; what they are making is thrown away."""
        for threads in (self._feeding, self._planning):
            threads.shutdown(wait=False, cancel_futures=True)

    def rows_of(self, corpus: Corpus | None, step: dict) -> dict:
        """Inside a program: the batch that one step of a feed stands for."""
        if corpus is None:
            return step
        mesh = self._mesh if self.placement == "sharded" else None
        tiers = tuple(
            gather_patients(corpus, rows["patients"], tier.row_length, sharded_over=mesh)
            for rows, tier in zip(step["tiers"], self.plan.tiers, strict=True)
        )
        return step | {"tiers": tiers}

    def feed(self, start: int, count: int) -> dict:
        """The feed of steps start … start + count − 1, on the devices."""
        self.prepare(start, count)
        (_, feed), self._ahead = self._ahead, None
        return feed.result()

    def prepare(self, start: int, count: int) -> None:
        """Begin to make a feed that will be asked for next."""
        if self._ahead is None or self._ahead[0] != (start, count):
            self._ahead = (start, count), self._feeding.submit(self._send, start, count)

    def patients(self, step: int) -> tuple[np.ndarray, ...]:
        """Per tier (B, P): who is in the rows of the step that comes after `step` steps, −1 where nobody is."""
        epoch, place = divmod(step, self.plan.steps_per_epoch)
        return tuple(rows[place] for rows in self.plan.epoch(self.seed, epoch))

    def host_feed(self, start: int, count: int) -> dict:
        """The feed as numpy arrays."""
        if not 1 <= count <= self.steps:
            raise ValueError(f"a feed has 1 to {self.steps} steps: got {count}; ask for fewer at a time")
        parts, epochs, first = [], np.zeros(self.steps, np.int32), start
        while first < start + count:
            epoch, begin = divmod(first, self.plan.steps_per_epoch)
            end = min(begin + start + count - first, self.plan.steps_per_epoch)
            parts.append([patients[begin:end] for patients in self._epoch(epoch)])
            epochs[first - start : first - start + end - begin] = epoch
            first += end - begin
        tiers = []
        for tier, stretches in zip(self.plan.tiers, zip(*parts, strict=True), strict=True):
            patients = np.full((self.steps, *stretches[0].shape[1:]), -1, np.int32)
            patients[:count] = np.concatenate(stretches)
            streamed = self.placement == "streamed"
            tiers.append(self._rows(patients, count, tier.row_length) if streamed else {"patients": patients})
        return {"tiers": tuple(tiers), "epoch": epochs, "start": np.int32(start), "count": np.int32(count)}

    def _feed_shardings(self) -> dict:
        rows, everywhere = NamedSharding(self._mesh, PartitionSpec(None, "data")), replicated(self._mesh)
        names = ("patients", *_ROW_ARRAYS) if self.placement == "streamed" else ("patients",)
        tiers = (dict.fromkeys(names, rows),) * len(self.plan.tiers)
        return {"tiers": tiers, "epoch": everywhere, "start": everywhere, "count": everywhere}

    def _rows(self, patients: np.ndarray, count: int, row_length: int) -> dict[str, np.ndarray]:
        """The rows of `count` steps, and empty ones after them."""
        steps, rows, places = patients.shape
        who, outcome = patients[:count].reshape(-1, places), self.sequences.outcomes["prolonged_los"]
        made = gather_rows(self.sequences, who, row_length)
        made["prolonged_los"] = np.where(who >= 0, outcome[np.maximum(who, 0)], 0).astype(np.int32)
        out = {}
        for name, values in made.items():
            out[name] = np.full((steps, rows, values.shape[1]), -1 if name == "patients" else 0, np.int32)
            out[name][:count] = values.reshape(count, rows, -1)
        return out

    def _send(self, start: int, count: int) -> dict:
        return jax.tree.map(put_global, self.host_feed(start, count), self.shardings[1])

    def _epoch(self, epoch: int) -> tuple[np.ndarray, ...]:
        """The plan of an epoch; the next one's is begun, and those before are let go."""
        last = (self._total - 1) // self.plan.steps_per_epoch
        for number in range(epoch, min(epoch + 1, last) + 1):
            if number not in self._epochs:
                self._epochs[number] = self._planning.submit(self.plan.epoch, self.seed, number)
        self._epochs = {number: plan for number, plan in self._epochs.items() if number >= epoch}
        return self._epochs[epoch].result()
