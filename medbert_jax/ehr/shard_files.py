"""EHR tables onto disk, shard by shard: each checked and written in one canonical order, then sealed together."""

import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.whole_files import write_json, write_whole
from medbert_jax.ehr.schema import REQUIRED_TABLES, SCHEMAS, EhrSource, EhrTables, check_tables
from medbert_jax.ehr.text_hash import row_sums

VERSION = 2  # since 2 diagnoses have a time, deaths one by the clock, patients a follow-up
WRITTEN_AS = "medbert_jax EHR tables, version "
SPLITS_FILE = "splits.parquet"
"""The source's own splits (patient_id, split: train | validation | test), where it has any."""
TITLES_FILE = "titles.parquet"
"""What the source calls its codes (code_system, code, title), where it says so."""
_OURS = re.compile(
    rf"(source|ledger|events_ledger)\.json|{re.escape(SPLITS_FILE)}|{re.escape(TITLES_FILE)}|unknown_codes\.csv"
    rf"|({'|'.join(SCHEMAS)})/shard-\d+-of-\d+\.parquet"
)
"""Files of a set of tables, which go with it when it is replaced; others in the folder stay."""
_SCHEMA_TEXT = {name: {column: str(dtype) for column, dtype in schema.items()} for name, schema in SCHEMAS.items()}
SOMETIMES_KNOWN = {
    "patients": ("birth_date", "sex", "race"),
    "visits": ("length_of_stay", "age_days"),
    "diagnoses": ("priority", "present_on_admission", "captured_at_billing", "time"),
    "medications": ("ingredient",),
    "measurements": ("value",),
}
"""What sources often do not say; its known share stands in source.json."""


@dataclasses.dataclass(frozen=True)
class ShardRecord:
    """What `write_shard` wrote."""

    files: dict[str, str]
    """Path within the folder → sha256."""
    sums: dict[str, tuple[int, int]]
    """`row_sums` of every table."""
    rows: dict[str, int]
    known: dict[str, int]
    """Rows that say something, by "table.column" of `SOMETIMES_KNOWN`."""
    last_day: str | None = None
    """The latest date of an admission, in ISO form."""


@contextmanager
def new_folder(directory) -> Generator[Path]:
    """Yield the folder for `write_shard` and `seal`; it becomes `directory` at the end of the block.

    Until then, and for good where the block raises or is killed, an earlier set of tables in `directory` stays as it
    is. Errors as `replaced`, which this is.
    """
    with replaced(directory, _OURS) as new:
        yield new


def write_shard(tables: EhrTables, directory, shard: int, shards: int, *, checked: bool = False) -> ShardRecord:
    """Check and write one shard: every row of its patients. Raises ValueError with every fault listed."""
    if not checked and (faults := check_tables(tables)):
        rule = f"shard {shard} of EHR tables must follow the schema"
        raise ValueError(listed_faults(rule, faults, "mend the reader that made them"))
    frames = {name: _canonical(name, frame) for name, frame in tables.present().items()}
    files = {}
    for name, frame in frames.items():
        path = f"{name}/{shard_name(shard, shards)}"
        (Path(directory) / name).mkdir(exist_ok=True)
        files[path] = _write_parquet(frame, Path(directory) / path)
    known = {
        f"{name}.{column}": frames[name][column].count()
        for name in SOMETIMES_KNOWN
        if name in frames
        for column in SOMETIMES_KNOWN[name]
    }
    sums = {name: row_sums(name, frame) for name, frame in frames.items()}
    last = frames["visits"].select(pl.col("admit_time").max()).item()
    last_day = last.date().isoformat() if last is not None else None
    return ShardRecord(files, sums, {name: frame.height for name, frame in frames.items()}, known, last_day)


def seal(
    directory,
    source: EhrSource,
    records: list[ShardRecord],
    splits: pl.DataFrame | None = None,
    titles: pl.DataFrame | None = None,
) -> EhrSource:
    """Write source.json over the shards' records, in the order of the shards.

    `splits` (patient_id, split) are the source's own splits, `titles` (code_system, code, title) its own words for its
    codes, where it has any. Returns the source with `shards`, `known`, `last_day` and `content_hash`, which covers
    every cell but those of titles: independent of the order of rows, of shards and of library versions. An optional
    table without rows is removed: it would be taken for one that says that nothing ever happened. Raises ValueError for
    required tables without rows.
    """
    directory = Path(directory)
    rows = {name: sum(record.rows.get(name, 0) for record in records) for name in SCHEMAS}
    if empty := [f"{name}: [empty_table] the table is empty" for name in REQUIRED_TABLES if not rows[name]]:
        raise ValueError(listed_faults("EHR tables must have rows", empty, "look into ledger.json for where they left"))
    for name in records[0].rows:
        if not rows[name]:
            shutil.rmtree(directory / name)
    known = {}
    for column in records[0].known:
        said, there = sum(record.known[column] for record in records), rows[column.partition(".")[0]]
        if there:
            known[column] = max(round(said / there, 4), 0.0001 * (said > 0))  # few are not none
    files = {path: sha for record in records for path, sha in record.files.items() if rows[path.partition("/")[0]]}
    sums = {
        name: [rows[name], *(sum(record.sums[name][place] for record in records) % 2**64 for place in (0, 1))]
        for name in records[0].sums
        if rows[name]
    }
    if splits is not None and len(splits):
        files[SPLITS_FILE] = _write_parquet(splits.sort("patient_id"), directory / SPLITS_FILE)
        sums["splits"] = [len(splits), *row_sums("splits", splits)]
    if titles is not None and len(titles):
        files[TITLES_FILE] = _write_parquet(titles.sort(pl.all()), directory / TITLES_FILE)
    content_hash = hashlib.sha256(json.dumps([_SCHEMA_TEXT, sums], sort_keys=True).encode()).hexdigest()
    last_day = max((record.last_day for record in records if record.last_day), default=None)
    source = dataclasses.replace(source, shards=len(records), content_hash=content_hash, known=known, last_day=last_day)
    record = {"written_as": f"{WRITTEN_AS}{VERSION}", **dataclasses.asdict(source), "files": files}
    write_json(directory / "source.json", record)
    return source


def holds_tables(directory: Path) -> bool:
    """Whether the folder has any file that goes when a set of tables there is replaced."""
    paths = [path for folder in ("", *SCHEMAS) for path in (directory / folder).glob("*")]
    return any(_OURS.fullmatch(path.relative_to(directory).as_posix()) for path in paths)


def listed_faults(rule: str, faults: list[str], advice: str) -> str:
    """A message in three parts: the rule, every fault, what to do."""
    return f"{rule}: got {len(faults)} fault(s):\n  - " + "\n  - ".join(faults) + f"\n{advice}"


def shard_name(shard: int, shards: int) -> str:
    """The name of a shard's file, of every table."""
    return f"shard-{shard:05d}-of-{shards:05d}.parquet"


def _canonical(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    columns = list(SCHEMAS[name])
    keys = [column for column in ("patient_id", "order") if column in columns]
    frame = frame.select(columns)
    if name == "measurements":  # −0.0 and 0.0 compare equal but have different bytes
        frame = frame.with_columns(pl.col("value") + 0.0)
    return frame.sort(keys + [column for column in columns if column not in keys], maintain_order=False)


def _write_parquet(frame: pl.DataFrame, path: Path) -> str:
    """Write a file of the set; return its sha256."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    write_whole(path, buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()
