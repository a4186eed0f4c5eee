"""Vectors of codes on disk: one .npz, with the dataset that they were trained on, and the way into a model."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict, cast

import jax.numpy as jnp
import numpy as np

from medbert_jax.disk.stored_json import check_form, parse_object
from medbert_jax.disk.versions import refuse_newer
from medbert_jax.disk.whole_files import sha256_of, write_whole
from medbert_jax.training.code_vectors import CodeVectorsConfig, Trained

VERSION = 1
"""Of the file."""


class About(TypedDict):
    """What is said of the vectors."""

    version: int
    dataset_hash: str
    vocabulary_hash: str
    config: CodeVectorsConfig
    pairs: int
    left_out: int
    losses: list[float]


def write_vectors(path: str | Path, trained: Trained, config: CodeVectorsConfig, metadata: Mapping) -> None:
    """Write vectors of the patients of a dataset, whose metadata these are; equal vectors, equal bytes."""
    about = {
        "version": VERSION,
        **{name: metadata[name] for name in ("dataset_hash", "vocabulary_hash")},
        "config": asdict(config),
        **{name: getattr(trained, name) for name in ("pairs", "left_out", "losses")},
    }
    content = io.BytesIO()
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    np.savez(content, vectors=trained.vectors, counts=trained.counts, about=text)
    write_whole(path, content.getvalue())


@dataclass(frozen=True, eq=False)
class CodeVectors:
    """Vectors as they were written."""

    path: str
    vectors: np.ndarray
    """(V, D) float32."""
    counts: np.ndarray
    """(V,) int64: how often the patients have each id; 0 where it has no vector."""
    about: About

    @classmethod
    def read(cls, path: str | Path) -> "CodeVectors":
        """Those of a file of `medbert code-vectors`. ValueError where it is none, OSError where it cannot be opened."""
        if not str(path):
            raise ValueError(
                "backbone tw2v begins with vectors of codes: got no --vectors; give the file that medbert code-vectors "
                "wrote"
            )
        cure = "write it again with medbert code-vectors"
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                vectors, counts, about = (stored[name] for name in ("vectors", "counts", "about"))
                said = parse_object(about.tobytes())
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as fault:
            raise ValueError(
                f"code vectors must be an .npz as it was written: got {path} ({type(fault).__name__}); {cure}"
            ) from None
        refuse_newer(str(path), said.get("version"), VERSION)
        check_form(said, About, path, cure=cure)
        fits = vectors.ndim == 2 and counts.shape == vectors.shape[:1] and vectors.dtype == np.float32
        if not fits or not np.isfinite(vectors).all():
            raise ValueError(
                f"code vectors must be a finite vector and a count for each id: got others in {path}; {cure}"
            )
        return cls(str(path), vectors, counts, cast(About, said))

    @property
    def fingerprint(self) -> str:
        """What identifies them, wherever they lie."""
        return sha256_of(self.path)

    def check_cohort(self, metadata: Mapping) -> None:
        """Raise ValueError where a cohort was split after another dataset: its test patients may be in the vectors."""
        for name, theirs in (("dataset_hash", "pretraining_dataset_hash"), ("vocabulary_hash", "vocabulary_hash")):
            if self.about[name] != metadata[theirs]:
                raise ValueError(
                    f"a cohort must have the split and vocabulary of the code vectors' dataset: got {theirs} "
                    f"{metadata[theirs][:12]} for the cohort and {self.about[name][:12]} for {self.path}; make the "
                    "vectors of the cohort's --pretraining-dataset"
                )

    def put_into(self, params: dict) -> dict:
        """The parameters with these vectors in the code table; an id without one keeps its own.

        All are scaled by one number, so that they are on average as long as those of the fresh table: beside longer
        ones the visit and serialization embeddings, which are fresh, would be lost in the sum. ValueError where the
        widths differ.
        """
        table_VD = params["embeddings"]["code_table"]
        if self.vectors.shape != table_VD.shape:
            raise ValueError(
                f"code vectors must have the shape of the code table: got {self.vectors.shape} in {self.path} and "
                f"{table_VD.shape} in the model; train them with --size {table_VD.shape[1]} on the model's dataset"
            )
        has = self.counts > 0
        scale = jnp.sqrt(jnp.mean(jnp.square(table_VD)) / np.mean(np.square(self.vectors[has])))
        merged_VD = jnp.where(has[:, None], self.vectors * scale, table_VD)
        return params | {"embeddings": params["embeddings"] | {"code_table": merged_VD}}
