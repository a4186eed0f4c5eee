"""Stored JSON of any form, whatever becomes of one of its values, is read as it was or refused in a sentence."""

import ast
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_ehr import made_tables

from medbert_jax.attrition.files import read_attrition, read_ledger
from medbert_jax.data.metadata import read_dataset_info, read_metadata
from medbert_jax.data.token_store import open_token_store
from medbert_jax.disk.stored_json import parse_object, read_object
from medbert_jax.disk.versions import number_of, refuse_newer
from medbert_jax.disk.whole_files import canonical_json
from medbert_jax.ehr.tables import listed_files, read_source, write_tables
from medbert_jax.prediction.stored_predictor import read_predictor, write_predictor
from medbert_jax.prediction.validated import validated
from medbert_jax.training import manifest
from medbert_jax.training.lineage import check_pretraining_dataset, check_split
from medbert_jax.training.manifest import CheckpointError, read_manifest
from medbert_jax.training.progress import metrics_row
from medbert_jax.training.stored_config import CONFIG_VERSION, read_config, stored_model

ROOT = Path(__file__).parents[2]
STORED = max(path for path in (ROOT / "tests" / "stored").iterdir() if (path / "run").is_dir())
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
OTHERS = (None, [], ["x"], "text", -7, 2.5, True, {}, {"x": {"y": []}}, math.nan)


def changed(data: object, free: tuple[str, ...] = (), place: str = "") -> Iterator[tuple[str, object]]:
    """(what was done, the data) with one value of another type, or without one key; not within what has any form."""
    if place in free:
        return
    if isinstance(data, dict):
        for key, value in data.items():
            yield f"without {place}.{key}", {name: data[name] for name in data if name != key}
            for what, other in changed(value, free, f"{place}.{key}".lstrip(".")):
                yield what, data | {key: other}
    elif isinstance(data, list):
        for number, value in enumerate(data[:2]):
            for what, other in changed(value, free, f"{place}[]"):
                yield what, [*data[:number], other, *data[number + 1 :]]
    yield from ((f"{place} = {other}", other) for other in OTHERS if kind(other) is not kind(data))


def kind(value: object) -> type:
    """As which a value is stored: whole numbers are numbers."""
    return float if type(value) is int else type(value)


def configuration(folder: Path) -> object:
    config = read_config(folder)
    check_split(folder, config.get("split", {}))
    check_pretraining_dataset(folder, config.get("dataset_hash", "unknown"))
    return config | {"model": stored_model(config, folder)}


