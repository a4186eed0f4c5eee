"""`medbert study`: each stage of a study by the function behind the command that makes it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbert_jax.experiments.study_options import StudyOptions

if TYPE_CHECKING:
    from medbert_jax.experiments.study import Make, Study
    from medbert_jax.experiments.study_plan import Block, Cohort, Pretraining, PretrainingData, Tables, Tuning, Vectors


def study(options: StudyOptions) -> None:
    """Make what is missing of a study, or print what is there and what the rest will take."""
    from medbert_jax.experiments.study import Study, run_study
    from medbert_jax.experiments.study_estimate import estimate_tables
    from medbert_jax.experiments.study_plan import StudyPlan
    from medbert_jax.printed_tables import print_tables
    from medbert_jax.training.command_line import named_preset

    plan = named_preset(options.plan, (StudyPlan,), program="medbert study")
    results = (options.results or options.out / "results").absolute()
    found = Study(plan, options.out.absolute(), results, options.part, options.parts)
    if options.dry_run:
        print_tables(estimate_tables(found, only=options.only))
        return
    run_study(found, makers(options.data, options.workers), only=options.only)
    print(f"results in {results}")


def makers(data: Path | None, workers: int = 0) -> Mapping[str, "Make"]:
    """Kind of a stage → what makes it; `data` is the folder of the source that a plan ingests."""
    found: dict[str, Callable[[Any, Study], Path]] = {
        "tables": partial(_tables, data=data, workers=workers),
        "datasets": partial(_dataset, workers=workers),
        "pretrainings": _pretraining,
        "vectors": _vectors,
        "cohorts": partial(_cohort, workers=workers),
        "tunings": _tuning,
        "blocks": _block,
    }
    return found


def _tables(item: "Tables", study: "Study", *, data: Path | None, workers: int) -> Path:
    from medbert_jax.cohorts.loading import load_spec
    from medbert_jax.cohorts.members import Members
    from medbert_jax.experiments.study_plan import Fold, Ingested, Joined
    from medbert_jax.experiments.study_stages import place_of
    from medbert_jax.experiments.study_tables import write_fold, write_joined
    from medbert_jax.simulation.simulate import Keep, simulate

    out = place_of(study.out, "tables", item.name)
    if isinstance(item, Ingested):
        _ingest(item, data, out, workers)
        return out
    if isinstance(item, Fold):
        settings = {"fold": item.fold, "folds": item.folds, "validation_parts": item.validation_parts}
        write_fold(study.path("tables", item.tables), out, **settings)
        return out
    if isinstance(item, Joined):
        write_joined(study.path("tables", item.tables), study.path("tables", item.more), out)
        return out
    keep = None
    if item.keep:
        members = Members(tuple(load_spec(name) for name in item.keep), study.plan.split_key)
        keep = Keep(members, f"members of {', '.join(item.keep)}")
    asked = {name: getattr(item, name) for name in ("patients", "site", "world", "seed", "shards")}
    simulate(out, **asked, workers=workers, keep=keep)
    return out


def _ingest(item, data: Path | None, out: Path, workers: int) -> None:
    from medbert_jax.ingest.ingest import ingest

    if data is None:
        raise ValueError(
            f"a plan that ingests a source needs its folder: got no --data for {item.name} ({item.format}); give "
            "it, or with --only the blocks that do without"
        )
    ingest(data, out, format=item.format, workers=workers)


def _dataset(item: "PretrainingData", study: "Study", *, workers: int) -> Path:
    from medbert_jax.data.serialization import SerializationConfig
    from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining
    from tfds_builders.options import PrepareOptions

    vocabulary = study.path("datasets", item.vocabulary_of) / "vocabulary.tsv" if item.vocabulary_of else None
    options = PrepareOptions(
        study.path("tables", item.tables),
        item.name,
        data_dir=study.out / "data",
        split_key=study.plan.split_key,
        minimum_patients=item.minimum_patients,
        vocabulary=vocabulary,
        workers=workers,
    )
    return _made(prepare_pretraining(options, serialization=SerializationConfig(code_order=item.code_order)))


def _pretraining(item: "Pretraining", study: "Study") -> Path:
    import run_pretrain
    from medbert_jax.cohorts.pretraining_labels import write_patient_labels
    from medbert_jax.ehr.tables import read_shard, read_source
    from medbert_jax.experiments.study_stages import place_of

    dataset, run = study.path("datasets", item.dataset), place_of(study.out, "pretrainings", item.name)
    labels = ""
    if item.labels != "prolonged_los":
        of = next(one.tables for one in study.plan.datasets if one.name == item.dataset)
        ehr, path = study.path("tables", of), study.out / "labels" / f"{item.dataset}-{item.labels}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        shards = (read_shard(ehr, shard) for shard in range(read_source(ehr).shards))
        write_patient_labels(path, shards, item.labels)
        labels = str(path)
    return run_pretrain.main(replace(item.config, dataset=str(dataset), run=str(run), patient_labels=labels))


def _vectors(item: "Vectors", study: "Study") -> Path:
    from medbert_jax.experiments.study_stages import place_of
    from medbert_jax.training.code_vectors_command import code_vectors
    from medbert_jax.training.code_vectors_options import CodeVectorsOptions

    path = place_of(study.out, "vectors", item.name)
    code_vectors(CodeVectorsOptions(study.path("datasets", item.dataset), path, item.config))
    return path


def _cohort(item: "Cohort", study: "Study", *, workers: int) -> Path:
    from medbert_jax.training.unseen_patients import check_unseen
    from tfds_builders.disease_cohort.disease_cohort_dataset_builder import prepare_cohort
    from tfds_builders.options import CohortOptions

    dataset = study.path("datasets", item.dataset)
    options = CohortOptions(
        study.path("tables", item.tables),
        _spec(item, study),
        item.name,
        pretraining_dataset=dataset,
        data_dir=study.out / "data",
        few_cases=item.few_cases,
        workers=workers,
    )
    directory = _made(prepare_cohort(options))
    check_unseen(directory, dataset, training_seen=item.seen)
    _check_sizes(item, study, directory)
    return directory


def _check_sizes(item: "Cohort", study: "Study", directory: Path) -> None:
    """ValueError where a grid, or a tuning, asks for more training patients than the cohort has."""
    from medbert_jax.data.token_store import read_metadata

    asked = [size for block in study.plan.blocks if item.name in block.cohorts for size in block.grid.train_sizes]
    asked += [tuning.config.train_size for tuning in study.plan.tunings if tuning.cohort == item.name]
    there = read_metadata(directory)["split"]["counts"]["train"]
    if (most := max(asked, default=0)) > there:
        raise ValueError(
            f"a cohort must have as many training patients as the plan's largest size of it: got {there:,} and "
            f"{most:,} of {item.name}; give {item.tables} more patients in the plan, or lower train_sizes"
        )


def _spec(item: "Cohort", study: "Study") -> str:
    """The built-in spec; with another name, or with controls drawn at random, a spec of the study's own."""
    import yaml

    from medbert_jax.cohorts.loading import load_spec
    from medbert_jax.disk.whole_files import write_whole

    if not item.controls_per_case and not item.called:
        return item.spec
    plain = load_spec(item.spec).to_dict()
    plain["name"] = item.called or plain["name"]
    if item.controls_per_case:
        plain["sample"] = {
            "description": f"{item.controls_per_case} controls at random for each case",
            "tag": "ours",
            "controls_per_case": item.controls_per_case,
            "key": f"{item.spec} controls",
        }
    path = study.out / "specs" / f"{item.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    return str(path)


def _made(directory: Path | None) -> Path:
    assert directory is not None  # no task of many was asked for
    return directory


def _tuning(item: "Tuning", study: "Study") -> Path:
    import run_finetune
    from medbert_jax.experiments.study_stages import place_of

    path = place_of(study.out, "tunings", item.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    common = replace(
        item.config.finetune,
        checkpoint=str(study.path("pretrainings", item.pretraining)),
        vectors=str(study.path("vectors", item.vectors)) if item.vectors else "",
        results=str(path.parent),
    )
    cohort = str(study.path("cohorts", item.cohort))
    return run_finetune.main(replace(item.config, dataset=cohort, out=str(path), finetune=common))


def _block(item: "Block", study: "Study") -> Path:
    import run_finetune

    return run_finetune.main(study.grid(item))
