"""What the whole line computes, as one hash per column, array and printed text: the proof that a restructuring is one.

    python tests/fingerprint.py make OUT.json --work FOLDER [--checkout DIRECTORY] [--tables FOLDER]
    python tests/fingerprint.py compare BEFORE.json AFTER.json

`make` gives the commands that users type, in the checkout, and reads what they leave with libraries alone, so that the
same script fingerprints two versions whose modules have other names. In it: the EHR tables of every reader on the made
sources, simulated patients of both sites, the datasets, cohort members, labels and index days of all shipped
specs on them, the token stores, 40 pretraining steps of `small` and `paper`, a fine-tuning and a regression, and what
is printed. `--tables` takes the simulated tables of another run in place of its own for all that comes after them, so
that a wanted change of the simulation is told apart. About ten minutes on two cores; the floating-point numbers of a
run are those of one kind of machine, so two versions are compared on the same one.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from array_record.python import array_record_module

TESTS = Path(__file__).parent
SOURCES = {
    "cerner": ("cerner", 8_192, ("dhf", "dhf-matched", "hf-later", "los-next", "readmission-30d", "paca")),
    "truven": ("truven", 8_192, ("dhf", "paca")),
    "more": ("cerner", 65_536, ("dhf-landmark", "paca")),  # rare outcomes: with 8,192 patients they are refused
}
"""Name → site, simulated patients, cohorts."""
STEPS = 40
RUN_PRESETS = {"small": ("--rows.batch-size", "64"), "paper": ("--optimizer.warmup-steps", "20")}
# What differs from run to run, or names a place.
VOLATILE = r"\d[\d,.]*( \w+)?/s\b|\d+(\.\d+)? (s|min)( left)?\b|[0-9a-f]{12,64}|/\S+"
IDENTITIES = ("hash", "run_id", "commit", "wall_time_s", "configuration", "versions", "patients_per_second")


def digest(*parts: bytes | str) -> str:
    """16 hex digits of the contents, each told apart from the next."""
    found = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        found.update(len(content).to_bytes(8, "little") + content)
    return found.hexdigest()[:16]


def frame_digests(frame: pl.DataFrame) -> dict[str, str]:
    """Column → digest of its cells, in the order of the rows."""
    return {name: digest(str(frame[name].dtype), *map(repr, frame[name].to_list())) for name in sorted(frame.columns)}


def text_digest(text: str) -> str:
    """Digest of the words and numbers of a text, in their order: not of alignment, rates, times, places and hashes."""
    words = re.sub(VOLATILE, " ", re.sub(r"[─━┄┈╌│┃|┏┓┗┛┌┐└┘├┤┬┴┼╇╈╋╪═╞╡╤╧]", " ", text)).split()
    return digest(*(word for word in words if not re.fullmatch(r":?-{3,}:?", word)))


def json_digests(value, path: str = "") -> Iterator[tuple[str, str]]:
    """Path → digest of every leaf of JSON data, except of what names a version, a place or a clock."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not any(part in name for part in IDENTITIES):
                yield from json_digests(inner, f"{path}.{name}")
    else:
        yield path, digest(re.sub(r"/\S+", " ", json.dumps(value, sort_keys=True)))


def tables_digests(folder: Path) -> dict[str, str]:
    """Of EHR tables: every column of every table, in the order of shards and rows."""
    found = {}
    for table in sorted(path for path in folder.iterdir() if path.is_dir()):
        frame = pl.concat([pl.read_parquet(part, glob=False) for part in sorted(table.glob("*.parquet"))])
        found |= {f"{table.name}.{name}": value for name, value in frame_digests(frame).items()}
    for name in ("ledger.json", "source.json"):
        if (folder / name).exists():
            content = json.loads((folder / name).read_text())
            content.pop("files", None)
            found |= {f"{name}{path}": value for path, value in json_digests(content)}
    return found