FORMS: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "metadata": ("cohort/metadata.json", read_metadata, ("recipe", "cohort")),
    "dataset_info": ("dataset/dataset_info.json", read_dataset_info, ()),
    "ledger": ("cohort/ledger.json", read_ledger, ()),
    "source": ("ehr/source.json", lambda folder: (read_source(folder), listed_files(folder)), ()),
    "configuration": ("run/config.json", configuration, ()),
    "fine-tuned configuration": ("finetuned/config.json", lambda folder: read_config(folder), ()),
    "predictor": ("predictor/predictor.json", read_predictor, ("cohort",)),
}
PREDICTS = {
    "model": {"kind": "finetuned", "backbone": "pretrained", "head": "gru", "parameters": "step 3, manifest 00"},
    "run_id": "00",
    "cohort": {"name": "made"},
    "dataset_hash": "00",
    "ehr_content_hash": "00",
    "vocabulary_hash": "00",
    "preset": "paper",
    "serialization": {"minimum_codes": 1},
    "back_off": False,
    "design": {"sampling": "everybody", "estimand": "risk", "horizon_days": 365, "refused": ""},
    "train": {"patients": 9, "predictions": 9, "cases": 3},
    "validation": validated([0, 1, 0, 1], [0.1, 0.3, 0.4, 0.6], [1, 1, 1, 2], is_risk=True),
    "test": {"auroc": 0.5},
}
OF_TFDS = ("configName", "description", "moduleName", "releaseNotes", "version", "filepathTemplate", "numBytes")
MAPS = ("known", "files", "flags", "unknown_code_share", "counts", "cases")
"""Of any keys; what is missing there is missed by who looks for it."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    folder = shutil.copytree(STORED, tmp_path_factory.mktemp("stored") / "stored")
    write_tables(made_tables(40), folder / "ehr")
    shutil.copytree(folder / "finetuned", folder / "predictor")
    write_predictor(folder / "predictor", PREDICTS)
    for name, number in (("cohort/metadata.json", 1), ("run/config.json", CONFIG_VERSION)):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": number}))
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_a_value_of_another_type_is_refused_with_the_file_or_nothing_else(form, stored):
    name, load, free = FORMS[form]
    path = stored / name
    content, intact = path.read_text(), load(path.parent)
    unlike = []
    try:
        for what, data in changed(json.loads(content), free):
            path.write_text(json.dumps(data))
            try:
                found = load(path.parent)
            except ValueError as refusal:
                if path.name not in str(refusal) and str(path.parent) not in str(refusal):
                    unlike.append(f"{what}: {refusal}")
                continue
            if found != intact:
                unlike.append(what)
    finally:
        path.write_text(content)
    assert [one for one in unlike if not harmless(one, form)] == []


def harmless(what: str, form: str) -> bool:
    """What no reader of the form is asked for, or what he fills in and tells."""
    without, place = what.startswith("without "), what.partition(" = ")[0].removeprefix("without ").lstrip(".")
    if form == "dataset_info":  # TFDS asks for the rest
        return any(name in place for name in (*OF_TFDS, "fileFormat"))
    if "configuration" in form and without:  # defaults, and facts; a step's sha256 says that they were others
        return True
    nullable = place in ("last_day", "source.last_day", "split.ratios") or (form == "metadata" and place == "cohort")
    of_a_map = any(name in place.split(".")[:-1] for name in MAPS)
    return (without and (place in ("version", "split.key", "split.ratios") or of_a_map)) or (
        nullable and what.endswith("= None")
    )


@pytest.mark.parametrize("content", [DEEP, "[]", "7", "", '{"a": 1e999}', '{"a": NaN}', '{"a": "\\ud800"}', "\x80"])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_such_object_is_refused_with_the_file(form, content, stored):
    name, load, _ = FORMS[form]
    path = stored / name
    before = path.read_bytes()
    try:
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=rf"{path.name}|{path.parent}") as refused:
            load(path.parent)
        assert "Traceback" not in str(refused.value) and len(str(refused.value)) < 1000
    finally:
        path.write_bytes(before)


def test_a_token_store_that_says_anything_else_is_decoded_again(stored, tmp_path):
    cohort = shutil.copytree(stored / "cohort", tmp_path / "cohort")
    ids = open_token_store(cohort, "test").patient_id.tolist()
    path = cohort / "token_store" / "test" / "store.json"
    for data in ('{"version": [], "columns": 3}', DEEP, "[]"):
        path.write_text(data)
        assert open_token_store(cohort, "test").patient_id.tolist() == ids


def test_a_manifest_whose_seal_holds_is_refused_where_its_form_is_another(stored, tmp_path):
    run = shutil.copytree(stored / "run", tmp_path / "run")
    path = run / "steps" / "000004" / "MANIFEST.json"
    body = json.loads(path.read_text())["manifest"]
    whole = read_manifest(run, 4)
    body |= {"files": first_two(body["files"]), "arrays": {name: first_two(of) for name, of in body["arrays"].items()}}
    for what, data in changed(body):
        if not isinstance(data, dict):
            continue
        path.write_bytes(sealed_or_nothing(data))
        try:
            found = read_manifest(run, 4)
        except CheckpointError as refusal:
            assert "step" in str(refusal)
        else:
            assert found == whole or "." in what or "[]" in what, what
    path.write_bytes(canonical_json({"manifest": [1], "sha256": ""}))
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json has other bytes"):
        read_manifest(run, 4)


def first_two(part: dict) -> dict:
    """The others have the same form."""
    return dict(list(part.items())[:2])


def sealed_or_nothing(body) -> bytes:
    try:
        return manifest._sealed(body)
    except ValueError:  # NaN, which nobody can seal
        return b"{}"


@pytest.mark.parametrize("found", [None, True, "1", [1], 1.0, -1])
def test_a_version_that_is_none_is_not_called_newer(found):
    with pytest.raises(ValueError, match=r"a whole number from 0, or none: got x with .*; put the file back"):
        refuse_newer("x", found, 1)
    with pytest.raises(ValueError, match="of version 2; read it with"):
        refuse_newer("x", number_of("2"), 1)
    refuse_newer("x", number_of("1"), 1)


def test_lines_of_metrics_and_attrition_take_no_traceback(stored, tmp_path):
    assert metrics_row(DEEP.encode()) is None and metrics_row(b'{"kind": "a", "step": 1, "x": NaN}') is None
    assert metrics_row(b'{"kind": "a", "step": 1}') == {"kind": "a", "step": 1}
    cohort = shutil.copytree(stored / "cohort", tmp_path / "cohort")
    (cohort / "metadata.json").write_text(DEEP)
    with pytest.raises(ValueError, match=r"metadata\.json of a dataset must count"):
        read_attrition([cohort])


def test_fifty_levels_are_read_and_more_are_not(tmp_path):
    deep = '{"a":' * 49 + "1" + "}" * 49
    assert parse_object(deep)
    (tmp_path / "x.json").write_text('{"a":' * 51 + "1" + "}" * 51)
    with pytest.raises(ValueError, match=r"got more than 50 levels in .*x\.json; put"):
        read_object(tmp_path / "x.json")


def test_nothing_else_parses_json():
    """But what was written as JSON in the same line, to be as JSON gives it back."""
    found = []
    for place in ("medbert_jax", "tfds_builders", "run_pretrain.py", "run_finetune.py"):
        for path in [*(ROOT / place).rglob("*.py"), ROOT / place]:
            if path.suffix == ".py" and path.name != "stored_json.py":
                found += [path.name for node in ast.walk(ast.parse(path.read_text())) if parses(node)]
    assert found == []
    assert parses(ast.parse("json.loads(path.read_bytes())").body[0].value)
    assert not parses(ast.parse("json.loads(json.dumps(recipe))").body[0].value)


def parses(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("json.loads", "json.load", "loads"):
        return False
    return not ast.unparse(node.args[0]).startswith("json.dumps(")
