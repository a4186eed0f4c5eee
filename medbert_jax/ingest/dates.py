"""How text says a day or a time: the forms that are read, those that an option adds, and the shape of all others."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from medbert_jax.ingest.distinct import by_distinct

FORMS = "2011-05-03, 20110503, 2011-05-03 14:05[:06]"
"""What is read without being asked for, as it is told."""
EXCEL = "excel"
"""Among the forms of an option: a spreadsheet's day number, 40666.5868 for 2011-05-03 14:05."""

_EXCEL_ZERO, _EXCEL_DAYS = datetime(1899, 12, 30), (61, 2_958_465)  # before 1 March 1900 it counts a day that was none
_PROBE = datetime(2011, 5, 23, 14, 5, 6)
_TIMES = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y%m%d")
_LONGEST_SHAPE = 24
# The shape of a day → the form that it may have; of slashes nobody knows which comes first.
_SUGGESTED = (
    (r"#{4}([/.])##?\1##?", r"%Y\1%m\1%d"),
    (r"##?\.##?\.####", "%d.%m.%Y"),
    (r"##?\.##?\.##", "%d.%m.%y"),
    (r"##?([/-])##?\1####", r"%m\1%d\1%Y, or %d\1%m\1%Y"),
    (r"##?/##?/##", "%m/%d/%y, or %d/%m/%y"),
    (r"##?([- ]?)aaa\1####", r"%d\1%b\1%Y"),
    (r"##?([- ]?)aaa\1##", r"%d\1%b\1%y"),
    (r"#{5}(\.#+)?", EXCEL),
)
_FIRST = (", month first", ", day first")  # in the order of the two forms above
_NO_DAY, _ISO_DAY = ", no such day", "####-##-##"
_CLOCKS = (
    (r" ##?:##", " %H:%M"), (r" ##?:##:##", " %H:%M:%S"), (r" ##?:##:##\.#+", " %H:%M:%S%.f"),
    (r" ##?:## aa", " %I:%M %p"), (r" ##?:##:## aa", " %I:%M:%S %p"),
)  # fmt: skip


def read_times(values: pl.Series) -> pl.Series:
    """Text without blanks around it as naive Datetime in µs: the forms that need no option; null for all else."""
    if values.null_count() == len(values):
        return pl.Series(values.name, [None], pl.Datetime("us")).new_from_index(0, len(values))
    return by_distinct(values.alias("t").to_frame(), _read_each).to_series().alias(values.name)


def _read_each(texts: pl.DataFrame) -> pl.DataFrame:
    values = texts["t"]
    written = values.str.replace(r"(Z|[+-]\d{2}:?\d{2})$", "").str.replace("T", " ", literal=True)
    written = written.str.replace(r"(:\d{2}(?:\.\d+)?)\s*[+-]\d{2}$", "${1}")
    # An offset is only one after a time: the "-03" of a date must stay.
    dates_only = values.str.contains(r"^\d{4}-\d{2}-\d{2}$|^\d{8}$")
    written = written.zip_with(~dates_only.fill_null(False), values).str.strip_chars()
    written = written.str.replace(r"^(\d{8})\.0+$", "${1}")
    # Of seven digits, nobody knows which one is missing.
    frame = written.set(written.str.contains(r"^(\d{1,7}|\d{9,})$").fill_null(False), None).alias("t").to_frame()
    return frame.select(time=pl.coalesce(_parsed(pl.col("t"), form) for form in _TIMES))


def rewritten(values: pl.Series, forms: Sequence[str]) -> tuple[pl.Series, int]:
    """Text in which what has one of the forms is written as 2011-05-03[ 14:05:06.5], and all other as it was.

    Second, the cells that two of the forms read as different days.
    """
    text, frame = pl.col("t"), values.alias("t").to_frame()
    read = [_excel(text) if form == EXCEL else _parsed(text, form) for form in forms]
    # 20110503 is no day of the year 503, though %d%m%Y finds one.
    read = [pl.when(one.dt.year() >= 1000).then(one) for one in read]
    said = [
        one.dt.to_string("%Y-%m-%d %H:%M:%S%.f" if _has_clock(form) else "%Y-%m-%d")
        for one, form in zip(read, forms, strict=True)
    ]
    days = [one.dt.date() for one in read]
    unlike = (pl.min_horizontal(days) != pl.max_horizontal(days)).sum()
    table = frame.select(written=pl.coalesce(*said, text), unlike=unlike)
    return table["written"].alias(values.name), int(table["unlike"][0]) if table.height else 0


