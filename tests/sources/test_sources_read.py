"""Every format is read exactly: the hospital of `made_sources` comes out of each of its tellings.

The expected rows are those written down there by hand, less what the format cannot say, which each test names.
"""

import gzip
import io
from dataclasses import asdict
from datetime import date, datetime

import polars as pl
import pytest
from sources.made_layouts import ENROLLED, WRITERS, write_source
from sources.made_sources import (
    CODES,
    DIABETICS,
    ENCOUNTERS,
    MEDS_SPLIT,
    PATIENTS,
    SHIFT,
    VISITS,
    csv,
    day,
    frame,
    parquet,
    synpuf_id,
)

from medbert_jax.ehr.shard_files import SPLITS_FILE
from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.formats import FORMATS
from medbert_jax.ingest.ingest import ingest

PICKLES = ("med-bert-pickles", "pytorch-ehr")
DATED = [kind for kind in WRITERS if kind not in ("diabetes130", *PICKLES)]
CODED_ALONE = ("med-bert-tsv", *PICKLES)
"""Of the hospital they hold codes, and so only visits and patients that have some, and no people."""
WITHOUT_ICD10 = ("desynpuf-csv", "desynpuf-parquet")
NAMED = {"desynpuf-csv": synpuf_id, "desynpuf-parquet": synpuf_id}  # patient ids as the format writes them
HAS_TIME = [kind for kind in DATED if kind.startswith(("omop", "meds", "mimic", "own"))]
RANKED = [kind for kind in WRITERS if kind.startswith(("mimic", "med-bert", "desynpuf", "own"))]
"""Those that rank every code."""
SPLIT = [kind for kind in WRITERS if kind.startswith(("meds", "own"))] + [*PICKLES]
DISEASES = {
    "77320001": [["250.83", "428", "414"], ["428", "250.02", "584"], ["038", "518", "250.4"]],
    "77320002": [["486", "250", "V45"]],
    "77320003": [["410", "250.6", "E888"]],
    "77320004": [["250.13", "276", "305"], ["250.11", "276", "305"]],
    "77320005": [["996", "250.01", "041"]],
    "77320006": [["577", "250", "303"]],
    "77320007": [["250.03", "493", "462"]],
    "77320008": [["434", "342", "250"]],
    "77320009": [["648", "250.01", "V27"]],
    "77320010": [["250.03", "787", "780"]],
    "77320011": [["820", "250", "E885"]],
    "77320012": [["414", "411", "250"]],
}


