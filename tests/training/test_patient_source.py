"""From plan to program: wherever the corpus lies the batches are the slow path's, and K steps are K times one."""

from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
import pytest
from made_sequences import TINY_MODEL, made_sequences
from reference_batches import batches

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.models.med_bert import init
from medbert_jax.training.corpus import CorpusConfig, choose_placement, narrowest
from medbert_jax.training.dispatch import make_eval_dispatch, make_train_dispatch
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.not_finite import NotFinite, check_finite, make_row_check, rows_not_finite
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import TasksConfig, init_state, make_train_step, step_shapes
from medbert_jax.training.sharding import MeshConfig, make_mesh

PATIENT, LATE_VISIT = 77, 60


def patients_and_one_late_visit():
    """Made patients, one of whom alone has a visit of the number LATE_VISIT."""
    sequences = made_sequences(200, seed=0)
    visits = sequences.visit_ids.copy()
    visits[sequences.code_offsets[PATIENT + 1] - 1] = LATE_VISIT
    return replace(sequences, visit_ids=visits)


SEQUENCES = patients_and_one_late_visit()
LAYOUTS = {
    "rows": RowsConfig(batch_size=32, short_row=16),
    "patients": RowsConfig(batching="patients", batch_size=16, rows_per_step=10),
    "padded": RowsConfig(batch_size=32, short_row=16, packed=False),
}
MASKING = MaskingConfig(share=0.25)
MESH = make_mesh(MeshConfig(data=1))


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Half the time to compile; the programs are small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def source_of(layout: str, placement: str, *, steps: int = 5, total: int = 40) -> PatientSource:
    """A source of the made patients."""
    plan = plan_rows(SEQUENCES.lengths, LAYOUTS[layout], max_length=32)
    config = CorpusConfig(placement=placement, steps_per_dispatch=steps)
    return PatientSource(SEQUENCES, plan, MESH, config, seed=3, total=total)


