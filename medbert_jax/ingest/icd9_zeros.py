"""Zeros that a program which took ICD-9 for numbers ate: seen over a whole source, put back where one reading is left.

With a dot a lost leading zero shows, and `ehr.codes` puts it back: 38.9 is 038.9. Without one 0389 becomes 389, which
is a category too. What is complete is known from CMS version 32: a code that was billable before and has been
subdivided since counts as incomplete.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from medbert_jax.ehr.icd import billable_icd9

CHANCE = 1e-6
"""Below which what would be seen in a sound source is taken for no chance."""
_DIGITS = {"ICD9CM": (3, 5), "ICD9Proc": (2, 4)}  # of a category, and of the longest code
# Of all billable numeric codes 8.7 % (procedures 9.5 %) begin with 0, and 16 % of those with decimals end in 0; half
# of that where a source holds fewer of the infections than there are.
_LEADING, _TRAILING = 0.05, 0.08
_FEWEST = 3
"""Codes that only a zero makes complete, below which a source is not refused."""
_DISTINCT = {"code_system": pl.String, "code": pl.String, "rows": pl.UInt32}


def numeric_codes(pairs: pl.DataFrame | None = None) -> pl.DataFrame:
    """Of distinct code_system and code with their number of `rows`: the ICD-9 codes made of digits, or none."""
    if pairs is None:
        return pl.DataFrame(schema=_DISTINCT)
    of_nine = pl.col("code_system").is_in(list(_DIGITS)) & pl.col("code").str.contains(r"^\d+(?:\.\d*)?$")
    return pairs.filter(of_nine).select(pl.col(name).cast(dtype) for name, dtype in _DISTINCT.items())


def with_zeros(pairs: pl.DataFrame) -> pl.DataFrame:
    """Distinct code_system and code with `read`, the code with the zeros that it lost, and `several`.

    Zeros are put back where of all readings (the code as written, with one zero before it, with two …) one alone is
    billable. Where several are (845: 008.45, 084.5), the code stays as written and `several` is true.
    """
    found = [(*pair, _readings(*pair)) for pair in numeric_codes(pairs.with_columns(rows=0))[:, :2].rows()]
    read = pl.DataFrame(
        [(system, code, ones[0] if len(ones) == 1 else code, len(ones) > 1) for system, code, ones in found],
        schema={"code_system": pl.String, "code": pl.String, "read": pl.String, "several": pl.Boolean},
        orient="row",
    )
    read = pairs.join(read, on=["code_system", "code"], how="left", nulls_equal=True)
    return read.with_columns(pl.coalesce("read", "code"), pl.col("several").fill_null(False))


def _readings(system: str, code: str) -> list[str]:
    """The billable ones among a code without a dot and the same with zeros before it."""
    category, longest = _DIGITS[system]
    zeros = range(max(0, category - len(code)), longest - len(code) + 1)
    return [one for one in ("0" * count + code for count in zeros) if one in billable_icd9(system)]


@dataclass(frozen=True)
class ZerosLost:
    """What the distinct ICD-9 codes of one system say of the program that wrote them."""

    system: str
    codes: int
    """Without a dot."""
    leading: int
    """Of these, codes that begin with 0."""
    incomplete: int
    """Of these, codes that are not billable as written."""
    zero_completes: int
    """Of these, codes that zeros before them make billable."""
    telling: int
    """Of these, codes of another length than a category has, which a source may hold on purpose."""
    rows: int
    """That have a code which only zeros complete."""
    all_rows: int
    dotted: int
    """Codes with decimals."""
    trailing: int
    """Of these, codes that end in 0."""
    floats: int
    """Codes that no ICD-9 has and a float gives: 4280.0."""
    undotted: int
    """Codes without a dot that are longer than a category: who writes none, writes dots."""

    @classmethod
    def of(cls, system: str, codes: pl.DataFrame) -> "ZerosLost":
        """Of the distinct codes (`numeric_codes`) of a system, each once."""
        category, longest = _DIGITS[system]
        plain = [(code, rows) for code, rows in codes.select("code", "rows").rows() if "." not in code]
        incomplete = [one for one in plain if one[0] not in billable_icd9(system) and len(one[0]) < longest]
        lost = [one for one in incomplete if _readings(system, one[0])]
        dotted = codes.filter(pl.col("code").str.contains(r"\.\d"))["code"]
        return cls(
            system,
            codes=len(plain),
            leading=int(codes["code"].str.starts_with("0").sum()),
            incomplete=len(incomplete),
            zero_completes=len(lost),
            telling=sum(len(code) != category for code, _ in lost),
            rows=sum(rows for _, rows in lost),
            all_rows=int(codes["rows"].sum()),
            dotted=len(dotted),
            trailing=int(dotted.str.ends_with("0").sum()),
            floats=int(dotted.str.contains(rf"^\d{{{category + 1},}}\.0+$").sum()),
            undotted=sum(len(code) > category for code, _ in plain),
        )

    @property
    def writes_dots(self) -> bool:
        """Whether the source writes its codes with the dot: a code without one is a category."""
        return self.dotted - self.floats > self.undotted

    @property
    def leading_lost(self) -> bool:
        """Whether leading zeros have been lost: some codes show it, and no sound source looks so.

        Either no code begins with 0 among so many that chance would have given some (0.95 ^ 270 is 1 in a million);
        or of the incomplete codes most are complete with a zero, more of them than begin with one, although of the
        categories one in three and of all longer codes one in twenty would be so by chance.
        """
        if self.writes_dots or not self.undotted or self.zero_completes < _FEWEST:
            return False
        none_of_many = not self.leading and (1 - _LEADING) ** self.codes < CHANCE
        most = 2 * self.zero_completes > self.incomplete and self.zero_completes > self.leading and self.telling
        return bool(none_of_many or most)

    @property
    def are_floats(self) -> bool:
        """Whether the codes were written as floats, of which 389.0 may have been 389, 038.9 or 389.0."""
        return self.floats >= _FEWEST and not self.undotted

    @property
    def trailing_lost(self) -> bool:
        """Whether no code ends in 0 among so many with decimals that chance would have given some."""
        return not self.trailing and (1 - _TRAILING) ** self.dotted < CHANCE

    def faults(self, option: str) -> Iterator[tuple[str, str, str]]:
        """(table, rule, what is wrong) for which the source is refused under --options.icd9-zeros `option`."""
        table = "diagnoses" if self.system == "ICD9CM" else "procedures"
        if self.are_floats:
            yield table, "float_code", f"{self.floats:,} {self.system} codes are written as floats"
        elif option == "refuse" and self.leading_lost:
            begin = f"{self.leading:,} begin" if self.leading else "none begins"
            yield (
                table,
                "lost_zeros",
                f"of {self.codes:,} different {self.system} codes without a dot {begin} with 0, and {self._incomplete}",
            )
        elif option == "restore" and self.writes_dots and self.zero_completes:
            what = f"{self.system} codes are written with a dot, where a lost zero shows and is always put back"
            yield table, "dotted_codes", what

    def lines(self, option: str) -> Iterator[str]:
        """What the user is told of a source that is not refused."""
        if option == "refuse" and self.zero_completes > self.leading and self.undotted and not self.writes_dots:
            yield (
                f"Of {self.codes:,} different {self.system} codes without a dot {self._incomplete}: they are kept as "
                "written; where a spreadsheet ate the zeros, --options.icd9-zeros restore puts them back."
            )
        if self.trailing_lost:
            yield (
                f"Of {self.dotted:,} different {self.system} codes with decimals none ends in 0: a program took them "
                "for numbers, and 250.00 may stand as 250; nothing puts these zeros back."
            )

    @property
    def _incomplete(self) -> str:
        return (
            f"{self.zero_completes:,} of the {self.incomplete:,} that are incomplete as written would be complete with"
            f" zeros before them ({self.rows:,} rows of {self.all_rows:,}, {self.rows / self.all_rows:.1%})"
        )


def judge(codes: pl.DataFrame) -> list[ZerosLost]:
    """Of the `numeric_codes` of all shards together: one for each system that is there."""
    distinct = codes.group_by("code_system", "code").agg(pl.col("rows").sum())
    return [
        ZerosLost.of(system, part)
        for (system,), part in sorted(distinct.partition_by("code_system", as_dict=True).items())
    ]