def read(kind, folder, change=None, files=None, *, shards=1, workers=1, **more):
    source, name, options = write_source(kind, folder / "source", change, files)
    out = folder / f"ehr-{shards}-{workers}"
    ledger = ingest(source, out, format=name, shards=shards, workers=workers, **{"options": options} | more)
    return read_tables(out), ledger


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each kind of source as it is, read once."""
    return {kind: read(kind, tmp_path_factory.mktemp("whole")) for kind in WRITERS}


def told(kind):
    """Patients, visits (with their place in order) and codes that this telling can hold."""
    patients = [row for row in PATIENTS if not (kind in WITHOUT_ICD10 and row[0] == "77310010")]
    if kind in CODED_ALONE:
        patients = [row for row in patients if row[0] not in ("77310011", "77310012")]
    known = {row[0] for row in patients}
    order, visits = {}, {}
    for row in VISITS:
        if row[1] in known:
            order[row[1]] = order.get(row[1], 0) + 1
            visits[row[0]] = (*row, order[row[1]])
    return patients, visits, [row for row in CODES if row[0] in visits]


def rows(table, *columns):
    """Cells of the columns, sorted."""
    return sorted(table.select(columns).rows(), key=lambda row: tuple(str(cell) for cell in row))


def listed(cells):
    return sorted(cells, key=lambda row: tuple(str(cell) for cell in row))


def moment(kind, text):
    if kind.startswith("mimic-iv"):
        text = f"{int(text[:4]) + SHIFT}{text[4:]}"
    return datetime.fromisoformat(text if kind in HAS_TIME else day(text))


def test_every_format_is_told():
    assert {name for name, _ in WRITERS.values()} == set(FORMATS)


@pytest.mark.parametrize("kind", [*DATED, *PICKLES])
def test_patients_are_read(whole, kind):
    tables, _ = whole[kind]
    name = NAMED.get(kind, str)
    expected = []
    for patient, birth, sex, _, death in told(kind)[0]:
        if kind in CODED_ALONE:
            birth = sex = death = None
        if kind.startswith("mimic-iv"):  # a year of birth at most, in a calendar of its own
            birth, death = None, death and date(death.year + SHIFT, death.month, death.day)
        expected.append((name(patient), birth, sex, death))
    assert rows(tables.patients, "patient_id", "birth_date", "sex", "death_date") == listed(expected)


@pytest.mark.parametrize("kind", [kind for kind in DATED if kind not in CODED_ALONE])
def test_races_are_kept_apart(whole, kind):
    """Their names are the source's; nobody is in another's group."""
    tables, _ = whole[kind]
    name = NAMED.get(kind, str)
    races = dict(tables.patients.select("patient_id", "race").rows())
    visited = {row[1] for row in VISITS}
    groups = {
        race: {races[name(row[0])] for row in told(kind)[0] if row[3] == race and row[0] in visited}
        for race in ("White", "Black")
    }
    assert all(len(group) == 1 and None not in group for group in groups.values())
    assert not groups["White"] & groups["Black"]


@pytest.mark.parametrize("kind", DATED)
def test_visits_are_read_in_order(whole, kind):
    tables, _ = whole[kind]
    name = NAMED.get(kind, str)
    expected = [
        (name(row[1]), row[8], moment(kind, row[2]), moment(kind, row[3]), row[4]) for row in told(kind)[1].values()
    ]
    got = rows(tables.visits, "patient_id", "order", "admit_time", "discharge_time", "length_of_stay")
    assert got == listed(expected)


@pytest.mark.parametrize("kind", PICKLES)
def test_visits_without_days_are_read_in_order(whole, kind):
    tables, _ = whole[kind]
    stays = kind == "med-bert-pickles"
    expected = [(row[1], row[8], None, row[4] if stays else None) for row in told(kind)[1].values()]
    got = rows(tables.visits, "patient_id", "order", "admit_time", "length_of_stay")
    assert got == listed(expected) and not tables.source.has_dates


@pytest.mark.parametrize("kind", SPLIT)
def test_splits_are_read(tmp_path, kind):
    read(kind, tmp_path)
    names = {"train": "train", "tuning": "validation", "held_out": "test"}
    split = dict(pl.read_parquet(tmp_path / "ehr-1-1" / SPLITS_FILE).rows())
    assert split == {patient: names[MEDS_SPLIT[patient]] for patient, *_ in told(kind)[0]}


@pytest.mark.parametrize("kind", WRITERS)
def test_who_is_followed_is_read_where_it_is_told(whole, kind):
    follow_up, name = whole[kind][0].follow_up, NAMED.get(kind, str)
    if kind in ("omop-observed", "own-tables"):
        assert listed(follow_up.rows()) == listed(ENROLLED)
    elif kind in NAMED:
        days = {row[0]: (date(2008, 1, 1), row[4] or date(2010, 12, 31)) for row in told(kind)[0]}
        assert listed(follow_up.rows()) == listed((name(patient), *both) for patient, both in days.items())
    else:
        assert follow_up is None


@pytest.mark.parametrize("kind", [*DATED, *PICKLES])
def test_codes_are_read_with_their_visit_system_and_priority(whole, kind):
    tables, _ = whole[kind]
    name = NAMED.get(kind, str)
    visits = told(kind)[1]
    # The codes of a visit are in no order in the pickles of pytorch_ehr.
    expected = [
        (name(patient), visits[visit][8], system, code, priority if kind in RANKED else None)
        for visit, patient, system, code, priority in told(kind)[2]
    ]
    codes = tables.diagnoses.join(
        tables.visits.select("visit_id", "patient_id", "order"), on=["visit_id", "patient_id"]
    )
    if kind not in RANKED:
        codes = codes.with_columns(priority=pl.lit(None))
    assert rows(codes, "patient_id", "order", "code_system", "code", "priority") == listed(expected)
    assert codes.height == tables.diagnoses.height


@pytest.mark.parametrize("kind", [*DATED, *PICKLES])
def test_nobody_leaves_a_sound_source(whole, kind):
    tables, ledger = whole[kind]
    patients, visits, codes = told(kind)
    labels = len(patients) if kind == "pytorch-ehr" else 0  # counted as codes, and none of them
    assert ledger.came.to_dict() == {"patients": len(patients), "visits": len(visits), "codes": len(codes) + labels}
    left = [line.rule for line in ledger.lines if any(asdict(line.left).values())]
    assert left == ["label_not_taken"] * bool(labels)
    ledger.check(patients=tables.patients.height, visits=tables.visits.height, codes=tables.diagnoses.height)
    assert tables.source.has_dates == (kind in DATED)


def assert_same(one, other):
    (tables, ledger), (others, theirs) = one, other
    assert others.source.content_hash == tables.source.content_hash
    assert theirs.to_dict() == ledger.to_dict()
    for name, table in tables.present().items():
        assert listed(others.present()[name].rows()) == listed(table.rows())


@pytest.mark.parametrize("kind", WRITERS)
def test_shards_change_nothing(whole, kind, tmp_path):
    sharded = read(kind, tmp_path, shards=4)
    assert sharded[0].source.shards == 4
    assert_same(whole[kind], sharded)


@pytest.mark.parametrize(
    "kind", ["omop-csv", "meds-0.4", "mimic-iv", "med-bert-tsv", "desynpuf-csv", "diabetes130", "own-tables", *PICKLES]
)
def test_workers_change_nothing(whole, kind, tmp_path):
    assert_same(whole[kind], read(kind, tmp_path, shards=4, workers=3))


@pytest.mark.parametrize("kind", WRITERS)
def test_the_hash_notices_one_changed_cell(whole, kind, tmp_path):
    """Planted fault: the test above compares something."""
    changed = {
        "omop": ("person", "gender_concept_id"),
        "meds": ("events", "code"),
        "mimic": ("patients", "gender"),
        "med": ("data_file", "diag"),
        "desynpuf": ("inpatient", None),
        "diabetes130": ("diabetic_data", "diag_1"),
        "own": ("diagnoses", "code"),
        "pytorch": ("data_file", "diag"),
    }
    table, column = changed[kind.split("-")[0]]

    def change(raw):
        old = raw[table]
        if column is None:
            raw[table] = old[1:]
        elif kind.startswith("omop"):
            raw[table] = old.with_columns(pl.lit(8507).cast(old.schema[column]).alias(column))
        elif table == "patients":
            raw[table] = old.with_columns(pl.lit("M").alias(column))
        else:
            raw[table] = old.with_columns(pl.col(column).str.replace("250", "251"))

    assert read(kind, tmp_path, change)[0].source.content_hash != whole[kind][0].source.content_hash


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("omop-csv", "omop-parquet"),
        ("omop-csv", "omop-observed"),
        ("omop-csv", "omop-spreadsheet"),
        ("meds-0.3", "meds-0.4"),
        ("meds-0.4", "meds-folders"),
        ("mimic-iv", "mimic-iv-zeros"),
        ("desynpuf-csv", "desynpuf-parquet"),
        ("med-bert-pickles", "pytorch-ehr"),
    ],
)
def test_two_layouts_of_a_format_tell_the_same(whole, kind, other):
    for name in ("patients", "diagnoses"):
        columns = ["patient_id", *(("sex", "birth_date") if name == "patients" else ("code_system", "code"))]
        a, b = (whole[each][0].present()[name] for each in (kind, other))
        assert rows(a, *columns) == rows(b, *columns)


def test_a_source_may_be_named_by_its_one_file(whole, tmp_path):
    for kind, file in (("med-bert-tsv", "data_file.tsv"), ("diabetes130", "diabetic_data.csv")):
        source, name, _ = write_source(kind, tmp_path / kind)
        ingest(source / file, tmp_path / f"{kind}-ehr", format=name, shards=1, workers=1)
        assert read_tables(tmp_path / f"{kind}-ehr").source.content_hash == whole[kind][0].source.content_hash


# OMOP alone


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind.startswith("omop")])
def test_omop_visit_types_and_principal_diagnoses(whole, kind):
    tables, _ = whole[kind]
    assert rows(tables.visits, "visit_id", "visit_type") == listed((row[0], row[5]) for row in VISITS)
    first = tables.diagnoses.filter(pl.col("priority") == 1)
    assert rows(first, "visit_id", "code") == listed((row[0], row[3]) for row in CODES if row[4] == 1)
    assert tables.diagnoses["present_on_admission"].drop_nulls().is_empty()  # the source does not say


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind.startswith("omop")])
def test_omop_drugs_measurements_and_procedures(whole, kind):
    tables, _ = whole[kind]
    (drug,) = tables.medications.select("patient_id", "visit_id", "code_system", "code", "time").rows()
    assert drug == ("77310001", "88420011", "RxNorm", "6809", datetime(2008, 2, 12, 9))
    (value,) = tables.measurements.select("patient_id", "visit_id", "code_system", "code", "value", "unit").rows()
    assert value == ("77310007", "88420071", "LOINC", "4548-4", 9.4, "%")
    (done,) = tables.procedures.select("patient_id", "visit_id", "code_system", "code").rows()
    assert done == ("77310002", "88420021", "CPT4", "71020")


def test_omop_birth_year_alone_is_no_birth_date(tmp_path):
    def change(raw):
        unknown = [pl.lit(None, pl.String).alias(c) for c in ("month_of_birth", "day_of_birth", "birth_datetime")]
        raw["person"] = raw["person"].with_columns(unknown)

    tables, ledger = read("omop-csv", tmp_path, change)
    assert tables.patients["birth_date"].drop_nulls().is_empty()
    assert not any(any(asdict(line.left).values()) for line in ledger.lines)
    ages = dict(tables.visits.select("visit_id", "age_days").rows())
    for visit, patient, admit, *_ in VISITS:
        born = next(row[1] for row in PATIENTS if row[0] == patient)
        assert abs(ages[visit] - (date.fromisoformat(day(admit)) - born).days) < 366
    assert (tables.visits["age_precision_days"] >= 365).all()


def test_omop_standard_concepts_where_there_is_no_icd(tmp_path):
    def change(raw):
        here = pl.col("visit_occurrence_id") == "88420051"
        raw["condition_occurrence"] = raw["condition_occurrence"].with_columns(
            pl.when(here).then(pl.lit(None)).otherwise("condition_source_value").alias("condition_source_value"),
            pl.when(here)
            .then(pl.lit("0"))
            .otherwise("condition_source_concept_id")
            .alias("condition_source_concept_id"),
            pl.when(here).then(pl.lit("317009")).otherwise("condition_concept_id").alias("condition_concept_id"),
        )
        asthma = raw["concept"][:1].with_columns(
            concept_id=pl.lit("317009"),
            concept_name=pl.lit("Asthma"),
            vocabulary_id=pl.lit("SNOMED"),
            concept_code=pl.lit("195967001"),
            standard_concept=pl.lit("S"),
        )
        raw["concept"] = pl.concat([raw["concept"], asthma])

    tables, ledger = read("omop-csv", tmp_path, change)
    ((system, code),) = tables.diagnoses.filter(pl.col("visit_id") == "88420051").select("code_system", "code").rows()
    assert (system, code) == ("SNOMED", "195967001")
    assert ledger.kept == ledger.came


@pytest.mark.parametrize("vocabulary", ["ICD10", "ICD10GM", "ICD10CA"])
def test_omop_icd10_of_other_countries_keeps_its_name(tmp_path, vocabulary):
    def change(raw):
        raw["concept"] = raw["concept"].with_columns(pl.col("vocabulary_id").replace("ICD10CM", vocabulary))

    tables, ledger = read("omop-csv", tmp_path, change)
    systems = tables.diagnoses.filter(pl.col("patient_id") == "77310010")["code_system"].unique().to_list()
    assert systems == [vocabulary] and ledger.kept == ledger.came


def test_omop_admission_diagnoses_are_present_on_admission(tmp_path):
    def change(raw):
        status = pl.when(pl.col("visit_occurrence_id") == "88420041").then(pl.lit("32901"))
        raw["condition_occurrence"] = raw["condition_occurrence"].with_columns(
            status.otherwise("condition_status_concept_id").alias("condition_status_concept_id")
        )  # 32901: primary admission diagnosis

    tables, _ = read("omop-csv", tmp_path, change)
    (row,) = tables.diagnoses.filter(pl.col("visit_id") == "88420041").rows(named=True)
    assert (row["priority"], row["present_on_admission"]) == (1, True)


def test_omop_without_the_tables_that_it_can_do_without(tmp_path, whole):
    def change(raw):
        for name in ("death", "drug_exposure", "measurement", "procedure_occurrence"):
            del raw[name]

    tables, ledger = read("omop-csv", tmp_path, change)
    assert (tables.medications, tables.measurements, tables.procedures) == (None, None, None)
    assert tables.patients["death_date"].drop_nulls().is_empty()
    assert listed(tables.diagnoses.rows()) == listed(whole["omop-csv"][0].diagnoses.rows())
    assert ledger.kept == whole["omop-csv"][1].kept


def test_omop_visit_without_an_end_has_no_known_stay(tmp_path):
    def change(raw):
        ends = [pl.lit(None, pl.String).alias(c) for c in ("visit_end_date", "visit_end_datetime")]
        raw["visit_occurrence"] = raw["visit_occurrence"].with_columns(ends)

    tables, ledger = read("omop-csv", tmp_path, change)
    assert tables.visits["length_of_stay"].drop_nulls().is_empty()
    assert tables.visits["discharge_time"].drop_nulls().is_empty() and ledger.kept == ledger.came


# MEDS alone


def test_meds_diagnoses_are_told_from_other_events(whole):
    for kind in ("meds-0.3", "meds-0.4"):
        tables, _ = whole[kind]
        assert set(tables.diagnoses["code_system"]) == {"ICD9CM", "ICD10CM"}


@pytest.mark.parametrize("kind", ["meds-0.3", "meds-0.4"])
@pytest.mark.parametrize("dtype", [pl.Datetime("ns"), pl.Datetime("ms"), pl.Datetime("us", "UTC")], ids=str)
def test_meds_time_in_any_unit(whole, tmp_path, kind, dtype):
    def change(raw):
        time = pl.col("time")
        time = time.dt.replace_time_zone("UTC") if dtype.time_zone else time.cast(dtype)
        raw["events"] = raw["events"].with_columns(time)

    assert read(kind, tmp_path, change)[0].source.content_hash == whole[kind][0].source.content_hash


def test_meds_file_layout_below_data_is_free(whole, tmp_path):
    def files(content):
        for place, path in enumerate(sorted(path for path in content if path.startswith("data/"))):
            content[f"data/deep/er/{place}.parquet"] = content.pop(path)

    assert read("meds-0.4", tmp_path, files=files)[0].source.content_hash == whole["meds-0.4"][0].source.content_hash


# MIMIC-IV alone


def test_mimic_ages_are_stated_to_the_year(whole):
    tables, _ = whole["mimic-iv"]
    ages = {row[0]: row[1:] for row in tables.visits.select("visit_id", "age_days", "age_precision_days").rows()}
    for visit, patient, admit, *_ in VISITS:
        born = next(row[1] for row in PATIENTS if row[0] == patient)
        age, precision = ages[visit]
        assert precision >= 365
        assert abs(age / 365.25 - (int(admit[:4]) - born.year)) <= 1


def test_mimic_ages_over_89_are_not_taken_for_91(tmp_path):
    def change(raw):
        raw["patients"] = raw["patients"].with_columns(
            pl.when(pl.col("subject_id") == "77310003").then(pl.lit("91")).otherwise("anchor_age").alias("anchor_age")
        )

    tables, ledger = read("mimic-iv", tmp_path, change)
    ((age, precision),) = (
        tables.visits.filter(pl.col("patient_id") == "77310003").select("age_days", "age_precision_days").rows()
    )
    assert age is None or precision > 366
    assert ledger.kept == ledger.came


def test_mimic_deaths_in_hospital_are_expired(whole):
    ways = dict(whole["mimic-iv"][0].visits.select("visit_id", "discharge_disposition").rows())
    assert ways.pop("88420031") == "expired" and set(ways.values()) == {"home"}


def test_mimic_years_to_come_are_not_implausible(whole):
    assert whole["mimic-iv"][0].visits["admit_time"].dt.year().min() == 2158


# Med-BERT TSV alone


def test_tsv_codes_captured_at_billing(whole):
    codes = whole["med-bert-tsv"][0].diagnoses
    third_party = {row[3]: row[3].startswith("E") and row[2] == "ICD9CM" for row in CODES}
    got = rows(codes, "code", "captured_at_billing")
    assert got == listed((row[3], third_party[row[3]]) for row in CODES)


def test_tsv_columns_count_by_position_not_by_name(whole, tmp_path):
    names = "patient_sk admit_dt_tm discharge_dt_tm diagnosis poa priority third_party"

    def change(raw):
        raw["data_file"] = raw["data_file"].rename(dict(zip(raw["data_file"].columns, names.split(), strict=True)))

    tables, _ = read("med-bert-tsv", tmp_path, change)
    assert tables.source.content_hash == whole["med-bert-tsv"][0].source.content_hash


# DE-SynPUF alone


def test_desynpuf_procedures_are_no_diagnoses(whole):
    for kind in WITHOUT_ICD10:
        assert not set(whole[kind][0].diagnoses["code"]) & {"389.3", "38.93"}
        assert set(whole[kind][0].diagnoses["code_system"]) == {"ICD9CM"}


def test_desynpuf_death_stands_in_the_file_of_its_year(whole):
    for kind in WITHOUT_ICD10:
        dead = whole[kind][0].patients.drop_nulls("death_date")
        assert dead.select("patient_id", "death_date").rows() == [(synpuf_id("77310003"), date(2009, 6, 20))]


# UCI 296


def test_diabetes130_patients(whole):
    tables, _ = whole["diabetes130"]
    expected = [(row[0], None, row[2].lower(), None) for row in DIABETICS]
    assert rows(tables.patients, "patient_id", "birth_date", "sex", "death_date") == listed(expected)
    races = dict(tables.patients.select("patient_id", "race").rows())
    assert races["77320007"] is None
    assert all(races[row[0]] == row[1] for row in DIABETICS if row[1] != "?")


def test_diabetes130_encounters_in_the_order_of_their_numbers(whole):
    tables, _ = whole["diabetes130"]
    order, expected = {}, []
    middle = {row[0]: int(row[3][1:].split("-")[0]) + 5 for row in DIABETICS}
    way = {"1": "home", "6": "home", "3": "facility", "22": "facility", "11": "expired", "13": "hospice"}
    for encounter, patient, days, disposition, _, readmitted in ENCOUNTERS:
        order[patient] = order.get(patient, 0) + 1
        expected.append(
            (patient, order[patient], days, way[disposition], readmitted == "<30", middle[patient], encounter)
        )
    columns = ("patient_id", "order", "length_of_stay", "discharge_disposition", "readmitted_30d", "age", "visit_id")
    visits = tables.visits.with_columns(age=(pl.col("age_days") / 365.25).round(0).cast(pl.Int32))
    assert rows(visits, *columns) == listed(expected)
    assert visits["age_precision_days"].is_between(3650, 3654).all()
    assert visits.select("admit_time", "discharge_time").null_count().row(0) == (15, 15)
    assert not tables.source.has_dates


def test_diabetes130_codes(whole):
    tables, ledger = whole["diabetes130"]
    expected = [
        (patient, order, "ICD9CM", code, priority)
        for patient, visits in DISEASES.items()
        for order, codes in enumerate(visits, 1)
        for priority, code in enumerate(codes, 1)
    ]
    codes = tables.diagnoses.join(tables.visits.select("visit_id", "order"), on="visit_id")
    assert rows(codes, "patient_id", "order", "code_system", "code", "priority") == listed(expected)
    assert (ledger.came.patients, ledger.came.visits, ledger.came.codes) == (12, 15, 45)
    assert ledger.kept == ledger.came


# The same content in another dress


def of_table(kind):
    """A CSV kind's way to dress: text files by path, with their separator."""
    return "\t" if kind == "med-bert-tsv" else ","


