"""Neighbours of codes in a table of vectors, by cosine, and how often they are of the same kind.

Dimensions: V codes, D elements of a vector.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from medbert_jax.ehr.icd_groups import categories, chapters, clinical_groups

GROUPS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "chapter": chapters,
    "three-character category": categories,
    "CCS (ICD-9-CM) or CCSR (ICD-10-CM)": clinical_groups,
}
"""What neighbours may have in common."""
NEAREST = 10
"""Neighbours of every code that are looked at for the shares."""
_AT_ONCE = 1024  # codes: their cosines with 80,000 others are 330 MB


@dataclass(frozen=True)
class SharedGroup:
    """How often one of the nearest codes is of the same group, over all codes that have a group."""

    codes: int
    nearest: float
    """Share of the `NEAREST` codes of the same code system."""
    random: float
    """Share of all other codes of the same code system: what nearest codes drawn at random would have."""


def unit_vectors(table_VD: np.ndarray) -> np.ndarray:
    """The rows at length 1, (V, D) float32; a row of zeros stays one."""
    table_VD = np.asarray(table_VD, np.float32)
    lengths_V1 = np.linalg.norm(table_VD, axis=1, keepdims=True)
    return table_VD / np.where(lengths_V1 > 0, lengths_V1, 1)


def nearest_codes(unit_VD: np.ndarray, code: int, count: int) -> list[tuple[int, float]]:
    """(row, cosine) of the `count` rows nearest to one, itself left out, nearest first."""
    cosines = unit_VD @ unit_VD[code]
    cosines[code] = -np.inf
    order = np.argsort(-cosines, kind="stable")[: min(count, len(cosines) - 1)]
    return [(int(row), float(cosines[row])) for row in order]


def shared_groups(table_VD: np.ndarray, codes: Sequence[str]) -> dict[str, SharedGroup]:
    """Name of a group → how often the nearest codes share it; `codes` are the names of the rows.

    Neighbours are looked for among codes of the same code system, since groups are of one system; a neighbour without a
    group shares none. Left out: a group that no code has, and code systems of one code.
    """
    unit_VD = unit_vectors(table_VD)
    systems = np.array([code.partition("/")[0] for code in codes])
    members = {name: np.array(of(codes)) for name, of in GROUPS.items()}
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in GROUPS}
    for system in np.unique(systems):
        rows = np.flatnonzero(systems == system)
        if len(rows) < 2:
            continue
        near = np.concatenate([*_nearest(unit_VD[rows])])
        for name, groups in members.items():
            of = groups[rows]
            has = of != ""
            same = (of[near] == of[:, None]).mean(axis=1)
            _, place, sizes = np.unique(of, return_inverse=True, return_counts=True)
            found[name].append((same[has], ((sizes[place] - 1) / (len(rows) - 1))[has]))
    shares = {}
    for name, parts in found.items():
        nearest, random = (np.concatenate([np.zeros(0), *(part[side] for part in parts)]) for side in (0, 1))
        if len(nearest):
            shares[name] = SharedGroup(len(nearest), float(nearest.mean()), float(random.mean()))
    return shares


def to_dict(shares: dict[str, SharedGroup]) -> dict:
    """As JSON data."""
    return {name: asdict(one) for name, one in shares.items()}


def _nearest(unit_VD: np.ndarray) -> Iterator[np.ndarray]:
    """The rows nearest to every row, itself left out, block by block: (rows, up to `NEAREST`), in no order."""
    count = min(NEAREST, len(unit_VD) - 1)
    for start in range(0, len(unit_VD), _AT_ONCE):
        cosines = unit_VD[start : start + _AT_ONCE] @ unit_VD.T
        block = np.arange(len(cosines))
        cosines[block, start + block] = -np.inf
        yield np.argpartition(-cosines, count - 1, axis=1)[:, :count]
