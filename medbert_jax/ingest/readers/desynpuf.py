"""Reader of the CMS 2008–2010 Data Entrepreneurs' Synthetic Public Use File (DE-SynPUF): Medicare inpatient claims.

Two layouts: the CSV files as CMS publishes them, 20 samples, unpacked, any number of them together; and one Parquet
file each of beneficiaries (the columns of CMS) and inpatient stays (diagnoses as lists). Synthetic data: real claims
whose links over time the publisher broke, good for scale and for lengths of stay, not for predicting disease.
"""

from collections import Counter

import polars as pl

from medbert_jax.ingest.patient_rows import one_row_each
from medbert_jax.ingest.reader import RawTable, Reader, SourceOptions, day, named, text, whole
from medbert_jax.ingest.rough import Left, Rough
from medbert_jax.ingest.source_files import SourceError

ASSUMPTIONS = (
    "A visit is one inpatient claim (CLM_ID), from CLM_ADMSN_DT to NCH_BENE_DSCHRG_DT; outpatient and carrier claims "
    "are not read.",
    "Further segments of a claim are no visits of their own and their dates are not used; the diagnoses that they may "
    "have are the claim's.",
    "Priority is the number of the diagnosis column, ICD9_DGNS_CD_1 (principal) to 10; the admitting diagnosis is not "
    "read. Present on admission and captured at billing are unknown.",
    "A beneficiary's birth, sex and race are what all his yearly rows agree on. Birth and death are published as the "
    "first of their month and stay so; no published stay begins after such a death.",
    "A diagnosis is known from the end of its claim on: CLM_THRU_DT, else NCH_BENE_DSCHRG_DT.",
    "Follow-up is the years of which every month, up to that of death, has hospital insurance "
    "(BENE_HI_CVRAGE_TOT_MONS) and none a plan that sends no claims (BENE_HMO_CVRAGE_TOT_MONS). Which months of "
    "another year were covered is not published: such a year is none.",
    "Sex 1 is male, 2 female; race 1 is White, 2 Black, 3 Other, 5 Hispanic.",
    "Procedures are not read: about a third of their columns' codes have five characters and are diagnoses.",
    "Links between a patient's claims over time were broken by the publisher: no evidence for disease prediction.",
)
_DIAGNOSES = tuple(f"icd9_dgns_cd_{number}" for number in range(1, 11))
_SEXES = {"1": "male", "2": "female"}
_RACES = {"1": "White", "2": "Black", "3": "Other", "5": "Hispanic"}
_CLAIM_FILES = "DE1_0_2008_to_2010_Inpatient_Claims_Sample_*.csv or inpatient.parquet"


def build(raw: dict[str, pl.DataFrame], options: SourceOptions) -> Rough:
    """The rows of one shard as rough tables. Raises SourceError where the source has no inpatient claims."""
    layouts = {"inpatient_claims": _published, "inpatient": _listed}
    found = [stays(raw[name]) for name, stays in layouts.items() if name in raw]
    if not found:
        raise SourceError(DESYNPUF.format, [(_CLAIM_FILES, "missing_file", "is not in the source")])
    stays = pl.concat(found)
    is_further = (pl.col("segment") > pl.col("segment").min().over("patient_id", "visit_id")).fill_null(False)
    visits = stays.filter(~(is_further & pl.col("visit_id").is_not_null()))
    left = stays.height - visits.height
    visits = visits.select("patient_id", "visit_id", "admit_time", "discharge_time", visit_type=pl.lit("inpatient"))
    diagnoses = (
        stays.select("patient_id", "visit_id", "codes", time=pl.coalesce("through", "discharge_time"))
        .filter(pl.col("codes").list.len() > 0)
        .with_columns(priority=pl.int_ranges(1, pl.col("codes").list.len() + 1))
        .explode("codes", "priority")
        .drop_nulls("codes")  # a column that the claim does not use
        .rename({"codes": "code"})
    )
    patients, told = _patients(raw["beneficiary"])
    return Rough(
        patients=patients,
        deaths=_deaths(raw["beneficiary"]),
        follow_up=_follow_up(raw["beneficiary"]),
        visits=visits,
        diagnoses=diagnoses.with_columns(code_system=pl.lit("ICD9CM")),
        has_dates=True,
        age_precision="month",
        assumptions=ASSUMPTIONS,
        left=(Left("further_segment", "Further segments of a claim", visits=left),),
        told=told,
    )


def _published(claims: pl.DataFrame) -> pl.DataFrame:
    """Stays of the CSV files: patient_id, visit_id, segment, times, codes (a list with nulls)."""
    codes = claims.select(text(claims[column]) for column in _DIAGNOSES)
    return _stays(
        claims["desynpuf_id"],
        claims["clm_id"],
        claims["segment"],
        (claims["clm_admsn_dt"], claims["nch_bene_dschrg_dt"], claims["clm_thru_dt"]),
        codes.select(pl.concat_list(_DIAGNOSES)).to_series(),
    )