def text_files(content, alter):
    for path, data in content.items():
        if path.endswith(".gz"):
            content[path] = gzip.compress(alter(gzip.decompress(data)), mtime=0)
        elif path.endswith((".csv", ".tsv")):
            content[path] = alter(data)


def quoted(separator):
    def alter(data):
        table = pl.read_csv(io.BytesIO(data), separator=separator, infer_schema=False)
        return table.write_csv(separator=separator, quote_style="always").encode()

    return alter


def extra(table):
    return table.with_columns(pl.lit("note, with a comma").alias("site_note"), pl.lit(None, pl.Int32).alias("spare"))


def shuffled(table):
    return table.sample(fraction=1, shuffle=True, seed=7)


CSV_KINDS = ["omop-csv", "mimic-iv", "med-bert-tsv", "desynpuf-csv", "diabetes130"]


@pytest.mark.parametrize("kind", CSV_KINDS)
@pytest.mark.parametrize(
    "dress",
    [
        pytest.param(lambda data: b"\xef\xbb\xbf" + data, id="byte order mark"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n"), id="lines end in CRLF"),
        pytest.param(lambda data: data.rstrip(b"\n"), id="no line break at the end"),
        pytest.param("quoted", id="everything quoted"),
    ],
)
def test_text_files_in_another_dress(whole, tmp_path, kind, dress):
    alter = quoted(of_table(kind)) if dress == "quoted" else dress
    tables, ledger = read(kind, tmp_path, files=lambda content: text_files(content, alter))
    assert tables.source.content_hash == whole[kind][0].source.content_hash
    assert ledger.to_dict() == whole[kind][1].to_dict()


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind not in PICKLES])
@pytest.mark.parametrize("dress", ["capitals", "small letters", "extra columns", "unsorted", "columns turned round"])
def test_tables_in_another_dress(whole, tmp_path, kind, dress):
    if kind == "med-bert-tsv" and dress == "columns turned round":
        pytest.skip("its columns count by position")

    def change(raw):
        for name, table in list(raw.items()):
            if dress == "capitals":
                table = table.rename(str.upper)
            elif dress == "small letters":
                table = table.rename(str.lower)
            elif dress == "extra columns":
                table = extra(table)
            elif dress == "unsorted":
                table = shuffled(table)
            else:
                table = table.select(reversed(table.columns))
            raw[name] = table
        if dress == "unsorted" and kind.startswith("meds"):
            raw["sorted"] = False

    if kind == "omop-parquet" and dress == "capitals":
        pytest.skip("in capitals already")
    tables, ledger = read(kind, tmp_path, change)
    assert tables.source.content_hash == whole[kind][0].source.content_hash
    assert ledger.to_dict() == whole[kind][1].to_dict()


