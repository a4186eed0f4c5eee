"""Table 2 and Table 3: every cell by hand, what is unknown, and what is hidden where it is to be shared."""

import csv
import io
import json
import re

import pytest
from made_datasets import Drawn, write_drawn

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.chart_review.page import KEY, PAGE
from medbert_jax.description.describe import describe
from medbert_jax.description.descriptives import describe_dataset
from medbert_jax.description.figure_tables import (
    FEW,
    HIDDEN,
    UNKNOWN,
    figures_to_csv,
    figures_to_json,
    number,
)
from medbert_jax.description.paper_cohorts import PAPER_TABLE2
from medbert_jax.description.table2 import characteristics, table2
from medbert_jax.printed_tables import table_text, to_markdown
from tfds_builders.excluded_cohort import COHORT_TABLE

CODES = ("ICD9CM/250.00", "ICD10CM/E11.9")
ICD9, E11 = 16, 17


def somebody(days: int = 1, **of) -> Drawn:
    """One visit at 20 years (7,305 days) of `days`, with a code of ICD-9 and one of ICD-10."""
    return Drawn([(0, 7305, days, [ICD9, E11])], **of)


def cells(table, column: int = 0) -> dict[str, str]:
    return {row: figures[column].text for row, figures in table.rows}


def attrition(came: int, *, no_diagnoses: int, wrong_times: int) -> Ledger:
    ledger = Ledger.start("drawn", patients=came)
    ledger.leave("no_diagnoses", "Patients without a diagnosis code", patients=no_diagnoses)
    ledger.leave("serialization:wrong_times", "A wrong recorded time", patients=wrong_times)
    return ledger


@pytest.fixture
def made(tmp_path):
    def write(patients, name="made", **options):
        return write_drawn(tmp_path / name / "1.0.0", {"train": patients}, codes=CODES, **options)

    return write


def test_every_row_of_a_cohort_beside_the_papers(made):
    patients = [somebody(sex=1, race=1, event=1, index_day=3653), somebody(sex=2, race=2), somebody(sex=2, race=3),
                Drawn([(0, 7305, 0, [ICD9]), (40, 7345, 9, [ICD9])])]  # fmt: skip
    ledger = attrition(900, no_diagnoses=896, wrong_times=0)
    races = ("Black", "Caucasian", "Other")
    directory = made(patients, kind="cohort", races=races, ledger=ledger)
    table = table2([describe_dataset(directory)], paper=("pretraining", "PaCa-Truven"))
    assert table.columns == ("made", "paper: pretraining", "paper: PaCa-Truven")
    assert {row: tuple(figure.text for figure in figures) for row, figures in table.rows} == {
        "source": ("drawn", "–", "–"),
        "patients": ("4", "28,490,650", "42,721"),
        "event": ("25.0 %", "15 %", "–"),
        "event, of all patients of the source": ("0.11 %", "–", "0.06 %"),
        # 7,305 + 3,653, twice 7,305, and 7,345 days: 8,228.25 in the mean, 1,819.9 the deviation.
        "age at last or index visit: mean, years": ("22.5", "41", "63"),
        "age: standard deviation, years": ("5.0", "–", "–"),
        "male": ("50.0 %", "45 %", "48 %"),
        "sex unknown": ("25.0 %", "–", "–"),
        "White": ("25.0 %", "68 %", "–"),
        "African American": ("25.0 %", "15 %", "–"),
        "Asian/Pacific Islander": ("–", "2 %", "–"),  # this source has no name for it
        "Other": ("25.0 %", "–", "–"),
        "race unknown": ("25.0 %", "–", "–"),
        "visits per patient: mean": ("1.2", "8", "19"),
        "codes per patient: mean": ("2.0", "15", "18"),
        "vocabulary: different codes used": ("2", "82,603", "7,002"),
        "ICD-10 among the codes": ("37.5 %", "33.8 %", "0 %"),
        "codes of ICD9CM": ("62.5 %", "–", "–"),
        "codes of ICD10CM": ("37.5 %", "–", "–"),
    }
    assert any("the event is “heart failure”" in note for note in table.notes)


