"""Zeros that a spreadsheet ate, in sources of MIMIC-IV's form: the codes are real ones, written without their zeros."""

import json

import polars as pl
import pytest

from medbert_jax.ehr.codes import normal_codes
from medbert_jax.ehr.icd import billable_icd9
from medbert_jax.ehr.tables import read_source, read_tables
from medbert_jax.ingest.formats import get_reader
from medbert_jax.ingest.icd9_zeros import judge, numeric_codes, with_zeros
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.source_files import SourceError


def of(codes, system="ICD9CM", rows=1):
    """What `judge` says of distinct codes as written; None where there is nothing to judge."""
    frame = pl.DataFrame({"code_system": system, "code": list(codes)}).with_columns(rows=pl.lit(rows, pl.UInt32))
    return next(iter(judge(numeric_codes(frame))), None)


def source(folder, diagnoses, procedures=()):
    """MIMIC-IV's tables: one patient for every code, who has it in his one stay."""
    folder.mkdir()
    ids = range(1, max(len(diagnoses), len(procedures)) + 1)
    tables = {
        "patients": ["subject_id,gender,anchor_age,anchor_year", *(f"{id},F,60,2150" for id in ids)],
        "admissions": ["subject_id,hadm_id,admittime,dischtime", *(f"{id},{id},2150-02-01,2150-02-05" for id in ids)],
        "diagnoses_icd": ["subject_id,hadm_id,seq_num,icd_code,icd_version",
                          *(f"{id},{id},1,{code},9" for id, code in enumerate(diagnoses, 1))],
        "procedures_icd": ["subject_id,hadm_id,chartdate,icd_code,icd_version",
                           *(f"{id},{id},2150-02-02,{code},9" for id, code in enumerate(procedures, 1))],
    }  # fmt: skip
    for name, lines in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def read(folder, out, said=None, shards=3, **options):
    reader = get_reader("mimic-iv")
    ingest(folder, out, format="mimic-iv", shards=shards, workers=1, options=reader.options(**options),
           announce=[].append if said is None else said.append)  # fmt: skip
    tables = read_tables(out)
    order = pl.col("patient_id").cast(pl.Int64)
    there = [frame for frame in (tables.diagnoses, tables.procedures) if frame is not None]
    return [frame.sort(order)["code"].to_list() for frame in there]


LOST = ["389", "845", "88", "4109", "4280"]  # were 038.9, 008.45, 008.8, 041.09, 428.0
PROCEDURES = ["92", "102", "784", "3961", "391"]  # were 00.92, 01.02, 07.84, 39.61, and 39.1 or 03.91


def test_a_source_that_lost_its_zeros_is_refused(tmp_path):
    with pytest.raises(SourceError) as refused:
        read(source(tmp_path / "src", LOST), tmp_path / "ehr")
    said = str(refused.value)
    assert "[lost_zeros] of 5 different ICD9CM codes without a dot none begins with 0" in said
    assert "4 of the 4 that are incomplete" in said and "(4 rows of 5, 80.0%)" in said
    assert "--options.icd9-zeros restore" in said and "keep" in said
    assert not (tmp_path / "ehr").exists()


def test_restored_where_one_reading_alone_is_complete(tmp_path):
    folder = source(tmp_path / "src", LOST)
    # 845 was 008.45 or 084.5, and nobody knows which.
    restored = ["038.9", "845", "008.8", "041.09", "428.0"]
    assert read(folder, tmp_path / "ehr", icd9_zeros="restore")[0] == restored
    counted = read_source(tmp_path / "ehr").assumptions[-1]
    assert "ICD9CM codes whose leading zeros were put back 3" in counted
    assert "billable codes 1" in counted
    assert read(folder, tmp_path / "one", shards=1, icd9_zeros="restore")[0] == restored


def test_kept_as_they_are_written(tmp_path):
    kept = read(source(tmp_path / "src", LOST), tmp_path / "ehr", icd9_zeros="keep")[0]
    assert kept == ["389", "845", "088", "410.9", "428.0"]


def test_procedures_lose_them_too(tmp_path):
    folder = source(tmp_path / "src", ["4280", "0389", "25000"], PROCEDURES)
    with pytest.raises(SourceError, match=r"procedures: \[lost_zeros\] of 5 different ICD9Proc"):
        read(folder, tmp_path / "ehr")
    diagnoses, procedures = read(folder, tmp_path / "ehr", icd9_zeros="restore")
    assert diagnoses == ["428.0", "038.9", "250.00"]
    assert procedures == ["00.92", "01.02", "07.84", "39.61", "39.1"]


@pytest.mark.parametrize("lost", [False, True])
def test_a_large_source_is_judged_by_all_its_codes(lost):
    """Of every 40th billable code: as they are nothing is said, without their zeros it is refused."""
    codes = sorted(code for code in billable_icd9("ICD9CM") if code.isdigit())[::40]
    written = {code.lstrip("0") if lost else code for code in codes}
    judged = of(written)
    assert judged.codes > 270 and judged.leading_lost is lost
    assert bool([*judged.faults("refuse")]) is lost and not [*judged.faults("keep")]
    assert not [*judged.lines("refuse")] or lost


