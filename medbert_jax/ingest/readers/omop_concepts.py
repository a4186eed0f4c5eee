"""The concepts that the rows of a shard name, and what they say."""

import polars as pl

from medbert_jax.ingest.reader import text, whole

_LOOKED_UP = (
    "concept_id_1",
    "race_concept_id",
    "discharged_to_concept_id",
    "discharge_to_concept_id",
    "unit_concept_id",
    *(f"{kind}_concept_id" for kind in ("condition", "drug", "measurement", "procedure")),
    *(f"{kind}_source_concept_id" for kind in ("condition", "drug", "measurement", "procedure")),
)


def concepts_of(raw: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """concept_id Int64, system, code, name, class of the concepts that the shard's rows name, each once."""
    columns = {"system": "vocabulary_id", "code": "concept_code", "name": "concept_name", "class": "concept_class_id"}
    if "concept" not in raw:
        return pl.DataFrame(schema={"concept_id": pl.Int64, **dict.fromkeys(columns, pl.String)})
    ids = [
        whole(frame[column]).unique()
        for name, frame in raw.items()
        for column in frame.columns
        if name != "concept" and column in _LOOKED_UP
    ]
    table = raw["concept"]
    # Millions of rows: found by the type that they have, converted afterwards.
    dtype = table["concept_id"].dtype
    named = pl.concat([one.rename("concept_id") for one in ids]).unique().drop_nulls()
    # An id too large for that type is in no row of it.
    named = (
        named.filter(named > 0).cast(dtype if dtype.is_numeric() else pl.String, strict=False).drop_nulls().to_frame()
    )
    if not dtype.is_numeric():
        table = table.with_columns(text(table["concept_id"]))
    found = table.join(named, on="concept_id", how="semi")
    return pl.DataFrame(
        {"concept_id": whole(found["concept_id"]), **{new: text(found[old]) for new, old in columns.items()}}
    ).unique("concept_id", keep="first", maintain_order=True)


def look_up(ids: pl.Series, concepts: pl.DataFrame, *columns: str) -> list[pl.Series]:
    """Columns of the concepts with these ids; null where unmapped or unknown."""
    keys = whole(ids).rename("concept_id").to_frame()
    return keys.join(concepts, on="concept_id", how="left", maintain_order="left").select(columns).get_columns()
