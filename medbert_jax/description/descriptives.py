"""What the patients of a dataset look like, counted from its token store a slice of patients at a time."""

import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from medbert_jax.attrition.files import read_attrition
from medbert_jax.attrition.steps import Attrition
from medbert_jax.data.ages import age_at_index
from medbert_jax.data.sequences import PatientSequences, offsets_of
from medbert_jax.data.token_store import open_token_store, read_metadata, read_vocabulary
from medbert_jax.data.vocabulary import FIRST_CODE, UNK
from medbert_jax.description.distributions import Distribution, Share
from medbert_jax.ehr.icd import ICD10_SYSTEMS

DAYS_PER_YEAR = 365.25
OF_SYSTEM = "of_system "
"""Before the name of a code system: its share of the codes whose system is known."""
_PATIENTS_AT_ONCE = 500_000  # some hundred megabytes, whatever the dataset's size


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of some patients; those of two slices add up. A visit is one that has codes."""

    sex: np.ndarray
    """(3,) patients: unknown, female, male."""
    race: np.ndarray
    """(races + 1,) patients: unknown, then as metadata["races"]."""
    code_uses: np.ndarray
    """(V,) how often each id of the vocabulary is there."""
    distributions: dict[str, Distribution]
    """age (days, at the last visit or, cohorts, at the index), visits, codes, history (days) of the patients;
    codes_per_visit, gaps (days from one admission to the next), stays (days) of their visits."""
    shares: dict[str, Share]
    """event, too_long of the patients; codes_cut, unknown_codes, icd10 of their codes, and `OF_SYSTEM` of each code
    system; no_day, no_age, no_stay of their visits."""

    def __add__(self, other: "Tally") -> "Tally":
        """Of the patients of both."""
        summed = {name: getattr(self, name) + getattr(other, name) for name in ("sex", "race", "code_uses")}
        for name in ("distributions", "shares"):
            theirs = getattr(other, name)
            summed[name] = {key: value + theirs[key] for key, value in getattr(self, name).items()}
        return Tally(**summed)


@dataclass(frozen=True, eq=False)
class Description:
    """A dataset in numbers."""

    name: str
    metadata: dict
    attrition: Attrition | None
    """Who left on the way to the dataset, and its splits; None where ledger.json is not there."""
    tally: Tally
    max_length: int

    @property
    def is_cohort(self) -> bool:
        """Whether it is a disease cohort: its patients have an index, and its event is the cohort's outcome."""
        return self.metadata["kind"] == "cohort"

    @property
    def patients(self) -> int:
        """Patients of all splits; predictions, where `people` says that a patient may have several."""
        return int(self.tally.sex.sum())

    @property
    def people(self) -> int | None:
        """Patients of all splits where each may have several predictions, of which all other figures are; else None."""
        of_splits = self.metadata.get("patients")
        return None if of_splits is None else sum(of_splits.values())


def describe_dataset(directory, *, max_length: int = 512, name: str | None = None, cache_dir=None) -> Description:
    """Count all patients of all splits of a dataset, whole histories.

    Args:
        directory: DATA_DIR/FAMILY/NAME/1.0.0, as `medbert prepare` and `medbert cohort` make it.
        max_length: codes that a model takes of one patient.
        name: what to call the dataset; None: NAME.
        cache_dir: as in `open_token_store`.

    Raises:
        FileNotFoundError, ValueError: no dataset, a damaged one, or one without patients.
    """
    directory = Path(directory)
    metadata = read_metadata(directory)
    vocabulary = read_vocabulary(directory)
    icd10 = np.zeros(vocabulary.size, bool)
    icd10[FIRST_CODE:] = [bool(re.match(f"{ICD10_SYSTEMS}/", code)) for code in vocabulary.codes]
    system = np.array([""] * FIRST_CODE + [code.partition("/")[0] for code in vocabulary.codes])
    splits = [split for split, patients in metadata["split"]["counts"].items() if patients]
    if not splits:
        raise ValueError(f"a dataset that is described must have patients: got none in {directory}; prepare it again")
    tallies = (
        tally_patients(part, metadata, icd10, max_length, system=system)
        for split in splits
        for part in _slices(open_token_store(directory, split, cache_dir, _tell))
    )
    return Description(
        name=name or directory.absolute().parent.name,
        metadata=metadata,
        attrition=read_attrition([directory]) if (directory / "ledger.json").is_file() else None,
        tally=functools.reduce(Tally.__add__, tallies),
        max_length=max_length,
    )