def form_faults(forms: Sequence[str]) -> list[str]:
    """What is wrong with forms that somebody typed: those that do not read back the day that they write."""
    return [
        f"date_format must be forms as '%d.%m.%Y' that say day, month and year, or {EXCEL}: got {form!r}; "
        "write %Y or %y, %m or %b, %d, and %H:%M:%S where the time of day is there"
        for form in forms
        if form != EXCEL and _read_back(form).date() != _PROBE.date()
    ]


def shapes(values: pl.Series) -> Counter[str]:
    """The shapes of text: # for each digit, a for each letter, cut after 24 signs; never what stands there.

    A date of numbers has behind its shape that there is no such day (31/02/2014), or which of day and month stands
    first where it can only be one of them.
    """
    masked = pl.col("t").str.replace_all(r"\d", "#").str.replace_all(r"\p{L}", "a").str.slice(0, _LONGEST_SHAPE)
    texts = values.alias("t").drop_nulls().value_counts().with_columns(shape=masked)
    found = Counter(dict(texts.group_by("shape").agg(pl.col("count").sum()).iter_rows()))
    for shape in list(found):
        of_numbers = "aaa" not in shape and EXCEL not in (forms := _suggested(shape))
        if of_numbers and (forms or shape.startswith(_ISO_DAY)):
            its = texts.filter(shape=shape)
            text = pl.col("t") if forms else pl.col("t").str.slice(0, len(_ISO_DAY))
            read = its.select(_parsed(text, form).is_not_null().alias(form) for form in forms or ("%Y-%m-%d",))
            none, one = ~read.select(pl.any_horizontal(pl.all())).to_series(), read.sum_horizontal() == 1
            kinds = {_NO_DAY: none}
            if len(forms) == 2:
                kinds |= {kind: one & read[form] for kind, form in zip(_FIRST, forms, strict=True)}
            for kind, cells in kinds.items():
                found[shape + kind] = int(its.filter(cells)["count"].sum())
                found[shape] -= found[shape + kind]
    return +found


def told_shapes(found: Counter[str], shown: int = 3) -> str:
    """Shapes with their counts, the most frequent first, and the form that the first may have where that is known."""
    order = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{count:,} of the shape {shape}" for shape, count in order[:shown]]
    if forms := _possible(order[0][0], found):
        said[0] += f" (maybe {', or '.join(forms)})"
    return ", ".join(said) + f", {sum(count for _, count in order[shown:]):,} of others" * (len(order) > shown)


def _possible(shape: str, found: Counter[str]) -> tuple[str, ...]:
    """The forms that dates of a shape may have, also by what others of the same shape in the column can only be."""
    if shape.endswith(_NO_DAY):
        return ()
    bare = shape
    for kind in _FIRST:
        bare = bare.removesuffix(kind)
    forms = _suggested(bare)
    if len(forms) < 2:
        return forms
    seen = [bool(found[bare + kind]) for kind in _FIRST]
    return tuple(form for form, there in zip(forms, seen, strict=True) if there) if any(seen) else forms


def _suggested(shape: str) -> tuple[str, ...]:
    for day, form in _SUGGESTED:
        for clock, time in (("", ""), *_CLOCKS):
            if found := re.fullmatch(day + clock, shape):
                return tuple(found.expand(one) + time for one in form.split(", or "))
    return ()


def _parsed(text: pl.Expr, form: str) -> pl.Expr:
    return text.str.strptime(pl.Datetime("us"), form, strict=False, exact=True)


def _excel(text: pl.Expr) -> pl.Expr:
    days = text.cast(pl.Float64, strict=False)
    days = pl.when(days.is_between(_EXCEL_DAYS[0], _EXCEL_DAYS[1] + 1, closed="left")).then(days)
    return pl.lit(_EXCEL_ZERO, pl.Datetime("us")) + pl.duration(seconds=(days * 86_400).round().cast(pl.Int64))


def _has_clock(form: str) -> bool:
    return form == EXCEL or _read_back(form).hour == _PROBE.hour


def _read_back(form: str) -> datetime:
    """The probe, written in a form and read again; the first day of all where that cannot be done."""
    try:
        written = pl.Series([_PROBE], dtype=pl.Datetime("us")).dt.strftime(form).alias("t").to_frame()
        return written.select(_parsed(pl.col("t"), form)).item() or datetime.min
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return datetime.min
