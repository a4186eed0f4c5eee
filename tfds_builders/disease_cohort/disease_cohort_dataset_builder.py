"""A disease cohort's dataset: who is in, the label, and the history before the index."""

import dataclasses
import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.cohorts.loading import SPECS_DIRECTORY, changed_spec, load_spec
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.missing_inputs import missing_inputs
from medbert_jax.cohorts.precision import auroc_half_width
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.hashing import SPLITS, patient_hash
from medbert_jax.ehr.schema import SCHEMAS
from medbert_jax.ehr.tables import read_source
from tfds_builders.excluded_cohort import COHORT_TABLE
from tfds_builders.patient_sequences import PatientSequencesBuilder, SequencesConfig
from tfds_builders.preparation import prepare
from tfds_builders.shards import Serialized, ShardJob, cohort_rows, patient_hashes
from tfds_builders.splits import find_split
from tfds_builders.work_folder import WorkFolder

REFUSED_LEDGER = "refused_ledger.json"
FEWEST_TEST_CASES = 50
"""With fewer, the AUROC is known so badly that a training tells nothing."""


@dataclasses.dataclass(eq=False, kw_only=True)
class CohortConfig(SequencesConfig):
    """What a cohort dataset is made from."""

    spec: CohortSpec | LabelFolder
    pretraining_dataset: Path
    few_cases: bool = False
    """Whether a test split with fewer than FEWEST_TEST_CASES cases is taken all the same."""

    def recipe(self) -> dict:
        """Return all that decides the dataset's content, as JSON data."""
        return super().recipe() | {"cohort": self.spec.to_dict()}

    def job(self, work: WorkFolder) -> ShardJob:
        """Return what the work on one shard must know."""
        return dataclasses.replace(super().job(work), cohort=self.spec)

    def check(self, found: Serialized, work: WorkFolder, directory: Path) -> None:
        """Tell what the test split can show; refuse a cohort with which nothing can be shown. Its ledger is kept."""
        self._check_seen_before(found, work)
        if isinstance(self.spec, LabelFolder):
            unlabelled = next(line.left.patients for line in found.ledger.lines if line.rule == "not_labelled")
            labelled, here = self.spec.read().height, found.ledger.came.patients - unlabelled
            self.announce(f"labels: {labelled:,} subjects, of whom {here:,} are in the EHR tables")
        refused = directory.parent / REFUSED_LEDGER
        cases, counts = (dict(zip(SPLITS, of.tolist(), strict=True)) for of in (found.cases, found.sizes.sum(axis=0)))
        shown = ", ".join(f"{split} {cases[split]} of {counts[split]}" for split in SPLITS)
        fault = None
        if any(not 0 < cases[split] < counts[split] for split in SPLITS):
            fault = f"every split of a cohort must have cases and controls: got cases {shown}; take more patients or"
            fault += " another spec" if self.spec.to_dict().get("split") is None else " another day in split.test_from"
        elif cases["test"] < FEWEST_TEST_CASES and not self.few_cases:
            fault = f"a cohort must have at least {FEWEST_TEST_CASES} test cases: got cases {shown}; take more"
            fault += " patients, or give --few-cases (few_cases=True)"
        half_width = auroc_half_width(cases["test"], counts["test"] - cases["test"])
        for split in SPLITS:
            self.announce(f"{split}: {cases[split]:,} cases, {counts[split] - cases[split]:,} controls")
        self.announce(f"an AUROC of 0.80 on the test split would be known to ± {half_width:.3f} (95 %)")
        if fault is not None:
            ledger = json.dumps(found.ledgers(), indent=1, ensure_ascii=False)
            refused.write_text(ledger, encoding="utf-8")
            raise ValueError(f"{fault}; the attrition is in {refused}")
        refused.unlink(missing_ok=True)

    def tables_beside(self, work: WorkFolder) -> dict[str, pl.DataFrame]:
        """Return the rows of the selection: what chart review and Table 2 read."""
        return {COHORT_TABLE: cohort_rows(work, self.source.shards)}

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
    gap_days: int | None = None,
    test_from: datetime.date | None = None,
    few_cases: bool = False,
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
        cohort: a built-in cohort's name, a YAML file, or a folder of MEDS labels.
        name: the dataset's name.
        data_dir: the folder of all datasets.
        pretraining_dataset: the directory that `prepare_pretraining` returned.
        minimum_codes: patients with fewer codes before their index leave.
        gap_days: in place of the spec's: the input ends so many days before the index.
        test_from: in place of the spec's: test patients are predicted on this day or later, the others before it.
        few_cases: whether fewer than 50 test cases are taken all the same.
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
    spec, metadata = _spec(cohort, gap_days, test_from), read_metadata(pretraining_dataset)
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
    source = read_source(ehr_directory)
    if isinstance(spec, CohortSpec):
        present = [table for table in SCHEMAS if any((Path(ehr_directory) / table).glob("*.parquet"))]
        for missing in missing_inputs(spec, source, present):
            announce(missing)
        if spec.split is not None and spec.index.is_last_visit:
            announce(
                "split by time: who is predicted at the last encounter, before"
                f" {spec.split.test_from}, is one who came no more, and the rest of the record is asked for that; an"
                " outcome within a time at risk (as in dhf-landmark) has neither fault"
            )
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
        few_cases=few_cases,
        pretraining_dataset=Path(pretraining_dataset),
        announce=announce,
    )
    return prepare(Builder, config, data_dir=data_dir, workers=workers, shard=shard, beam=beam)


def _spec(cohort: str, gap_days: int | None, test_from: datetime.date | None) -> CohortSpec | LabelFolder:
    built_in = (SPECS_DIRECTORY / f"{cohort}.yaml").is_file()
    spec = LabelFolder.find(cohort) if Path(cohort).is_dir() and not built_in else load_spec(cohort)
    asked = {"gap_days": gap_days, "test_from": test_from}
    asked = {name: value for name, value in asked.items() if value is not None}
    if not asked:
        return spec
    if isinstance(spec, LabelFolder):
        raise ValueError(
            f"{' and '.join(asked)} change a spec: got {', '.join(f'{name} {value}' for name, value in asked.items())}"
            f" and the labels {spec.name}, which say their time themselves; leave it out"
        )
    return changed_spec(spec, **asked)