def describe_datasets(directories, *, max_length: int = 512, cache_dir=None) -> list[Description]:
    """Describe several datasets, those of one name called FAMILY/NAME."""
    paths = [Path(directory).absolute() for directory in directories]
    names = [path.parent.name for path in paths]
    if len(set(paths)) < len(paths):
        raise ValueError(f"datasets must be different ones: got {', '.join(names)}; name each once")
    if len(set(names)) < len(names):
        names = ["/".join(path.parts[-3:-1]) for path in paths]
    describe = functools.partial(describe_dataset, max_length=max_length, cache_dir=cache_dir)
    return [describe(path, name=name) for path, name in zip(paths, names, strict=True)]


def tally_patients(
    patients: PatientSequences, metadata: dict, icd10: np.ndarray, max_length: int, *, system: np.ndarray | None = None
) -> Tally:
    """Count patients.

    Args:
        patients: whole histories; each patient has a code.
        metadata: of their dataset.
        icd10: (V,) which ids of the vocabulary are codes of ICD-10.
        max_length: codes that a model takes of one patient.
        system: (V,) code system of each id of the vocabulary, "" of those that are no codes; None: not counted.
    """
    codes, visits = patients.code_offsets, patients.visit_offsets
    lengths, stays_of = np.diff(codes), np.diff(visits)
    event = patients.outcomes["label" if metadata["kind"] == "cohort" else "prolonged_los"]
    owner = np.repeat(np.arange(len(patients)), stays_of)
    day = np.asarray(patients.visit_days)
    follows = owner[1:] == owner[:-1]
    gap = np.where(follows & (day[1:] >= 0) & (day[:-1] >= 0), day[1:] - day[:-1], -1)
    first_code = np.flatnonzero(patients.serialization_ids == 0)  # of each visit
    codes_per_visit = np.diff(np.append(first_code, len(patients.code_ids)))
    first, last = visits[:-1], visits[1:] - 1
    history = np.where((day[first] >= 0) & (day[last] >= 0), day[last] - day[first], -1)
    long = patients.take(np.flatnonzero(lengths > max_length))
    cut = len(long.code_ids) - len(long.truncate(max_length).code_ids)
    in_vocabulary = patients.code_ids >= FIRST_CODE
    known_codes = offsets_of(in_vocabulary)[codes]
    used = patients.code_ids[in_vocabulary]
    names, number = np.unique(system, return_inverse=True) if system is not None else ([], np.zeros(0, int))
    systems = {OF_SYSTEM + name: Share.of(number[used] == of, known_codes) for of, name in enumerate(names) if name}
    return Tally(
        sex=np.bincount(patients.sex, minlength=3),
        race=np.bincount(patients.race, minlength=1 + len(metadata.get("races", ()))),
        code_uses=np.bincount(patients.code_ids, minlength=len(icd10)),
        distributions={
            "age": Distribution.of(age_at_index(patients)),
            "visits": Distribution.of(stays_of),
            "codes": Distribution.of(lengths),
            "codes_per_visit": Distribution.of(codes_per_visit, owner),
            "gaps": Distribution.of(gap, owner[1:]),
            "stays": Distribution.of(np.asarray(patients.length_of_stay), owner),
            "history": Distribution.of(history),
        },
        shares={
            # Of the censored, whose label is −1, nobody knows it.
            "event": Share.of_patients(int((event == 1).sum()), int((event >= 0).sum())),
            "too_long": Share.of_patients(len(long), len(patients)),
            "codes_cut": Share(cut, len(patients.code_ids), len(long), len(patients) - len(long)),
            "unknown_codes": Share.of(patients.code_ids == UNK, codes),
            "icd10": Share.of(icd10[used], known_codes),
            **systems,
            "no_day": Share.of(day < 0, visits),
            "no_age": Share.of(patients.age_days < 0, visits),
            "no_stay": Share.of(patients.length_of_stay < 0, visits),
        },
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _slices(patients: PatientSequences) -> Iterator[PatientSequences]:
    """Yield the patients in slices; the columns are views of the memory maps."""
    for start in range(0, len(patients), _PATIENTS_AT_ONCE):
        stop = min(start + _PATIENTS_AT_ONCE, len(patients))
        each = slice(start, stop)
        columns: dict[str, np.ndarray] = {}
        outcomes = {name: values[each] for name, values in patients.outcomes.items()}
        for offsets, names in (
            ("code_offsets", ("code_ids", "visit_ids", "serialization_ids")),
            ("visit_offsets", ("visit_days", "age_days", "length_of_stay")),
        ):
            bounds = np.asarray(getattr(patients, offsets)[start : stop + 1])
            columns[offsets] = bounds - bounds[0]
            columns |= {name: getattr(patients, name)[bounds[0] : bounds[-1]] for name in names}
        rest = [field.name for field in fields(patients) if field.name not in (*columns, "outcomes")]
        columns |= {name: getattr(patients, name)[each] for name in rest}
        yield PatientSequences(**columns, outcomes=outcomes)
