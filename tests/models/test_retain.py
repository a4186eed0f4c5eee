"""RETAIN against its equations written out, visit by visit, and against PyTorch's GRU; what its codes contribute."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig, apply_head, code_contributions, init_head
from medbert_jax.models.retain import patient_softmax, reversed_visits

MODEL = ModelConfig(vocabulary_size=9, hidden_size=6, heads=2, layers=1, max_visits=8, max_length=16)
HEAD = HeadConfig("retain", gru_hidden=4, dropout=0.5)
SIZES = {"config": HEAD, "model_config": MODEL}
VISITS = (((1, 2, 2, 3), (1, 1, 1)), ((1,), (1, 2), (1, 2, 3, 4)), ((1, 1, 2, 2, 2, 3, 4, 4),), ())
"""Row, patient, visit of each code."""
ROW = 9
COMPILE = {"compiler_options": {"xla_backend_optimization_level": 0}}


def rows():
    """(states (B, L, D), batch, row and place of each patient)."""
    (slots, visits), places = np.zeros((2, len(VISITS), ROW), np.int32), []
    for row, patients in enumerate(VISITS):
        end = 0
        for place, visit_ids in enumerate(patients):
            begin, end = end, end + len(visit_ids)
            slots[row, begin:end], visits[row, begin:end] = place + 1, visit_ids
            places.append((row, place))
    hidden = np.random.default_rng(1).normal(size=(*slots.shape, MODEL.hidden_size)).astype(np.float32)
    hidden[slots == 0] = 1e3
    return hidden, {"patient_slots": slots, "visit_ids": visits}, places


@pytest.fixture(scope="module")
def params():
    drawn = jax.tree.map(np.array, jax.jit(partial(init_head, HEAD, MODEL), **COMPILE)(jax.random.key(3)))
    rng = np.random.default_rng(2)  # biases away from 0, so that a missing one would show
    return jax.tree.map(lambda leaf: leaf + rng.normal(scale=0.3, size=leaf.shape).astype(np.float32), drawn)


@pytest.fixture(scope="module")
def ours(params):
    """(logits (B, P), contributions (B, L))"""
    hidden, batch, _ = rows()
    both = [partial(of, **SIZES, patients=3) for of in (apply_head, code_contributions)]
    found = jax.jit(lambda *given: [of(*given) for of in both], **COMPILE)(params, hidden, batch)
    return [np.asarray(one) for one in found]


def gru(params, vectors, xp=np):
    """PyTorch's documented equations, the state after every vector."""
    w, b, u, c = (
        xp.split(params[name], 3, axis=-1) for name in ("input_kernel", "input_bias", "hidden_kernel", "hidden_bias")
    )
    state, states = xp.zeros(u[0].shape[0]), []
    for x in vectors:
        reset = 1 / (1 + xp.exp(-(x @ w[0] + b[0] + state @ u[0] + c[0])))
        update = 1 / (1 + xp.exp(-(x @ w[1] + b[1] + state @ u[1] + c[1])))
        new = xp.tanh(x @ w[2] + b[2] + reset * (state @ u[2] + c[2]))
        state = (1 - update) * new + update * state
        states.append(state)
    return xp.stack(states)


def retain_by_hand(head, codes, visit_ids, gru=gru, xp=np):
    """(logit, what each code adds) of one patient by the equations of Choi et al. 2016."""
    attention = head["attention"]
    visits = xp.stack([codes[visit_ids == visit].sum(axis=0) for visit in np.unique(visit_ids)])
    g, h = (gru(attention[name], visits[::-1], xp)[::-1] for name in ("visit_unit", "element_unit"))
    e = g @ attention["visit_score"]["kernel"][:, 0] + attention["visit_score"]["bias"]
    alpha = xp.exp(e - e.max()) / xp.exp(e - e.max()).sum()
    beta = xp.tanh(h @ attention["element_gate"]["kernel"] + attention["element_gate"]["bias"][None])
    w = head["dense"]["kernel"][:, 0]
    context = (alpha[:, None] * beta * visits).sum(axis=0)
    of = visit_ids - 1
    return context @ w + head["dense"]["bias"][0], alpha[of] * ((beta[of] * codes) @ w)


def compared(params, ours, by_hand, rtol=2e-5):
    hidden, batch, places = rows()
    logits, contributions = ours
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for row, place in places:
        mine = batch["patient_slots"][row] == place + 1
        codes, visit_ids = hidden[row][mine].astype(np.float64), batch["visit_ids"][row][mine]
        logit, added = by_hand(params, codes, visit_ids)
        np.testing.assert_allclose(logits[row, place], logit, rtol=rtol)
        np.testing.assert_allclose(contributions[row][mine], added, rtol=rtol, atol=1e-6)


def test_logits_and_contributions_are_those_of_the_equations(params, ours):
    compared(params, ours, retain_by_hand)


@pytest.mark.parametrize("fault", ["forward", "by_code", "mean"])
def test_another_reading_of_retain_is_seen(params, ours, fault):
    def other(params, codes, visit_ids):
        if fault == "forward":
            return retain_by_hand(params, codes, visit_ids, gru=lambda unit, x, xp: gru(unit, x[::-1])[::-1])
        if fault == "by_code":
            return retain_by_hand(params, codes, np.arange(1, len(codes) + 1))
        sizes = np.bincount(visit_ids)[visit_ids]
        return retain_by_hand(params, codes / sizes[:, None], visit_ids)

    with pytest.raises(AssertionError):
        compared(params, ours, other)


