"""What is stored outlives versions and names: earlier forms are read, renamed and newer ones are refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables
from stored.make import FINETUNE, PRETRAIN

import run_finetune
import run_pretrain
from medbert_jax.data.token_store import open_token_store, read_metadata, read_vocabulary
from medbert_jax.ehr.tables import read_tables, write_tables
from medbert_jax.evaluation.filed_patients import read_filed
from medbert_jax.evaluation.predictions import read_predictions
from medbert_jax.evaluation.results import read_results
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.checkpointing import good_step, latest_good_step
from medbert_jax.training.manifest import CheckpointError, committed_steps
from medbert_jax.training.pretrained import load_pretrained
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.stored_config import RunDirectoryError, read_config

STORED = sorted(path for path in (Path(__file__).parent / "stored").iterdir() if (path / "run").is_dir())
REFUSED = (ValueError, CheckpointError, FileNotFoundError)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Half the time to compile; the programs are small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def stored(tmp_path) -> Path:
    """What the newest stored version wrote, for changes."""
    return shutil.copytree(STORED[-1], tmp_path / "stored")


def one(folder: Path) -> Path:
    (path,) = folder.glob("*.parquet")
    return path


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("version", STORED, ids=lambda path: path.name)
def test_what_an_earlier_version_wrote_is_read_resumed_and_fine_tuned(version, tmp_path, capsys):
    assert sum(path.stat().st_size for path in version.rglob("*") if path.is_file()) < 1_000_000
    folder = shutil.copytree(version, tmp_path / "stored")
    dataset, cohort, run = folder / "dataset", folder / "cohort", folder / "run"

    train = open_token_store(dataset, "train")  # decoded: it was copied without its store
    assert len(train) == read_metadata(dataset)["split"]["counts"]["train"]
    before = np.load(cohort / "token_store" / "test" / "code_ids.npy")
    assert np.array_equal(open_token_store(cohort, "test").code_ids, before)
    assert json.loads((cohort / "token_store" / "test" / "store.json").read_text())["split"] == "test"

    pretrained, finetuned = load_pretrained(run), load_pretrained(folder / "finetuned")
    assert (pretrained.step, pretrained.vocabulary.hash) == (4, read_vocabulary(dataset).hash)
    assert "head" in finetuned.params and len(finetuned.encode(train.take([0, 1]))) == 2
    assert Checkpoint(str(run)).model == pretrained.config
    assert len(read_predictions(one(folder / "results" / "predictions")).frame) == 31

    run_pretrain.main(replace(PRETRAIN, dataset=str(dataset), run=str(run)))  # elsewhere than where it was started
    assert committed_steps(run) == [4, 6]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (noted,) = [row for row in rows if row["kind"] == "versions"]
    assert noted["dropout"] == ["rbg", "threefry2x32"]
    assert "dropout rbg → threefry2x32 after step 4: dropout differs from here on" in capsys.readouterr().err
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]

    places = {"dataset": cohort, "checkpoint": run, "results": folder / "results"}
    run_finetune.main(replace(FINETUNE, **{name: str(path) for name, path in places.items()}))
    assert read_results(folder / "results")["run_id"].n_unique() == 4  # two baselines with the new one
    (filed,) = (folder / "results" / "test_patients").iterdir()
    assert len(read_filed(filed).patients.subject) == 31


def step_renamed(stored: Path):
    (stored / "run" / "steps" / "000004").rename(stored / "run" / "steps" / "000250")
    good_step(stored / "run")


def step_of_another_run(stored: Path):
    shutil.copytree(stored / "finetuned" / "steps" / "000003", stored / "run" / "steps" / "000006")
    shutil.rmtree(stored / "run" / "steps" / "000004")
    (stored / "run" / "steps" / "000006").rename(stored / "run" / "steps" / "000003")
    good_step(stored / "run")


def configuration_of_another_run(stored: Path):
    shutil.copy(stored / "finetuned" / "config.json", stored / "run" / "config.json")
    load_pretrained(stored / "run")


def vocabulary_of_another_dataset(stored: Path):
    path = stored / "cohort" / "vocabulary.tsv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-2], lines[-1], lines[-2]]))
    read_vocabulary(stored / "cohort")


def metadata_of_another_dataset(stored: Path):
    shutil.copy(stored / "cohort" / "metadata.json", stored / "dataset" / "metadata.json")
    open_token_store(stored / "dataset", "train")


def records_of_another_split(stored: Path):
    """With the numbers that go with them: nothing but the patients says whose they are."""
    counts = {"train": 31, "test": 96}
    names = [stored / "cohort" / f"disease_cohort-{split}.array_record-00000-of-00001" for split in counts]
    names[0].rename(stored / "aside")
    names[1].rename(names[0])
    (stored / "aside").rename(names[1])
    info = json.loads((stored / "cohort" / "dataset_info.json").read_text())
    for split in info["splits"]:
        split["shardLengths"] = [str(counts.get(split["name"], 13))]
    (stored / "cohort" / "dataset_info.json").write_text(json.dumps(info))
    edit_json(stored / "cohort" / "metadata.json", split=read_metadata(stored / "cohort")["split"] | {"counts": counts})
    open_token_store(stored / "cohort", "train")


def results_renamed(stored: Path):
    one(stored / "results").rename(stored / "results" / "0123456789abcdef.parquet")
    read_results(stored / "results")


def results_copied(stored: Path):
    shutil.copy(one(stored / "results"), stored / "results" / "copy.parquet")
    read_results(stored / "results")


def shards_swapped(stored: Path):
    write_tables(made_tables(40), stored / "ehr", shards=2)
    names = [stored / "ehr" / "visits" / f"shard-0000{shard}-of-00002.parquet" for shard in (0, 1)]
    names[0].rename(stored / "aside")
    names[1].rename(names[0])
    (stored / "aside").rename(names[1])
    read_tables(stored / "ehr")


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (step_renamed, r"(?s)bear the number of its manifest: got steps/000250.*manifest of step 4; rename .* 000004"),
        (step_of_another_run, r"step 3 .* damaged: config\.json has"),
        (configuration_of_another_run, r"damaged: config\.json has"),
        (vocabulary_of_another_dataset, r"vocabulary\.tsv must be the one of metadata\.json: got .*; restore"),
        (metadata_of_another_dataset, "the records of this dataset must have the features .* got .*; prepare"),
        (records_of_another_split, "must hold its own patients, .* got 31 of other splits among 31; give the files"),
        (results_renamed, r"lie in RUN_ID\.parquet: got 0123456789abcdef\.parquet with those of run .*; rename it to"),
        (results_copied, r"lie in RUN_ID\.parquet: got copy\.parquet"),
        (shards_swapped, r"(?s)as source\.json describes them: got 2 fault.*shard-00000.*shard-00001.*; write|again"),
    ],
)
def test_what_bears_another_name_is_refused(rename: Callable, message: str, stored):
    with pytest.raises(REFUSED, match=message):
        rename(stored)


def test_a_renamed_step_gives_way_to_the_one_before_it_and_is_told(stored):
    shutil.copytree(stored / "run" / "steps" / "000004", stored / "run" / "steps" / "000006")
    told = []
    assert latest_good_step(stored / "run", warn=told.append) == 4
    assert len(told) == 1 and "falling back to step 4: a step folder must bear the number" in told[0]
    (stored / "run" / "steps" / "000004").rename(stored / "run" / "steps" / "04")
    assert committed_steps(stored / "run") == [6]  # no step is called so


def test_a_renamed_step_has_one_cure_and_it_works(stored):
    steps = stored / "run" / "steps"
    for name in ("000250", "04", "000004 (copy)"):
        (steps / "000004").rename(steps / name)
        with pytest.raises(CheckpointError, match="must bear the number of its manifest") as refused:
            load_pretrained(stored / "run")
        said = str(refused.value)
        assert f"got steps/{name} of" in said and "; rename the folder to 000004\n" in said
        assert "from a copy" not in said and "delete" not in said
        (steps / name).rename(steps / "000004")
        assert load_pretrained(stored / "run").step == 4


def test_a_copied_step_is_told_with_what_to_do(stored):
    steps = stored / "run" / "steps"
    shutil.copytree(steps / "000004", steps / "000250")
    with pytest.warns(UserWarning, match=r"falling back to step 4: .*got steps/000250 .*; delete .*/000250: 000004 is"):
        assert load_pretrained(stored / "run").step == 4
    # The copy may be all that is left of it.
    victim = next(path for path in sorted((steps / "000004").rglob("*")) if path.is_file() and path.stat().st_size)
    victim.write_bytes(victim.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="; delete 000004, which is damaged, and rename the folder to 000004"):
        load_pretrained(stored / "run")
    shutil.rmtree(steps / "000004")
    (steps / "000250").rename(steps / "000004")
    assert load_pretrained(stored / "run").step == 4


def test_a_run_whose_steps_are_misnamed_does_not_begin_again(stored):
    (stored / "run" / "steps" / "000004").rename(stored / "run" / "steps" / "step4")
    with pytest.raises(CheckpointError, match="got steps/step4 "):
        run_pretrain.main(replace(PRETRAIN, dataset=str(stored / "dataset"), run=str(stored / "run")))
    assert committed_steps(stored / "run") == [] and len((stored / "run" / "metrics.jsonl").read_text()) > 0


def test_a_run_that_is_renamed_is_the_same_run(stored):
    (stored / "run").rename(stored / "mine")
    assert load_pretrained(stored / "mine").step == 4


def test_a_token_store_of_another_split_is_made_again(stored):
    cohort = stored / "cohort"
    test = open_token_store(cohort, "test").patient_id.tolist()
    (cohort / "token_store" / "test").rename(cohort / "token_store" / "train")
    train = open_token_store(cohort, "train").patient_id.tolist()
    assert len(train) == 96 and not set(train) & set(test)


def test_predictions_of_another_run_and_changed_ones_are_refused(stored, tmp_path):
    from medbert_jax.evaluation.held_out import evaluate_test

    path = tmp_path / "predictions" / "0123456789abcdef.parquet"
    evaluate_test(stored / "cohort", lambda sequences: np.linspace(0, 1, len(sequences)), path)
    said = pl.read_parquet_metadata(path)
    assert len(read_predictions(path).frame) == 31
    other = path.rename(path.with_name("fedcba9876543210.parquet"))
    with pytest.raises(ValueError, match=r"got fedcba9876543210\.parquet with those of run 0123456789abcdef; rename"):
        read_predictions(other)
    said = {name: value for name, value in said.items() if name != "ARROW:schema"}
    pl.read_parquet(other).reverse().write_parquet(path, metadata=said)
    with pytest.raises(ValueError, match="predictions must be as they were written: got 0123456789abcdef"):
        read_predictions(path)


def rewrite(path: Path) -> None:
    said = {name: value for name, value in pl.read_parquet_metadata(path).items() if name != "ARROW:schema"}
    pl.read_parquet(path).write_parquet(path, metadata=said | {"version": "2"})


def newer_configuration(stored: Path):
    edit_json(stored / "run" / "config.json", version=2, invented={"field": 1})
    read_config(stored / "run")


def newer_metadata(stored: Path):
    edit_json(stored / "dataset" / "metadata.json", version=2)
    read_metadata(stored / "dataset")


def newer_results(stored: Path):
    rewrite(one(stored / "results"))
    read_results(stored / "results")


def newer_predictions(stored: Path):
    rewrite(one(stored / "results" / "predictions"))
    read_predictions(one(stored / "results" / "predictions"))


def newer_tables(stored: Path):
    write_tables(made_tables(40), stored / "ehr")
    edit_json(stored / "ehr" / "source.json", written_as="medbert_jax EHR tables, version 3", invented=1)
    read_tables(stored / "ehr")


@pytest.mark.parametrize("write", [newer_configuration, newer_metadata, newer_results, newer_predictions, newer_tables])
def test_a_newer_version_is_refused_in_one_sentence(write: Callable, stored):
    known = 2 if write is newer_tables else 1
    message = (
        f"must be of version {known} or older, which this medbert_jax reads: got .* of version {known + 1};"
        " read it with the"
    )
    with pytest.raises(ValueError, match=message):
        write(stored)


def opened(path: Path, vocabulary, may_differ=(), **changes) -> RunDirectory:
    config = asdict(PRETRAIN) | {"split": {"key": "medbert"}} | changes
    return RunDirectory.create_or_open(path, config=config, vocabulary=vocabulary, may_differ=may_differ)


def without(config: dict, name: str) -> dict:
    return {key: value for key, value in config.items() if key != name}


def test_fields_that_are_new_since_take_their_defaults_and_are_told(stored, tmp_path, capsys, monkeypatch):
    vocabulary, run = read_vocabulary(stored / "dataset"), tmp_path / "run"
    older = without(asdict(PRETRAIN), "validation_size")
    older |= {"optimizer": without(older["optimizer"], "schedule"), "model": without(older["model"], "pooler")}
    older |= {"split": {"key": "medbert"}}
    RunDirectory.create_or_open(run, config=older, vocabulary=vocabulary).close()
    capsys.readouterr()
    with opened(run, vocabulary) as again:
        assert again.config["optimizer"]["schedule"] == "bert" and again.changes == {}
    told = capsys.readouterr().err
    assert all(text in told for text in ('optimizer.schedule = "bert"', "model.pooler = false", "validation_size = 0"))
    assert Checkpoint(str(run)).config["validation_size"] == 0
    optimizer = asdict(PRETRAIN.optimizer) | {"schedule": "constant"}
    with pytest.raises(RunDirectoryError, match=r'(?s)− optimizer\.schedule = "bert".*use those of the run'):
        opened(run, vocabulary, optimizer=optimizer)
    assert "medbert_jax 0.1.0, configuration version 1" in (run / "README.md").read_text()


def test_fields_that_were_removed_are_refused_by_name(stored, tmp_path):
    vocabulary, run = read_vocabulary(stored / "dataset"), tmp_path / "run"
    opened(run, vocabulary, optimizer=asdict(PRETRAIN.optimizer) | {"nesterov": True}, invented=3).close()
    with pytest.raises(RunDirectoryError, match=r"known: got invented = 3, optimizer\.nesterov = true .* go on with"):
        opened(run, vocabulary)
    opened(tmp_path / "facts", vocabulary).close()  # what the data say is no field of the configuration
    with pytest.raises(RunDirectoryError, match=r'(?s)others for .*− split\.key = "medbert"\n  \+ split\.sha256 = "a"'):
        opened(tmp_path / "facts", vocabulary, split={"sha256": "a"})


def test_an_architecture_of_unknown_fields_is_refused_by_every_reader(stored, monkeypatch):
    """Where all checksums hold: a later version wrote it."""
    monkeypatch.setattr("medbert_jax.training.checkpoint.good_step", lambda path: 4)
    config = json.loads((stored / "run" / "config.json").read_text())
    edit_json(stored / "run" / "config.json", model=config["model"] | {"rotary": True})
    monkeypatch.setattr("medbert_jax.training.pretrained.latest_good_step", lambda path: 4)
    with pytest.raises(RunDirectoryError, match="got rotary in"):
        load_pretrained(stored / "run")
    with pytest.raises(RunDirectoryError, match="got rotary in"):
        _ = Checkpoint(str(stored / "run")).model
