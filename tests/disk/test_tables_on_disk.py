"""Tables are read from the file of this very name; and nothing reads them, or opens text, another way."""

import ast
from pathlib import Path

import polars as pl
import pytest

from medbert_jax.disk.tables_on_disk import (
    parquet_metadata,
    parquet_schema,
    read_parquet,
    scan_arrow,
    scan_parquet,
)

ROOT = Path(__file__).parents[2]
HOME = "tables_on_disk.py"
READERS = {f"{verb}_{form}" for verb in ("read", "scan")
           for form in ("parquet", "csv", "ipc", "ipc_stream", "ndjson", "json", "avro", "excel")}  # fmt: skip
READERS |= {"read_parquet_schema", "read_parquet_metadata", "read_ipc_schema", "read_csv_batched"}
TEXT = {"open", "read_text", "write_text"}

NAMES = {"omop[1]": "omop1", "o?": "ox", "a*b": "a-b", "~": "x", "ä ö": "a o", "-rf": "rf", "site=3": "site=4"}
"""Name → one that a pattern of it would match, where there is any."""


def files() -> list[Path]:
    found = [*ROOT.glob("run_*.py")]
    for folder in ("medbert_jax", "tfds_builders", "configs"):
        found += (ROOT / folder).rglob("*.py")
    return found


def by_pattern(source: str) -> list[str]:
    """What gives polars something to read that is not in memory, or looks for files by a name that it is handed."""
    found, in_memory = [], set()
    for node in ast.walk(ast.parse(source)):  # a call before what is called
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = {alias.name for alias in node.names}
            found += sorted(names & READERS) if module == "polars" else ["glob"] * ("glob" in names | {module})
        given = node.args[0] if isinstance(node, ast.Call) and node.args else None
        if isinstance(given, ast.Call) and ast.unparse(given.func) == "io.BytesIO":
            in_memory.add(node.func)
        if not isinstance(node, ast.Attribute) or node in in_memory:
            continue
        if node.attr in READERS and isinstance(node.value, ast.Name) and node.value.id in ("pl", "polars"):
            found.append(node.attr)
    return found


def without_encoding(source: str) -> list[str]:
    """Calls that read or write text as the terminal's language has it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        is_method = isinstance(node.func, ast.Attribute)
        called = node.func.attr if is_method else getattr(node.func, "id", "")
        if called not in TEXT or (is_method and ast.unparse(node.func.value) == "os"):
            continue
        words = [keyword.arg for keyword in node.keywords]
        if called == "read_text" and (node.args or "encoding" in words):
            continue
        mode = next((keyword.value for keyword in node.keywords if keyword.arg == "mode"), None)
        mode = mode or next(iter(node.args[0 if is_method else 1 :]), None)
        if called == "open" and isinstance(mode, ast.Constant) and "b" in str(mode.value):
            continue
        if "encoding" not in words:
            found.append(called)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_read_takes_the_path_as_it_is(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for folder in (name, NAMES[name]):
        Path(folder).mkdir()
        frame = pl.DataFrame({folder: [folder], "other": [1]})
        with open(Path(folder, "t.parquet"), "wb") as file:
            frame.write_parquet(file, metadata={"name": folder})
        with open(Path(folder, "t.arrow"), "wb") as file:
            frame.write_ipc(file)
    path = Path(name, "t.parquet")
    assert read_parquet(path).columns == [name, "other"]
    assert read_parquet(path, columns=["other"]).columns == ["other"]
    assert scan_parquet(path).collect().columns == [name, "other"]
    assert scan_parquet(path, path).collect()[name].to_list() == [name] * 2
    assert list(parquet_schema(path)) == [name, "other"]
    assert parquet_metadata(path)["name"] == name
    assert scan_arrow(path.with_suffix(".arrow")).collect()[name].to_list() == [name]


def test_nothing_else_reads_tables_by_their_path():
    found = {path.relative_to(ROOT): by_pattern(path.read_text("utf-8")) for path in files() if path.name != HOME}
    assert len(found) > 100 and {name: what for name, what in found.items() if what} == {}
    assert by_pattern((ROOT / "medbert_jax" / "disk" / HOME).read_text("utf-8"))


@pytest.mark.parametrize(
    "offender",
    [
        "pl.read_parquet(path)",
        "pl.scan_parquet(path, glob=False)",
        "polars.read_csv(str(path))",
        "pl.read_parquet(source=path)",
        "pl.scan_ipc(folder / 'a.arrow').collect()",
        "pl.read_parquet_schema(path)",
        "pl.read_ipc(content)",
        "map(pl.read_ipc, paths)",
        "from polars import read_parquet",
        "import glob",
        "from glob import iglob",
    ],
)
def test_a_planted_reader_is_found(offender):
    assert len(by_pattern(f"def f():\n    {offender}")) == 1


def test_text_is_read_and_written_as_utf8():
    found = {path.relative_to(ROOT): without_encoding(path.read_text("utf-8")) for path in files()}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "offender",
    ["path.read_text()", "open(path)", "open(path, 'w')", "path.open('a')", "path.open()", "path.write_text(text)"],
)
def test_planted_text_without_an_encoding_is_found(offender):
    assert len(without_encoding(offender)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "path.read_text('utf-8')",
        "path.read_text(encoding='utf-8')",
        "open(path, 'rb')",
        "path.open('wb')",
        "path.open('a', encoding='utf-8')",
        "opened(path, 'rb')",
        "os.open(path, os.O_RDONLY)",
    ],
)
def test_utf8_and_bytes_pass(source):
    assert without_encoding(source) == []
    assert by_pattern("pl.read_csv(io.BytesIO(block), separator=',')") == []
