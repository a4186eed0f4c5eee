"""What is asked of each row is asked of the distinct rows alone: few in most columns, and patterns are dear."""

from collections.abc import Callable

import polars as pl


def by_distinct(rows: pl.DataFrame, of_each: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """What `of_each` makes of the rows (columns of other names), in their order; it must look at each row alone.

    Where more than half of the rows are distinct, finding them costs more than it saves: then it is asked of all.
    """
    distinct = rows.unique(maintain_order=False)
    if 2 * distinct.height > rows.height:
        return of_each(rows)
    found = of_each(distinct)
    table = pl.concat([distinct, found], how="horizontal")
    rows = rows.join(table, on=rows.columns, how="left", maintain_order="left", nulls_equal=True)
    return rows.select(found.columns)
