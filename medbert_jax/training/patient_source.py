"""The patients of one split on their way to the devices: the whole corpus once, then a feed for every dispatch."""

from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medbert_jax.data.row_plan import RowPlan
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.training.corpus import (
    Corpus,
    CorpusConfig,
    choose_placement,
    corpus_columns,
    corpus_shardings,
    gather_patients,
    narrowest,
    rounded_up,
    with_room,
)
from medbert_jax.training.sharding import put_global, replicated


class PatientSource:
    """Feeds of a plan, each a pure function of (seed, first step, count); the next one is made while this one trains.

    A feed says which patients share a row, and `rows_of` gathers them inside the program: from the whole corpus where
    it is on the devices, from the patients of this dispatch where it is streamed, equal bit for bit. Close it, or use
    it in a `with` statement: it holds threads.
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
        outcome: str = "prolonged_los",
        rounded: bool = False,
    ):
        """Upload the corpus, unless it is streamed.

        Args:
            sequences: patients that fit the model.
            plan: their rows.
            mesh: devices.
            config: where the corpus is to lie, and the most steps of a feed.
            seed: of the order of patients.
            total: steps that will be asked for, over all epochs; no epoch is planned after them.
            outcome: which one the corpus is to hold.
            rounded: whether the corpus is made a little longer, so that others of about its size share its programs;
                a feed then has room for as many steps as a feed may have, also where the total is below.
        """
        self.sequences, self.plan, self.config, self.seed = sequences, plan, config, seed
        self.steps = config.steps_per_dispatch if rounded else min(config.steps_per_dispatch, total)
        self._total, self._mesh, self._outcome, self._rounded = total, mesh, outcome, rounded
        self.placement = choose_placement(config, sequences, mesh)
        self._ids = narrowest(sequences)
        rows = NamedSharding(mesh, PartitionSpec(None, "data"))
        numbers = dict.fromkeys(("epoch", "start", "count"), replicated(mesh))
        feed = {"tiers": ({"patients": rows, "places": rows},) * len(plan.tiers), **numbers}
        self.shardings = corpus_shardings(self.placement, mesh), feed
        """Of a corpus, and of the feed that goes with it."""
        self._whole = None if self.placement == "streamed" else self._upload()
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

    def rows_of(self, corpus: Corpus[jax.Array], step: dict) -> dict:
        """Inside a program: the batch that one step of a feed stands for."""
        mesh = self._mesh if self.placement == "sharded" else None
        tiers = tuple(
            gather_patients(corpus, rows["places"], tier.row_length, outcome=self._outcome, sharded_over=mesh)
            | {"patients": rows["patients"]}
            for rows, tier in zip(step["tiers"], self.plan.tiers, strict=True)
        )
        return step | {"tiers": tiers}

    def feed(self, start: int, count: int) -> tuple[Corpus[jax.Array], dict]:
        """A corpus, and the feed of steps start … start + count − 1 out of it, on the devices."""
        self.prepare(start, count)
        ahead, self._ahead = self._ahead, None
        assert ahead is not None  # `prepare` has begun it
        return ahead[1].result()

    def prepare(self, start: int, count: int) -> None:
        """Begin to make a feed that will be asked for next."""
        if self._ahead is None or self._ahead[0] != (start, count):
            self._ahead = (start, count), self._feeding.submit(self._send, start, count)

    def patients(self, step: int) -> tuple[np.ndarray, ...]:
        """Per tier (B, P): who is in the rows of the step that comes after `step` steps, −1 where nobody is."""
        epoch, place = divmod(step, self.plan.steps_per_epoch)
        return tuple(rows[place] for rows in self.plan.epoch(self.seed, epoch))

    def host_feed(self, start: int, count: int) -> dict:
        """The feed as numpy arrays, without the patients' places in a corpus."""
        if not 1 <= count <= self.steps:
            raise ValueError(f"a feed has 1 to {self.steps} steps: got {count}; ask for fewer at a time")
        epochs, places = np.divmod(np.arange(start, start + count, dtype=np.int32), self.plan.steps_per_epoch)
        steps = [[tier[place] for tier in self._epoch(int(epoch))] for epoch, place in zip(epochs, places, strict=True)]
        behind = (0, self.steps - count)
        tiers = tuple(
            {"patients": np.pad(np.stack(rows), (behind, (0, 0), (0, 0)), constant_values=-1)}
            for rows in zip(*steps, strict=True)
        )
        return {"tiers": tiers, "epoch": np.pad(epochs, behind), "start": np.int32(start), "count": np.int32(count)}

    def _send(self, start: int, count: int) -> tuple[Corpus[jax.Array], dict]:
        feed, corpus = self.host_feed(start, count), self._whole
        patients = [rows["patients"] for rows in feed["tiers"]]
        places = patients
        if corpus is None:
            corpus, places = self._corpus_of(patients)
        tiers = tuple({"patients": who, "places": where} for who, where in zip(patients, places, strict=True))
        return corpus, jax.tree.map(put_global, feed | {"tiers": tiers}, self.shardings[1])

    def _upload(self) -> Corpus[jax.Array]:
        """The whole corpus; cut over devices it has as many codes on each."""
        columns = corpus_columns(self.sequences, self._ids, self._outcome)
        parts = self._mesh.shape["data"] if self.placement == "sharded" else 1
        codes, patients = len(columns.code_ids), len(self.sequences)
        if self._rounded:
            codes, patients = rounded_up(codes), rounded_up(patients)
        columns = with_room(columns, -(-codes // parts) * parts, patients)
        return jax.tree.map(put_global, columns, self.shardings[0])

    def _corpus_of(self, patients: list[np.ndarray]) -> tuple[Corpus[jax.Array], list[np.ndarray]]:
        """The patients of a dispatch, (K, B, P) per tier, as a corpus in which they stand one after the other.

        The places they have in it come back too. It is as long as all slots of K steps, whoever is in them: one
        program serves every dispatch.
        """
        who = np.concatenate([tier.ravel() for tier in patients])
        real = who >= 0
        columns = corpus_columns(self.sequences.take(who[real]), self._ids, self._outcome)
        slots = self.steps * self.plan.slots_per_step
        corpus = jax.tree.map(put_global, with_room(columns, slots, len(who)), self.shardings[0])
        places = np.where(real, np.cumsum(real) - 1, -1).astype(np.int32)
        ends = np.cumsum([tier.size for tier in patients])
        parts = zip(np.split(places, ends[:-1]), patients, strict=True)
        return corpus, [part.reshape(tier.shape) for part, tier in parts]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, ...]:
        """The plan of an epoch; the next one's is begun, and those before are let go."""
        last = (self._total - 1) // self.plan.steps_per_epoch
        for number in range(epoch, min(epoch + 1, last) + 1):
            if number not in self._epochs:
                self._epochs[number] = self._planning.submit(self.plan.epoch, self.seed, number)
        self._epochs = {number: plan for number, plan in self._epochs.items() if number >= epoch}
        return self._epochs[epoch].result()
