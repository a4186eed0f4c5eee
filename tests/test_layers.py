"""The layering of the design: data flows one way, and an import never pays for what it does not use."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import medbert_jax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "medbert_jax"
# A file imports only from folders (and modules of the package itself) above its own line.
ORDER = ["checked_fields", "identity", "options", "printed_tables", "drawn_figures", "command_end", "disk", "ehr",
         "attrition", "quality", "ingest", "simulation", "cohorts", "data", "models", "metrics", "training", "sharing",
         "baselines", "evaluation", "prediction", "experiments", "description", "chart_review", "visualization",
         "reporting", "replication"]  # fmt: skip
STRANGERS = [("models", "data"), ("data", "models")]
FREE = {
    "__main__.py",
    "classifier.py",
    "cli.py",
    "commands.py",
    "study_command.py",
    "__init__.py",
}  # what calls the scripts: the command, the classifier; __init__.py names what it loads lazily


def imported_modules(path: str, source: str) -> set[str]:
    """Every module that the file at `path`, below the checkout, imports at any depth; names in it after a dot."""
    package, found = Path(path).parent.parts, set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = [*above, node.module] if node.module else above
            # A name may be a module itself, or one that the package loads lazily from below.
            names = (".".join([*module, alias.name]) for alias in node.names)
            found |= {medbert_jax._PUBLIC.get(name.removeprefix("medbert_jax."), name) for name in names}
    return found


def faults(path: str, source: str) -> list[str]:
    """What a file at medbert_jax/`path` imports and may not."""
    folder = Path(path).with_suffix("").parts[0]
    wrong = []
    for module in sorted(imported_modules(f"medbert_jax/{path}", source)):
        parts = module.split(".")
        if parts[0] in ("run_pretrain", "run_finetune", "configs", "tfds_builders"):
            wrong.append(f"{path} imports {module}")
        if parts[0] == "flax" and folder != "models":
            wrong.append(f"{path} imports flax outside of models")
        if parts[0] != "medbert_jax" or len(parts) == 1:
            continue
        if parts[1] in ("classifier", "cli", "commands", "study_command") or parts[1] == "simulation" != folder:
            wrong.append(f"{path} imports {module}")
        elif parts[1] in ORDER and ORDER.index(parts[1]) > ORDER.index(folder):
            wrong.append(f"{path} imports {module}, which lies below it")
        elif (folder, parts[1]) in STRANGERS:
            wrong.append(f"{path} imports {module}")
    return wrong


def test_every_file_imports_only_from_above():
    files = [file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).as_posix() not in FREE]
    assert len(files) > 30
    assert [fault for file in files for fault in faults(str(file.relative_to(PACKAGE)), file.read_text())] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ehr/x.py", "from medbert_jax.data.rows import plan_rows"),
        ("checked_fields.py", "from medbert_jax.ehr.schema import SEXES"),
        ("disk/x.py", "from medbert_jax.ehr.tables import read_tables"),
        ("data/x.py", "import medbert_jax.models.config"),
        ("training/x.py", "from flax import nnx"),
        ("training/x.py", "def f():\n    from medbert_jax.evaluation.results import read_results"),
        ("cohorts/x.py", "from medbert_jax.simulation.world import World"),
        ("models/x.py", "from configs.pretrain_paper import CONFIG"),
        ("data/x.py", "from ..training.losses import x"),
        ("data/x.py", "from .. import models"),
        ("data/x.py", "from ... import run_pretrain"),
        ("data/deep/x.py", "from ...training import losses"),
        ("ehr/x.py", "from medbert_jax import training"),
        ("ehr/x.py", "from medbert_jax import cli"),
        ("ehr/x.py", "from medbert_jax.commands import demo"),
        ("ehr/x.py", "from medbert_jax import hashing, training, cli"),
        ("ehr/x.py", "from medbert_jax import load_pretrained"),
        ("printed_tables.py", "from medbert_jax.attrition.ledger import Ledger"),
    ],
)
def test_a_planted_import_against_the_order_is_found(path, source):
    assert faults(path, source)


def test_imports_from_above_and_from_the_own_folder_pass():
    source = "from ..ehr import ledger\nfrom .rows import plan_rows\nfrom . import rows\nfrom medbert_jax import ehr"
    assert faults("data/x.py", source + "\nfrom medbert_jax import __version__") == []


def test_builders_import_only_tables_cohorts_and_data():
    allowed = {"checked_fields", "identity", "disk", "ehr", "attrition", "cohorts", "data"}
    for file in (ROOT / "tfds_builders").rglob("*.py"):
        modules = imported_modules(str(file.relative_to(ROOT)), file.read_text())
        inside = {module.split(".")[1] for module in modules if module.startswith("medbert_jax.")}
        assert inside <= allowed, file


def test_everything_that_is_imported_from_the_checkout_ships_and_nothing_is_copied():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel) == {"only-include"}  # what is in force-include is copied into an editable installation
    shipped = {Path(name).stem: ROOT / name for name in wheel["only-include"]}
    files = [file for path in shipped.values() for file in (path.rglob("*.py") if path.is_dir() else [path])]
    imported = {
        module.split(".")[0]
        for file in files
        for module in imported_modules(str(file.relative_to(ROOT)), file.read_text())
    }
    here = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert imported & here | {"configs"} == set(shipped)
    # Presets are files: the name `configs` may be a folder of the user's.
    assert "configs" not in imported


def test_the_scripts_are_those_beside_the_package(tmp_path):
    code = "import importlib.util as u; print(*(u.find_spec(name).origin for name in %r), sep='\\n')"
    names = ("medbert_jax", "tfds_builders", "run_pretrain", "run_finetune")
    out = subprocess.run(
        [sys.executable, "-c", code % (names,)], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    package, builders, *scripts = map(Path, out.stdout.split())
    root = package.parents[1]
    assert [builders, *scripts] == [
        root / "tfds_builders" / "__init__.py",
        root / "run_pretrain.py",
        root / "run_finetune.py",
    ]


def test_no_file_is_called_after_nothing():
    names = {"utils.py", "common.py", "helpers.py", "base.py"}
    assert not [file for file in PACKAGE.rglob("*.py") if file.name in names]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("medbert_jax", "jax polars tensorflow_datasets sklearn"),
        ("medbert_jax.disk.replaced_folder", "jax polars numpy tensorflow_datasets sklearn"),
        ("medbert_jax.ehr.tables", "jax tensorflow_datasets sklearn"),
        ("medbert_jax.ingest.own_tables", "jax pandas pyarrow tensorflow_datasets sklearn"),
        ("medbert_jax.printed_tables", "rich polars numpy"),
        ("medbert_jax.cohorts.select", "jax tensorflow_datasets sklearn"),
        ("medbert_jax.data.token_store", "jax polars tensorflow_datasets sklearn"),
        ("medbert_jax.training.pretrained", "polars tensorflow_datasets sklearn beartype"),
        ("run_pretrain", "polars tensorflow_datasets sklearn tensorflow beartype"),
        ("run_finetune", "pandas scipy.stats scipy.interpolate tensorflow_datasets sklearn tensorflow beartype"),
        ("medbert_jax.cli", "jax polars tensorflow_datasets sklearn"),
        ("tfds_builders.options", "jax polars tensorflow_datasets sklearn"),
        ("medbert_jax.training.command_line", "polars tensorflow_datasets sklearn"),
    ],
)
def test_imports_stay_lazy(module, absent):
    code = f"import sys, {module}; print(*[name for name in {absent.split()} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == ""
