"""Signatures are checked while the tests run, and no array takes a rank by surprise: wrong shapes raise."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from medbert_jax.models.batch import patients_of_slots
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.heads import masked_sum
from medbert_jax.models.med_bert import apply, init, masked_code_logits
from medbert_jax.training import masking
from medbert_jax.training.losses import cross_entropy
from medbert_jax.training.masking import Masked, MaskingConfig, mask_codes

MODEL = ModelConfig(vocabulary_size=9, hidden_size=6, heads=2, layers=1, max_visits=4, max_length=12)
EMBEDDINGS_ALONE = ModelConfig(vocabulary_size=9, hidden_size=6, heads=2, layers=0, max_visits=4, max_length=12)
ids_BL, patients_BP = jnp.ones((3, 5), jnp.int32), jnp.ones((3, 2), jnp.int32)
BATCH = dict.fromkeys(("code_ids", "visit_ids", "serialization_ids", "positions", "patient_slots"), ids_BL)


def shape_of_states(batch):
    return jax.eval_shape(
        lambda key: apply(init(EMBEDDINGS_ALONE, key), batch, config=EMBEDDINGS_ALONE)[0], jax.random.key(0)
    ).shape


def test_a_batch_of_the_right_shapes_passes():
    assert shape_of_states(BATCH) == (3, 5, 6)
    assert shape_of_states(BATCH | {"patients": patients_BP, "beside_it": "anything"}) == (3, 5, 6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"patients": jnp.ones(3, jnp.int32)},
        {"patients": jnp.ones((4, 2), jnp.int32)},
        {"patients": jnp.ones((3, 2))},
        {"code_ids": jnp.ones((3, 6), jnp.int32)},
        {"positions": jnp.ones((3, 5, 1), jnp.int32)},
        {"visit_ids": None},
    ],
    ids=["rank of patients", "rows of patients", "dtype of patients", "slots", "rank of a column", "no array"],
)
def test_a_wrong_field_of_a_batch_raises(wrong):
    with pytest.raises(TypeCheckError, match=r"parameters of medbert_jax\.models\.med_bert\.apply"):
        shape_of_states(BATCH | wrong)


def test_a_wrong_argument_raises():
    with pytest.raises(TypeCheckError, match="masked_code_logits"):
        masked_code_logits({}, jnp.ones(6), config=MODEL)
    with pytest.raises(TypeCheckError, match="masked_sum"):
        masked_sum(jnp.ones((3, 4, 6)), ids_BL, 2)  # four slots of states, five of slots
    with pytest.raises(TypeCheckError, match="cross_entropy"):
        cross_entropy(jnp.ones((3, 5, 7)), ids_BL[0], ids_BL)


def test_a_wrong_result_raises(monkeypatch):
    monkeypatch.setattr(jnp, "take_along_axis", lambda array, indices, axis: array)
    with pytest.raises(TypeCheckError, match=r"return value of medbert_jax\.models\.batch\.patients_of_slots"):
        patients_of_slots(BATCH | {"patients": patients_BP})


def test_a_wrong_field_of_a_named_tuple_raises(monkeypatch):
    def masks(patients_BP):
        batch = BATCH | {"patients": patients_BP}
        options = {"key": jax.random.key(0), "epoch": jnp.int32(0), "vocabulary_size": 32, "mask_id": 1}
        return mask_codes(batch, config=MaskingConfig(share=0.5), **options)

    assert masks(patients_BP).is_masked.shape == (3, 5)
    monkeypatch.setattr(masking, "Masked", lambda code_ids, is_masked: Masked(code_ids, is_masked[:, :-1]))
    with pytest.raises(TypeCheckError, match=r"return value of medbert_jax\.training\.masking\.mask_codes"):
        masks(patients_BP)


def test_rank_promotion_raises():
    assert (jnp.ones((2, 3)) + jnp.ones((1, 3)) == 2).all()
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)
