"""Nothing is written but through medbert_jax/disk: whole, and on disk when the writer says so."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    # What nobody reads any more is written to nowhere.
    ("medbert_jax/command_end.py", "told"): {"open"},
    # A log grows by lines; one that a crash cut is dropped by the reader.
    ("medbert_jax/training/progress.py", "record"): {"open"},
    # Columns that grow, in a folder that is replaced whole.
    ("medbert_jax/data/column_files.py", "__init__"): {"open"},
    # Called with the path of a file that is placed whole.
    ("tfds_builders/work_folder.py", "write_columns"): {"open", "save"},
    # Scratch of one run beside the tables in the making; it goes with the run.
    ("medbert_jax/ingest/scattering.py", "_scatter"): {"write_ipc", "save"},
    ("medbert_jax/ingest/scattering.py", "scatter_all"): {"write_ipc"},
    # Orbax, whose files are brought to disk and sealed by the manifest.
    ("medbert_jax/training/checkpointing.py", "save_step"): {"save"},
}
METHODS = {"write_text", "write_bytes"}
OF_MODULES = {("os", name) for name in ("open", "replace", "rename", "fsync", "link", "symlink")}
OF_MODULES |= {("shutil", name) for name in ("move", "copy", "copy2", "copyfile", "copytree")} | {("json", "dump")}
MODULES = {"fcntl", "tempfile"}
LIBRARIES = {"write_parquet", "write_csv", "write_ipc", "write_ndjson", "write_json", "savefig", "tofile",
             "save", "savez", "savez_compressed"}  # fmt: skip
"""They may write to what `whole_file` yields and to memory."""


def writes(path: str, source: str) -> list[tuple[str, str]]:
    """(function, what) of everything in a file that writes by itself and is not allowed to."""
    found = []

    def walk(node: ast.AST, function: str, fit: frozenset[str]) -> None:
        if isinstance(node, ast.FunctionDef):
            function = node.name
            memory = (one for one in ast.walk(node) if isinstance(one, ast.Assign) and _makes(one.value, _MEMORY))
            fit = frozenset(target.id for one in memory for target in one.targets if isinstance(target, ast.Name))
        if isinstance(node, ast.With):
            whole = (item.optional_vars for item in node.items if _makes(item.context_expr, {"whole_file"}))
            fit |= {name.id for name in whole if isinstance(name, ast.Name)}
        for what in _written(node, fit):
            if what not in ALLOWED.get((path, function), ()):
                found.append((function, what))
        for child in ast.iter_child_nodes(node):
            walk(child, function, fit)

    walk(ast.parse(source), "", frozenset())
    return found


_MEMORY = {"BytesIO", "StringIO"}


def _makes(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Call) and _name(node.func)[1] in names


def _name(function: ast.AST) -> tuple[str, str]:
    """(what stands before the last dot where that is a name, what is called)."""
    if isinstance(function, ast.Attribute):
        return (function.value.id if isinstance(function.value, ast.Name) else "."), function.attr
    return "", getattr(function, "id", "")


def _written(node: ast.AST, fit: frozenset[str]) -> list[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        return [name for name in names if name in MODULES]
    if not isinstance(node, ast.Call):
        return []
    owner, called = _name(node.func)
    if called == "open" and owner != "os":
        place = 0 if owner else 1
        mode = [keyword.value for keyword in node.keywords if keyword.arg == "mode"] or node.args[place : place + 1]
        reads = not mode or (isinstance(mode[0], ast.Constant) and not set("wax+") & set(str(mode[0].value)))
        return [] if reads else ["open"]
    if called in METHODS or (owner, called) in OF_MODULES:
        return [called]
    if called in LIBRARIES and owner and node.args:
        target = node.args[0]
        return [] if isinstance(target, ast.Name) and target.id in fit else [called]
    return []


def files() -> list[Path]:
    found = [*ROOT.glob("run_*.py")]
    for folder in ("medbert_jax", "tfds_builders", "configs"):
        found += (ROOT / folder).rglob("*.py")
    return [path for path in found if path.parent != ROOT / "medbert_jax" / "disk"]


def test_nothing_writes_by_itself():
    names = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files()}
    assert len(names) > 100 and "run_finetune.py" in names
    assert {name: found for name, source in names.items() if (found := writes(name, source))} == {}


def test_what_is_allowed_is_there():
    allowed = {}
    for path, function in ALLOWED:
        tree = ast.parse((ROOT / path).read_text())
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
        whats = {what for one in found for node in ast.walk(one) for what in _written(node, frozenset())}
        allowed[path, function] = whats & ALLOWED[path, function]
    assert allowed == ALLOWED


@pytest.mark.parametrize(
    "offender",
    [
        "open(path, 'w')",
        "open(path, mode='ab')",
        "open(path, how)",
        "path.open('wb')",
        "(folder / name).open('r+')",
        "path.write_text(text)",
        "(folder / name).write_bytes(content)",
        "os.replace(one, other)",
        "os.open(path, flags)",
        "shutil.move(one, other)",
        "import fcntl",
        "from tempfile import mkdtemp",
        "json.dump(data, file)",
        "np.save(path, values)",
        "frame.write_parquet(path)",
        "frame.write_csv(folder / 'a.csv')",
        "figure.savefig(path)",
        "with whole_file(path) as partial:\n        frame.write_parquet(path)",
        "with whole_file(path) as partial:\n        partial.write_text(text)",
    ],
)
def test_a_planted_offender_is_found(offender):
    for before in ("", "def f():\n    ", "class A:\n  def f(self):\n    "):
        source = before + (offender if before else offender.replace("\n    ", "\n"))
        assert len(writes("medbert_jax/ehr/x.py", source)) == 1, source
    assert writes("medbert_jax/training/progress.py", f"def other():\n    {offender}")


@pytest.mark.parametrize(
    "source",
    [
        "open(path)",
        "open(path, 'rb')",
        "path.open()",
        "frame.write_csv()",
        "with whole_file(path) as partial:\n    frame.write_parquet(partial, metadata=said)",
        "def f():\n    buffer = io.BytesIO()\n    frame.write_parquet(buffer)",
        "frame.rename({'a': 'b'})",
        "text.replace('a', 'b')",
        "write_json(path, data)",
    ],
)
def test_readers_and_whole_files_pass(source):
    assert writes("medbert_jax/ehr/x.py", source) == []
