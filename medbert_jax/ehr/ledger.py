"""Attrition ledger: who and what came in, left under which rule, and was kept, with a difference of 0."""

from dataclasses import asdict, dataclass, field

# Who says so: the paper, the same authors elsewhere, or we, in a gap that they leave.
TAGS = ("paper", "group", "ours")


@dataclass(frozen=True)
class Counts:
    """Patients, visits and codes."""

    patients: int = 0
    visits: int = 0
    codes: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.patients + other.patients, self.visits + other.visits, self.codes + other.codes)

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.patients - other.patients, self.visits - other.visits, self.codes - other.codes)


@dataclass(frozen=True)
class Line:
    """What left under one rule: whatever it was the first rule to apply to."""

    rule: str
    text: str
    tag: str
    left: Counts


@dataclass
class Ledger:
    """The attrition of one step. Rules that took nobody keep their line, so all shards have the same ones."""

    title: str
    came: Counts
    lines: list[Line] = field(default_factory=list)

    @classmethod
    def start(cls, title: str, *, patients: int, visits: int = 0, codes: int = 0) -> "Ledger":
        """A ledger with everything that came in and nothing left yet."""
        ledger = cls(title, Counts(int(patients), int(visits), int(codes)))
        ledger._not_negative(ledger.came, "what comes in")
        return ledger

    def leave(
        self, rule: str, text: str, *, tag: str = "ours", patients: int = 0, visits: int = 0, codes: int = 0
    ) -> None:
        """Count what leaves under a rule.

        Args:
            rule: id of the rule, once per ledger.
            text: the rule in words.
            tag: one of `TAGS`.
            patients: patients that leave.
            visits: visits that leave, those of leaving patients included.
            codes: codes that leave, those of leaving patients and visits included.

        Raises:
            ValueError: a rule counted twice, an unknown tag, a negative count, or more than is still there.
        """
        left = Counts(int(patients), int(visits), int(codes))
        if tag not in TAGS:
            raise ValueError(f'a ledger tag must be one of {", ".join(TAGS)}: got "{tag}"; say who made rule {rule}')
        if any(line.rule == rule for line in self.lines):
            raise ValueError(f"a ledger counts each rule once: got {rule} again; add its counts up first")
        self._not_negative(left, f"what leaves under {rule}")
        self._not_negative(self.kept - left, f"what is kept after {rule}")
        self.lines.append(Line(rule, text, tag, left))

    @property
    def kept(self) -> Counts:
        """What is still there: came in − left."""
        return self.came - sum((line.left for line in self.lines), Counts())

    def check(self, *, patients: int, visits: int, codes: int) -> None:
        """Compare with what is there: ValueError unless in = kept + left at every level, difference 0."""
        there, kept = asdict(Counts(int(patients), int(visits), int(codes))), asdict(self.kept)
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
            Line(line.rule, line.text, line.tag, line.left + theirs.get(line.rule, Counts())) for line in self.lines
        ]
        lines += [line for line in other.lines if line.rule not in words]
        return Ledger(self.title, self.came + other.came, lines)

    def to_dict(self) -> dict:
        """A JSON-ready dictionary, with what was kept beside what came and left."""
        return {
            "title": self.title,
            "came": asdict(self.came),
            "lines": [asdict(line) for line in self.lines],
            "kept": asdict(self.kept),
        }

    @classmethod
    def from_dict(cls, record: dict) -> "Ledger":
        """The ledger of `to_dict`. Raises ValueError where "kept" does not follow from the lines."""
        lines = [Line(line["rule"], line["text"], line["tag"], Counts(**line["left"])) for line in record["lines"]]
        ledger = cls(record["title"], Counts(**record["came"]), lines)
        ledger.check(**record["kept"])
        return ledger

    def render(self) -> str:
        """A text table: what came in, one line per rule, what was kept."""
        rows = [("", "", "patients", "visits", "codes"), ("in", "", *self._cells(self.came))]
        rows += [(line.text, line.tag, *self._cells(line.left, "−")) for line in self.lines]
        rows += [("kept", "", *self._cells(self.kept))]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        body = (
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(cells)
            )
            for cells in ([*zip(row, widths, strict=True)] for row in rows)
        )
        return "\n".join([self.title, *(line.rstrip() for line in body)])

    def _not_negative(self, counts: Counts, what: str) -> None:
        if below := [f"{level} {count:,}" for level, count in asdict(counts).items() if count < 0]:
            raise ValueError(
                f'ledger "{self.title}": {what} must be at least 0: got {", ".join(below)}; '
                "count each patient, visit and code once, under the first rule that applies"
            )

    @staticmethod
    def _cells(counts: Counts, sign: str = "") -> list[str]:
        return [f"{sign if count else ''}{count:,}" for count in (counts.patients, counts.visits, counts.codes)]
