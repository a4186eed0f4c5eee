"""Contents of 4,096 simulated patients of each site and world, as hashes: `python tests/golden/make_simulated.py`.

A column that came later has a hash of its own, so that those of the others stay what they were.

simulated.json was recorded with engine 1, whose ids were the patient's number alone. So a hash is over all columns but
ids, with that number in the place of the patient's id; visits are known by their order.

A life is thousands of comparisons of rounded numbers, and kernels of matrix products and exponentials round otherwise
from processor to processor: other lives. So the golden ones are made in a process that has the kernels of any x86-64
with AVX2.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.ehr.schema import ADDED
from medbert_jax.simulation.parameters import SITES, WORLDS
from medbert_jax.simulation.simulate import simulate

FILE = Path(__file__).parent / "simulated.json"
PATIENTS = 4096
ARITHMETIC = {
    "OPENBLAS_CORETYPE": "Haswell",
    # The newer name, then those up to numpy 2.3.
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL",
}


def contents(site: str, world: str, patients: int = PATIENTS) -> dict[str, str]:
    """Folder of the tables or the truth → hash of what it holds, whatever the bytes of its files."""
    with tempfile.TemporaryDirectory() as folder:
        tables, truth = Path(folder, "ehr"), Path(folder, "truth")
        settings = {"patients": patients, "site": site, "world": world, "seed": 0, "shards": 1, "workers": 1}
        simulate(tables, truth=truth, announce=lambda line: None, **settings)
        files = sorted(Path(folder).glob("*/*/*.parquet"))
        hashes = {}
        for path in files:
            name, frame = path.parent.relative_to(folder).as_posix(), pl.read_parquet(path)
            later = ADDED.get(path.parent.name, ()) if name.startswith("ehr/") else ()
            # Beside the other columns, by which the rows of a column alone would not be told apart.
            hashes |= {f"{name}/{column}": content_hash(frame.drop(set(later) - {column})) for column in later}
            hashes[name] = content_hash(frame.drop(later))
        return hashes


def content_hash(frame: pl.DataFrame) -> str:
    """The first 16 digits of the sha256 over every cell that is no id: columns by name, rows sorted."""
    named = [pl.col("patient_id").str.extract(r"(\d+)$").cast(pl.Int64).alias("number")]
    if "visit_id" in frame.columns:
        named.append(pl.col("visit_id").str.extract(r"-(\d+)$").cast(pl.Int64).alias("of_visit"))
    frame = frame.select(pl.exclude("patient_id", "visit_id"), *named)
    whole = hashlib.sha256()
    for column in frame.sort("number", *sorted(frame.columns)).select(sorted(frame.columns)):
        cells = column.drop_nulls()
        if column.dtype == pl.String:
            whole.update("".join(cells).encode())
            cells = cells.str.len_bytes()
        whole.update(f"{column.name} {column.dtype} {len(column)}".encode() + column.is_null().to_numpy().tobytes())
        whole.update(cells.to_physical().to_numpy().tobytes())
    return whole.hexdigest()[:16]


ALL = tuple(f"{site} {world}" for site in SITES for world in WORLDS)


def made_with_golden_arithmetic(names: Sequence[str] = ALL) -> dict[str, dict[str, str]]:
    """Site and world → its `contents`, by a process of its own."""
    environment = os.environ | ARITHMETIC | {"PYTHONPATH": os.pathsep.join(sys.path)}
    made = subprocess.run(
        [sys.executable, __file__, "--here", *names], env=environment, capture_output=True, check=True
    )
    return json.loads(made.stdout)


def main() -> None:
    """Record what the present code makes; after --here print what it makes of these with this process's arithmetic."""
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps({name: contents(*name.split()) for name in sys.argv[2:]}))
        return
    recorded = {"numpy": np.__version__, "contents": made_with_golden_arithmetic()}
    FILE.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()
