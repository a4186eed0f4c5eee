"""Of simulated patients the members of cohorts alone are kept, and the cohorts are those of everybody."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from medbert_jax.attrition.files import read_ledger
from medbert_jax.cohorts.loading import load_spec, parse_spec
from medbert_jax.cohorts.members import Members
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.hashing import assign_split
from medbert_jax.ehr.tables import read_shard, read_source, read_tables
from medbert_jax.simulation.simulate import Keep, simulate

KEY, COHORTS = "medbert", ("dhf", "dhf-matched")
ASKED = {"patients": 6_000, "seed": 5, "shards": 2, "workers": 1, "announce": lambda line: None}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everybody, and the members alone, of the same simulated patients."""
    folder = tmp_path_factory.mktemp("members")
    simulate(folder / "all", **ASKED)
    members = Members(tuple(load_spec(name) for name in COHORTS), KEY)
    simulate(folder / "members", **ASKED, keep=Keep(members, "members of dhf, dhf-matched"))
    return folder


def cohort(ehr, spec, last_day=None) -> pl.DataFrame:
    frames = []
    for shard in range(read_source(ehr).shards):
        tables = read_shard(ehr, shard)
        split = assign_split(tables.patients["patient_id"], key=KEY)
        frames.append(select_cohort(tables, spec, split)[0])
    return pl.concat(frames).sort("patient_id")


@pytest.mark.parametrize("name", COHORTS)
def test_the_cohorts_are_the_same(made, name):
    whole, kept = (cohort(made / folder, load_spec(name)) for folder in ("all", "members"))
    assert whole["label"].sum() > 5
    # A drawn control stands for those who are there to be drawn: of a matched cohort nothing reads that.
    columns = [column for column in whole.columns if column != "weight"]
    assert_frame_equal(whole.select(columns), kept.select(columns))


def test_controls_are_sampled_of_all_there_are_with_their_weights(made):
    plain = load_spec("dhf").to_dict()
    plain["sample"] = {"description": "two", "tag": "ours", "controls_per_case": 2, "key": "k"}
    spec = parse_spec(plain, source="drawn")
    whole, kept = (cohort(made / folder, spec) for folder in ("all", "members"))
    assert_frame_equal(whole, kept)
    assert whole.filter(label=0)["weight"].min() > 1


def test_the_records_are_whole_and_nobody_else_is_there(made):
    every, kept = (read_tables(made / folder) for folder in ("all", "members"))
    members = pl.concat([cohort(made / "all", load_spec(name)).select("patient_id") for name in COHORTS]).unique()
    assert set(kept.patients["patient_id"]) == set(members["patient_id"])
    for name, table in kept.present().items():
        expected = every.present()[name].join(members, on="patient_id", how="semi")
        assert_frame_equal(table, expected, check_row_order=False)
    assert kept.patients.height < 0.2 * every.patients.height


def test_the_source_says_who_is_kept_and_the_ledger_adds_up(made):
    every, kept = (read_source(made / folder) for folder in ("all", "members"))
    assert kept.assumptions == (*every.assumptions, "Of these the members of dhf, dhf-matched alone.")
    assert kept.last_day == "2017-12-31" and kept.content_hash != every.content_hash
    ledger = read_ledger(made / "members")
    (line,) = ledger.lines
    assert ledger.came == read_ledger(made / "all").came and line.rule == "not_kept"
    assert ledger.kept.patients == read_tables(made / "members").patients.height


def test_members_are_known_by_ids_that_no_other_run_has(made, tmp_path):
    simulate(tmp_path / "others", **{**ASKED, "patients": 300, "seed": 6})
    ids = [read_tables(folder).patients["patient_id"].to_numpy() for folder in (made / "all", tmp_path / "others")]
    assert not np.isin(*ids).any()


def test_there_is_no_truth_of_some(tmp_path):
    keep = Keep(Members((load_spec("dhf"),), KEY), "members of dhf")
    with pytest.raises(
        ValueError, match=r"a truth is of all simulated patients: got .* and a choice of members of dhf"
    ):
        simulate(tmp_path / "ehr", **ASKED, truth=tmp_path / "truth", keep=keep)