@pytest.mark.parametrize(
    ("kind", "path", "halves"),
    [
        ("omop-csv", "condition_occurrence.csv", ("condition_occurrence/1.csv", "condition_occurrence/2.csv")),
        ("omop-csv", "visit_occurrence.csv", ("visit_occurrence/a/1.csv", "visit_occurrence/b/2.csv")),
        ("meds-0.3", "data/1.parquet", ("data/1.parquet", "data/7.parquet")),
        ("meds-0.4", "data/train/0.parquet", ("data/train/0.parquet", "data/train/more/1.parquet")),
    ],
)
def test_a_patient_in_two_files(whole, tmp_path, kind, path, halves):
    """Rows dealt in turn: most patients are in both."""

    def files(content):
        data = content.pop(path)
        table = pl.read_parquet(data) if path.endswith("parquet") else pl.read_csv(data, infer_schema=False)
        for place, half in enumerate(halves):
            part = table.gather_every(2, place)
            content[half] = parquet(part) if path.endswith("parquet") else csv(part)

    tables, ledger = read(kind, tmp_path, files=files)
    assert tables.source.content_hash == whole[kind][0].source.content_hash
    assert ledger.to_dict() == whole[kind][1].to_dict()


def test_omop_csv_may_be_compressed(whole, tmp_path):
    def files(content):
        for path in list(content):
            content[f"{path}.gz"] = gzip.compress(content.pop(path), mtime=0)

    assert read("omop-csv", tmp_path, files=files)[0].source.content_hash == whole["omop-csv"][0].source.content_hash


