"""What is asked of distinct rows is what would be asked of all, in their order."""

import polars as pl
import pytest

from medbert_jax.ingest.distinct import by_distinct


@pytest.mark.parametrize("copies", [1, 5])
def test_each_row_gets_what_it_would_get_alone(copies):
    rows = pl.DataFrame(
        {"value": ["E11.9", None, "", "I10", None], "number": [1, None, 2, None, 3]} | {"day": [None] * 5}
    )
    rows = pl.concat([rows] * copies).sample(fraction=1, shuffle=True, seed=1)
    asked = []

    def of_each(frame):
        asked.append(frame.height)
        return frame.select(length=pl.col("value").str.len_chars(), twice=pl.col("number") * 2)

    assert by_distinct(rows, of_each).equals(of_each(rows))
    assert asked == [5, 5 * copies]


def test_no_rows_are_no_rows():
    rows = pl.DataFrame({"value": []}, schema={"value": pl.String})
    assert by_distinct(rows, lambda frame: frame.select(length=pl.col("value").str.len_chars())).is_empty()
