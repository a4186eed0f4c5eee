"""What the user may type after `medbert predict` and `medbert external-validation`; below a field stands its help."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Interval
from tyro.conf import Positional

from medbert_jax.checked_fields import check_fields


@dataclass(frozen=True)
class PredictOptions:
    """Score patients without labels with a fine-tuned model, here or at another site.

    Who may be predicted, and when, says the spec of the cohort that the model was fine-tuned on. Risks where index and
    horizon exist without knowing the outcome, else scores, and why.
    """

    model: Positional[Path]
    """run directory of a fine-tuning (`run_finetune.py … --run FOLDER`), or of a baseline that it kept."""
    ehr: Positional[Path]
    """folder of EHR tables, of any source."""
    out: Positional[Path]
    """folder for the predictions (MEDS schema), who was not scored and why, and the ledger. Patient-level data."""
    patients: Path | None = None
    """file of patient ids, one a line, or Parquet with subject_id or patient_id: nobody else is read."""
    at: datetime.date | None = None
    """day (2016-01-01) before which everybody is predicted, where the cohort has no index without labels: one of MEDS
    labels, or matched."""
    times: Path | None = None
    """the same for each by himself: Parquet file or folder with subject_id and prediction_time; labels in it are not
    read."""
    threshold: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """recalibrated risk at which somebody would act: who has it or more is predicted true."""
    unknown_code_limit: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """share of codes outside of the model's vocabulary above which nobody is scored."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, also=self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        if self.at is not None and self.times is not None:
            yield f"at and times both say when to predict: got {self.at} and {self.times}; leave one of them out"


@dataclass(frozen=True)
class ExternalValidationOptions:
    """What a fine-tuned model is worth at another site: predicted there and judged there, as it is and recalibrated.

    The cohort is the one that the model's own spec makes of these tables. Recalibration (in the large, logistic) is
    fitted on one part of the patients, and all figures are of the others.
    """

    model: Positional[Path]
    """run directory of a fine-tuning (`run_finetune.py … --run FOLDER`), or of a baseline that it kept."""
    ehr: Positional[Path]
    """folder of EHR tables of the other site."""
    out: Positional[Path]
    """folder for the evaluation, as `medbert evaluate` writes it, the predictions with their labels, and the ledger."""
    labels: Path | None = None
    """folder of MEDS labels, for a model that was fine-tuned on such a folder."""
    fit_share: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """share of the patients, by a hash of their id, that recalibration is fitted on; 0: there is none."""
    risks: tuple[Annotated[float, Interval(gt=0, lt=1)], ...] = (0.05, 0.1, 0.2, 0.3)
    """risks at which somebody would act, chosen before the figures are seen."""
    draws: Annotated[int, Ge(100)] = 2000
    """of the bootstrap."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """of the bootstrap."""
    unknown_code_limit: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """share of codes outside of the model's vocabulary above which nobody is predicted."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)
