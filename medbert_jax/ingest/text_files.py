"""Text files of a source, in blocks: separators, quotation marks, line ends and fields, judged before a row is read."""

import csv
import gzip
import io
import itertools
import re
from collections.abc import Iterator

import numpy as np
import polars as pl

from medbert_jax.ingest.columns import SEPARATORS, Judged, decimal_points
from medbert_jax.ingest.reader import RawTable
from medbert_jax.ingest.source_files import Fault, FileFault, RawFile

BLOCK_BYTES = 32 * 2**20
"""Of a text file that is parsed at once."""
CELL_BYTES = 2**20
"""Of one cell of a text file, at most: one that is longer has a quotation mark too many or a line end too few."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}.*|\d{8}")
_SHOWN = 5  # ragged rows that are named


def text_chunks(file: RawFile, judged: Judged) -> Iterator[pl.DataFrame]:
    """The wanted columns as text, as written, under their lower-case names (by position: under their numbers).

    At least one frame, maybe empty. What was seen is added to `judged`. Raises FileFault.
    """
    pieces, head, table = _pieces(file), b"", file.table
    for piece in pieces:
        head += piece
        if b"\n" in piece or len(head) > CELL_BYTES:
            break
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FileFault(file.name, "not_utf8", "is UTF-16")
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    if b"\r" in first.rstrip(b"\r"):
        raise FileFault(file.name, "unreadable_file", "ends its lines by carriage returns alone")
    if len(first) > CELL_BYTES:
        raise FileFault(file.name, "unreadable_file", "has no header line")
    header = _utf8(first, file).rstrip("\r")
    separator = max((table.separator, *SEPARATORS), key=lambda one: _columns_found(header, one, table))
    columns, quoted = _names(header, separator), _is_quoted(header, separator)
    if not header.strip() or not columns:
        raise FileFault(file.name, "unreadable_file", "has no header line that can be read")
    if table.by_position and any(_DATE.fullmatch(name.strip()) for name in columns):
        raise FileFault(file.name, "unreadable_file", "has data in place of a header line")
    places = range(len(columns))
    if not table.by_position:
        wanted = {*table.required, *table.optional}
        places = [place for place in places if columns[place].strip().lower() in wanted]
        if not places:
            tried = f"whichever of {', '.join(SEPARATORS.values())} separates"
            raise FileFault(file.name, "missing_column", f"column {', '.join(table.required)} is missing, {tried}")
    # Names may repeat, which a frame cannot hold: found here.
    names = [str(place) if table.by_position else columns[place].strip().lower() for place in places]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise FileFault(file.name, "duplicate_column", f"column {', '.join(twice)} is there more than once")
    if separator != table.separator:
        judged.separators[separator, table.name] += 1
    schema, ruled = {f"{place}": pl.String for place in range(len(columns))}, True
    for block, rows in _whole_rows(file, itertools.chain((rest,), pieces), ord(separator), quoted, len(columns)):
        if b"\0" in block:
            raise FileFault(file.name, "unreadable_file", "holds NUL bytes")
        _utf8(block, file)
        chunk = pl.DataFrame(schema=schema)
        if rows:
            try:
                chunk = pl.read_csv(
                    io.BytesIO(block),
                    has_header=False,
                    schema=schema,
                    separator=separator,
                    quote_char='"' if quoted else None,
                )
            except pl.exceptions.PolarsError:
                raise FileFault(file.name, "unreadable_file", "has rows that cannot be read") from None
            if chunk.height != rows:
                raise FileFault(file.name, "unreadable_file", f"has {rows} rows where {chunk.height} can be read")
        chunk = chunk.select(pl.nth(list(places)))
        chunk = chunk.rename(dict(zip(chunk.columns, names, strict=True)))
        if rows and ruled:
            ruled = False
            if _is_rule(chunk.row(0)):
                judged.rules[table.name] += 1
                chunk = chunk[1:]
        yield decimal_points(chunk, table, judged) if separator == ";" else chunk


def _names(header: str, separator: str) -> list[str]:
    """The names of the columns under a separator; none where its quotation marks cannot be read."""
    if not _is_quoted(header, separator):
        return header.split(separator)
    try:
        return next(csv.reader([header], delimiter=separator, strict=True))
    except (csv.Error, StopIteration):
        return []


def _is_quoted(header: str, separator: str) -> bool:
    """Text between tabs is not quoted, and a quotation mark is one, unless all names of the header are."""
    return separator != "\t" or (header.startswith('"') and header.endswith('"'))


def _columns_found(header: str, separator: str, table: RawTable) -> tuple[int, int]:
    """How many of the required and of the optional columns the header has under a separator."""
    names = _names(header, separator)
    if table.by_position:
        return min(len(names), len(table.required)), 0
    found = {name.strip().lower() for name in names}
    return len(found & set(table.required)), len(found & set(table.optional))


def _is_rule(cells: tuple[str | None, ...]) -> bool:
    """Whether the first row is what SQL clients draw under a header: dashes in every cell."""
    return all(cell and set(cell.strip()) == {"-"} for cell in cells)


def _whole_rows(
    file: RawFile, pieces: Iterator[bytes], separator: int, quoted: bool, width: int
) -> Iterator[tuple[bytes, int]]:
    """Blocks that end at the end of a row, blank lines left out, and the rows in each; at least one block.

    Rows and fields are counted here, from separators and line ends outside of quotes; no row is read before. After a
    row of other than `width` fields nothing is given any more: the others of the file are counted, and then all are one
    fault.
    """
    rest, line, ragged, named = b"", 2, 0, []

    def ragged_fault() -> list[Fault]:
        others = ", …" * (ragged > len(named))
        what = f"rows must have the {width} fields of the header: got {ragged:,} other(s): {', '.join(named)}{others}"
        return [(file.name, "ragged_row", what)] * bool(ragged)

    def fault(what: str) -> FileFault:
        return FileFault(file.name, "unreadable_file", what, *ragged_fault())

    for piece in itertools.chain(pieces, (None,)):
        if piece is None and not rest:
            break
        block = rest + (b"\n" if piece is None else piece)
        values = np.frombuffer(block, np.uint8)
        edge, mark = (values == separator) | (values == 10), None  # where a field ends; a quotation mark
        if quoted and b'"' in block:
            mark = values == 34
            inside = _inside(mark)
            edge &= ~inside
        edges = np.flatnonzero(edge)
        ends = np.flatnonzero(values[edges] == 10)  # at which of them a row does
        stops = edges[ends]
        used, fields = (int(stops[-1]) + 1 if len(stops) else 0), np.diff(ends, prepend=-1)
        if piece is None and used < len(block):
            raise fault("has a quotation mark that nothing closes")
        longest = np.diff(stops, prepend=-1, append=len(block)).max()
        if longest > CELL_BYTES and np.diff(edges, prepend=-1, append=len(block)).max() > CELL_BYTES:
            raise fault(f"has a cell of more than {CELL_BYTES:,} bytes, or a quotation mark that nothing closes")
        if mark is not None and used:
            if _is_misplaced(values[:used], mark[:used], inside[:used], edge[:used]):
                raise fault("has quotation marks within a cell: not doubled, or the cell not quoted")
            if _spans_rows(values[:used], mark[:used], inside[:used], stops, separator, width):
                raise fault("has quotation marks that span whole rows")
        begins = np.append(0, stops[:-1] + 1)
        blank = [row for row in np.flatnonzero(fields == 1) if not block[begins[row] : stops[row]].strip()]
        wrong = np.setdiff1d(np.flatnonzero(fields != width), blank)
        for row in wrong[: _SHOWN - len(named)]:
            at = line + block.count(b"\n", 0, int(begins[row]))
            named.append(f"line {at:,} has {fields[row]}")
        ragged += len(wrong)
        # A row that goes on for ever has too many already.
        open_fields = len(edges) - int(fields.sum()) + 1
        if open_fields > width and len(block) - used > CELL_BYTES:
            at = line + block.count(b"\n", 0, used)
            named.append(f"line {at:,} has {open_fields:,} or more")
            ragged += 1
            break
        line += block.count(b"\n", 0, used)
        rest, whole = block[used:], block[:used]
        if ragged:
            continue
        if blank:
            keep = np.ones(used, bool)
            for row in blank:
                keep[begins[row] : stops[row] + 1] = False
            whole = values[:used][keep].tobytes()
        yield whole, len(fields) - len(blank)
    if ragged:
        raise FileFault(*ragged_fault()[0])


def _inside(mark: np.ndarray) -> np.ndarray:
    """Where the number of quotation marks so far is odd: a running parity, 64 bytes at a time."""
    bits = np.packbits(mark, bitorder="little")
    words = np.concatenate([bits, np.zeros(-len(bits) % 8, np.uint8)]).view("<u8")
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    before = np.bitwise_xor.accumulate(words >> np.uint64(63))
    words[1:] ^= np.where(before[:-1], ~np.uint64(0), np.uint64(0))
    return np.unpackbits(words.view(np.uint8), count=len(mark), bitorder="little").view(bool)


def _is_misplaced(values: np.ndarray, mark: np.ndarray, inside: np.ndarray, edge: np.ndarray) -> bool:
    """Whether a mark of whole rows opens or closes within a cell; two marks in a row are one of the cell's text."""
    begins, closes = edge | mark, mark & ~inside
    stray = (mark & inside)[1:] & ~begins[:-1]
    if stray.any():
        return True
    line_end = values == 13
    line_end[:-1] &= values[1:] == 10
    return bool((closes[:-1] & ~(begins | line_end)[1:]).any())


