"""A disease cohort's dataset: who is in, the label, and the history before the index."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medbert_jax.cohorts.spec import CohortSpec, load_spec
from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.hashing import SPLITS, patient_hash
from medbert_jax.ehr.tables import read_source
from tfds_builders.patient_sequences import PatientSequencesBuilder, SequencesConfig
from tfds_builders.preparation import prepare
from tfds_builders.shards import Serialized, ShardJob, patient_hashes
from tfds_builders.splits import find_split
from tfds_builders.work_folder import WorkFolder

REFUSED_LEDGER = "refused_ledger.json"


@dataclasses.dataclass(eq=False, kw_only=True)
class CohortConfig(SequencesConfig):
    """What a cohort dataset is made from."""

    spec: CohortSpec
    pretraining_dataset: Path

    def recipe(self) -> dict:
        """Return all that decides the dataset's content, as JSON data."""
        return super().recipe() | {"cohort": self.spec.to_dict()}

    def job(self, work: WorkFolder) -> ShardJob:
        """Return what the work on one shard must know."""
        return dataclasses.replace(super().job(work), cohort=self.spec)

    def check(self, found: Serialized, work: WorkFolder, directory: Path) -> None:
        """Refuse a cohort with an empty split or without cases or controls in one; its ledger is kept."""
        self._check_seen_before(found, work)
        refused = directory.parent / REFUSED_LEDGER
        cases, counts = (dict(zip(SPLITS, of.tolist(), strict=True)) for of in (found.cases, found.sizes.sum(axis=0)))
        if any(not 0 < cases[split] < counts[split] for split in SPLITS):
            refused.write_text(json.dumps(found.ledger.to_dict(), indent=1, ensure_ascii=False))
            shown = ", ".join(f"{split} {cases[split]} of {counts[split]}" for split in SPLITS)
            raise ValueError(
                f"every split of a cohort must have cases and controls: got cases {shown};"
                f" take more patients or another spec, the attrition is in {refused}"
            )
        refused.unlink(missing_ok=True)

    def describe(self, found: Serialized) -> dict:
        """Return the cohort's metadata."""
        if found.flags:
            self.announce(f"kept and flagged: {', '.join(f'{id} {count}' for id, count in found.flags.items())}")
        return {
            "cohort": self.spec.to_dict(),
            "cases": dict(zip(SPLITS, found.cases.tolist(), strict=True)),
            "flags": found.flags,
            "pretraining_dataset_hash": read_metadata(self.pretraining_dataset)["dataset_hash"],
        }

    def _check_seen_before(self, found: Serialized, work: WorkFolder) -> None:
        """Splits that are not the pretraining dataset's must not put its training patients to the test."""
        theirs = read_metadata(self.pretraining_dataset)["split"]
        if {**theirs, **self.split.recipe()} == theirs:
            return
        hashes, split = patient_hashes(work, len(found.sizes))
        trained_on = patient_hash(open_token_store(self.pretraining_dataset, "train").patient_id, "unique")
        if seen := int(np.isin(hashes[split != SPLITS.index("train")], trained_on).sum()):
            raise ValueError(
                "validation and test patients of a cohort must not be training patients of its pretraining dataset:"
                f" got {seen} who are; use the splits of the pretraining dataset, or pretrain with these"
            )


class Builder(PatientSequencesBuilder):
    """Serialized histories of a disease cohort, up to the index, with labels."""

    KIND = "cohort"


def prepare_cohort(
    ehr_directory,
    cohort: str,
    name: str,
    *,
    data_dir,
    pretraining_dataset,
    minimum_codes: int = 1,
    unknown_code_limit: float = 0.5,
    back_off: bool = False,
    workers: int = 0,
    shard: str | None = None,
    beam: Sequence[str] = (),
    announce: Callable[[str], None] = print,
) -> Path | None:
    """Select a cohort and serialize it into DATA_DIR/disease_cohort/NAME/1.0.0; return that directory.

    Vocabulary, split key and ratios, preset and serialization are the pretraining dataset's, so a test patient here is
    a test patient there. splits.parquet beside the EHR tables takes the place of the hash; then no validation or test
    patient may be one of the pretraining's training patients. Beside TFDS's files the directory holds vocabulary.tsv,
    ledger.json (selection, then serialization) and metadata.json. With `shard` only the part of one task is done, and
    None is returned; see `preparation`.

    Args:
        ehr_directory: EHR tables, as `write_tables` writes them.
        cohort: a built-in cohort's name, or a YAML file.
        name: the dataset's name.
        data_dir: the folder of all datasets.
        pretraining_dataset: the directory that `prepare_pretraining` returned.
        minimum_codes: patients with fewer codes before their index leave.
        unknown_code_limit: share of codes outside the vocabulary above which the cohort is refused.
        back_off: whether a code outside the vocabulary becomes its nearest ICD ancestor there; two codes of a visit may
            then be the same.
        workers: processes; 0: one per core.
        shard: "i/N": the part of task i of N of a batch scheduler's job array, i from 0; None is returned.
        beam: options of an Apache Beam pipeline that works on the shards instead, as "runner=FlinkRunner".
        announce: gets one line per shard and step.

    Raises:
        ValueError: faults of the spec, a rule that the source cannot answer, a split without cases or
            controls (the ledger is then in NAME/refused_ledger.json), too many unknown codes, another
            dataset under that name, or a pretraining dataset that is none or is damaged.
    """
    spec, metadata = load_spec(cohort), read_metadata(pretraining_dataset)
    if metadata["kind"] != "pretraining":
        raise ValueError(
            f"a cohort inherits from a pretraining dataset: got one of kind {metadata['kind']};"
            " pass DATA_DIR/ehr_pretraining/NAME/1.0.0"
        )
    vocabulary = Vocabulary.read(Path(pretraining_dataset) / "vocabulary.tsv")
    if vocabulary.hash != metadata["vocabulary_hash"]:
        raise ValueError(
            f"vocabulary.tsv must be the one of metadata.json: got hash {vocabulary.hash[:12]} and not"
            f" {metadata['vocabulary_hash'][:12]}; restore the file or prepare the dataset again"
        )
    serialization = SerializationConfig(**metadata["serialization"] | {"minimum_codes": minimum_codes})
    read_source(ehr_directory)  # says what is wrong with a folder that holds no EHR tables
    config = CohortConfig(
        name=name,
        ehr_directory=Path(ehr_directory),
        preset=metadata["preset"],
        serialization=serialization,
        split=find_split(Path(ehr_directory), metadata["split"]["key"], metadata["split"].get("ratios")),
        vocabulary=vocabulary,
        unknown_code_limit=unknown_code_limit,
        back_off=back_off,
        spec=spec,
        pretraining_dataset=Path(pretraining_dataset),
        announce=announce,
    )
    return prepare(Builder, config, data_dir=data_dir, workers=workers, shard=shard, beam=beam)