def dataset_digests(folder: Path) -> dict[str, str]:
    """Of a dataset: records, token store, vocabulary, ledger, metadata, and the cohort's members beside it."""
    found = {}
    for path in sorted(folder.glob("*.array_record*")):
        reader = array_record_module.ArrayRecordReader(str(path))
        found[path.name] = digest(*reader.read_all())
        reader.close()
    for path in sorted(folder.rglob("*.npy")):
        column = np.load(path)
        found[str(path.relative_to(folder))] = digest(str(column.dtype), str(column.shape), column.tobytes())
    for path in sorted(folder.glob("*.parquet")):
        found |= {f"{path.name}.{name}": value for name, value in frame_digests(pl.read_parquet(path)).items()}
    for name in ("ledger.json", "metadata.json"):
        found |= {f"{name}{path}": value for path, value in json_digests(json.loads((folder / name).read_text()))}
    found["vocabulary.tsv"] = digest((folder / "vocabulary.tsv").read_bytes())
    return found


def run_digests(folder: Path) -> dict[str, str]:
    """Of a run: the metrics of every step and the arrays of the last."""
    import jax
    import orbax.checkpoint as ocp

    found = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        where = f"{row.pop('kind')} {row.pop('step')}"
        found |= {f"{where} {name}": repr(value) for name, value in row.items() if name not in IDENTITIES}
    last = sorted(path for path in (folder / "steps").iterdir() if path.name.isdecimal())[-1]
    for item in ("params", "opt_state"):
        if (last / item).exists():
            tree = ocp.StandardCheckpointer().restore((last / item).absolute())
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                array = np.asarray(leaf)
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                found[f"{item} {name}"] = digest(str(array.dtype), str(array.shape), array.tobytes())
    return found


def results_digests(folder: Path) -> dict[str, str]:
    """Of results: every value and every prediction, by what was fine-tuned."""
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        rows = pl.read_parquet(path)
        name = " ".join(str(rows[column][0]) for column in ("cohort", "backbone", "head", "train_size_name"))
        for split, metric, value in rows.select("split", "metric", "value").iter_rows():
            found[f"{name} {split} {metric}"] = repr(value)
        predictions = pl.read_parquet(folder / "predictions" / path.name)
        found |= {f"{name} {column}": value for column, value in frame_digests(predictions).items()}
    return found


class Line:
    """The commands, in one checkout, and their fingerprints so far."""

    def __init__(self, checkout: Path, work: Path):
        self.checkout, self.work, self.found = checkout.absolute(), work.absolute(), {}

    def run(self, name: str, *command: object) -> None:
        """Run Python with these arguments in the checkout; what it prints is fingerprinted, refusals too.

        What the work folder remembers of an earlier run of the same name is not run again.
        """
        path = self.work / "printed" / f"{name}.json"
        if not path.exists():
            print(name, flush=True)
            done = subprocess.run(
                [sys.executable, *map(str, command)], cwd=self.checkout, capture_output=True, text=True, check=False
            )
            if done.returncode not in (0, 1, 2) or "Traceback" in done.stderr:
                raise RuntimeError(f"{name} failed:\n{done.stderr}")
            path.parent.mkdir(exist_ok=True)
            said = {"exit code": done.returncode, "printed": done.stdout, "refused": done.stderr}
            path.write_text(json.dumps(said, indent=1, ensure_ascii=False))
        said = json.loads(path.read_text())
        self.found[f"{name}: printed"] = text_digest(said["printed"])
        self.found[f"{name}: exit code"] = str(said["exit code"])
        if said["exit code"] == 2:
            self.found[f"{name}: refused"] = text_digest(said["refused"])

    def medbert(self, name: str, *arguments: object) -> None:
        """Run the `medbert` command."""
        self.run(name, "-c", "from medbert_jax.cli import main; main()", *arguments)

    def add(self, name: str, digests: Mapping[str, str]) -> None:
        """Take up digests under a name."""
        self.found |= {f"{name}: {what}": value for what, value in digests.items()}


