"""Whatever folders are called and whatever the terminal can show, what comes out is the same."""

import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from made_ehr import made_tables
from prepared_datasets import prepare_cohort, prepare_pretraining
from sources.made_layouts import WRITERS, write_source
from test_line import COHORT, FINETUNE, PRETRAIN, quick_compilation  # noqa: F401

import medbert_jax
import run_finetune
import run_pretrain
from medbert_jax import cli
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.ehr.tables import read_source, write_tables
from medbert_jax.evaluation.predictions import read_predictions
from medbert_jax.evaluation.results import read_results
from medbert_jax.ingest.ingest import ingest
from medbert_jax.simulation.simulate import simulate

CHECKOUT = Path(__file__).parents[1]
NAMES = {"omop[1]": "omop1", "o?": "ox", "a*b": "a-b", "~": "x", "ä ö": "a o", "-rf": "rf", "site=3": "site=4"}
"""Name → one that a pattern of it would match, where there is any."""


def with_neighbour(folder: Path) -> Path:
    """The folder, beside which another one has the same files with something else in them."""
    other = folder.with_name(NAMES[folder.name])
    shutil.copytree(folder, other)
    for path in other.rglob("*"):
        if path.is_file():
            path.write_bytes(b"PAR1 is how a table begins, and nothing follows")
    return folder


@pytest.fixture(scope="module")
def hashes(tmp_path_factory):
    """Each kind of source → the hash of its tables, read from a folder whose name says nothing to anybody."""
    folder = tmp_path_factory.mktemp("plain")
    return {kind: tables_of(kind, folder / kind, folder / f"ehr-{kind}") for kind in WRITERS}


def tables_of(kind: str, folder: Path, out: Path) -> str:
    source, format, options = write_source(kind, folder)
    if folder.name in NAMES:
        with_neighbour(folder)
    ingest(source, out, format=format, shards=1, workers=1, options=options)
    return read_source(out).content_hash


@pytest.mark.parametrize("kind", WRITERS)
def test_a_source_of_every_format_is_read_from_its_own_folder(tmp_path, hashes, kind):
    assert tables_of(kind, tmp_path / "omop[1]", tmp_path / "o?") == hashes[kind]


@pytest.mark.parametrize("name", NAMES)
def test_a_source_and_its_tables_lie_in_folders_of_any_name(tmp_path, monkeypatch, hashes, name):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    assert tables_of("omop-parquet", Path("in", name), Path(name)) == hashes["omop-parquet"]
    assert tables_of("mimic-iv", Path("in", name, name), Path(name)) == hashes["mimic-iv"]  # replaces them


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_results_of_any_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    labels = {"subject_id": [1, 2], "prediction_time": [datetime(2010, 1, 1)] * 2, "boolean_value": [True, False]}
    with open(folder / f"{name}.parquet", "wb") as file:
        pl.DataFrame(labels).write_parquet(file)
    found = LabelFolder.find(with_neighbour(folder))
    assert found.read().sort("patient_id")["boolean_value"].to_list() == [True, False]


def test_simulated_tables_and_their_truth_lie_below_any_name(tmp_path):
    plain = simulate(out=tmp_path / "ehr", patients=300, truth=tmp_path / "truth")
    odd = simulate(out=tmp_path / "br [1]" / "o?", patients=300, truth=tmp_path / "br [1]" / "a*b")
    assert odd.content_hash == plain.content_hash