def assert_equal(one: dict, two: dict) -> None:
    """Every array the same, bit for bit, and of the same type."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("placement", ["replicated", "sharded", "streamed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_are_those_of_the_slow_path_over_three_epochs(layout, placement):
    with source_of(layout, placement) as source:
        steps, start = 3 * source.plan.steps_per_epoch, 0
        expected = batches(SEQUENCES, source.plan, seed=3)
        all_steps = jax.jit(make_eval_dispatch(lambda _, batch: batch, source.rows_of))
        counts = iter([1, 5, 2, 4, 3] * steps)
        while start < steps:
            count = min(next(counts), steps - start)
            corpus, feed = source.feed(start, count)
            source.prepare(start + count, 2)  # a guess that is mostly wrong
            assert (int(feed["start"]), int(feed["count"])) == (start, count)
            made = jax.device_get(all_steps({}, corpus, feed))
            for place in range(count):
                assert_equal(jax.tree.map(lambda x: x[place], made), next(expected))  # noqa: B023
            start += count


def test_steps_after_the_count_hold_nobody():
    with source_of("rows", "streamed") as source:
        _, feed = source.feed(0, 2)
    for tier in feed["tiers"]:
        assert (tier["patients"][2:] == -1).all() and (tier["places"][2:] == -1).all()


def test_what_is_streamed_is_the_patients_of_the_dispatch_one_after_the_other():
    with source_of("rows", "streamed") as source:
        sent = {count: source.feed(4, count) for count in (1, 5)}
    for corpus, feed in sent.values():
        patients, places = (
            np.concatenate([np.asarray(tier[name]).ravel() for tier in feed["tiers"]])
            for name in ("patients", "places")
        )
        real = patients >= 0
        assert places[real].tolist() == list(range(real.sum())) and (places[~real] == -1).all()
        begin, end = (np.asarray(corpus.code_offsets)[places[real] + more] for more in (0, 1))
        assert (end - begin).tolist() == SEQUENCES.lengths[patients[real]].tolist()
        of_them = SEQUENCES.take(patients[real])
        np.testing.assert_array_equal(np.asarray(corpus.code_ids)[: end[-1]], of_them.code_ids)
        np.testing.assert_array_equal(np.asarray(corpus.outcome)[places[real]], of_them.outcomes["prolonged_los"])
    # One program serves dispatches of any count.
    assert jax.tree.map(np.shape, sent[1]) == jax.tree.map(np.shape, sent[5])


def test_places_that_are_not_renumbered_are_noticed(monkeypatch):
    """What is compared above: patients of a dispatch looked up by their numbers among all."""
    honest = PatientSource._corpus_of
    monkeypatch.setattr(PatientSource, "_corpus_of", lambda self, patients: (honest(self, patients)[0], patients))
    with pytest.raises(AssertionError):
        test_batches_are_those_of_the_slow_path_over_three_epochs("rows", "streamed")


STEPS = 12
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup_steps=0), 40)
MODEL = replace(TINY_MODEL, initializer_range=0.1)


@cache
def compiled(layout: str, placement: str):
    """The source and the jitted dispatch of a layout: compiled once for all tests."""
    source = source_of(layout, placement, steps=STEPS)
    step = make_train_step(
        model=MODEL,
        masking=MASKING,
        tasks=TasksConfig(),
        shapes=step_shapes(source.plan, MASKING),
        optimizer=OPTIMIZER,
        seed=0,
    )
    return source, jax.jit(make_train_dispatch(step, source.rows_of))


@cache
def start() -> dict:
    """A fresh state."""
    return jax.jit(partial(init_state, partial(init, MODEL), OPTIMIZER))(jax.random.key(0))


def trained(counts: list[int], placement: str = "replicated", *, layout: str = "rows"):
    """The state and the metrics of every step after dispatches of so many steps; dropout on."""
    source, dispatch = compiled(layout, placement)
    state, done, metrics = start(), 0, []
    for count in counts:
        state, found = dispatch(state, *source.feed(done, count))
        metrics.append({name: np.asarray(values)[:count] for name, values in found.items()})
        assert all((np.asarray(values)[count:] == 0).all() for values in found.values())
        done += count
    return jax.device_get(state), {name: np.concatenate([one[name] for one in metrics]) for name in metrics[0]}


@pytest.mark.parametrize("layout", ["rows", "patients"])
def test_many_steps_at_once_are_the_same_steps(layout):
    state, metrics = trained([1] * 12, layout=layout)
    assert state["step"] == 12 and metrics["finite"].all() and len(np.unique(metrics["loss"])) == 12
    for counts in ([12], [2, 5, 5]):
        again, found = trained(counts, layout=layout)
        assert_equal(state, again)
        assert_equal(metrics, found)


@pytest.mark.parametrize("placement", ["sharded", "streamed"])
def test_where_the_corpus_lies_changes_nothing(placement):
    state, metrics = trained([5, 2])
    again, found = trained([5, 2], placement)
    assert_equal(state, again)
    assert_equal(metrics, found)


def test_the_comparison_of_states_can_fail():
    one, _ = trained([5, 2])
    two, _ = trained([5, 1])
    with pytest.raises(AssertionError):
        assert_equal(one, two)


def test_a_step_that_is_not_finite_changes_nothing_and_neither_do_those_after_it():
    source, dispatch = compiled("rows", "replicated")
    bad = [any((tier == PATIENT).any() for tier in source.patients(step)) for step in range(STEPS)].index(True)
    assert 0 < bad < STEPS - 2
    # The vector of his late visit is infinite: his step is the first that meets it.
    state = start()
    table = state["params"]["embeddings"]["visit_table"].at[LATE_VISIT].set(np.inf)
    embeddings = state["params"]["embeddings"] | {"visit_table": table}
    state = state | {"params": state["params"] | {"embeddings": embeddings}}
    before, _ = dispatch(state, *source.feed(0, bad))
    stopped, metrics = dispatch(state, *source.feed(0, STEPS))
    finite = np.asarray(metrics["finite"])
    assert finite.tolist() == [True] * bad + [False] * (STEPS - bad)
    assert stopped["step"] == bad
    assert_equal(jax.device_get(stopped), jax.device_get(before))
    # A dispatch that was already sent behind it does nothing either.
    later, metrics_behind = dispatch(stopped, *source.feed(STEPS, 3))
    assert_equal(jax.device_get(later), jax.device_get(stopped))
    assert not np.asarray(metrics_behind["finite"]).any()
    with pytest.raises(NotFinite, match=rf"at step {bad + 1}; start a new run"):
        check_finite(STEPS, jax.device_get(metrics))
    check = jax.jit(make_row_check(source.rows_of, model=MODEL, masking=MASKING, seed=0))
    found, patients = check(later, *source.feed(bad, 1)), source.patients(bad)
    named = [(tier, row) for tier, fine in enumerate(found) for row in np.flatnonzero(~np.asarray(fine))]
    ((tier, row),) = named
    assert PATIENT in patients[tier][row]
    rows = partial(rows_not_finite, state=later, row_check=check, source=source)
    with pytest.raises(NotFinite) as caught:  # as the loop says it, which has sent a dispatch more by then
        check_finite(STEPS, jax.device_get(metrics), rows)
    said = str(caught.value)
    assert f"at step {bad + 1}, in row {row} of tier {tier} (patients " in said
    assert f"{PATIENT}" in said and "start a new run with --init-from" in said
    assert rows(bad) == ", with finite outputs in every row"  # the step before
    check_finite(bad, {"finite": finite[:bad]}, lambda step: pytest.fail(f"step {step} was finite"))


def test_where_a_corpus_goes_depends_on_its_size(monkeypatch):
    def chosen(memory: float) -> str:
        monkeypatch.setattr("medbert_jax.training.corpus._device_memory", lambda mesh: memory)
        return choose_placement(CorpusConfig(), SEQUENCES, MESH)

    size = 8 * int(SEQUENCES.code_offsets[-1]) + 5 * len(SEQUENCES)
    assert [chosen(size * share) for share in (11, 9, 4, 2)] == ["replicated", "sharded", "sharded", "streamed"]
    assert choose_placement(CorpusConfig(placement="streamed"), SEQUENCES, MESH) == "streamed"


def test_columns_are_as_narrow_as_their_values_allow():
    for sequences, ids in (
        (SEQUENCES, np.int16),
        (replace(SEQUENCES, visit_ids=SEQUENCES.visit_ids + 2**15), np.int32),
    ):
        plan = plan_rows(sequences.lengths, LAYOUTS["rows"], max_length=32)
        for placement in ("replicated", "streamed"):
            config = CorpusConfig(placement=placement, steps_per_dispatch=5)
            with PatientSource(sequences, plan, MESH, config, seed=3, total=40) as source:
                corpus, _ = source.feed(0, 1)
            assert corpus.visit_ids.dtype == corpus.serialization_ids.dtype == ids
            np.testing.assert_array_equal(narrowest(sequences), ids)


def test_wrong_settings_of_the_corpus_are_all_named():
    with pytest.raises(
        ValueError, match=r"placement must be one of auto, .*\n.*steps_per_dispatch .*\n.*dispatch_seconds"
    ):
        CorpusConfig(placement="disk", steps_per_dispatch=0, dispatch_seconds=0.0)


def test_a_feed_has_no_more_steps_than_the_program():
    with source_of("rows", "replicated") as source, pytest.raises(ValueError, match=r"1 to 5 steps: got 6"):
        source.host_feed(0, 6)