def test_mimic_may_be_compressed_in_parts(whole, tmp_path):
    """As a program that compresses in parallel writes: several members, one after the other."""

    def files(content):
        for path, data in content.items():
            plain = gzip.decompress(data)
            parts = [plain[place : place + 700] for place in range(0, len(plain), 700)]
            content[path] = b"".join(gzip.compress(part, mtime=0) for part in parts)

    assert read("mimic-iv", tmp_path, files=files)[0].source.content_hash == whole["mimic-iv"][0].source.content_hash


def test_mimic_may_be_unpacked_and_without_its_folder(whole, tmp_path):
    def unpacked(content):
        for path in list(content):
            content[path.removesuffix(".gz")] = gzip.decompress(content.pop(path))

    assert read("mimic-iv", tmp_path, files=unpacked)[0].source.content_hash == whole["mimic-iv"][0].source.content_hash
    source, name, _ = write_source("mimic-iv", tmp_path / "again")
    ingest(source / "hosp", tmp_path / "out", format=name, shards=1, workers=1)
    assert read_tables(tmp_path / "out").source.content_hash == whole["mimic-iv"][0].source.content_hash


def test_athena_concepts_are_separated_by_tabs(whole, tmp_path):
    """OHDSI's Athena calls its vocabulary files .csv; their separator is the tab. Read, or refused aloud."""

    def files(content):
        table = pl.read_csv(content.pop("concept.csv"), infer_schema=False)
        content["CONCEPT.csv"] = table.write_csv(separator="\t", quote_style="never").encode()

    try:
        tables, _ = read("omop-csv", tmp_path, files=files)
    except ValueError as error:
        assert "[missing_column]" in str(error) and "CONCEPT.csv" in str(error)
    else:
        assert tables.source.content_hash == whole["omop-csv"][0].source.content_hash


