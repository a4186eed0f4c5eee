"""Pickles of lists, dicts, numbers and text, read without unpickling.

A pickle is a program, and a stranger's may do anything. This reader knows the two dozen instructions that build plain
values, does them itself, and refuses the file at the first other one: nothing can be looked up, called, or built by a
class's own code, and Python's `pickle` is not used. What is allocated is bounded by the size of the file.
"""

import codecs
import mmap
import re
import struct
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from medbert_jax.ingest.source_files import FileFault

# Instructions of protocols 0 to 5.
_PROTO, _FRAME, _STOP, _MARK = 0x80, 0x95, 0x2E, 0x28
_APPEND, _APPENDS, _SET, _SETS, _LIST, _DICT, _NEW_LIST, _NEW_DICT = b"aesuld]}"
_INT_1, _INT_2, _MEMOIZE = 0x4B, 0x4D, 0x94
_RUN_1, _RUN_2 = re.compile(rb"(?:K.)+", re.DOTALL), re.compile(rb"(?:M..)+", re.DOTALL)
_PUTS, _GETS = {0x71: 1, 0x72: 4}, {0x68: 1, 0x6A: 4}  # bytes of the number that follows
_PUT_LINE, _GET_LINE = 0x70, 0x67
_FIXED = {0x4A: struct.Struct("<i"), 0x47: struct.Struct(">d"), 0x88: struct.Struct(""), 0x89: struct.Struct("")}
_SIZED = {0x58: 4, 0x8C: 1, 0x8D: 8, 0x54: 4, 0x55: 1}  # text, the last two of Python 2: bytes of its size
_SIZED_INTS = {0x8A: 1, 0x8B: 4}
_LINES = {
    0x49: lambda line: line == b"01" if line in (b"00", b"01") else int(line),
    0x4C: lambda line: int(line.removesuffix(b"L")),
    0x46: float,
    0x53: lambda line: str(codecs.escape_decode(line[1:-1])[0], "utf-8"),
    0x56: lambda line: str(str(line, "raw-unicode-escape").encode(), "utf-8"),  # no half characters
}
_GATHERS = {_MARK, _APPEND, _APPENDS, _SET, _SETS, _LIST, _DICT, _NEW_LIST, _NEW_DICT}
_SCALARS = _FIXED.keys() | _SIZED.keys() | _SIZED_INTS.keys() | _LINES.keys()
_REMEMBERS = {_MEMOIZE, _PUT_LINE, _GET_LINE, *_PUTS, *_GETS}
_DAMAGE = (IndexError, KeyError, ValueError, TypeError, OverflowError)


class _Ended(Exception):
    """The file ends within an instruction."""


class _Refused(Exception):
    """An instruction that does something else than build plain values."""


def plain_values(path: Path, name: str) -> Iterator:
    """The values of the pickles that follow each other in the file: lists, dicts, int, float, bool and str.

    Raises FileFault, for a file called `name`: an empty, truncated or damaged file [unreadable_file], or one that asks
    for more, which is named and not done [executable_pickle].
    """
    if not path.stat().st_size:
        raise FileFault(name, "unreadable_file", "is empty")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, number = 0, 0
        while at < len(data):
            number += 1
            try:
                value, at = _value(data, at)
            except _Refused as refused:
                what = f"holds {refused} in pickle {number}, which was not executed"
                raise FileFault(name, "executable_pickle", what) from None
            except _Ended:
                raise FileFault(name, "unreadable_file", f"ends within pickle {number}") from None
            except _DAMAGE:
                what = f"has bytes that are no pickle of lists, dicts, numbers and text (pickle {number})"
                raise FileFault(name, "unreadable_file", what) from None
            yield value


def _value(data: mmap.mmap, at: int):
    """The value of the pickle at `at`, and where it ends."""
    stack, marks, memo, size = [], [], {}, len(data)
    while at < size:
        op = data[at]
        at += 1
        # Most of a file is short whole numbers, one after the other: taken in runs.
        if op == _INT_1:
            run, at = _run(_RUN_1, data, at - 1)
            stack.extend(run[1::2])
        elif op == _INT_2:
            run, at = _run(_RUN_2, data, at - 1)
            stack.extend(chain.from_iterable(struct.iter_unpack("<xH", run)))
        elif op in _GATHERS:
            _gather(op, stack, marks)
        elif op in _SCALARS:
            value, at = _scalar(op, data, at)
            stack.append(value)
        elif op in _REMEMBERS:
            at = _remember(op, data, at, stack, memo)
        elif op == _PROTO:
            number, at = _whole(data, at, 1)
            if number > 5:
                raise ValueError
        elif op == _FRAME:  # how much to read at once: nothing to us
            number, at = _whole(data, at, 8)
            if number > size - at:
                raise _Ended
        elif op == _STOP:
            (value,) = stack
            return value, at
        else:
            raise _Refused(_named(op, stack, data[at : at + 200]))
    raise _Ended