def _listed(stays: pl.DataFrame) -> pl.DataFrame:
    """Stays of the Parquet file, as `_published`."""
    codes = stays["icd9_dx"].cast(pl.List(pl.String))
    codes = codes.list.eval(pl.element().str.strip_chars().replace("", None))
    times = (stays["admit"], stays["discharge"], stays["discharge"])
    return _stays(stays["subject_id"], stays["claim_id"], stays["segment"], times, codes)


def _stays(patient, claim, segment, times, codes) -> pl.DataFrame:
    admit, discharge, through = (day(values).cast(pl.Datetime("us")) for values in times)
    return pl.DataFrame(
        {
            "patient_id": patient,
            "visit_id": text(claim),
            "segment": whole(segment),
            "admit_time": admit,
            "discharge_time": discharge,
            "through": through,
            "codes": codes,
        }
    )


def _patients(beneficiaries: pl.DataFrame) -> tuple[pl.DataFrame, Counter[str]]:
    """One row per beneficiary out of his yearly ones, and what to tell; rows without an id stay rows."""
    rows = pl.DataFrame(
        {
            "patient_id": beneficiaries["desynpuf_id"],
            "birth_date": day(beneficiaries["bene_birth_dt"]),
            "sex": named(beneficiaries["bene_sex_ident_cd"], _SEXES),
            "race": named(beneficiaries["bene_race_cd"], _RACES, unknown=("0",)),
        }
    )
    known, told = one_row_each(rows.drop_nulls("patient_id"))
    return pl.concat([known, rows.filter(pl.col("patient_id").is_null())]), told


def _deaths(beneficiaries: pl.DataFrame) -> pl.DataFrame:
    """patient_id, death_date of the yearly rows that have one."""
    died = day(beneficiaries["bene_death_dt"])
    return beneficiaries.select(patient_id="desynpuf_id", death_date=died).drop_nulls("death_date")


def _follow_up(beneficiaries: pl.DataFrame) -> pl.DataFrame:
    """patient_id, start, end of the years of which every month up to death is covered."""
    rows = pl.DataFrame(
        {
            "patient_id": beneficiaries["desynpuf_id"],
            "year": whole(beneficiaries["file_year"]),
            "months": whole(beneficiaries["bene_hi_cvrage_tot_mons"]),
            "elsewhere": whole(beneficiaries["bene_hmo_cvrage_tot_mons"]).fill_null(0),
            "died": day(beneficiaries["bene_death_dt"]),
        }
    )
    died = pl.when(pl.col("died").dt.year() == pl.col("year")).then("died")
    alive = died.dt.month().cast(pl.Int64).fill_null(12)
    whole_year = (pl.col("months") >= alive) & (pl.col("elsewhere") == 0)
    return rows.filter(whole_year.fill_null(False)).select(
        "patient_id", start=pl.date("year", 1, 1), end=pl.coalesce(died, pl.date("year", 12, 31))
    )


DESYNPUF = Reader(
    format="desynpuf",
    tables=(
        RawTable(
            "beneficiary",
            patient="desynpuf_id",
            required=("desynpuf_id", "bene_birth_dt", "bene_death_dt", "bene_sex_ident_cd", "bene_race_cd"),
            optional=("bene_hi_cvrage_tot_mons", "bene_hmo_cvrage_tot_mons", "file_year"),
            of_name=("file_year", r"(?i)(20\d\d)_Beneficiary"),
            times=("bene_birth_dt", "bene_death_dt"),
            files=("*beneficiary*.csv", "*beneficiary*.csv.gz", "*beneficiary*.parquet"),
        ),
        RawTable(
            "inpatient_claims",
            patient="desynpuf_id",
            required=("desynpuf_id", "clm_id", "segment", "clm_admsn_dt", "nch_bene_dschrg_dt", _DIAGNOSES[0]),
            optional=("clm_thru_dt", *_DIAGNOSES[1:]),
            times=("clm_admsn_dt", "nch_bene_dschrg_dt", "clm_thru_dt"),
            stay=("clm_admsn_dt", "nch_bene_dschrg_dt"),
            codes=_DIAGNOSES,
            needed=False,
            files=("*inpatient*.csv", "*inpatient*.csv.gz"),
        ),
        RawTable(
            "inpatient",
            patient="subject_id",
            required=("subject_id", "claim_id", "segment", "admit", "discharge", "icd9_dx"),
            times=("admit", "discharge"),
            stay=("admit", "discharge"),
            codes=("icd9_dx",),
            needed=False,
            files=("*inpatient*.parquet",),
        ),
    ),
    build=build,
)
