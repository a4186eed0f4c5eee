"""Med-BERT in JAX/Flax: EHR tables → patient sequences → pretraining → disease cohort → honest numbers.

Public names load lazily, so that `import medbert_jax.ehr` in an ingest worker never pays for JAX.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "keep_programs": "medbert_jax.training.kept_programs",
    "load_pretrained": "medbert_jax.training.pretrained",
    "MedBertClassifier": "medbert_jax.classifier",
    "ModelConfig": "medbert_jax.models.config",
    "sequences_from": "medbert_jax.data.frames",
    "write_ehr_tables": "medbert_jax.ingest.own_tables",
}

__all__ = [
    "MedBertClassifier",
    "ModelConfig",
    "__version__",
    "keep_programs",
    "load_pretrained",
    "sequences_from",
    "write_ehr_tables",
]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'medbert_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