def fingerprint(line: Line, tables: Path | None) -> None:
    """All sections in the order of the line."""
    sys.path.insert(0, str(TESTS))
    from sources.made_sources import WRITERS, write_source

    work = line.work
    for kind in WRITERS:
        source, format = write_source(kind, work / "sources" / kind)
        line.medbert(f"ingest {kind}", "ingest", source, work / "read" / kind, "--format", format, "--workers", 1)
        line.add(f"ingest {kind}", tables_digests(work / "read" / kind))
    for name, (site, patients, _) in SOURCES.items():
        line.medbert(f"simulate {name}", "simulate", work / name, "--patients", patients, "--site", site,
                     "--shards", 2, "--truth", work / f"{name}-truth")  # fmt: skip
        line.add(f"simulate {name}", tables_digests(work / name))
    for site, (_, _, cohorts) in SOURCES.items():
        ehr, data = (tables or work) / site, work / "data"
        dataset = data / "ehr_pretraining" / site / "1.0.0"
        line.medbert(f"validate {site}", "validate", ehr)
        line.medbert(f"prepare {site}", "prepare", ehr, site, "--data-dir", data, "--minimum-patients", 5)
        line.add(f"prepare {site}", dataset_digests(dataset))
        made = []
        for cohort in cohorts:
            name = f"{site}-{cohort}"
            line.medbert(f"cohort {name}", "cohort", ehr, cohort, name, "--data-dir", data,
                         "--pretraining-dataset", dataset, "--few-cases", "--review", 2)  # fmt: skip
            patient = pl.read_parquet(next((ehr / "patients").glob("*.parquet")))["patient_id"][0]
            line.medbert(f"why {name}", "cohort", ehr, cohort, name, "--why", patient)
            if (folder := data / "disease_cohort" / name / "1.0.0").exists():
                made.append(folder)
                line.add(f"cohort {name}", dataset_digests(folder))
            elif (refused := folder.with_name("refused_ledger.json")).exists():
                line.add(f"cohort {name}", dict(json_digests(json.loads(refused.read_text()))))
        line.medbert(f"describe {site}", "describe", dataset, *made, "--out", work / f"described-{site}")
        line.medbert(f"attrition {site}", "attrition", ehr, *made[:1], "--out", work / f"attrition-{site}")
        for path in sorted([*work.glob(f"attrition-{site}.*"), *(work / f"described-{site}").iterdir()]):
            if path.suffix in (".csv", ".md", ".json"):
                line.found[f"{path.name} {site}"] = text_digest(path.read_text())
    dataset = work / "data" / "ehr_pretraining" / "cerner" / "1.0.0"
    for preset, options in RUN_PRESETS.items():
        run = work / "runs" / preset
        line.run(f"pretrain {preset}", "run_pretrain.py", f"configs/pretrain_{preset}.py", "--dataset", dataset,
                 "--run", run, "--steps", STEPS, "--log-every", 1, "--evaluate-every", STEPS,
                 "--checkpoint-every", STEPS, "--validation-size", 100, *options)  # fmt: skip
        line.add(f"pretrain {preset}", run_digests(run))
    line.run("finetune", "run_finetune.py", "configs/diabetes130.py", "--datasets",
             work / "data" / "disease_cohort" / "cerner-hf-later" / "1.0.0", "--finetune.checkpoint",
             work / "runs" / "small", "--finetune.results", work / "results", "--train-sizes", 100,
             "--replicates", 1, "--finetune.max-epochs", 2, "--finetune.validation-size", 100,
             "--heads", "bi_gru", "feed_forward", "--baselines", "age", "codes")  # fmt: skip
    line.add("finetune", results_digests(work / "results"))
    # The fine-tuned checkpoint, with its head.
    line.run("finetune one", "run_finetune.py", "configs/finetune_small.py", "--dataset",
             work / "data" / "disease_cohort" / "cerner-hf-later" / "1.0.0", "--checkpoint", work / "runs" / "small",
             "--results", work / "one", "--run", work / "runs" / "one", "--train-size", 64, "--max-epochs", 1,
             "--validation-size", 64)  # fmt: skip
    line.add("finetune one", results_digests(work / "one"))
    line.medbert("report", "report", work / "results")


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Names under which two fingerprints differ."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def main() -> None:
    """Make a fingerprint, or compare two: exit code 1 and every difference by name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("out", type=Path)
    make.add_argument("--work", type=Path, required=True, help="a folder for all that is made")
    make.add_argument("--checkout", type=Path, default=TESTS.parent)
    make.add_argument("--tables", type=Path, help="the --work folder of another fingerprint")
    compare = commands.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "make":
        given.work.mkdir(parents=True, exist_ok=True)
        line = Line(given.checkout, given.work)
        fingerprint(line, given.tables and given.tables.absolute())
        given.out.write_text(json.dumps(line.found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        return
    before, after = (json.loads(path.read_text()) for path in (given.before, given.after))
    found = differences(before, after)
    for name in found:
        print(f"{name}: {before.get(name)} → {after.get(name)}")
    print(f"{len(found)} of {len(before | after)} fingerprints differ")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
