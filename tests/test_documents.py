"""What the documents say can be typed, opened and imported; the picture of the house is that of its imports."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented_commands import ROOT, faults_of_shell, faults_of_span
from test_layers import ORDER

import medbert_jax

FOLDERS = ("medbert_jax", "tfds_builders", "configs", "benchmarks", "docs")
ROOMS = [name for name in ORDER if (ROOT / "medbert_jax" / name).is_dir()]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
MODULES = [*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)}|tests|\.ci)/[\w./*-]*\w")
OF_A_ROOM = re.compile(rf"(?<![\w/.-])(?:{'|'.join(ROOMS)})/[a-z\d_/.-]*\.(?:py|yaml)\b")
SCRIPT = re.compile(r"(?<![\w/.*-])[a-z][\w-]*\.py\b")
MODULE = re.compile(rf"(?<![\w/.-])(?:medbert_jax|tfds_builders|{'|'.join(ROOMS)})(?:\.\w+)+")
FILES_OF_USERS = re.compile(r"\.(csv|json|jsonl|md|svg|tsv)$")
WRITTEN = re.compile(r"--out \S+")


def faults_of_places(text: str) -> Iterator[str]:
    """Paths, scripts and modules that are not there."""
    text = WRITTEN.sub("", text)
    for path in PATH.findall(text):
        yield from [f"{path}: not there"] * (not list(ROOT.glob(path)))
    for path in OF_A_ROOM.findall(text):
        yield from [f"{path}: not there"] * (not (ROOT / "medbert_jax" / path).is_file())
    for name in SCRIPT.findall(text):
        yield from [f"{name}: no such file"] * (name not in file_names())
    for name in MODULE.findall(text):
        yield from [f"{name}: no such module or name"] * (not FILES_OF_USERS.search(name) and not is_defined(name))


@functools.cache
def file_names() -> frozenset[str]:
    """Names of the project's files."""
    found = [path for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("*.*")]
    return frozenset(path.name for path in [*ROOT.glob("*.*"), *found])


def is_defined(name: str) -> bool:
    """Whether a dotted name is a module of ours, or stands at the top of one, or in a class there."""
    parts = name.split(".")
    parts = parts if parts[0] in ("medbert_jax", "tfds_builders") else ["medbert_jax", *parts]
    folder = ROOT
    while parts and (folder / parts[0]).is_dir():
        folder, parts = folder / parts[0], parts[1:]
    if not parts:
        return True
    file = folder / f"{parts[0]}.py"
    if not file.is_file():
        return folder == ROOT / "medbert_jax" and parts[0] in medbert_jax.__all__
    body = ast.parse(file.read_text()).body
    for part in parts[1:]:
        found = [node for node in body if part in names_of(node)]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def names_of(node: ast.stmt) -> set[str]:
    """What a statement gives a name to."""
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {getattr(node, "name", None), *(target.id for target in targets if isinstance(target, ast.Name))}


def faults_of_links(text: str, file: Path) -> Iterator[str]:
    """Links to files that are not there, or to headings that their files have not."""
    for link in LINK.findall(text):
        path, _, heading = link.partition("#")
        target = (file.parent / path) if path else file
        if "://" in link:
            continue
        if not target.exists():
            yield f"{link}: not there"
        elif heading and heading not in headings(target):
            yield f"{link}: no such heading"


def headings(file: Path) -> set[str]:
    """What GitHub calls the headings of a document in links."""
    titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# ── Documents and docstrings ──────────────────────────────────────────────────────────────────────────────────────────


def faults_of_document(text: str, file: Path) -> list[str]:
    """All that a document says and that is not so."""
    found = list(faults_of_links(text, file))
    for language, block in FENCE.findall(text):
        found += faults_of_shell(block) if language == "bash" else []
    prose = FENCE.sub("", text)
    for span in SPAN.findall(prose):
        found += faults_of_span(span)
    return found + list(faults_of_places(text))


def faults_of_module(source: str) -> list[str]:
    """All that the docstrings of a module say and that is not so; of its other texts, the commands."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            text = node.value.value
            found += [*faults_of_shell(SPAN.sub("", text)), *faults_of_places(text)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        for span in SPAN.findall(text):
            found += faults_of_span(span)
    return list(dict.fromkeys(found))


# ── Tests ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_says_is_there(document):
    file = ROOT / document
    assert faults_of_document(file.read_text(), file) == []


def test_what_docstrings_say_is_there():
    assert {file.name: found for file in MODULES if (found := faults_of_module(file.read_text()))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "```bash\nmedbert prepare EHR NAME --no-such 1\n```",
        "```bash\nmedbert prepare EHR\n```",
        "```bash\nmedbert ingest SOURCE EHR --format omop|medz\n```",
        "```bash\nsbatch --array=0-63 … medbert prepare EHR NAME --shards 1/64\n```",
        "```bash\ncd x && medbert serve\n```",
        "```bash\npython run_pretrain.py configs/pretrain_small.py \\\n  --masking.share 25\n```",
        "```bash\nmedbert finetune pretrain_small\n```",
        "```bash\npython benchmarks/simulate.py --work FOLDER --size 1\n```",
        "```bash\npython benchmarks/none.py\n```",
        "```bash\npip install '.[cuda]'\n```",
        "| pretrain | `python run_pretrain.py configs/none.py` |",
        "`medbert cohort EHR hf-later\nhf-later --test-form 2014-01-01`",
        "`medbert cohort … --reviews 25`",
        "`medbert validates` says so",
        "`--no-rows.packed`",
        "`rows.packd`",
        "[data](data.md)",
        "[what holds](docs/data.md#what-hold)",
        "in `benchmarks/results/none.json`",
        "in medbert_jax/ehr/ledger.py",
        "`ehr/ledger.py`: counts",
        "`medbert_jax.attrition.ledger.Legder`",
        "`data.rows.gather_row`",
        "as `run_train.py` does",
    ],
)
def test_a_planted_fault_is_found(text):
    assert faults_of_document(text, ROOT / "README.md")


@pytest.mark.parametrize(
    "source",
    [
        '"""What.\n\n    medbert prepare EHR NAME --no-such 1\n"""',
        '"""What.\n\npython run_finetune.py configs/finetune_small.py --patience 0\n"""',
        'class A:\n    b: int\n    """As `medbert prepare --no-such` has it."""',
        '"""As `training.loss` does."""',
        '"""See medbert_jax/none.py."""',
        "raise ValueError('no tables; `medbert ingests` makes them')",
    ],
)
def test_a_planted_fault_of_a_docstring_is_found(source):
    assert faults_of_module(source)


def test_what_is_right_passes():
    text = "`medbert cohort … --review 25`, `medbert ingest SOURCE EHR --format omop`, [x](docs/data.md#mimic-iv)\n"
    text += "```bash\nmedbert cohort EHR dhf dhf --pretraining-dataset …   # why\nbash .ci/run\n"
    text += "python benchmarks/simulate.py --work X && pip install -e '.[dev]'\n```"
    assert faults_of_document(text, ROOT / "README.md") == []


def test_the_picture_is_that_of_the_imports(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import house

    assert house.PICTURE.read_text() == house.draw(), "draw it again: python docs/house.py"
    monkeypatch.delitem(sys.modules, "house")


def test_the_page_of_the_interface_is_that_of_the_docstrings(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import api

    assert api.PAGE.read_text() == api.page(), "make it again: python docs/api.py"
    public = set(medbert_jax.__all__) - {"__version__"}
    assert public <= {line.removeprefix("## ") for line in api.page().splitlines()}
    monkeypatch.delitem(sys.modules, "api")
