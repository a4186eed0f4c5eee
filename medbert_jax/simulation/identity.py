"""What decides who the simulated patients are, the ids that say so, and which of them go into which shard."""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from medbert_jax.ehr.text_hash import shard_numbers

ENGINE = 2
"""What the sources make of the parameters, by number: to be raised where tests/golden/simulated.json must change.

Engine 1 gave the same people and records under the ids s00000000, s00000001, … at every site and seed.
"""
_CHUNK = 65_536


@dataclass(frozen=True)
class Run:
    """Two runs that differ in any of this have other people; truth.json holds all of it."""

    site: str
    world: str
    seed: int
    patients: int
    shards: int
    engine: int
    parameters: str
    """`Parameters.hash`."""

    def ids(self, numbers: np.ndarray) -> pl.Series:
        """Patient ids (n,), as cerner-0-5d41f2-000000123: site, seed, a hash of the whole run, the number."""
        whole = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return _numbered(f"{self.site}-{self.seed}-{whole[:6]}-", numbers, 9)

    def numbers_by_shard(self) -> list[np.ndarray]:
        """The numbers of each shard's patients, ascending: the first whose ids are of that shard.

        As many as engine 1 dealt it by a hash of its ids: how many live in a shard decides who they are. So the highest
        numbers may be above the number of patients.
        """
        wanted = np.zeros(self.shards, np.int64)
        for start in range(0, self.patients, _CHUNK):
            ids = _numbered("s", np.arange(start, min(start + _CHUNK, self.patients)), 8)
            wanted += np.bincount(shard_numbers(ids, self.shards), minlength=self.shards)
        missing, found = wanted, []
        while (missing > 0).any():
            start = len(found) * _CHUNK
            found.append(shard_numbers(self.ids(np.arange(start, start + _CHUNK)), self.shards))
            missing = missing - np.bincount(found[-1], minlength=self.shards)
        shard_of = np.concatenate(found)
        ends = np.cumsum(np.bincount(shard_of, minlength=self.shards))
        parts = np.split(np.argsort(shard_of, kind="stable"), ends[:-1])
        return [part[:size] for part, size in zip(parts, wanted, strict=True)]


def _numbered(prefix: str, numbers: np.ndarray, digits: int) -> pl.Series:
    return prefix + pl.Series(numbers).cast(pl.String).str.zfill(digits)