@pytest.mark.parametrize(
    ("kind", "table", "columns", "form"),
    [
        ("omop-csv", "visit_occurrence", ("visit_start_datetime", "visit_end_datetime"), "%Y-%m-%dT%H:%M:%S"),
        ("omop-csv", "visit_occurrence", ("visit_start_datetime", "visit_end_datetime"), "%Y-%m-%d %H:%M:%S.000000"),
        ("mimic-iv", "admissions", ("admittime", "dischtime"), "%Y-%m-%dT%H:%M:%S"),
        ("mimic-iv", "admissions", ("admittime", "dischtime"), "%Y-%m-%d %H:%M"),
        ("med-bert-tsv", "data_file", ("vadate", "vddate"), "%Y%m%d"),
        ("med-bert-tsv", "data_file", ("vadate", "vddate"), "%Y-%m-%d 00:00:00"),
        ("med-bert-tsv", "data_file", ("vadate", "vddate"), "%Y-%m-%dT00:00:00"),
        ("desynpuf-csv", "inpatient", ("CLM_ADMSN_DT", "NCH_BENE_DSCHRG_DT"), "%Y-%m-%d"),
    ],
)
def test_times_in_other_forms(whole, tmp_path, kind, table, columns, form):
    def change(raw):
        time = [pl.col(c).str.slice(0, 19).str.to_datetime(strict=True).dt.strftime(form).alias(c) for c in columns]
        if kind == "desynpuf-csv":
            time = [pl.col(c).str.to_date("%Y%m%d").dt.strftime(form).alias(c) for c in columns]
        raw[table] = raw[table].with_columns(time)

    assert read(kind, tmp_path, change)[0].source.content_hash == whole[kind][0].source.content_hash


