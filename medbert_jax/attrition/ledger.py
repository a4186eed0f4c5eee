"""Attrition ledger: who and what came in, left under which rule, and was kept, with a difference of 0."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import NotRequired, TypedDict

from medbert_jax.disk.stored_json import form_faults
from medbert_jax.printed_tables import Table, table_text

# Who says so: the paper, the same authors elsewhere, or we, in a gap that they leave.
TAGS = ("paper", "group", "ehrshot", "fomoh", "ours")
LEVELS = ("patients", "visits", "codes")
"""What every ledger counts; one of a cohort with several predictions of a patient counts these too: `levels_of`."""


@dataclass(frozen=True)
class Counts:
    """Patients, visits and codes; predictions, where a patient may have several."""

    patients: int = 0
    visits: int = 0
    codes: int = 0
    predictions: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        mine, theirs = asdict(self), asdict(other)
        return Counts(**{level: count + theirs[level] for level, count in mine.items()})

    def __sub__(self, other: "Counts") -> "Counts":
        return self + Counts(**{level: -count for level, count in asdict(other).items()})

    def to_dict(self) -> dict[str, int]:
        """As JSON data; predictions where there are some."""
        return {level: count for level, count in asdict(self).items() if count or level in LEVELS}


class _Counts(TypedDict):
    patients: int
    visits: int
    codes: int
    predictions: NotRequired[int]


class _Line(TypedDict):
    rule: str
    text: str
    tag: str
    left: _Counts


class _Record(TypedDict):
    """As it is stored."""

    title: str
    came: _Counts
    lines: list[_Line]
    kept: _Counts


@dataclass(frozen=True)
class LedgerLine:
    """What left under one rule: whatever it was the first rule to apply to. Below 0 is what came, see `read_again`."""

    rule: str
    text: str
    tag: str
    left: Counts


@dataclass
class Ledger:
    """The attrition of one step. Rules that took nobody keep their line, so all shards have the same ones."""

    title: str
    came: Counts
    lines: list[LedgerLine] = field(default_factory=list)

    @classmethod
    def start(cls, title: str, *, patients: int, visits: int = 0, codes: int = 0, predictions: int = 0) -> "Ledger":
        """A ledger with everything that came in and nothing left yet."""
        ledger = cls(title, Counts(int(patients), int(visits), int(codes), int(predictions)))
        ledger._not_negative(ledger.came, "what comes in")
        return ledger

    def leave(
        self,
        rule: str,
        text: str,
        *,
        tag: str = "ours",
        patients: int = 0,
        visits: int = 0,
        codes: int = 0,
        predictions: int = 0,
    ) -> None:
        """Count what leaves under a rule.

        Args:
            rule: id of the rule, once per ledger.
            text: the rule in words.
            tag: one of `TAGS`.
            patients: patients that leave.
            visits: visits that leave, those of leaving patients included.
            codes: codes that leave, those of leaving patients and visits included.
            predictions: predictions that leave; a patient leaves with the last of his.

        Raises:
            ValueError: a rule counted twice, an unknown tag, a negative count, or more than is still there.
        """
        left = Counts(int(patients), int(visits), int(codes), int(predictions))
        if tag not in TAGS:
            raise ValueError(f'a ledger tag must be one of {", ".join(TAGS)}: got "{tag}"; say who made rule {rule}')
        if any(line.rule == rule for line in self.lines):
            raise ValueError(f"a ledger counts each rule once: got {rule} again; add its counts up first")
        self._not_negative(left, f"what leaves under {rule}")
        self._not_negative(self.kept - left, f"what is kept after {rule}")
        self.lines.append(LedgerLine(rule, text, tag, left))

    def read_again(
        self, rule: str, text: str, *, tag: str = "ours", predictions: int, visits: int = 0, codes: int = 0
    ) -> None:
        """Count what comes, from this line on, because records are read once for each prediction of a patient.

        Args:
            rule: as in `leave`.
            text: as in `leave`.
            tag: as in `leave`.
            predictions: all predictions.
            visits: visits of patients with several, once for each prediction but the first.
            codes: their codes, likewise.
        """
        more = Counts(visits=int(visits), codes=int(codes), predictions=int(predictions))
        self._not_negative(more, f"what comes under {rule}")
        self.lines.append(LedgerLine(rule, text, tag, Counts() - more))

    @property
    def counts_predictions(self) -> bool:
        """Whether patients may have several predictions."""
        return bool(self.came.predictions or any(line.left.predictions for line in self.lines))

    @property
    def kept(self) -> Counts:
        """What is still there: came in − left."""
        return self.came - sum((line.left for line in self.lines), Counts())

    def check(self, *, patients: int, visits: int, codes: int, predictions: int = 0) -> None:
        """Compare with what is there: ValueError unless in = kept + left at every level, difference 0."""
        there = asdict(Counts(int(patients), int(visits), int(codes), int(predictions)))
        kept = asdict(self.kept)
        if off := [f"{level} {kept[level]:,} and {there[level]:,}" for level in kept if kept[level] != there[level]]:
            raise ValueError(
                f'ledger "{self.title}": in − left must be what is kept, difference 0: got {"; ".join(off)} '
                f"(ledger and data); find the rows that no rule counted, or counted twice"
            )

    def merge(self, other: "Ledger") -> "Ledger":
        """Two shards' ledger, counts added line by line. Raises ValueError for the ledger of another step."""
        words = {line.rule: (line.text, line.tag) for line in self.lines}
        unlike = [
            line.rule for line in other.lines if words.get(line.rule, (line.text, line.tag)) != (line.text, line.tag)
        ]
        if self.title != other.title or unlike:
            raise ValueError(
                f'merged ledgers must be of one step: got "{self.title}" and "{other.title}"'
                f"{', and other words for ' + ', '.join(unlike) if unlike else ''}; merge shards of one run"
            )
        theirs = {line.rule: line.left for line in other.lines}
        lines = [
            LedgerLine(line.rule, line.text, line.tag, line.left + theirs.get(line.rule, Counts()))
            for line in self.lines
        ]
        lines += [line for line in other.lines if line.rule not in words]
        return Ledger(self.title, self.came + other.came, lines)

    def followed_by(self, later: "Ledger", *, prefix: str) -> "Ledger":
        """This ledger with the lines of the next step after its own, under `prefix` and their rules' names.

        RuntimeError where what it keeps is not what came there, which is a fault of the program.
        """
        if self.kept != later.came:
            raise RuntimeError(
                "what one step keeps must be what comes to the next, difference 0: got"
                f" {self.kept} and {later.came}; this is a fault of the program"
            )
        lines = [replace(line, rule=f"{prefix}{line.rule}") for line in later.lines]
        return Ledger(self.title, self.came, [*self.lines, *lines])

    def to_dict(self) -> dict:
        """A JSON-ready dictionary, with what was kept beside what came and left."""
        return {
            "title": self.title,
            "came": self.came.to_dict(),
            "lines": [{**asdict(line), "left": line.left.to_dict()} for line in self.lines],
            "kept": self.kept.to_dict(),
        }

    @classmethod
    def from_dict(cls, record: dict) -> "Ledger":
        """The ledger of `to_dict`. Raises ValueError where it is none or "kept" does not follow from the lines."""
        if any(form_faults(record, _Record)):
            raise ValueError(
                "a ledger must have title, came, lines and kept: got something else; give ledger.json of EHR tables or"
                " of a dataset"
            )
        lines = [
            LedgerLine(line["rule"], line["text"], line["tag"], Counts(**line["left"])) for line in record["lines"]
        ]
        ledger = cls(record["title"], Counts(**record["came"]), lines)
        ledger.check(**record["kept"])
        return ledger

    def render(self) -> str:
        """A text table: what came in, one line per rule, what was kept."""
        levels = levels_of([self])

        def cells(counts: Counts) -> list[str]:
            return [f"{getattr(counts, level):,}" for level in levels]

        rows = [
            ("in", "", *cells(self.came)),
            *((line.text, line.tag, *(signed(getattr(line.left, level)) for level in levels)) for line in self.lines),
            ("kept", "", *cells(self.kept)),
        ]
        return table_text(Table(self.title, ("", "", *levels), tuple(rows), "<<" + ">" * len(levels)))

    def _not_negative(self, counts: Counts, what: str) -> None:
        if below := [f"{level} {count:,}" for level, count in asdict(counts).items() if count < 0]:
            raise ValueError(
                f'ledger "{self.title}": {what} must be at least 0: got {", ".join(below)}; '
                "count each patient, visit and code once, under the first rule that applies"
            )


def levels_of(steps: Sequence[Ledger]) -> tuple[str, ...]:
    """What these ledgers count: `LEVELS`, and predictions where a patient of one of them may have several."""
    return ("patients", "predictions", *LEVELS[1:]) if any(step.counts_predictions for step in steps) else LEVELS


def signed(left: int) -> str:
    """How many left, "−12", or came, "+12"."""
    return f"{'−' if left > 0 else '+' if left else ''}{abs(left):,}"