def test_what_the_source_does_not_say_is_unknown_and_never_0(made):
    directory = made([Drawn([(-1, -1, -1, [2])])] * 30, name="mute", source={})
    about = describe_dataset(directory)
    for share in (False, True):
        said = cells(table2([about], share=share))
        assert [row for row, text in said.items() if text == "–"] == [
            "source", "event, of all patients of the source", "age at last or index visit: mean, years",
            "age: standard deviation, years", "male", "White", "African American", "Asian/Pacific Islander",
            "ICD-10 among the codes",
        ]  # fmt: skip
        assert said["sex unknown"] == said["race unknown"] == "100.0 %"
        missing, distributions = characteristics([about], share=share)
        assert cells(missing)["visits of unknown day"] == cells(missing)["visits of unknown age"] == "100.0 %"
        assert cells(missing)["EHR tables: birth date unknown"] == "–"
        stays = {figures[5].text for _, figures in distributions.rows}
        assert stays == {"–"} == {figures[3].text for _, figures in distributions.rows}


def test_table_3_by_hand(made):
    longer = Drawn([(0, 9000, 2, [ICD9, E11]), (10, 9010, 4, [E11]), (40, 9040, 30, [ICD9])])
    patients = [longer, somebody(days=5), somebody(days=-1)]
    about = describe_dataset(made(patients, ledger=attrition(20, no_diagnoses=5, wrong_times=12)), max_length=3)
    missing, distributions = characteristics([about])
    assert cells(missing) == {
        "patients with more than 3 codes": "33.33 %",
        "codes that are cut at that length": "25.00 %",  # a visit of two codes of the eight
        "codes that the vocabulary does not know": "0.00 %",
        "visits of unknown day": "0.0 %",
        "visits of unknown age": "0.0 %",
        "visits of unknown length": "20.0 %",
        "EHR tables: birth date unknown": "25.0 %",
        "EHR tables: length of stay unknown": "–",
        "patients who left: a wrong recorded time": "12",
    }
    assert distributions.columns == ("visits per patient", "codes per patient", "codes per visit",
                                     "days to next visit", "days, first to last", "days of a stay")  # fmt: skip
    assert {row: [figure.text for figure in figures] for row, figures in distributions.rows} == {
        "mean": ["1.7", "2.7", "1.6", "20.0", "13.3", "10.2"],
        "SD": ["1.2", "1.2", "0.5", "14.1", "23.1", "13.2"],
        "5 %": ["1", "2", "1", "10", "0", "2"],
        "25 %": ["1", "2", "1", "10", "0", "2"],
        "median": ["1", "2", "2", "10", "0", "4"],
        "75 %": ["3", "4", "2", "30", "40", "5"],
        "95 %": ["3", "4", "2", "30", "40", "30"],
        "99 %": ["3", "4", "2", "30", "40", "30"],
        "largest": ["3", "4", "2", "30", "40", "30"],
    }


def test_few_patients_are_hidden_with_what_would_tell_them(made):
    # 5 men and 8 of race Jade of 60, 7 events; 3 patients have a code of ICD-10, and a known length of stay.
    patients = [
        Drawn([(0, 7305, 2 if n < 3 else -1, [E11 if n < 3 else ICD9])], sex=2 if n < 5 else 1,
              race=1 if n < 8 else 2 if n < 38 else 3, event=int(n < 7))
        for n in range(60)
    ]  # fmt: skip
    about = describe_dataset(made(patients, kind="cohort", races=("Jade", "Amber", "Onyx"),
                                  ledger=attrition(1000, no_diagnoses=935, wrong_times=5)))  # fmt: skip
    open_said, said = (cells(table2([about], share=share)) for share in (False, True))
    assert open_said["male"] == "8.3 %" and open_said["event"] == "11.7 %" and open_said["Jade"] == "13.3 %"
    assert open_said["ICD-10 among the codes"] == "5.0 %" and open_said["patients"] == "60"
    assert said["event"] == said["event, of all patients of the source"] == said["male"] == said["Jade"] == "<11"
    assert said["ICD-10 among the codes"] == "<11"
    assert (said["Amber"], said["Onyx"]) == ("hidden", "36.7 %")  # else Jade would follow from both and the total
    assert said["patients"] == "60" and said["sex unknown"] == "0.0 %" and said["visits per patient: mean"] == "1.0"
    missing, distributions = characteristics([about], share=True)
    assert cells(missing)["visits of unknown length"] == "hidden"  # the three others would follow
    assert cells(missing)["patients who left: a wrong recorded time"] == "<11"
    assert cells(missing)["EHR tables: birth date unknown"] == "hidden"
    assert {figures[5].text for _, figures in distributions.rows} == {"hidden"}
    shared = [table2([about], share=True), missing, distributions]
    markdown = to_markdown([table.printed for table in shared])
    for text in (markdown, figures_to_csv(shared), figures_to_json(shared, {})):
        assert not any(secret in text for secret in ("8.3", "11.7", "13.3", "0.70", "91.7"))


