"""Replicates of one fine-tuning that train together, in one program: what each has is stacked on a leading axis.

A replicate has its own training subset, order, dropout, start and early stopping, and ends with what it would have
ended with alone, but for the rounding of sums. One that has stopped is trained on beside the others, and nothing of
that is looked at.

Dimensions: R replicates, K steps of a dispatch, B rows, P patients per row, n patients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Float64

from medbert_jax.data.cohort_plan import Layout, plan_cohort
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.metrics.discrimination import auroc_where_ordered
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training.cohort_scores import CohortScores, scoring_layout
from medbert_jax.training.corpus import Corpus, CorpusConfig
from medbert_jax.training.dispatch import make_eval_dispatch, make_train_dispatch
from medbert_jax.training.early_stopping import EarlyStopping
from medbert_jax.training.finetuning import OUTCOME, make_eval_step, make_train_step, not_yet_gathered
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.rounds import Rounds
from medbert_jax.training.sharding import put_global, replicated

STATE_AXES = {"params": 0, "opt_state": 0, "step": None, "key": 0, "given": None}
"""What each replicate has for itself, on which axis, and what is one for all."""
_FEED_AXES = {"tiers": 0, "epoch": None, "start": None, "count": None}


def stacked(states: Sequence[dict]) -> dict:
    """States of the replicates before their first step as one."""
    own = [{name: state[name] for name, axis in STATE_AXES.items() if axis is not None} for state in states]
    return states[0] | jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)


@cache
def compiled_together(
    model: ModelConfig, head: HeadConfig, optimizer: optax.GradientTransformation, rows: Layout, mesh: Mesh
) -> Callable[[dict, Corpus[jax.Array], dict], tuple[dict, dict]]:
    """`finetuning.compiled` for `stacked` states; metrics (K,): means over the replicates, their patients summed."""
    step = make_train_step(model=model, head=head, optimizer=optimizer, rows=rows, mesh=mesh)
    dispatch = jax.vmap(
        make_train_dispatch(step, not_yet_gathered),
        in_axes=(STATE_AXES, None, _FEED_AXES),
        out_axes=(STATE_AXES, 0),
    )

    def together(state: dict, corpus: Corpus[jax.Array], feed: dict) -> tuple[dict, dict]:
        state, metrics = dispatch(state, corpus, feed)
        means = {name: metrics[name].mean(axis=0) for name in ("loss", "gradient_norm")}
        return state, means | {"patients": metrics["patients"].sum(axis=0), "finite": metrics["finite"].all(axis=0)}

    return jax.jit(together, out_shardings=replicated(mesh), donate_argnums=0)


@cache
def _compiled_eval_together(model: ModelConfig, head: HeadConfig, rows: Layout, mesh: Mesh) -> Callable:
    dispatch = make_eval_dispatch(make_eval_step(model=model, head=head, rows=rows, mesh=mesh), not_yet_gathered)

    def together(params: dict, corpus: Corpus[jax.Array], feed: dict) -> dict:
        own = {name: None if name == "states" else 0 for name in params}  # states that are kept are one for all
        return jax.vmap(dispatch, in_axes=(own, None, None), out_axes=1)(params, corpus, feed)

    return jax.jit(together, out_shardings=replicated(mesh))


class ReplicateSource(PatientSource):
    """Feeds of all replicates, out of one corpus in which their subsets stand one after the other."""

    def __init__(
        self,
        subsets: Sequence[PatientSequences],
        whole: PatientSequences,
        seeds: Sequence[int],
        rows: Layout,
        mesh: Mesh,
        config: CorpusConfig,
        *,
        total: int,
    ):
        """`whole` are the `subsets`, equal in size, joined; `seeds` are of their orders."""
        made = partial(PatientSource, total=total, outcome=OUTCOME, rounded=True)
        plans = [plan_cohort(subset.lengths, rows) for subset in subsets]
        super().__init__(whole, plans[0], mesh, config, seed=seeds[0], total=total, outcome=OUTCOME, rounded=True)
        # They plan their orders; the corpus is this one's.
        streamed = CorpusConfig("streamed", config.steps_per_dispatch, config.dispatch_seconds)
        each = zip(subsets, plans, seeds, strict=True)
        self._each = [made(subset, plan, mesh, streamed, seed=seed) for subset, plan, seed in each]

    def close(self) -> None:
        """Let all threads go."""
        super().close()
        for one in self._each:
            one.close()

    def _send(self, start: int, count: int) -> tuple[Corpus[jax.Array], dict]:
        feeds = [one.host_feed(start, count) for one in self._each]
        first = np.cumsum([0, *(len(one.sequences) for one in self._each[:-1])], dtype=np.int32)
        tiers = []
        for each in zip(*(feed["tiers"] for feed in feeds), strict=True):
            patients = np.stack([rows["patients"] for rows in each])
            places = np.where(patients >= 0, patients + first[:, None, None, None], -1).astype(np.int32)
            tiers.append({"patients": patients, "places": places})
        everywhere = replicated(self._mesh)
        assert self._whole is not None  # it is not streamed
        return self._whole, jax.tree.map(partial(put_global, sharding=everywhere), feeds[0] | {"tiers": tuple(tiers)})


class ReplicateScores(CohortScores):
    """`CohortScores` of stacked parameters: (n, R)."""

    def __init__(
        self, sequences: PatientSequences, replicates: int, *, model: ModelConfig, head: HeadConfig, mesh: Mesh
    ):
        """`sequences` fit the model; their outcomes are not looked at."""
        super().__init__(sequences, model=model, head=head, mesh=mesh)
        self._replicates = replicates
        self._dispatch = _compiled_eval_together(model, head, scoring_layout(sequences, model, mesh), mesh)

    def of(self, params: dict) -> Float64[np.ndarray, "n R"]:
        """Probability of the label for every patient by every replicate."""
        out = np.zeros((len(self._source.sequences), self._replicates))
        for who, risks in self._passes(params):
            out[who[who >= 0]] = np.moveaxis(risks, 1, -1)[who >= 0]
        return out


@dataclass
class ReplicateStopping:
    """An `EarlyStopping` for each replicate; the parameters that they keep are stacked."""

    each: tuple[EarlyStopping, ...]
    best_params: dict = field(default_factory=dict)
    last_step: int = 0

    @property
    def over(self) -> bool:
        """Whether it is time for all of them to stop."""
        return all(one.over for one in self.each)

    def should_stop(self, step: int, values: Sequence[float], params: dict) -> bool:
        """Record a validation of those that have not stopped (higher is better); True when all have."""
        self.last_step = step
        for one, value in zip(self.each, values, strict=True):
            if not one.over:
                one.should_stop(step, value, {})
        chosen_R = np.array([one.best_step == step for one in self.each])

        def kept(new: jax.Array, before: jax.Array) -> jax.Array:
            return jnp.where(chosen_R.reshape(-1, *[1] * (new.ndim - 1)), new, before)

        # At the first validation each keeps its own. A copy in any case: the state's buffers are given away.
        self.best_params = jax.tree.map(kept, params, self.best_params or jax.tree.map(jnp.copy, params))
        return self.over

    def told(self) -> dict:
        """All but the parameters, as JSON data."""
        return {"each": [one.told() for one in self.each], "last_step": self.last_step}

    def remember(self, told: dict, best_params: dict) -> None:
        """Be as one was that `told` this, and had these parameters."""
        for one, own in zip(self.each, told["each"], strict=True):
            one.remember(own, {})
        self.best_params, self.last_step = best_params, told["last_step"]


@dataclass(frozen=True, eq=False)
class ReplicateRounds(Rounds):
    """The validations of all replicates, in one pass over the patients."""

    stopping: ReplicateStopping  # ty: ignore[incompatible-attribute-override]

    def judge(self, step: int, params: dict) -> dict[str, float]:
        """What the replicates' AUROCs are on average, now and at best, and how many have stopped."""
        found = [auroc_where_ordered(self.labels, risks) for risks in self.scores.of(params | self.given).T]
        self.stopping.should_stop(step, found, params)
        each = self.stopping.each
        best = np.mean([one.best for one in each])
        return {
            "auroc": float(np.mean(found)),
            "best_auroc": float(best),
            "stopped": float(sum(one.over for one in each)),
        }
