"""A study as data: whose tables, what is pretrained on them, which cohorts, and grids of runs; nothing is done here.

Everything has a name, by which what comes after it refers to it. The order of the blocks is that of their importance:
what a block needs is made when the block comes to it (`study_stages`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from medbert_jax.checked_fields import check_fields
from medbert_jax.cohorts.pretraining_labels import PatientLabel
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.experiments.study_rates import Rates
from medbert_jax.experiments.tuning import TuningConfig
from medbert_jax.models.finetune_heads import HeadKind
from medbert_jax.training.code_vectors_options import CodeVectorsConfig
from medbert_jax.training.config import PretrainConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Simulated:
    """EHR tables of simulated patients, whose ids say site, seed and a hash of the whole run."""

    name: str
    patients: Annotated[int, Ge(1)]
    seed: Annotated[int, Ge(0)]
    site: Literal["cerner", "truven"] = "cerner"
    world: Literal["rich", "bag", "no-synonyms", "independent", "null"] = "rich"
    keep: tuple[str, ...] = ()
    """Built-in cohorts whose members alone are written; none: everybody is."""
    shards: Annotated[int, Ge(0)] = 0
    """0: one per 32,768 patients."""


@dataclass(frozen=True)
class Ingested:
    """EHR tables read from a source, whose folder is given to the command."""

    name: str
    format: Literal["diabetes130"] = "diabetes130"


@dataclass(frozen=True)
class Fold:
    """The same tables with one fold of the patients for their test split; of the others some are for validation."""

    name: str
    tables: str
    fold: Annotated[int, Ge(0)]
    """From 0."""
    folds: Annotated[int, Ge(2)] = 5
    validation_parts: Annotated[int, Ge(2)] = 8
    """Of so many parts of the other patients one is for validation, another one in each fold."""


@dataclass(frozen=True)
class Joined:
    """Two sets of simulated tables as one."""

    name: str
    tables: str
    """Whose shards the joined tables have."""
    more: str
    """Whose patients come to them; they must fit in memory."""


@dataclass(frozen=True)
class PretrainingData:
    """A pretraining dataset."""

    name: str
    tables: str
    expected: Annotated[int, Ge(0)] = 0
    """Training patients, about, for the estimate of a duration before the dataset is there."""
    mean_codes: Annotated[float, Gt(0)] = 15.0
    """Of a patient, likewise."""
    vocabulary_of: str = ""
    """Another dataset whose vocabulary is taken; empty: a new one."""
    minimum_patients: Annotated[int, Ge(1)] = 1
    """Codes that fewer training patients have are not in a new vocabulary."""
    code_order: Literal["priority", "random"] = "priority"


@dataclass(frozen=True)
class Pretraining:
    """A pretraining run."""

    name: str
    dataset: str
    config: PretrainConfig
    """Dataset, run and labels are filled in."""
    labels: Literal["prolonged_los"] | PatientLabel = "prolonged_los"
    """Of the second task."""


@dataclass(frozen=True)
class Vectors:
    """t-W2V vectors of codes."""

    name: str
    dataset: str
    config: CodeVectorsConfig = field(default_factory=CodeVectorsConfig)


@dataclass(frozen=True)
class Cohort:
    """A cohort dataset, with vocabulary, split and serialization of a pretraining dataset."""

    name: str
    spec: str
    """Built-in cohort."""
    tables: str
    dataset: str
    expected: tuple[int, int, int] = (0, 0, 0)
    """Training, validation and test patients, about, for the estimate of a duration before the dataset is there."""
    mean_codes: Annotated[float, Gt(0)] = 33.0
    """Of a patient, likewise."""
    controls_per_case: Annotated[int, Ge(0)] = 0
    """Controls drawn at random for each case; 0: all of them, or as many as the spec says."""
    called: str = ""
    """Name in the results, where that of the spec would not tell it from another cohort; empty: that of the spec."""
    few_cases: bool = False
    """Also with fewer than 50 test cases."""
    seen: bool = False
    """Whether pretraining had read its training patients' records, as the paper's had; else it has none of them."""


@dataclass(frozen=True)
class Tuning:
    """Settings of some rows, chosen on the validation patients of a cohort."""

    name: str
    cohort: str
    pretraining: str
    config: TuningConfig
    """Dataset, checkpoint, vectors and file are filled in."""
    vectors: str = ""


@dataclass(frozen=True)
class Block:
    """A grid of runs."""

    name: str
    cohorts: tuple[str, ...]
    pretraining: str
    grid: GridConfig
    """Datasets, checkpoint, vectors, results, tuning and part are filled in."""
    experiment: str = ""
    """Under which the runs are filed; empty: the block's name. Blocks of one experiment have the same runs once."""
    vectors: str = ""
    tunings: tuple[str, ...] = ()
    """Of all rows together, where the grid's recipe is tuned."""