SYSTEMS = [
    # what a few have would follow from the rest, of all or of those of ICD-10
    ({"ICD9CM": 60, "ICD10CM": 30, "LOCAL": 5}, "31.6 %", {"ICD9CM": "hidden", "ICD10CM": "31.6 %", "LOCAL": "<11"}),
    ({"ICD9CM": 60, "ICD10CM": 30, "ICD10GM": 5}, "36.8 %",
     {"ICD9CM": "63.2 %", "ICD10CM": "hidden", "ICD10GM": "<11"}),
    ({"ICD9CM": 60, "LOCAL": 20, "ICD10CM": 5}, "<11", {"ICD9CM": "70.6 %", "LOCAL": "hidden", "ICD10CM": "<11"}),
    ({"ICD9CM": 60, "LOCAL": 20, "ICD10CM": 15}, "15.8 %",
     {"ICD9CM": "63.2 %", "LOCAL": "21.1 %", "ICD10CM": "15.8 %"}),
    ({"ICD9CM": 60, "LOCAL": 4, "ICD10CM": 40, "ICD10": 3}, "40.2 %",
     {"ICD9CM": "hidden", "LOCAL": "<11", "ICD10CM": "hidden", "ICD10": "<11"}),
]  # fmt: skip


@pytest.mark.parametrize(("patients", "icd10", "said"), SYSTEMS)
def test_shares_of_code_systems_do_not_follow_from_each_other(patients, icd10, said, tmp_path):
    drawn = [Drawn([(0, 7305, 1, [16 + number])], sex=1 + n % 2, event=n % 2)
             for number, of in enumerate(patients.values()) for n in range(of)]  # fmt: skip
    codes = [f"{name}/E11.9" for name in patients]
    about = describe_dataset(write_drawn(tmp_path / "made" / "1.0.0", {"train": drawn}, codes=codes))
    shown, total = cells(table2([about], share=True)), sum(patients.values())
    assert {name: shown[f"codes of {name}"] for name in patients} == said
    assert shown["ICD-10 among the codes"] == icd10
    told = {row: text for row, text in cells(table2([about])).items() if row.startswith("codes of")}
    assert told == {f"codes of {name}": f"{100 * of / total:.1f} %" for name, of in patients.items()}
    assert [*told] == [f"codes of {name}" for name, _ in sorted(patients.items(), key=lambda one: -one[1])]


def test_the_number_of_patients_is_hidden_where_the_flow_chart_hides_it(made):
    # 4 left under the only rule that took somebody: with what came and what is kept they would be known.
    about = describe_dataset(made([somebody()] * 60, ledger=attrition(64, no_diagnoses=4, wrong_times=0)))
    assert cells(table2([about]))["patients"] == "60"
    assert cells(table2([about], share=True))["patients"] == "hidden"


def test_the_event_is_hidden_where_the_flow_chart_hides_the_cases_of_a_split(tmp_path):
    # 5 cases of validation would follow from all cases and those of the two other splits.
    splits = {name: [somebody(event=int(n < cases)) for n in range(60)] for name, cases in
              (("train", 20), ("validation", 5), ("test", 20))}  # fmt: skip
    cases, ledger = {"train": 20, "validation": 5, "test": 20}, attrition(380, no_diagnoses=100, wrong_times=100)
    for name, counted in (("counted", {"cases": cases}), ("not", {})):
        directory = tmp_path / name / "1.0.0"
        write_drawn(directory, splits, kind="cohort", codes=CODES, ledger=ledger, **counted)
        said = cells(table2([describe_dataset(directory)], share=True))
        assert said["event"] == said["event, of all patients of the source"] == "hidden" or name == "not"
        assert said["event"] == "25.0 %" or name == "counted"
    assert cells(table2([describe_dataset(tmp_path / "counted" / "1.0.0")]))["event"] == "25.0 %"