def _spans_rows(
    values: np.ndarray, mark: np.ndarray, inside: np.ndarray, stops: np.ndarray, separator: int, width: int
) -> bool:
    """Whether each line that some row is spread over would be a row as well, its marks taken as text.

    A quoted cell may hold line ends. But one mark too many in each of two rows makes a cell of all that is between
    them, and both readings hold: neither is taken.
    """
    lines = np.flatnonzero(values == 10)
    if len(lines) == len(stops):
        return False
    marks = np.flatnonzero(mark)
    opens = marks[::2][np.append(True, marks[2::2] != marks[1:-1:2] + 1)]
    broken = np.zeros(len(opens), bool)
    broken[np.searchsorted(opens, lines[inside[lines]]) - 1] = True
    separators = np.flatnonzero(values == separator)
    text = inside[separators]  # separators in a cell of one line are text in both readings
    text[text] = ~broken[np.searchsorted(opens, separators[text]) - 1]
    fields = np.diff(np.searchsorted(separators[~text], lines), prepend=0) + 1
    length = np.diff(lines, prepend=-1)
    blank = (length == 1) | ((length == 2) & (values[lines - 1] == 13))
    row = np.searchsorted(stops, lines)
    unlike = np.bincount(row, (fields != width) & ~blank)
    return bool(((np.bincount(row) > 1) & (unlike == 0)).any())


def _utf8(content: bytes, file: RawFile) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise FileFault(file.name, "not_utf8", "has bytes that are not UTF-8") from None


def _pieces(file: RawFile) -> Iterator[bytes]:
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        with opened(file.path, "rb") as stream:
            while piece := stream.read(BLOCK_BYTES):
                yield piece
    except (OSError, EOFError, gzip.BadGzipFile):
        raise FileFault(file.name, "unreadable_file", "is truncated, damaged or may not be read") from None