def test_contributions_sum_to_the_logit_less_the_bias(params, ours):
    _, batch, places = rows()
    logits, contributions = ours
    assert (contributions[batch["patient_slots"] == 0] == 0).all()
    for row, place in places:
        added = contributions[row][batch["patient_slots"][row] == place + 1]
        assert len(np.unique(added)) == len(added)
        np.testing.assert_allclose(added.sum(), logits[row, place] - params["dense"]["bias"][0], rtol=1e-4, atol=1e-6)


def test_gradients_are_those_of_the_equations(params):
    """Of every parameter and of the states, against automatic differentiation, visit by visit."""
    states, at, places = rows()
    hidden, batch = jax.tree.map(jnp.asarray, (states, at))
    chosen = tuple(np.transpose(places))

    def by_hand(params, hidden):
        total = 0.0
        for row, place in places:
            mine = at["patient_slots"][row] == place + 1
            logit, _ = retain_by_hand(params, hidden[row][mine], at["visit_ids"][row][mine], xp=jnp)
            total += jnp.square(logit - 1)
        return total

    def by_us(params, hidden):
        return jnp.square(apply_head(params, hidden, batch, **SIZES, patients=3)[chosen] - 1).sum()

    expected, found = (jax.jit(jax.grad(of, (0, 1)), **COMPILE)(params, hidden) for of in (by_hand, by_us))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected) if leaf.size > 1)


def test_visits_in_reverse_time_of_a_literal_row():
    slots = jnp.array([[1, 1, 1, 2, 2, 3, 0], [0] * 7], jnp.int32)
    visits = jnp.array([[1, 1, 2, 2, 2, 2, 2], [5] * 7], jnp.int32)
    # Patient 2 begins with a visit of the same number as patient 1 ended with, patient 3 too.
    assert reversed_visits(slots, visits).tolist() == [[6, 6, 5, 4, 4, 3, 7], [7] * 7]


def test_the_softmax_is_each_patients_own():
    slots = jnp.array([[0, 2, 2, 1], [0, 0, 0, 0]], jnp.int32)
    scores = jnp.array([[50.0, 0.0, np.log(3.0), -40.0], [1.0, 2.0, 3.0, 4.0]], jnp.float32)
    found, gradient = jax.value_and_grad(lambda s: patient_softmax(s, slots, 2)[0, 2])(scores)
    np.testing.assert_allclose(patient_softmax(scores, slots, 2), [[0, 0.25, 0.75, 1], [0] * 4], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, -0.1875, 0.1875, 0], [0] * 4], atol=1e-6)
    assert found == pytest.approx(0.75)


def test_contributions_of_another_head_are_refused():
    hidden, batch = jax.tree.map(jnp.asarray, rows()[:2])
    with pytest.raises(ValueError, match="contributions of codes are RETAIN's: got a head of kind gru; fine-tune with"):
        code_contributions({}, hidden, batch, config=HeadConfig("gru"), model_config=MODEL, patients=3)


@pytest.mark.parity
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch (the extra `parity`) is not installed")
@pytest.mark.filterwarnings("default")
def test_equals_an_implementation_in_torch_on_equal_weights(params, ours):
    import torch

    def loaded(module, **arrays):
        module.load_state_dict({name: torch.tensor(np.asarray(array)) for name, array in arrays.items()})
        return module

    def unit(of):
        arrays = {f"weight_{side}_l0": of[f"{name}_kernel"].T for side, name in (("ih", "input"), ("hh", "hidden"))}
        arrays |= {f"bias_{side}_l0": of[f"{name}_bias"] for side, name in (("ih", "input"), ("hh", "hidden"))}
        return loaded(torch.nn.GRU(MODEL.hidden_size, HEAD.gru_hidden, batch_first=True), **arrays)

    def linear(of):
        weight = of["kernel"].T
        return loaded(torch.nn.Linear(*weight.T.shape), weight=weight, bias=of["bias"])

    attention = params["attention"]
    visit_unit, element_unit = unit(attention["visit_unit"]), unit(attention["element_unit"])
    visit_score, element_gate = linear(attention["visit_score"]), linear(attention["element_gate"])
    dense = linear(params["dense"])

    def in_torch(_, codes, visit_ids):
        codes, of = torch.tensor(codes, dtype=torch.float32), torch.tensor(visit_ids - 1, dtype=torch.int64)
        with torch.no_grad():
            visits = torch.zeros(int(of.max()) + 1, codes.shape[1]).index_add(0, of, codes)
            reverse = visits.flip(0)[None]
            g, h = (unit(reverse)[0][0].flip(0) for unit in (visit_unit, element_unit))
            alpha, beta = torch.softmax(visit_score(g)[:, 0], dim=0), torch.tanh(element_gate(h))
            logit = dense((alpha[:, None] * beta * visits).sum(dim=0))[0]
            added = alpha[of] * ((beta[of] * codes) @ dense.weight[0])
        return logit.numpy(), added.numpy()

    compared(params, ours, in_torch)