def test_nothing_is_put_back_wrongly():
    """Of all billable codes without their zeros: each is the one it was, or stays as it is written and is counted."""
    codes = sorted(code for code in billable_icd9("ICD9CM") if code.isdigit())
    plain = pl.DataFrame({"code_system": "ICD9CM", "code": [code.lstrip("0") for code in codes], "was": codes})
    read = with_zeros(plain.select("code_system", "code").unique())
    found = plain.join(read, on=["code_system", "code"])
    changed = found.filter(pl.col("read") != pl.col("code"))
    assert (changed["read"] == changed["was"]).all()
    zeros = found.filter(pl.col("was").str.starts_with("0"))
    assert (zeros["several"] | (zeros["read"] == zeros["was"])).all()
    assert zeros["several"].mean() < 0.4


SOUND = {
    "categories alone": ["389", "410", "250", "401", "845", "414", "427", "486", "584"],
    "dots, in which a lost zero shows": ["38.9", "8.45", "428.0", "389", "88", "250.6", "V45.81"],
    "few codes": ["4280", "25000", "4019", "389"],
    "incomplete codes beside others": ["389", "410", "250", "401", "428", "4280", "25000", "4101", "2500", "5849"],
    "many of one field": [f"{number}" for number in range(29000, 31999)],
    "some begin with 0": ["0389", "00845", "04109", "0088", "389", "4109", "88", "4280"],
}


@pytest.mark.parametrize("written", SOUND.values(), ids=SOUND)
def test_a_sound_source_is_not_refused(written):
    assert not [*of(written).faults("refuse")]


def test_few_incomplete_codes_are_told(tmp_path):
    said = []
    read(source(tmp_path / "src", ["389", "4280", "25000", "4019", "4240"]), tmp_path / "ehr", said)
    line = "1 of the 1 that are incomplete as written would be complete with zeros before them (1 rows of 5, 20.0%)"
    assert any(line in one for one in said)
    assert any(line in one for one in read_source(tmp_path / "ehr").assumptions)


def test_restoring_codes_with_dots_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"\[dotted_codes\]"):
        read(source(tmp_path / "src", ["428.0", "389", "250.00"]), tmp_path / "ehr", icd9_zeros="restore")


def test_codes_as_floats_in_text_are_refused(tmp_path):
    """389.0 may have been 389, 038.9 or 389.0: 4280.0, which is no code, gives it away."""
    with pytest.raises(SourceError, match=r"\[float_code\] 3 ICD9CM codes are written as floats"):
        read(source(tmp_path / "src", ["4280.0", "25000.0", "4019.0", "389.0"]), tmp_path / "ehr", icd9_zeros="restore")
    assert not of(["428.0", "250.0", "401.0", "389.0", "41.0"]).are_floats


def test_lost_trailing_zeros_are_told():
    codes = sorted(f"{code[:3]}.{code[3:]}" for code in billable_icd9("ICD9CM") if code.isdigit() and len(code) > 3)
    sound, lost = of(codes[::60]), of({code.rstrip("0").rstrip(".") for code in codes[::60]})
    assert not sound.trailing_lost and lost.trailing_lost
    (line,) = lost.lines("refuse")
    assert "none ends in 0" in line and not [*lost.faults("refuse")]
    assert not of(["250.6", "250.01", "428.1"]).trailing_lost  # too few to tell


@pytest.mark.parametrize(
    ("system", "written", "whole"),
    [
        ("ICD9Proc", "9.66", "09.66"), ("ICD9Proc", "39.61", "39.61"),
        ("ICD10PCS", "210093", "0210093"), ("ICD10PCS", "16070", "0016070"), ("ICD10PCS", "02HV33Z", "02HV33Z"),
        ("ICD10PCS", "021", "021"), ("CPT4", "100", "00100"), ("CPT4", "92928", "92928"), ("CVX", "3", "3"),
    ],
)  # fmt: skip
def test_systems_with_one_length_get_theirs_back_always(system, written, whole):
    normal = normal_codes(pl.DataFrame({"code_system": [system], "code": [written]}))
    assert normal["normal"].to_list() == [whole]


def test_shares_of_code_systems_are_told(tmp_path):
    said = []
    read(source(tmp_path / "src", ["4280", "0389", "V4581"], ["3961"]), tmp_path / "ehr", said)
    assert said[-2:] == ["diagnoses: ICD9CM 100.0%", "procedures: ICD9Proc 100.0%"]
    ledger = json.loads((tmp_path / "ehr" / "ledger.json").read_text())
    assert ledger["code_systems"] == {"diagnoses": {"ICD9CM": 3}, "procedures": {"ICD9Proc": 1}}
