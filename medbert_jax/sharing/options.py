"""What the user may type after `medbert export` and `medbert import`; below a field stands its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Ge
from tyro.conf import Positional

from medbert_jax.checked_fields import check_fields

Form = Literal["huggingface"]


@dataclass(frozen=True)
class ExportOptions:
    """Write a pretrained model in the form of another library: parameters, codes and titles, and no count of patients.

    Needs the extra `huggingface`.
    """

    checkpoint: Positional[Path]
    """run directory of a pretraining."""
    out: Positional[Path]
    """folder for the files; those of an earlier export are replaced."""
    to: Form = "huggingface"
    """huggingface: config.json of a BertForMaskedLM, safetensors, vocab.txt, titles.tsv, and a card."""
    minimum_patients: Annotated[int, Ge(1), tyro.conf.arg(aliases=["--min-patients"])] = 11
    """codes that fewer training patients have stay here, with their rows and biases."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class ImportOptions:
    """Make a run directory of what `medbert export` wrote, or of another BertForMaskedLM over codes.

    Needs the extra `huggingface`. The vocabulary's counts are the least that is known: --min-patients of the export.
    """

    source: Positional[Path]
    """folder with config.json, model.safetensors and vocab.txt."""
    out: Positional[Path]
    """run directory to make: for `medbert_jax.load_pretrained` and MedBertClassifier."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)
