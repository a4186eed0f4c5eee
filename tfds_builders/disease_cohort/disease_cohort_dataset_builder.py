"""A disease cohort's dataset: who is in, the label, and the history before the index."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.cohorts.known_names import refuse_unknown_names
from medbert_jax.cohorts.loading import load_cohort
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.missing_inputs import missing_inputs, tables_there
from medbert_jax.cohorts.own_limits import own_limits
from medbert_jax.cohorts.precision import auroc_half_width, validation_size
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.cohorts.spec_check import check_spec
from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.token_store import open_token_store, read_metadata, read_vocabulary
from medbert_jax.disk.whole_files import write_json
from medbert_jax.ehr.hashing import SPLITS, patient_hash
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.ehr.split_rule import Split, find_split
from medbert_jax.ehr.tables import read_source
from tfds_builders.ingredients import Ingredients
from tfds_builders.options import CohortOptions
from tfds_builders.patient_sequences import PatientSequencesBuilder
from tfds_builders.preparation import prepare
from tfds_builders.shards import Serialized, patient_hashes
from tfds_builders.work_folder import WorkFolder

REFUSED_LEDGER, REFUSED_REVIEW = "refused_ledger.json", "refused_review"
"""Beside where the dataset would be: the ledger of a cohort that was refused, and the folder of its chart review."""
FEWEST_TEST_CASES = 50
"""With fewer, the AUROC is known so badly that a training tells nothing."""


class RefusedCohort(ValueError):
    """The rules of a cohort leave nothing that a dataset could be made of."""

    def __init__(self, message: str, ledger: Ledger, spec: CohortSpec | None, split: Split, review: Path):
        super().__init__(message)
        self.ledger, self.spec, self.split, self.review = ledger, spec, split, review


class Builder(PatientSequencesBuilder):
    """Serialized histories of a disease cohort, up to the index, with labels."""

    KIND = "cohort"


def prepare_cohort(
    options: CohortOptions, *, minimum_codes: int = 1, announce: Callable[[str], None] = print
) -> Path | None:
    """Select a cohort and serialize it into DATA_DIR/disease_cohort/NAME/1.0.0; return that directory.

    Vocabulary, split key and ratios, preset and serialization are the pretraining dataset's, so a test patient here is
    a test patient there. splits.parquet beside the EHR tables takes the place of the hash; then no validation or test
    patient may be one of the pretraining's training patients. Beside TFDS's files the directory holds vocabulary.tsv,
    ledger.json (selection, then serialization) and metadata.json. With `options.shard` only the part of one task is
    done, and None is returned; see `preparation`.

    Args:
        options: of the command; review and why are none of this function's.
        minimum_codes: patients with fewer codes before their index leave.
        announce: gets one line per shard and step.

    Raises:
        ValueError: faults of the spec, a rule that the source cannot answer, a split without cases or
            controls (`RefusedCohort`: the ledger is then in NAME/refused_ledger.json too), too many unknown codes,
            another dataset under that name, or a pretraining dataset that is none or is damaged.
    """
    pretraining = options.pretraining_dataset
    if pretraining is None:
        raise ValueError(
            "a cohort dataset has the vocabulary and split of a pretraining dataset: got no --pretraining-dataset; give"
            " DATA_DIR/ehr_pretraining/NAME/1.0.0 (without it, --check tells what a spec finds and --why PATIENT_ID"
            " explains one patient)"
        )
    settings = {"gap_days": options.gap_days, "test_from": options.test_from, "labels": options.labels}
    spec = load_cohort(options.cohort, **settings)
    metadata = read_metadata(pretraining)
    if metadata["kind"] != "pretraining":
        raise ValueError(
            f"a cohort inherits from a pretraining dataset: got one of kind {metadata['kind']};"
            " pass DATA_DIR/ehr_pretraining/NAME/1.0.0"
        )
    vocabulary = read_vocabulary(pretraining)
    serialization = SerializationConfig(**metadata["serialization"] | {"minimum_codes": minimum_codes})
    source = read_source(options.ehr)
    _tell_limits(spec, source, options.ehr, announce)
    ingredients = Ingredients(
        ehr_directory=options.ehr,
        source=source,
        preset=metadata["preset"],
        serialization=serialization,
        split=find_split(options.ehr, metadata["split"]["key"], metadata["split"].get("ratios")),
        vocabulary=vocabulary,
        back_off=options.back_off,
        cohort=spec,
    )
    check = partial(_check, spec, ingredients.split, pretraining, options, announce)
    describe = partial(_describe, spec, metadata["dataset_hash"], announce)
    return prepare(Builder, ingredients, options, check=check, describe=describe, announce=announce)


def _tell_limits(
    spec: CohortSpec | LabelFolder, source: EhrSource, ehr_directory: Path, announce: Callable[[str], None]
) -> None:
    """Tell what the spec asks and these tables do not say, and what its split by time cannot keep apart."""
    if isinstance(spec, LabelFolder):
        return
    refuse_unknown_names(spec, ehr_directory)
    for line in (*missing_inputs(spec, source, tables_there(ehr_directory)), *own_limits(spec)):
        announce(line)
    if spec.split is not None and spec.index.is_last_visit:
        announce(
            "split by time: who is predicted at the last encounter, before"
            f" {spec.split.test_from}, is one who came no more, and the rest of the record is asked for that; an"
            " outcome within a time at risk (as in dhf-landmark) has neither fault"
        )


def _check(
    spec: CohortSpec | LabelFolder,
    split: Split,
    pretraining_dataset: Path,
    options: CohortOptions,
    announce: Callable[[str], None],
    found: Serialized,
    work: WorkFolder,
    directory: Path,
) -> None:
    """Tell what the test split can show; refuse a cohort with which nothing can be shown. Its ledger is kept."""
    _check_seen_before(pretraining_dataset, split, found, work, options.cache_dir, announce)
    if isinstance(spec, LabelFolder):
        unlabelled = next(line.left.patients for line in found.ledger.lines if line.rule == "not_labelled")
        labelled, here = spec.read()["patient_id"].n_unique(), found.ledger.came.patients - unlabelled
        announce(f"labels: {labelled:,} subjects, of whom {here:,} are in the EHR tables")
        if not here:
            raise ValueError(
                f"labels must be of patients of the EHR tables, whose ids are compared as they are written: got"
                f" {labelled:,} subjects, none of whom is there; give the labels of this source"
            )
    of_splits = (found.cases, found.sizes.sum(axis=0) - found.censored, found.censored, found.died_first)
    cases, counts, censored, died = (dict(zip(SPLITS, of.tolist(), strict=True)) for of in of_splits)
    shown = ", ".join(f"{name} {cases[name]} of {counts[name]}" for name in SPLITS)
    people, with_case, with_control = ({}, cases, {name: counts[name] - cases[name] for name in SPLITS})
    if found.patients is not None:
        people, with_case, with_control = (dict(zip(SPLITS, of.tolist(), strict=True)) for of in found.patients)
        shown = ", ".join(
            f"{name} {cases[name]} of {counts[name]} predictions, of {with_case[name]} of {people[name]} patients"
            for name in SPLITS
        )
    fault = None
    if any(not 0 < cases[name] < counts[name] for name in SPLITS):
        fault = f"every split of a cohort must have cases and controls: got cases {shown}; {_cure(spec, options)}"
    elif with_case["test"] < FEWEST_TEST_CASES and not options.few_cases:
        fault = f"a cohort must have at least {FEWEST_TEST_CASES} test cases: got cases {shown}; take more"
        fault += " patients, or give --few-cases (few_cases=True)"
    for name in SPLITS:
        said = f", of whom {died[name]:,} died first" * bool(died[name])
        said += f"; {censored[name]:,} censored, of unknown label" * bool(censored[name])
        said += f"; predictions of {people[name]:,} patients" if people else ""
        announce(f"{name}: {cases[name]:,} cases, {counts[name] - cases[name]:,} controls{said}")
    half_width = f"± {auroc_half_width(cases['test'], counts['test'] - cases['test']):.3f}"
    if people:  # the truth lies between: rows of a patient that tell as much as other patients', and nothing new
        half_width += f", or {auroc_half_width(with_case['test'], with_control['test']):.3f} where the rows of a"
        half_width += " patient say the same"
    announce(f"an AUROC of 0.80 on the test split would be known to {half_width} (95 %)")
    # Riley's formulas are of independent patients.
    if 0 < cases["test"] < counts["test"] and not people and not _is_drawn(spec):
        size = validation_size(cases["test"] / counts["test"])
        announce(
            f"to judge a model of that AUROC by Riley et al. 2021: {size.auroc:,} patients for the AUROC (± 0.05),"
            f" {size.slope:,} for the calibration slope (± 0.1), {size.observed_to_expected:,} for observed / expected"
            f" (± 0.1); the test split has {counts['test']:,}"
        )
    ledger, review = directory.parent / REFUSED_LEDGER, directory.parent / REFUSED_REVIEW
    ledger.unlink(missing_ok=True)  # of an earlier refusal, as the review, which `medbert cohort` writes
    shutil.rmtree(review, ignore_errors=True)
    if fault is not None:
        write_json(ledger, found.ledgers())
        with_rules = None if isinstance(spec, LabelFolder) else spec
        raise RefusedCohort(f"{fault}; the attrition is in {ledger}", found.ledger, with_rules, split, review)


def _is_drawn(spec: CohortSpec | LabelFolder) -> bool:
    """Whether the share of cases is the design's, and no prevalence."""
    return isinstance(spec, CohortSpec) and (spec.matching is not None or spec.sample is not None)


