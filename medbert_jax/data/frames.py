"""One table with a row for each code → patient sequences, by the way of every source and of every dataset."""

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl

from medbert_jax.attrition.disclosure import masked
from medbert_jax.attrition.ledger import Counts, Ledger
from medbert_jax.data.joined import joined
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.serialization import SerializationConfig, order_histories, with_vocabulary
from medbert_jax.data.vocabulary import UNK, Vocabulary, check_unknown
from medbert_jax.disk.scratch_folder import scratch_folder
from medbert_jax.ehr.icd import back_off as backed_off
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.ingest.own_tables import lazy_table, write_ehr_tables

OF_PATIENT = ("birth_date", "birth_year", "sex")
OF_VISIT = ("admit_time", "order", "discharge_time", "length_of_stay", "age_days")
OF_CODE = ("code_system", "priority", "present_on_admission", "captured_at_billing")
COLUMNS = ("patient_id", "visit_id", "code", *OF_PATIENT, *OF_VISIT, *OF_CODE)
"""Columns that such a table may have, named as in docs/own_tables.md."""
EVERY_CODE = SerializationConfig(minimum_codes=1)
"""As preset paper, and as in a cohort: a patient of one code is not left out."""


def sequences_from(
    frame,
    vocabulary,
    *,
    code_system: str = "",
    serialization: SerializationConfig = EVERY_CODE,
    back_off: bool = False,
    unknown_code_limit: float = 0.5,
    us_icd: bool = False,
    icd9_zeros: Literal["refuse", "restore", "keep"] = "refuse",
    announce: Callable[[str], object] = print,
) -> PatientSequences:
    """Return the sequences of the patients in a table with a row for each code, sorted by the text of patient_id.

    The rows are ingested and serialized as those of a source are, so the same records get the ids that
    `medbert prepare` gives them; on the way they lie in a folder of the system's for temporary files, which is
    removed. Who or what leaves under which rule, and how many codes the vocabulary does not know, is announced:
    `patient_id` of what is returned says who is in it.

    Args:
        frame: a polars, pandas (2.2 or later) or Arrow table. Columns: patient_id; code; admit_time, or visit_id in
            whole numbers that grow with time, or both (visit_id then is any text), or visit_id and order; further of a
            patient birth_date or birth_year, sex; of a visit discharge_time, length_of_stay, age_days; of a code
            code_system, priority, present_on_admission, captured_at_billing. A visit is what has one visit_id, or
            without such a column one admit_time.
        vocabulary: a `Vocabulary`, or what has one as `.vocabulary`: a model of `load_pretrained`, a classifier.
        code_system: of all codes, where there is no such column; with neither, codes are full names ("ICD10CM/E11.9").
        serialization: as the model's pretraining dataset has it; the default is preset paper without a minimum of
            codes.
        back_off: whether an unknown ICD code is read as the nearest category above it that the vocabulary knows.
        unknown_code_limit: share of codes that may be unknown to the vocabulary.
        us_icd: whether codes of the system "ICD" are those of a US site, see `write_ehr_tables`.
        icd9_zeros: what becomes of ICD-9 without a dot that lost its leading zeros, see `write_ehr_tables`.
        announce: gets the lines that are printed.

    Raises:
        ValueError: a table that is none, columns that are missing or of no meaning, values that differ within a
            patient or a visit, cells that hold no ids, codes or times, too many unknown codes; all faults listed.
    """
    words = _vocabulary_of(vocabulary)
    rows = _checked(frame, code_system)
    patients, visits, diagnoses = _tables(rows, code_system)
    with scratch_folder() as work:
        ledger = write_ehr_tables(
            work / "ehr",
            patients=patients,
            visits=visits,
            diagnoses=diagnoses,
            has_dates="admit_time" in rows.columns,
            us_icd=us_icd,
            icd9_zeros=icd9_zeros,
            announce=lambda line: None,
        )
        _tell(ledger, announce)
        parts = []
        for shard in range(read_source(work / "ehr").shards):
            tables = read_shard(work / "ehr", shard)
            histories, codes, left = order_histories(tables, serialization)
            _tell(left, announce)
            known = backed_off(codes, words.codes) if back_off else codes
            parts.append(with_vocabulary(histories, known, words))
    sequences = joined(parts)
    sequences = sequences.take(np.argsort(sequences.patient_id, kind="stable"))
    unknown = int((sequences.code_ids == UNK).sum())
    share = unknown / max(1, len(sequences.code_ids))
    announce(f"{sequences!r}; {unknown:,} codes ({share:.1%}) that the vocabulary does not know")
    check_unknown({"of this table": share}, unknown_code_limit)
    return sequences


