"""One patient of a dataset as attention is shown of him: who is asked for, and the codes that the models read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medbert_jax.data.rows import fit_to_model
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import UNK, Vocabulary
from medbert_jax.description.chart import Visit
from medbert_jax.training.pretrained import Pretrained, load_pretrained

ID = "id:"
"""Before an id of digits alone, which would be read as a number."""


@dataclass(frozen=True)
class ShownCode:
    """A code in the place that it has in the sequence."""

    code: str
    title: str
    visit: int
    """From 1."""


@dataclass(frozen=True)
class ShownRecord:
    """What is shown of a patient: no id and no date."""

    number: int
    """Of the split, from 0."""
    split: str
    codes: tuple[ShownCode, ...]
    visits: tuple[str, ...]
    """As "day 412, 3 days", in order."""
    whole: int
    """Codes of the record; more than are shown where it is longer than the models take."""


@dataclass(frozen=True, eq=False)
class ShownModel:
    """A model under the name that it has on the page."""

    name: str
    model: Pretrained


def find_patient(patients: PatientSequences, asked: str, split: str) -> int:
    """The number of the patient that is asked for by number, from 0, or by id. ValueError: there is none, or several.

    An id of digits alone is asked for as `ID` and the id.
    """
    if asked.isdecimal():
        if int(asked) < len(patients):
            return int(asked)
        raise ValueError(
            f"PATIENT is a number of the split, from 0, or an id: got {asked}, and {split} has {len(patients):,}"
            f" patients; give a smaller number, or {ID}{asked} for the id"
        )
    found = np.flatnonzero(patients.patient_id == asked.removeprefix(ID).encode())
    if len(found) == 1:
        return int(found[0])
    if not len(found):
        raise ValueError(
            f"PATIENT is a number of the split, from 0, or an id: got {asked!r}, whom {split} does not have; give"
            f" another, or --split with the split that has him"
        )
    raise ValueError(
        f"PATIENT must be one row of the dataset: got {asked!r}, who has {len(found)} predictions, the numbers"
        f" {', '.join(map(str, found))}; give one of them"
    )


def load_models(checkpoint: Path, beside: Path | None) -> list[ShownModel]:
    """The models that are shown, side by side where there are two.

    ValueError where a model has no attention, or the two have other codes, layers, heads or lengths: nothing would
    stand beside its like.
    """
    models = [_load(path) for path in (checkpoint, beside) if path is not None]
    for path, one in zip((checkpoint, beside), models, strict=False):
        if not one.model.config.layers:
            raise ValueError(
                f"attention needs a model with layers: got {path}, which has none; give another checkpoint"
            )
    if len(models) == 2:
        first, second = (one.model for one in models)
        said = [
            {
                "vocabulary": one.vocabulary.hash[:12],
                "layers": one.config.layers,
                "heads": one.config.heads,
                "max_length": one.config.max_length,
            }
            for one in (first, second)
        ]
        if differences := [
            f"{name} {said[0][name]} and {said[1][name]}" for name in said[0] if said[0][name] != said[1][name]
        ]:
            raise ValueError(
                "models side by side must read the same codes, with as many layers and heads: got "
                f"{', '.join(differences)} in {checkpoint} and {beside}; give a model that began with the checkpoint"
            )
    return models


def fitted(patients: PatientSequences, model: Pretrained) -> PatientSequences:
    """The patients as the model reads them; ValueError where they have ids that it does not."""
    config = model.config
    limits = {name: getattr(config, name) for name in ("vocabulary_size", "max_visits", "max_length")}
    return fit_to_model(patients, **limits)[0]


def shown_record(
    patient: PatientSequences, vocabulary: Vocabulary, *, number: int, split: str, whole: int
) -> ShownRecord:
    """What is shown of one patient, as the model reads him."""
    codes = []
    for id, visit in zip(patient.code_ids.tolist(), patient.visit_ids.tolist(), strict=True):
        code, title = vocabulary.code(id), vocabulary.title(id)
        title = "a code that is not in the vocabulary" if id == UNK else "" if title == code else title
        codes.append(ShownCode(code, title, visit))
    days, stays = (
        [None if value < 0 else value for value in column.tolist()]
        for column in (patient.visit_days, patient.length_of_stay)
    )
    visits = [Visit(place, day, stay, None, ()) for place, (day, stay) in enumerate(zip(days, stays, strict=True), 1)]
    return ShownRecord(number, split, tuple(codes), tuple(visit.heading for visit in visits), whole)


def _load(path: Path) -> ShownModel:
    model = load_pretrained(path)
    kind = {"pretrain": "pretrained", "finetune": "fine-tuned"}[model.run_config.get("kind", "pretrain")]
    return ShownModel(f"{kind}, {path.resolve().name}, step {model.step:,}", model)