def _cure(spec: CohortSpec | LabelFolder, options: CohortOptions) -> str:
    """What to do where a split has no cases or no controls: more patients do not mend a spec that finds nothing."""
    if isinstance(spec, CohortSpec):
        check = check_spec(options.ehr, spec, select=False, workers=options.workers)
        if check.refused:
            return f"{'; '.join(check.refused)}; correct the spec, and look at it with --check"
        if spec.split is not None:
            return "take more patients or another day in split.test_from"
    return "take more patients or another spec"


def _check_seen_before(
    pretraining_dataset: Path,
    split: Split,
    found: Serialized,
    work: WorkFolder,
    cache_dir: Path | None,
    announce: Callable[[str], None],
) -> None:
    """Splits that are not the pretraining dataset's must not put its training patients to the test."""
    theirs = read_metadata(pretraining_dataset)["split"]
    if {**theirs, **split.recipe()} == theirs:
        return
    hashes, place = patient_hashes(work, len(found.sizes))
    train = open_token_store(pretraining_dataset, "train", cache_dir, announce)
    trained_on = patient_hash(train.patient_id, "unique")
    if seen := int(np.isin(hashes[place != SPLITS.index("train")], trained_on).sum()):
        raise ValueError(
            "validation and test patients of a cohort must not be training patients of its pretraining dataset:"
            f" got {seen} who are; use the splits of the pretraining dataset, or pretrain with these"
        )


def _describe(
    spec: CohortSpec | LabelFolder, pretraining_dataset_hash: str, announce: Callable[[str], None], found: Serialized
) -> dict:
    """Return the cohort's metadata."""
    if found.flags:
        announce(f"kept and flagged: {', '.join(f'{id} {count}' for id, count in found.flags.items())}")
    return {
        "cohort": spec.to_dict(),
        "cases": dict(zip(SPLITS, found.cases.tolist(), strict=True)),
        **({"censored": dict(zip(SPLITS, found.censored.tolist(), strict=True))} if found.censored.any() else {}),
        "flags": found.flags,
        "pretraining_dataset_hash": pretraining_dataset_hash,
    }
