"""Serialized patient sequences: flat numpy columns with offsets, n patients in one object."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

CODE_COLUMNS = ("code_ids", "visit_ids", "serialization_ids")
_VISIT_COLUMNS = ("visit_days", "age_days", "length_of_stay")
_PATIENT_COLUMNS = ("patient_id", "sex", "race")

Keep = Literal["recent", "drop"]
"""What becomes of patients with more codes than a model takes: see `PatientSequences.truncate`."""


@dataclass(frozen=True, eq=False)
class PatientSequences:
    """The histories of n patients; columns may be memory maps and are never changed in place.

    Of a cohort with all prediction times of a patient a row is a prediction: several have one patient_id.

    The codes of patient i lie at `code_offsets[i]:code_offsets[i + 1]` of the code columns, his visits at
    `visit_offsets[i]:visit_offsets[i + 1]` of the visit columns. Only visits that have codes are numbered, so
    row j of a patient's visit columns describes the codes whose visit_ids is j + 1.

    Raises ValueError when the columns do not fit together; their values are read by those who compute with them, see
    `data.sequence_faults`.
    """

    patient_id: np.ndarray
    """(n,) bytes ('S'), opaque."""
    code_offsets: np.ndarray
    """(n + 1,) int64."""
    code_ids: np.ndarray
    """(codes,) int32 vocabulary ids in serialized order."""
    visit_ids: np.ndarray
    """(codes,) int32, 1, 2, 3 … in time order within the patient."""
    serialization_ids: np.ndarray
    """(codes,) int32, rank of the code within its visit, from 0."""
    visit_offsets: np.ndarray
    """(n + 1,) int64."""
    visit_days: np.ndarray
    """(visits,) int32, admission day counted from the patient's first visit; −1 unknown."""
    age_days: np.ndarray
    """(visits,) int32, age at admission; −1 unknown."""
    length_of_stay: np.ndarray
    """(visits,) int32, whole days; −1 unknown."""
    sex: np.ndarray
    """(n,) int32: 0 unknown, 1 female, 2 male."""
    race: np.ndarray
    """(n,) int32: 0 unknown, i = metadata["races"][i − 1]."""
    outcomes: dict[str, np.ndarray]
    """name → (n,): prolonged_los; or label, index_day, index_order (int32), prediction_time (int64 µs)."""

    def __post_init__(self):
        patients = len(self.patient_id)
        expected = dict.fromkeys(_PATIENT_COLUMNS, patients)
        expected |= {"code_offsets": patients + 1, "visit_offsets": patients + 1}
        expected |= {name: int(self.code_offsets[-1]) for name in CODE_COLUMNS}
        expected |= {name: int(self.visit_offsets[-1]) for name in _VISIT_COLUMNS}
        columns = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "outcomes"}
        columns |= {f"outcomes[{name!r}]": values for name, values in self.outcomes.items()}
        faults = [
            f"{name} has {len(column)} instead of {expected.get(name, patients)}"
            for name, column in columns.items()
            if len(column) != expected.get(name, patients)
        ]
        if faults:
            raise ValueError(
                f"the columns of {patients} patient sequences must agree in length: got {'; '.join(faults)};"
                " build the columns from the same patients, or decode the token store again"
            )

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.patient_id)

    def __repr__(self) -> str:
        """How many there are of everything, and no id: what a notebook shows may be seen by others."""
        lengths = self.lengths
        per = f", {lengths.min():,} to {lengths.max():,} codes each" if len(self) else ""
        counted = ", ".join(
            f"{count:,} {what}" for what, count in self.counts(several=self.patients < len(self)).items()
        )
        outcomes = f", outcomes {', '.join(self.outcomes)}" if self.outcomes else ""
        return f"PatientSequences({counted}{per}{outcomes})"

    @property
    def shape(self) -> tuple[int]:
        """(n,): scikit-learn cuts what has a shape by its rows, and anything else into a list of single ones."""
        return (len(self),)

    def __getitem__(self, rows) -> "PatientSequences":
        """Return the patients of these rows (a number, a slice, integers or a mask) as `take` does."""
        rows = rows[0] if isinstance(rows, tuple) else rows  # scikit-learn asks for [rows, ...]
        return self.take(np.atleast_1d(np.arange(len(self))[rows]))

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: the number of codes of each patient."""
        return np.diff(self.code_offsets)

    @property
    def patients(self) -> int:
        """How many patients they are of, where one may have several rows, one for each prediction."""
        return len(np.unique(self.patient_id))

    def counts(self, *, several: bool = False) -> dict[str, int]:
        """Patients, visits and codes, as a ledger counts them; predictions where a patient may have `several` rows."""
        counted = {"patients": len(self), "visits": len(self.visit_days), "codes": len(self.code_ids)}
        return counted | ({"patients": self.patients, "predictions": len(self)} if several else {})

    def take(self, indices) -> "PatientSequences":
        """Return the patients at `indices` (integers, or a mask of n booleans) in that order."""
        indices = np.asarray(indices)
        if indices.dtype == bool:
            if indices.shape != (len(self),):
                raise ValueError(
                    f"a mask must have one value per patient: got shape {indices.shape} for {len(self)}"
                    " patients; pass patient numbers or a mask of that length"
                )
            indices = np.flatnonzero(indices)
        indices = indices.astype(np.int64)
        codes, code_offsets = _ragged(self.code_offsets, indices)
        visits, visit_offsets = _ragged(self.visit_offsets, indices)
        return PatientSequences(
            code_offsets=code_offsets,
            visit_offsets=visit_offsets,
            outcomes={name: values[indices] for name, values in self.outcomes.items()},
            **{name: getattr(self, name)[codes] for name in CODE_COLUMNS},
            **{name: getattr(self, name)[visits] for name in _VISIT_COLUMNS},
            **{name: getattr(self, name)[indices] for name in _PATIENT_COLUMNS},
        )

    def within(self, max_length: int) -> np.ndarray:
        """Return the numbers (int64) of the patients with at most `max_length` codes."""
        return np.flatnonzero(self.lengths <= max_length)

    def truncate(self, max_length: int, keep: Keep = "recent") -> "PatientSequences":
        """Return sequences of at most `max_length` codes each.

        "recent": whole oldest visits go until the rest fits. A visit is cut only when it is the patient's
        last one and alone exceeds `max_length`; then its lowest-priority codes (the highest ranks) go. So
        300 + 400 codes at 512 leave the last 400, and 300 + 700 leave the first 512 of the last visit.
        visit_ids are renumbered from 1, ranks are kept, the visit columns keep the kept visits only.
        visit_days stay counted from the patient's first visit, and outcomes describe the whole history.
        # Paper: silent on this. Released code (fine-tuning): the last 64 codes, even through a visit.

        "drop": a patient with more codes leaves; `within(max_length)` says who stays.
        # Released code: pretraining drops these patients.

        Returns `self` when everybody fits. Raises ValueError for max_length < 1 or another `keep`.
        """
        if max_length < 1 or keep not in ("recent", "drop"):
            raise ValueError(
                f"truncation needs max_length ≥ 1 and keep 'recent' or 'drop': got {max_length} and {keep!r};"
                " the model's max_length and the plan's truncation field set them"
            )
        staying = self.within(max_length)
        if len(staying) == len(self):
            return self
        if keep == "drop":
            return self.take(staying)
        # Ranks run from 0 without gaps, so a code's place minus its rank is where its visit starts.
        lengths = self.lengths
        rank = np.asarray(self.serialization_ids)
        visit_start = np.arange(len(rank), dtype=np.int64) - rank
        end = np.repeat(np.asarray(self.code_offsets[1:]), lengths)
        visits = np.diff(self.visit_offsets)
        in_last_visit = self.visit_ids == np.repeat(visits, lengths)
        kept = (end - visit_start <= max_length) | (in_last_visit & (rank < max_length))
        # A kept visit keeps its first code, so counting rank 0 counts visits.
        kept_visits = sums_within(kept & (rank == 0), self.code_offsets)
        dropped_visits = visits - kept_visits
        visit_number = np.arange(len(self.visit_days), dtype=np.int64) - np.repeat(self.visit_offsets[:-1], visits)
        visit_kept = visit_number >= np.repeat(dropped_visits, visits)
        visit_ids = self.visit_ids - np.repeat(dropped_visits, lengths).astype(np.int32)
        return replace(
            self,
            code_offsets=offsets_of(sums_within(kept, self.code_offsets)),
            code_ids=self.code_ids[kept],
            visit_ids=visit_ids[kept],
            serialization_ids=rank[kept],
            visit_offsets=offsets_of(kept_visits),
            **{name: getattr(self, name)[visit_kept] for name in _VISIT_COLUMNS},
        )


def concatenate(parts: Sequence[PatientSequences]) -> PatientSequences:
    """Return the patients of all parts, in order. Raises ValueError for no parts or different outcomes."""
    if not parts or any(part.outcomes.keys() != parts[0].outcomes.keys() for part in parts):
        raise ValueError(
            "sequences can be joined when there is at least one part and all have the same outcomes: got"
            f" {[sorted(part.outcomes) for part in parts]}; join datasets of one kind"
        )

    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return PatientSequences(
        code_offsets=offsets_of(np.concatenate([part.lengths for part in parts])),
        visit_offsets=offsets_of(np.concatenate([np.diff(part.visit_offsets) for part in parts])),
        outcomes={name: np.concatenate([part.outcomes[name] for part in parts]) for name in parts[0].outcomes},
        **{name: join(name) for name in (*CODE_COLUMNS, *_VISIT_COLUMNS, *_PATIENT_COLUMNS)},
    )


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return where stretches of these lengths (n,) start, and the last ends, (n + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def sums_within(counts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the sum of counts, or the number of set flags, in each stretch; unlike reduceat, right for empty ones."""
    return np.diff(offsets_of(counts)[offsets])


def _ragged(offsets: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the elements of the stretches `indices` lie, in that order, and their new offsets."""
    starts, lengths = offsets[indices], offsets[indices + 1] - offsets[indices]
    new_offsets = offsets_of(lengths)
    places = np.repeat(starts - new_offsets[:-1], lengths) + np.arange(new_offsets[-1], dtype=np.int64)
    return places, new_offsets