def test_times_with_an_offset_keep_their_visit(whole, tmp_path):
    def change(raw):
        times = [pl.concat_str(pl.col(c), pl.lit("+02:00")).alias(c) for c in ("admittime", "dischtime")]
        raw["admissions"] = raw["admissions"].with_columns(times)

    tables, ledger = read("mimic-iv", tmp_path, change)
    sound = whole["mimic-iv"][0]
    assert ledger.kept == ledger.came == whole["mimic-iv"][1].came
    assert rows(tables.visits, "visit_id", "order") == rows(sound.visits, "visit_id", "order")


@pytest.mark.parametrize(
    ("kind", "table", "column"),
    [("mimic-iv", "diagnoses_icd", "seq_num"), ("med-bert-tsv", "data_file", "diagnosis_priority")],
)
def test_priorities_written_as_floats(whole, tmp_path, kind, table, column):
    def change(raw):
        raw[table] = raw[table].with_columns(pl.col(column) + ".0")

    assert read(kind, tmp_path, change)[0].source.content_hash == whole[kind][0].source.content_hash


@pytest.mark.parametrize("kind", ["omop-csv", "mimic-iv", "med-bert-tsv", "desynpuf-csv"])
def test_blanks_around_cells_are_no_part_of_them(whole, tmp_path, kind):
    def change(raw):
        for name, table in raw.items():
            raw[name] = table.with_columns((pl.lit(" ") + pl.all() + pl.lit("  ")).name.keep())

    assert read(kind, tmp_path, change)[0].source.content_hash == whole[kind][0].source.content_hash


def test_codes_with_and_without_their_dot(whole, tmp_path):
    def dotless(raw):
        code = pl.col("diag").str.replace(".", "", literal=True).str.to_lowercase().str.replace("icd", "ICD")
        raw["data_file"] = raw["data_file"].with_columns(code)

    assert (
        read("med-bert-tsv", tmp_path, dotless)[0].source.content_hash == whole["med-bert-tsv"][0].source.content_hash
    )


def test_frames_are_laid_out_unsorted():
    """The writers' own rows are not in the order of the tables, so reading in file order would be seen."""
    assert frame("a", [("21",), ("12",)])["a"].to_list() == ["21", "12"]
    assert frame("a", [("12",), ("21",)])["a"].to_list() == ["21", "12"]
