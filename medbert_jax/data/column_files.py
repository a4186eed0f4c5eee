"""A column of the token store on disk: an .npy file of one dimension that grows, and is mapped once it is verified."""

import contextlib
import io
import zlib
from pathlib import Path

import numpy as np

_HEADER_BYTES = 128  # of an .npy file of one dimension


def mapped_column(path: Path, checksum: int) -> np.ndarray | None:
    """Return the column as a memory map, or None where the file is not what was written, header included."""
    try:
        content = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError):  # gone, or empty
        return None
    # The header was written last, when the length was known. It is not read before it is known to be whole: numpy
    # takes other types and lengths from a damaged one.
    values, header = content[_HEADER_BYTES:], content[:_HEADER_BYTES]
    return np.load(path, mmap_mode="r") if zlib.crc32(header.data, zlib.crc32(values.data)) == checksum else None


class ColumnFile:
    """An .npy file that grows: numpy leaves room in the header for a longer shape."""

    def __init__(self, path: Path, dtype: np.dtype, open_files: contextlib.ExitStack):
        self._file, self._dtype = open_files.enter_context(path.open("wb")), dtype
        self._checksum = self._length = self._last = 0
        self._write_header()

    def append(self, values: np.ndarray, *, offsets: bool = False) -> None:
        """Write more values (n,); offsets, which begin at 0, go on from those before."""
        if offsets:
            values = (values[1:] if self._length else values) + self._last
            self._last = int(values[-1])
        data = np.ascontiguousarray(values, self._dtype).view(np.uint8)
        self._checksum = zlib.crc32(data.data, self._checksum)
        self._file.write(data.data)
        self._length += len(values)

    def finish(self) -> int:
        """Write the header with the final length; return the checksum of the values and then the header."""
        self._file.seek(0)
        header = self._write_header()
        self._file.flush()
        return zlib.crc32(header, self._checksum)

    def _write_header(self) -> bytes:
        header = io.BytesIO()
        described = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(header, described)
        self._file.write(header.getvalue())
        return header.getvalue()
