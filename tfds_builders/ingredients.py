"""What a dataset of patient sequences is made from, and what its metadata say of that."""

from dataclasses import dataclass
from pathlib import Path

from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.ehr.split_rule import Split
from medbert_jax.identity import identity
from tfds_builders.excluded_cohort import ExcludedCohort
from tfds_builders.shards import ShardJob
from tfds_builders.work_folder import WorkFolder


@dataclass(frozen=True)
class Ingredients:
    """All that decides a dataset's content, as data."""

    ehr_directory: Path
    source: EhrSource
    """What the EHR tables say of themselves, read once: tables that come later are refused."""
    preset: str
    serialization: SerializationConfig
    split: Split
    vocabulary: Vocabulary | None
    """A frozen one, or None: fitted on this dataset."""
    minimum_patients: int = 1
    """Codes that fewer patients have are not in a fitted vocabulary."""
    back_off: bool = False
    """Whether codes outside a frozen vocabulary become their nearest ancestor in it."""
    cohort: CohortSpec | LabelFolder | None = None
    """Whose patients and labels; None: everybody, to pretrain on."""
    excluded: ExcludedCohort | None = None
    """A cohort whose patients are left out of a pretraining."""

    def recipe(self) -> dict:
        """Return them as JSON data: equal recipes are equal datasets."""
        recipe = {
            "ehr_content_hash": self.source.content_hash,
            "preset": self.preset,
            "serialization": identity(self.serialization),
            "split": self.split.recipe(),
        }
        if self.vocabulary is None:
            recipe["minimum_patients"] = self.minimum_patients
        else:
            recipe |= {"vocabulary_hash": self.vocabulary.hash} | ({"back_off": True} if self.back_off else {})
        if self.excluded is not None:
            recipe["excluded_cohort"] = self.excluded.recipe()
        if self.cohort is not None:
            recipe["cohort"] = self.cohort.to_dict()
        if isinstance(self.cohort, CohortSpec) and self.cohort.matching is not None:
            recipe["sets_within"] = ["shard", "split"]  # earlier versions: within the shard alone
        return recipe

    def job(self, work: WorkFolder) -> ShardJob:
        """Return what the work on one shard must know."""
        return ShardJob(
            self.ehr_directory.absolute(),  # workers of a cluster are somewhere else
            self.source.content_hash,
            self.source.shards,
            WorkFolder(work.path.absolute()),
            self.serialization,
            self.split,
            # Released code: the vocabulary is fitted on everybody, held-out patients too.
            fit_on_everybody=self.preset == "released_code",
            cohort=self.cohort,
            excluded=self.excluded,
            back_off=self.back_off,
        )
