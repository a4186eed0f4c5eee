"""Records and attention made for the tests of the page: weights of random scores, sharper in some heads."""

from dataclasses import replace

import numpy as np

from medbert_jax.visualization.attention_page import ShownAttention, attention_page
from medbert_jax.visualization.attention_record import ShownCode, ShownRecord
from medbert_jax.visualization.attention_weights import RELATIONS, AttentionShares

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'&`"
TITLES = ("Type 2 diabetes mellitus without complications", "Essential (primary) hypertension",
          "Heart failure, unspecified",
          "Chronic kidney disease, stage 3 (moderate), with hyperkalaemia", "Hyperlipidaemia", HOSTILE)  # fmt: skip


def made_record(codes: int = 12, a_visit: int = 3) -> ShownRecord:
    visits = -(-codes // a_visit)
    shown = [ShownCode(f"ICD10CM/E{11 + at % 80}.{at % 10}", TITLES[at % 6], at // a_visit + 1) for at in range(codes)]
    headings = [f"day {31 * at}, {at % 4 + 1} days" for at in range(visits)]
    return ShownRecord(7, "validation", tuple(shown), tuple(headings), codes)


def made_weights(codes: int, *, layers: int = 3, heads: int = 4, seed: int = 0) -> np.ndarray:
    scores = (
        np.random.default_rng(seed).normal(size=(layers, heads, codes, codes)) * np.arange(1, heads + 1)[:, None, None]
    )
    scores -= np.abs(np.arange(codes)[:, None] - np.arange(codes)) / 20
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (exponents / exponents.sum(axis=-1, keepdims=True)).astype(np.float32)


def made_shares(layers: int, heads: int, *, patients: int = 1, seed: int = 0) -> AttentionShares:
    rng = np.random.default_rng(seed)
    shares, uniform = (rng.dirichlet(np.ones(len(RELATIONS)), size) for size in ((layers, heads), ()))
    return AttentionShares(patients, shares, uniform)


def made_attention(
    codes: int = 12, *, layers: int = 3, heads: int = 4, seed: int = 0, averaged: bool = True
) -> ShownAttention:
    weights = made_weights(codes, layers=layers, heads=heads, seed=seed)
    many = made_shares(layers, heads, patients=1234, seed=seed + 1) if averaged else None
    return ShownAttention(f"model {seed}", weights, made_shares(layers, heads, seed=seed), many)


def made_page(codes: int = 12, *, models: int = 2, layers: int = 3, heads: int = 4, a_visit: int = 3) -> str:
    shown = [made_attention(codes, layers=layers, heads=heads, seed=seed) for seed in range(models)]
    shown[0] = replace(shown[0], name=HOSTILE)
    return attention_page(made_record(codes, a_visit), shown)