def _gather(op: int, stack: list, marks: list[int]) -> None:
    """Begin a list or a dict, or put what was built since into one."""
    if op == _MARK:
        marks.append(len(stack))
    elif op == _NEW_LIST:
        stack.append([])
    elif op == _NEW_DICT:
        stack.append({})
    elif op == _LIST:
        stack.append(_since(marks.pop(), stack))
    elif op == _DICT:
        items = _since(marks.pop(), stack)
        stack.append(dict(zip(items[::2], items[1::2], strict=True)))
    elif op in (_APPEND, _APPENDS):
        items = _since(marks.pop() if op == _APPENDS else len(stack) - 1, stack)
        _top(stack, list).extend(items)
    else:
        items = _since(marks.pop() if op == _SETS else len(stack) - 2, stack)
        _top(stack, dict).update(zip(items[::2], items[1::2], strict=True))


def _scalar(op: int, data: mmap.mmap, at: int) -> tuple[int | float | bool | str, int]:
    """The number or text that follows, and where it ends."""
    if op in _LINES:
        line, at = _line(data, at)
        return _LINES[op](line), at
    if op in _FIXED:
        content, at = _take(data, at, _FIXED[op].size)
        (value,) = _FIXED[op].unpack(content) or (op == 0x88,)
        return value, at
    count, at = _whole(data, at, _SIZED[op] if op in _SIZED else _SIZED_INTS[op])
    content, at = _take(data, at, count)
    return str(content, "utf-8") if op in _SIZED else int.from_bytes(content, "little", signed=True), at


def _remember(op: int, data: mmap.mmap, at: int, stack: list, memo: dict) -> int:
    """Number the value on top, or put the one of a number there; return where the instruction ends."""
    if op == _MEMOIZE:
        memo[len(memo)] = stack[-1]
        return at
    if op in (_PUT_LINE, _GET_LINE):
        line, at = _line(data, at)
        number = int(line)
    else:
        number, at = _whole(data, at, _PUTS[op] if op in _PUTS else _GETS[op])
    if op in _PUTS or op == _PUT_LINE:
        memo[number] = stack[-1]
    else:
        stack.append(memo[number])
    return at


def _take(data: mmap.mmap, at: int, count: int) -> tuple[bytes, int]:
    if count > len(data) - at:
        raise _Ended
    return data[at : at + count], at + count


def _whole(data: mmap.mmap, at: int, width: int) -> tuple[int, int]:
    content, at = _take(data, at, width)
    return int.from_bytes(content, "little"), at


def _line(data: mmap.mmap, at: int) -> tuple[bytes, int]:
    end = data.find(b"\n", at)
    if end < 0:
        raise _Ended
    return data[at:end], end + 1


def _run(pattern: re.Pattern, data: mmap.mmap, at: int) -> tuple[bytes, int]:
    found = pattern.match(data, at)
    if found is None:
        raise _Ended
    return found.group(), found.end()


def _since(start: int, stack: list) -> list:
    if start < 0:
        raise IndexError
    items = stack[start:]
    del stack[start:]
    return items


def _top(stack: list, kind: type):
    if type(stack[-1]) is not kind:
        raise TypeError
    return stack[-1]


def _named(op: int, stack: list, after: bytes) -> str:
    """The instruction's name and, where it looks something up, what. Raises ValueError where it is none."""
    from pickletools import opcodes

    name, words = next((one.name for one in opcodes if one.code == chr(op)), None), []
    if name is None:
        raise ValueError
    if name in ("GLOBAL", "INST"):
        words = [word.decode("ascii", "replace") for word in after.split(b"\n")[:2]]
    elif name == "STACK_GLOBAL":
        words = [word for word in stack[-2:] if isinstance(word, str)]
    what = ".".join(words)
    return f"the instruction {name}" + f" ({what})" * bool(re.fullmatch(r"[A-Za-z_][\w.]{0,80}", what, re.ASCII))
