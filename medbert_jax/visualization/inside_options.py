"""What the user may type after `medbert attention` and `medbert codes`; below a field stands its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge
from tyro.conf import Positional

from medbert_jax.checked_fields import check_fields


@dataclass(frozen=True)
class AttentionOptions:
    """One patient's attention as one HTML page that needs nothing beside itself; how much of it goes where."""

    checkpoint: Positional[Path]
    """run directory of a pretraining or of a fine-tuning."""
    dataset: Positional[Path]
    """directory of a dataset with the checkpoint's vocabulary, that `medbert prepare` or `medbert cohort` made."""
    patient: Positional[str]
    """a number of the split, from 0, or an id; id:1234 for an id of digits."""
    out: Path = Path("attention.html")
    """the page: patient-level data, which must not leave the site."""
    beside: Path | None = None
    """run directory of another model of the same codes, to stand beside the first: that of a fine-tuning, say."""
    split: Literal["train", "validation"] = "validation"
    """whose patients; nobody looks at those of the test split."""
    patients: Annotated[int, Ge(0)] = 0
    """patients of the split to take the mean of shares over as well; more than there are takes all."""
    show_id: bool = False
    """the patient's id stands in the page."""
    json_out: Path | None = None
    """also write the shares of attention there, as JSON."""
    cache_dir: Path | None = None
    """folder where the token store of a dataset that cannot be written, and has none, is kept."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class CodesOptions:
    """The codes whose vectors are nearest in a checkpoint's code table, and how often they are of the same kind."""

    checkpoint: Positional[Path]
    """run directory of a pretraining or of a fine-tuning."""
    codes: Positional[tuple[str, ...]] = ()
    """such as ICD10CM/E11.9; without any, only the shares over all codes."""
    nearest: Annotated[int, Ge(1)] = 10
    """neighbours of a code that are shown."""
    vectors: Path | None = None
    """vectors of `medbert code-vectors`, of the same vocabulary, to stand beside the checkpoint's."""
    json_out: Path | None = None
    """also write all of it there, as JSON."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)
