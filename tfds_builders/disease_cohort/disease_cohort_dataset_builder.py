"""A disease cohort's dataset: who is in, the label, and the history before the index."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.cohorts.select import count_flagged, select_cohort
from medbert_jax.cohorts.spec import CohortSpec, load_spec
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.serialization import SerializationConfig, order_histories
from medbert_jax.data.token_store import read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.ledger import Ledger
from medbert_jax.ehr.schema import EhrTables
from tfds_builders.patient_sequences import PatientSequencesBuilder, SequencesConfig, SerializedShard
from tfds_builders.preparation import prepare

REFUSED_LEDGER = "refused_ledger.json"


@dataclasses.dataclass(eq=False, kw_only=True)
class CohortConfig(SequencesConfig):
    """What a cohort dataset is made from."""

    spec: CohortSpec
    vocabulary: Vocabulary
    pretraining_dataset_hash: str
    unknown_code_limit: float

    def recipe(self) -> dict:
        """Return all that decides the dataset's content, as JSON data."""
        return super().recipe() | {"cohort": self.spec.to_dict(), "vocabulary_hash": self.vocabulary.hash}


class Builder(PatientSequencesBuilder):
    """Serialized histories of a disease cohort, up to the index, with labels."""

    KIND = "cohort"

    def __init__(self, **kwargs):
        self._cases = np.zeros(len(SPLITS), np.int64)
        self._flags = Counter()
        super().__init__(**kwargs)

    def histories(self, tables: EhrTables, races: tuple[str, ...]) -> tuple[PatientSequences, np.ndarray, Ledger]:
        """Return the histories of the cohort's patients, cut where their input ends; count who is flagged."""
        config = self.builder_config
        cohort, selection = select_cohort(tables, config.spec)
        histories, codes, serialized = order_histories(tables, config.serialization, until=cohort, races=races)
        # Of those who stay: the serialization lets some of the selected leave.
        stays = cohort["patient_id"].cast(pl.Binary).is_in(histories.patient_id.tolist())
        self._flags.update(count_flagged(cohort.filter(stays), config.spec))
        return histories, codes, _continued(selection, serialized)

    def see(self, shard: SerializedShard) -> None:
        """Count the cases of each split."""
        cases = shard.split[shard.histories.outcomes["label"] == 1]
        self._cases += np.bincount(cases, minlength=len(SPLITS))

    def vocabulary(self) -> Vocabulary:
        """Return the pretraining dataset's."""
        return self.builder_config.vocabulary

    def check(self, counts: dict[str, int], ledger: Ledger) -> None:
        """Refuse a cohort with an empty split or without cases or controls in one; its ledger is kept."""
        refused = Path(self.data_dir).parent / REFUSED_LEDGER
        cases = dict(zip(SPLITS, self._cases.tolist(), strict=True))
        if any(not 0 < cases[split] < counts[split] for split in SPLITS):
            refused.write_text(json.dumps(ledger.to_dict(), indent=1, ensure_ascii=False))
            found = ", ".join(f"{split} {cases[split]} of {counts[split]}" for split in SPLITS)
            raise ValueError(
                f"every split of a cohort must have cases and controls: got cases {found};"
                f" take more patients or another spec, the attrition is in {refused}"
            )
        refused.unlink(missing_ok=True)

    def describe(self, unknown_code_share: dict[str, float]) -> dict:
        """Return the cohort's metadata; refuse one whose codes the vocabulary does not know."""
        config, shares = self.builder_config, unknown_code_share
        shown = ", ".join(f"{split} {share:.1%}" for split, share in shares.items())
        config.announce(f"codes unknown to the pretraining vocabulary: {shown}")
        if max(shares.values()) > config.unknown_code_limit:
            raise ValueError(
                f"at most {config.unknown_code_limit:.0%} of a cohort's codes may be unknown to the"
                f" vocabulary: got {shown}; pretrain on this source, or raise unknown_code_limit"
            )
        if self._flags:
            config.announce(f"kept and flagged: {', '.join(f'{id} {count}' for id, count in self._flags.items())}")
        return {
            "cohort": config.spec.to_dict(),
            "cases": dict(zip(SPLITS, self._cases.tolist(), strict=True)),
            "flags": dict(self._flags),
            "pretraining_dataset_hash": config.pretraining_dataset_hash,
        }


def _continued(selection: Ledger, serialized: Ledger) -> Ledger:
    """Return the selection's ledger with the serialization's lines after its own."""
    if selection.kept != serialized.came:
        raise RuntimeError(
            "what the cohort's selection keeps must be what is serialized, difference 0: got"
            f" {selection.kept} and {serialized.came}; this is a fault of the program"
        )
    lines = [dataclasses.replace(line, rule=f"serialization:{line.rule}") for line in serialized.lines]
    return Ledger(selection.title, selection.came, [*selection.lines, *lines])


def prepare_cohort(
    ehr_directory,
    cohort: str,
    name: str,
    *,
    data_dir,
    pretraining_dataset,
    minimum_codes: int = 1,
    unknown_code_limit: float = 0.5,
    announce: Callable[[str], None] = print,
) -> Path:
    """Select a cohort and serialize it into DATA_DIR/disease_cohort/NAME/1.0.0; return that directory.

    Vocabulary, split key and ratios, preset and serialization are the pretraining dataset's, so a test
    patient here is a test patient there. Beside TFDS's files the directory holds vocabulary.tsv, ledger.json
    (selection, then serialization) and metadata.json.

    Args:
        ehr_directory: EHR tables, as `write_tables` writes them.
        cohort: a built-in cohort's name, or a YAML file.
        name: the dataset's name.
        data_dir: the folder of all datasets.
        pretraining_dataset: the directory that `prepare_pretraining` returned.
        minimum_codes: patients with fewer codes before their index leave.
        unknown_code_limit: share of codes outside the vocabulary above which the cohort is refused.
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
    config = CohortConfig(
        name=name,
        ehr_directory=Path(ehr_directory),
        preset=metadata["preset"],
        serialization=serialization,
        split_key=metadata["split"]["key"],
        ratios=tuple(metadata["split"]["ratios"]),
        spec=spec,
        vocabulary=vocabulary,
        pretraining_dataset_hash=metadata["dataset_hash"],
        unknown_code_limit=unknown_code_limit,
        announce=announce,
    )
    return prepare(Builder, config, data_dir=data_dir)