@dataclass(frozen=True)
class Confirmatory:
    """The differences that are tested, named before any run; everything else is descriptive."""

    block: str
    cohorts: tuple[str, ...]
    heads: tuple[HeadKind, ...]
    """Of each the pretrained backbone against none."""
    train_size: Annotated[int, Ge(0)]
    adjustment: Literal["Holm"] = "Holm"


@dataclass(frozen=True)
class LeftOut:
    """A cell that the budget cannot hold, named before any run."""

    what: str
    why: str


Tables = Simulated | Ingested | Fold | Joined


@dataclass(frozen=True)
class StudyPlan:
    """All of a study; raises ValueError naming every fault."""

    tables: tuple[Tables, ...]
    datasets: tuple[PretrainingData, ...]
    pretrainings: tuple[Pretraining, ...]
    cohorts: tuple[Cohort, ...]
    blocks: tuple[Block, ...]
    vectors: tuple[Vectors, ...] = ()
    tunings: tuple[Tuning, ...] = ()
    confirmatory: tuple[Confirmatory, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    rates: Rates = field(default_factory=Rates)
    split_key: str = "medbert"
    """Of the hash that splits all patients who are not in folds."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, also=self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        named = {kind: [item.name for item in getattr(self, kind)] for kind in _REFERENCES}
        for kind, names in named.items():
            for name in dict.fromkeys(name for name in names if names.count(name) > 1):
                yield f"{kind} must have names of their own: got {name} twice; rename one"
            if kind != "blocks":
                for name in (name for name in names if not _NAME.fullmatch(name)):
                    yield f"a name must become a file, letters, digits, '-', '_' and '.': got {name!r}; rename it"
        for kind, references in _REFERENCES.items():
            for item in getattr(self, kind):
                for reference, of in references.items():
                    value = getattr(item, reference, ())
                    for name in (value,) if isinstance(value, str) else value:
                        if name and name not in named[of]:
                            yield (
                                f"{kind} must refer to what the plan has: got {reference} {name} of {item.name}; name "
                                f"one of {', '.join(named[of]) or 'none'}"
                            )
        tables = {item.name: item for item in self.tables}
        for cohort in self.cohorts:
            kept = getattr(tables.get(cohort.tables), "keep", ())
            if kept and cohort.spec not in kept:
                yield (
                    f"a cohort must be among those whose members are kept: got {cohort.spec} of {cohort.name} and "
                    f"{', '.join(kept)} of {cohort.tables}; add it there"
                )
        for block in self.blocks:
            if (block.grid.recipe == "tuned") != bool(block.tunings):
                yield (
                    f"a grid has tunings where its recipe is tuned: got recipe {block.grid.recipe} and "
                    f"{len(block.tunings)} tunings of {block.name}; give both or none"
                )


_REFERENCES: dict[str, dict[str, str]] = {
    "tables": {"tables": "tables", "more": "tables"},
    "datasets": {"tables": "tables", "vocabulary_of": "datasets"},
    "pretrainings": {"dataset": "datasets"},
    "vectors": {"dataset": "datasets"},
    "cohorts": {"tables": "tables", "dataset": "datasets"},
    "tunings": {"cohort": "cohorts", "pretraining": "pretrainings", "vectors": "vectors"},
    "blocks": {"cohorts": "cohorts", "pretraining": "pretrainings", "vectors": "vectors", "tunings": "tunings"},
}
"""Part of the plan → its fields that name others → the part that those are in."""


def needs_of(kind: str, item) -> list[tuple[str, str]]:
    """(part of the plan, name) of everything that an item refers to, in the order of the parts."""
    found = []
    for reference, of in _REFERENCES[kind].items():
        value = getattr(item, reference, ())
        found += [(of, name) for name in ((value,) if isinstance(value, str) else value) if name]
    order = list(_REFERENCES)
    return sorted(found, key=lambda pair: order.index(pair[0]))