def test_the_whole_line_goes_below_odd_names(tmp_path, capsys):
    """Tables, splits, datasets, runs, labels, predictions and results, beside folders that their patterns match."""
    home = tmp_path / "ä [1]?*"
    for other in ("ä 1xx", "ä 1?*"):
        (tmp_path / other).mkdir()
    write_tables(made_tables(500, seed=5), home / "ehr[1]")
    (home / "made [1].yaml").write_text(COHORT, encoding="utf-8")
    dataset = prepare_pretraining(home / "ehr[1]", "made", data_dir=home / "data[1]", announce=print)
    again = prepare_pretraining(home / "ehr[1]", "made", data_dir=home / "data[1]", announce=print)
    assert again == dataset and dataset.is_relative_to(home)
    spec = str(home / "made [1].yaml")
    options = {"data_dir": home / "data[1]", "announce": print, "few_cases": True}
    cohort = prepare_cohort(home / "ehr[1]", spec, "hf", pretraining_dataset=dataset, **options)
    without = prepare_pretraining(home / "ehr[1]", "less", data_dir=home / "data[1]", exclude_cohort=cohort)
    for made in (dataset, cohort, without):
        shutil.rmtree(made / "token_store")  # decoded again
    run = home / "runs" / "-a[b]"
    assert run_pretrain.main(replace(PRETRAIN, dataset=str(dataset), run=str(run))) == run
    assert medbert_jax.load_pretrained(run).vocabulary.size > 16
    results = home / "br [1]"
    run_finetune.main(
        replace(
            FINETUNE, dataset=str(cohort), checkpoint=str(run), run=str(home / "fine?"), results=str(results),
            train_size=50,
        )
    )  # fmt: skip
    (tmp_path / "br 1").mkdir()
    assert read_results(results)["cohort"].unique().to_list() == ["made-heart-failure"]
    predictions = [read_predictions(path).frame for path in (results / "predictions").iterdir()]
    assert len(predictions) == 3 and min(map(len, predictions)) > 0  # the two standing baselines beside it
    capsys.readouterr()
    for arguments in (
        ("report", results, "--out", home / "table [1].md"),
        ("describe", dataset, cohort, "--out", home / "told[1]"),
        ("attrition", cohort, "--out", home / "flow[1]"),
        ("validate", home / "ehr[1]", "--json-out", home / "faults[1].json"),
        ("cohort", home / "ehr[1]", spec, "hf2", "--data-dir", home / "data[1]", "--pretraining-dataset", dataset,
         "--few-cases", "--review", "2"),
    ):  # fmt: skip
        medbert(*arguments)


def medbert(*arguments) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medbert", *map(str, arguments)])
        cli.main()


# ── terminals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_a_terminal_that_is_not_utf8_shows_replacement_characters(tmp_path, monkeypatch, encoding):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    write_tables(made_tables(400, seed=9), tmp_path / "Ω→ä")
    medbert("validate", tmp_path / "Ω→ä")
    medbert("prepare", tmp_path / "Ω→ä", "made", "--data-dir", tmp_path / "Ω→ä" / "data")
    with pytest.raises(SystemExit):
        medbert("report", tmp_path / "Ω→ä")
    with pytest.raises(SystemExit):
        medbert("pretrain", "Ω→ä")
    out.flush(), err.flush()
    said = out.buffer.getvalue().decode(encoding)
    assert "dataset in " in said and "??" in said
    told = err.buffer.getvalue().decode(encoding)
    assert "one Parquet per run: got none in" in told and "got ??" in told and "Traceback" not in told


SCRIPT = """
import sys
from medbert_jax.cli import main
for line in sys.stdin.buffer.read().decode().splitlines():
    sys.argv = ["medbert", *line.split("\\t")]
    main()
print(sys.stdout.encoding)
"""


def test_a_machine_whose_language_is_c_makes_what_others_make(tmp_path):
    """Files are UTF-8 there too."""
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONPATH": "."}
    write_tables(made_tables(400, seed=9), tmp_path / "ehr")
    data = tmp_path / "data"
    commands = [
        ("validate", tmp_path / "ehr"),
        ("prepare", tmp_path / "ehr", "made", "--data-dir", data),
        ("cohort", tmp_path / "ehr", "hf-later", "hf", "--data-dir", data, "--few-cases", "--review", "2",
         "--pretraining-dataset", data / "ehr_pretraining" / "made" / "1.0.0"),
        ("describe", data / "ehr_pretraining" / "made" / "1.0.0", "--out", tmp_path / "told"),
    ]  # fmt: skip
    text = "\n".join("\t".join(map(str, command)) for command in commands).encode()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=text, capture_output=True, env=environment, cwd=CHECKOUT
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode("ascii").endswith("ANSI_X3.4-1968\n") or done.stdout.endswith(b"ascii\n")
    dataset = data / "ehr_pretraining" / "made" / "1.0.0"
    here = prepare_pretraining(tmp_path / "ehr", "made", data_dir=tmp_path / "here", announce=print)
    for name in ("metadata.json", "ledger.json", "vocabulary.tsv"):
        assert (dataset / name).read_bytes() == (here / name).read_bytes()
