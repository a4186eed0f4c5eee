"""The patients of a MEDS folder: birth, death, sex and race from their rows, and the split that the source gives."""

from collections import Counter

import polars as pl

from medbert_jax.ingest.patient_rows import CONTRADICTED
from medbert_jax.ingest.reader import count_unknown, text
from medbert_jax.ingest.readers.meds_options import MedsOptions
from medbert_jax.ingest.source_files import Fault

_SPLITS = {"train": "train", "tuning": "validation", "held_out": "test"}
_BY_FOLDER, _BY_TABLE = "subjects split by the folders of data", "subjects split by subject_splits"
_TWO, _UNLIKE = "subjects in two split folders", "subjects in another split's folder than subject_splits says"
_SEX = r"(?i)^(?:f|m|u|o|fem|mal|unk|oth|not |no |undiff|ambig|inter)"
"""Beginnings of what a sex, or that it is not known, is called."""


def deaths_of(rows: pl.DataFrame) -> pl.DataFrame:
    """patient_id, death_date, death_time of every row that says when a subject died.

    Other codes count for subjects alone who have no MEDS_DEATH.
    """
    said = rows.filter((pl.col("role") == "death") & pl.col("time").is_not_null())
    said = said.filter(pl.col("by_standard") | ~pl.col("by_standard").any().over("patient_id"))
    return said.select("patient_id", death_date=pl.col("time").dt.date(), death_time="time")


def patients_of(rows: pl.DataFrame, options: MedsOptions) -> tuple[pl.DataFrame, Counter[str]]:
    """One row per subject of `rows`, without a split and a death; and what to tell."""

    def birth() -> pl.Expr:
        """The days of MEDS_BIRTH, or of the other codes where there is none."""
        known = (pl.col("role") == "birth") & pl.col("time").is_not_null()
        own = known & pl.col("by_standard")
        days = pl.col("time").dt.date().filter(own | (known & ~own.any()))
        return days.unique()

    def latest(value: pl.Expr) -> pl.Expr:
        return value.sort_by(pl.col("time"), value, nulls_last=False).drop_nulls().last()

    odd = (pl.col("role") == "sex") & ~pl.col("value").str.contains(_SEX)
    count_unknown("code of sex", int(rows.select(odd.fill_null(False).sum()).item()))
    letter = pl.col("value").str.slice(0, 1).str.to_lowercase()
    sex = letter.replace_strict({"f": "female", "m": "male"}, default=None, return_dtype=pl.String)
    told = rows.filter(pl.col("role").is_in(("birth", "sex", "race")) | pl.col("race").is_not_null())
    told = told.group_by("patient_id").agg(
        births=birth(),
        sex=latest(pl.when(pl.col("role") == "sex").then(sex)),
        race=latest(pl.coalesce(pl.when(pl.col("role") == "race").then("value"), "race")),
    )
    several = pl.col("births").list.len() > 1
    unlike = Counter[str]()
    if count := told.filter(several).height:
        unlike[CONTRADICTED.format("birth_date")] = count
    told = told.with_columns(birth_date=pl.when(~several).then(pl.col("births").list.first())).drop("births")
    if options.birth_year_only:
        told = told.with_columns(birth_year=pl.col("birth_date").dt.year(), birth_date=pl.lit(None, pl.Date))
    return rows.select("patient_id").unique().join(told, on="patient_id", how="left"), unlike


def with_splits(
    patients: pl.DataFrame, folders: pl.DataFrame, table: pl.DataFrame | None, options: MedsOptions
) -> tuple[pl.DataFrame, Counter[str]]:
    """The patients, and those of subject_splits, with a column split where the source gives one; and what to tell.

    `folders` has patient_id and folder, of the rows of data; `table` is subject_splits.
    """
    told = Counter()
    if table is not None:
        table = table.select(patient_id="subject_id", written=text(table["split"])).drop_nulls("patient_id")
        others = table.select("patient_id").unique().join(patients, on="patient_id", how="anti")
        patients = pl.concat([patients, others], how="diagonal")
    in_folder = _of_folders(folders if options.splits in ("auto", "folders") else folders.clear())
    told[_TWO] = in_folder.filter("is_in_two").height
    if table is None or options.splits in ("folders", "none"):
        if in_folder.is_empty():
            return patients, told
        told[_BY_FOLDER] = in_folder.height
        return patients.join(in_folder.drop("is_in_two"), on="patient_id", how="left"), told
    known = pl.col("written").replace_strict(_SPLITS, default=None, return_dtype=pl.String)
    said = table.group_by("patient_id").agg(
        split=pl.when(pl.col("written").n_unique() == 1).then(known.first()), is_said=pl.col("written").count() > 0
    )
    both = said.join(in_folder, on="patient_id", how="full", coalesce=True, suffix="_of_folder")
    unlike = pl.col("is_said") & pl.col("split_of_folder").is_not_null()
    told[_UNLIKE] = both.filter(unlike & pl.col("split").ne_missing(pl.col("split_of_folder"))).height
    told[_BY_TABLE] = said["split"].count()
    both = both.select("patient_id", split=pl.coalesce("split", "split_of_folder"))
    told[_BY_FOLDER] = both["split"].count() - told[_BY_TABLE]
    return patients.join(both, on="patient_id", how="left"), told


def split_faults(told: Counter[str]) -> list[Fault]:
    """What is wrong with the splits of the whole source, of what was told of its shards."""
    faults = []
    if count := told[_TWO]:
        faults.append(("data", "two_splits", f"has {count:,} subjects whose rows lie in the folders of two splits"))
    if count := told[_UNLIKE]:
        what = f"gives {count:,} subjects another split than that of the folder below data in which their rows lie"
        faults.append(("metadata/subject_splits.parquet", "unlike_splits", what))
    return faults


def _of_folders(rows: pl.DataFrame) -> pl.DataFrame:
    """patient_id, split and is_in_two of the subjects whose rows lie below a folder that bears a split's name."""
    folders = rows["folder"].drop_nulls().unique().to_list()
    named = {name: [part for part in name.lower().split("/") if part in _SPLITS][:1] for name in folders}
    split = {name: _SPLITS[found[0]] for name, found in named.items() if found}
    split_of = pl.col("folder").replace_strict(split, default=None, return_dtype=pl.String)
    found = rows.unique().select("patient_id", split=split_of).drop_nulls().group_by("patient_id")
    return found.agg(pl.col("split").min(), is_in_two=pl.col("split").n_unique() > 1)