def _vocabulary_of(given: Any) -> Vocabulary:
    found = getattr(given, "vocabulary", given)
    if not isinstance(found, Vocabulary):
        raise ValueError(
            f"codes get their ids from a Vocabulary, or from what has one: got {type(given).__name__}; give the model"
            " of medbert_jax.load_pretrained, or Vocabulary.read of its vocabulary.tsv"
        )
    return found


def _checked(frame: Any, code_system: str) -> pl.DataFrame:
    """The table with columns of known names; ValueError with every fault."""
    faults: list[str] = []
    lazy = lazy_table("frame", frame, faults)
    if lazy is None:
        raise _refusal(faults)
    rows = lazy.collect()
    rows = rows.rename({name: name.strip().lower() for name in rows.columns})
    names = rows.columns
    faults += [f"column {name} is missing" for name in ("patient_id", "code") if name not in names]
    if not {"visit_id", "admit_time"} & set(names):
        faults.append("column admit_time is missing, and visit_id too: one of them tells visits apart")
    for name in sorted(set(names) - set(COLUMNS)):
        near = difflib.get_close_matches(name, set(COLUMNS) - set(names), 1)
        faults.append(f"column {masked(name)} has no meaning here" + "".join(f" ({one}?)" for one in near))
    if code_system and "code_system" in names:
        faults.append("code_system is given, and there is a column of that name: leave one of them out")
    if faults:
        raise _refusal(faults)
    if not ({"admit_time", "order"} & set(names) or rows["visit_id"].dtype.is_integer()):
        faults.append(
            "column visit_id holds no whole numbers, so it does not say which visit came first: add admit_time"
        )
    if not code_system and "code_system" not in names:
        bare = int((~rows["code"].cast(pl.String).str.contains(r"^[^/\s]+/.")).sum())
        if bare:
            faults.append(f'column code has {bare:,} rows that are not "SYSTEM/code": add code_system')
    visit = "visit_id" if "visit_id" in names else "admit_time"
    for keys, columns in ((["patient_id"], OF_PATIENT), (["patient_id", visit], OF_VISIT)):
        for column in [name for name in columns if name in names and name not in keys]:
            several = rows.group_by(keys).agg(pl.col(column).drop_nulls().n_unique() > 1)[column].sum()
            if several:
                faults.append(f"column {column} differs within {several:,} {'visits' if visit in keys else 'patients'}")
    if faults:
        raise _refusal(faults)
    return rows


def _refusal(faults: Sequence[str]) -> ValueError:
    return ValueError(
        f"a table of codes must have a row for each code, with the columns of sequences_from: got {len(faults)}"
        " fault(s):\n  - " + "\n  - ".join(faults) + "\nrename, add, drop or mend these columns"
    )


def _tables(rows: pl.DataFrame, code_system: str) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Patients, visits and diagnoses as `write_ehr_tables` takes them."""
    if "visit_id" not in rows.columns:
        moments = pl.struct("patient_id", "admit_time").rank("dense")
        rows = rows.with_columns(visit_id=moments)
    elif not {"admit_time", "order"} & set(rows.columns):
        rows = rows.with_columns(order="visit_id")
    if not code_system and "code_system" not in rows.columns:
        whole = pl.col("code").cast(pl.String).str.splitn("/", 2)
        rows = rows.with_columns(whole.struct.field("field_0").alias("code_system"), code=whole.struct.field("field_1"))
    elif code_system:
        rows = rows.with_columns(code_system=pl.lit(code_system))
    there = partial(filter, set(rows.columns).__contains__)

    def each(keys: list[str], columns: Sequence[str]) -> pl.DataFrame:
        named = [pl.col(column).drop_nulls().first() for column in there(columns)]
        return rows.group_by(keys, maintain_order=True).agg(named)

    return (
        each(["patient_id"], OF_PATIENT),
        each(["patient_id", "visit_id"], OF_VISIT),
        rows.select("patient_id", "visit_id", "code", *there(OF_CODE)),
    )


def _tell(ledger: Ledger, announce: Callable[[str], object]) -> None:
    """Every line under which somebody or something left."""
    for line in ledger.lines:
        if line.left != Counts():
            left = ", ".join(f"{getattr(line.left, what):,} {what}" for what in ("patients", "visits", "codes"))
            announce(f"{line.text}: {left} leave")