def test_a_dataset_of_few_patients_says_nothing(made):
    for patients, name, said in (
        ([somebody(sex=1)] * 10, "ten", "<11"),
        ([somebody(sex=1)] * 6 + [somebody(sex=2)] * 7, "both", "hidden"),
    ):
        about = describe_dataset(made(patients, name=name))
        table = table2([about], share=True)
        assert cells(table)["patients"] == said
        tables = [table, *characteristics([about], share=True)]
        shown = [f.text for t in tables for _, figures in t.rows for f in figures if any(map(str.isdigit, f.text))]
        assert set(shown) <= {"<11"}


def test_all_three_formats_say_the_same(made):
    table = table2([describe_dataset(made([somebody(sex=2)] * 3))], paper=("PaCa-Cerner",))
    rows = list(csv.DictReader(io.StringIO(figures_to_csv([table]))))
    record = json.loads(figures_to_json([table], {"shareable": False}))
    assert record["shareable"] is False and record["tables"][0]["title"] == table.title
    for row in rows:
        figure = record["tables"][0]["rows"][row["row"]][row["column"]]
        assert row["text"] == figure["text"]
        assert row["value"] == ("" if figure["value"] is None else str(figure["value"]))
    assert record["tables"][0]["rows"]["male"]["made"] == {"value": 100.0, "text": "100.0 %"}
    markdown = to_markdown([table.printed])
    assert "|  | made | paper: PaCa-Cerner |\n| --- | ---: | ---: |" in markdown
    assert "| male | 100.0 % | 45 % |" in markdown
    printed = table_text(table.printed, terminal=30)
    assert "vocabulary: different codes used" in printed and "13,071" in printed and "…" not in printed


def test_numbers_are_printed_as_they_are_filed():
    assert number(1234.56, 1) == type(number(1))("1,234.6", 1234.6)
    assert number(-0.04, 1, unit="%").text == "0.0 %" and number(1e6).value == 1_000_000
    assert (number(None), UNKNOWN.value, HIDDEN.value, FEW.value) == (UNKNOWN, None, None, None)


def test_the_papers_table_is_as_printed():
    patients = {name: figures["patients"] for name, figures in PAPER_TABLE2.items()}
    assert patients == {"pretraining": 28_490_650, "DHF-Cerner": 672_647, "PaCa-Cerner": 29_405, "PaCa-Truven": 42_721}
    assert all(figures.keys() == PAPER_TABLE2["pretraining"].keys() for figures in PAPER_TABLE2.values())


def test_files_to_be_shared_hold_no_patients(made, tmp_path, capsys):
    directory = made([somebody(id="a-secret-id")] * 40, titles=("Diabetes", "Type 2"))
    describe([directory], out=tmp_path / "own")
    assert "Example timelines of made" in capsys.readouterr().out
    endings = {f"table{n}.{ending}" for n in (2, 3) for ending in ("md", "csv", "json")}
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"timelines.html", *endings}
    describe((directory,), out=tmp_path / "shared", share=True)
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "shared").iterdir()} == endings
    assert "timelines" not in said and "patient 1" not in said and "Diabetes" not in said
    record = json.loads((tmp_path / "shared" / "table2.json").read_text())
    assert record["shareable"] and record["datasets"] == {"made": {"dataset_hash": "hash of made", "source": "drawn"}}
    with pytest.raises(ValueError, match=r"must hold no records of single patients: got .*own with timelines\.html"):
        describe([directory], out=tmp_path / "own", share=True)
    for name in (PAGE, KEY, COHORT_TABLE):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
        with pytest.raises(ValueError, match=f"no records of single patients: got .* with {re.escape(name)} in it"):
            describe([directory], out=tmp_path / name, share=True)
    with pytest.raises(ValueError, match="there must be a dataset to describe: got none; name one"):
        describe([])
