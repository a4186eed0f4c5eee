"""Tables against means and deviations computed by hand."""

import statistics

import polars as pl
import pytest

from medbert_jax.evaluation.results import RECORD_SCHEMA, ROW_SCHEMA
from medbert_jax.evaluation.tables import auroc_table, paired_table
from medbert_jax.printed_tables import print_tables, to_markdown

VALUES = {
    ("age_band", "logistic_regression", "300"): [0.61, 0.62, 0.60],
    ("untrained", "bi_gru", "300"): [0.60, 0.62, 0.64],
    ("pretrained", "bi_gru", "300"): [0.63, 0.64, 0.68],
    ("pretrained", "feed_forward", "300"): [0.5, 0.5, 0.5],
    ("untrained", "bi_gru", "all"): [0.70, 0.71, 0.72],
    ("pretrained", "bi_gru", "all"): [0.71, 0.70],
}


def results_of(values, **changes):
    record = dict.fromkeys(RECORD_SCHEMA, "x") | {"seed": 0, "wall_time_s": 0.0, "epochs": 1}
    rows = [
        record
        | {
            "experiment": "ex",
            "cohort": "hf-later",
            "backbone": backbone,
            "head": head,
            "train_size": 9432 if size == "all" else int(size),
            "train_size_name": size,
            "replicate": replicate,
            "split": "test",
            "metric": "auroc",
            "value": value,
            "run_id": f"{backbone} {head} {size} {changes.get('replicate', replicate)}",
            "configuration": "{}",
        }
        | changes
        for (backbone, head, size), column in values.items()
        for replicate, value in enumerate(column)
    ]
    return pl.DataFrame(rows, schema={**RECORD_SCHEMA, **ROW_SCHEMA})


def test_markdown_by_hand():
    assert to_markdown([table.printed for table in auroc_table(results_of(VALUES))]) == (
        "### hf-later\n"
        "\n"
        "| backbone | head | 300 | all (9,432) |\n"
        "| --- | --- | ---: | ---: |\n"
        "| age band | logistic regression | 0.610 (0.010) | – |\n"
        "| untrained | bi gru | 0.620 (0.020) | 0.710 (0.010) |\n"
        "| pretrained | bi gru | 0.650 (0.026) | 0.705 (0.007) [2] |\n"
        "| pretrained | feed forward | 0.500 (0.000) | – |\n"
        "\n"
        "test auroc: mean (sample standard deviation) over 3 replicates, fewer where [n] says so; "
        "columns: training patients.\n"
        "test: looked at 17 times, once by each run.\n"
    )


def test_cells_are_the_sample_mean_and_deviation():
    (table,) = auroc_table(results_of(VALUES))
    cell = table.cells[table.row_names.index(("pretrained", "bi gru"))][0]
    values = VALUES["pretrained", "bi_gru", "300"]
    assert cell.mean == pytest.approx(statistics.mean(values))
    assert cell.standard_deviation == pytest.approx(statistics.stdev(values))
    assert cell.standard_deviation != pytest.approx(statistics.pstdev(values))
    assert cell.replicates == 3


def test_order_of_the_results_changes_nothing():
    results = results_of(VALUES)
    assert auroc_table(results.sample(fraction=1, shuffle=True, seed=1)) == auroc_table(results)


def test_sizes_are_sorted_as_numbers_and_all_comes_last():
    values = {("untrained", "gru", size): [0.5] for size in ("1000", "all", "300", "3000")}
    (table,) = auroc_table(results_of(values))
    assert table.columns == ("300", "1,000", "3,000", "all (9,432)")
    assert table.cells[0][0].text == "0.500 (–)"
    assert "over 1 replicate;" in table.notes[0]


def test_a_block_for_each_cohort_and_experiment():
    few = {("untrained", "gru", "300"): [0.5, 0.6]}
    results = pl.concat([results_of(few), results_of(few, cohort="los-next")])
    assert [table.title for table in auroc_table(results)] == ["hf-later", "los-next"]
    results = pl.concat([results_of(few), results_of(few, experiment="second", value=0.9)])
    assert [table.title for table in auroc_table(results)] == ["ex: hf-later", "second: hf-later"]
    (table,) = auroc_table(results, experiment="second")
    assert table.title == "hf-later" and table.cells[0][0].mean == pytest.approx(0.9)


def test_other_metrics_and_splits_are_not_mixed_in():
    extra = [results_of(VALUES, metric="brier", value=0.1), results_of(VALUES, split="validation", value=0.9)]
    results = pl.concat([results_of(VALUES), *extra])
    assert auroc_table(results) == auroc_table(results_of(VALUES))
    (table,) = auroc_table(results, split="validation")
    assert table.cells[0][0].mean == pytest.approx(0.9)


def test_paired_differences_by_hand():
    (table,) = paired_table(results_of(VALUES))
    assert table.row_headers == ("head",) and table.row_names == (("bi gru",),)
    # 0.63 − 0.60, 0.64 − 0.62, 0.68 − 0.64; of all patients replicate 2 has no partner.
    assert [cell.text for cell in table.cells[0]] == ["+0.030 (0.010)", "+0.000 (0.014) [2]"]
    assert table.notes[0].startswith("test auroc, pretrained − untrained (4 runs without a partner left out): mean")


def test_the_pairing_is_by_replicate():
    values = {("pretrained", "gru", "300"): [0.7, 0.8, 0.9], ("untrained", "gru", "300"): [0.6, 0.7, 0.8]}
    (table,) = paired_table(results_of(values))
    assert table.cells[0][0].text == "+0.100 (0.000)"
    values["untrained", "gru", "300"].reverse()
    (planted,) = paired_table(results_of(values))
    assert planted.cells[0][0].text == "+0.100 (0.200)"
    (turned,) = paired_table(results_of(values), backbone="untrained", reference="pretrained")
    assert turned.cells[0][0].text == "−0.100 (0.200)"


def test_two_datasets_of_a_cohort_stand_side_by_side():
    """The same spec at two sites: a block each, and no mean over both."""
    results = pl.concat([results_of(VALUES), results_of(VALUES, dataset_hash="y" * 64, value=0.9)])
    tables = auroc_table(results, designs={"x": "Estimand: a score. Sampling: everybody."})
    assert [table.title for table in tables] == ["hf-later, dataset x", "hf-later, dataset yyyyyyyy"]
    assert tables[0].cells == auroc_table(results_of(VALUES))[0].cells
    assert {cell.mean for row in tables[1].cells for cell in row if cell} == {0.9}
    assert tables[0].notes[2:] == ("Estimand: a score. Sampling: everybody.",) and len(tables[1].notes) == 2
    assert [table.title for table in paired_table(results)] == ["hf-later, dataset x", "hf-later, dataset yyyyyyyy"]


def test_a_model_that_was_run_again_has_a_row_for_each_configuration():
    few = {("untrained", "gru", "300"): [0.5, 0.6], ("pretrained", "gru", "300"): [0.7, 0.8]}
    first = results_of(few, configuration='{"max_epochs": 5, "optimizer": {"rate": 0.1}, "replicate": 0}')
    again = results_of(few, configuration='{"max_epochs": 9, "optimizer": {"rate": 0.1}, "replicate": 1}', value=0.9)
    again = again.with_columns(run_id=pl.format("{} again", "run_id"))
    both = pl.concat([first, again])
    (table,) = auroc_table(both)
    assert table.row_names == (
        ("untrained", "gru (max epochs=5)"),
        ("untrained", "gru (max epochs=9)"),
        ("pretrained", "gru (max epochs=5)"),
        ("pretrained", "gru (max epochs=9)"),
    )
    assert [cells[0].text for cells in table.cells] == [
        "0.550 (0.071)",
        "0.900 (0.000)",
        "0.750 (0.071)",
        "0.900 (0.000)",
    ]
    assert table.notes[1] == "test: looked at 8 times, once by each run."
    (paired,) = paired_table(both)
    assert [cells[0].text for cells in paired.cells] == ["+0.200 (0.000)", "+0.000 (0.000)"]
    # Where nothing is known that differs, each run is called after itself.
    same = pl.concat([first, again.with_columns(configuration=pl.lit(first["configuration"][0]))])
    assert {head for _, head in auroc_table(same)[0].row_names} >= {"gru (run untraine)"}


def test_test_cases_and_looks_stand_under_a_table():
    counted = [results_of(VALUES, metric=name, value=value) for name, value in (("patients", 900), ("cases", 120))]
    (table,) = auroc_table(pl.concat([results_of(VALUES), *counted]))
    assert table.notes[1] == "test: 900 patients, 120 cases; looked at 17 times, once by each run."


def test_nothing_to_average_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"got none of metric auc, .*; choose among .*metric: auroc"):
        auroc_table(results_of(VALUES), metric="auc")
    with pytest.raises(ValueError, match="got 5 runs of pretrained, 0 of random, none in common; run"):
        paired_table(results_of({("pretrained", "gru", "300"): [0.5] * 5}), backbone="pretrained", reference="random")


def test_the_console_shows_the_same_cells(capsys):
    results = results_of({**VALUES, ("untrained", "[red]gru", "300"): [0.4, 0.4, 0.4]})
    tables = auroc_table(results)
    print_tables([table.printed for table in tables])
    shown = capsys.readouterr().out
    assert "hf-later" in shown and "[red]gru" in shown and "over 3 replicates" in shown
    for cells in tables[0].cells:
        assert all(cell is None or cell.text in shown for cell in cells)


def test_a_run_without_the_metric_is_in_no_mean_and_is_counted():
    lost = {("pretrained", "bi_gru", "300"): [1.0], ("age_band", "logistic_regression", "all"): [1.0]}
    values = VALUES | {("pretrained", "bi_gru", "300"): [0.63, 0.64]}
    both = results_of(lost, metric="degenerate", replicate=2)
    table = auroc_table(pl.concat([results_of(values), both]))[0]
    texts = [[cell and cell.text for cell in cells] for cells in table.cells]
    assert texts[0] == ["0.610 (0.010)", "—"] and texts[2][0] == "0.635 (0.007) [2]"
    assert table.notes[0].endswith("— or left out: 2 of 18 whose scores were all equal or not finite.")
    assert auroc_table(both)[0].cells[-1][0].text == "—"  # nothing else was run
    (paired,) = paired_table(pl.concat([results_of(values), both]), backbone="pretrained", reference="untrained")
    assert paired.cells[0][0].text == "+0.025 (0.007) [2]"
    # A metric that they do have is averaged with the others.
    briers = results_of(VALUES | {("pretrained", "bi_gru", "300"): [0.2, 0.2, 0.2]}, metric="brier")
    whole = auroc_table(pl.concat([briers, results_of(lost, metric="degenerate", replicate=2)]), metric="brier")[0]
    assert "left out: 1 of" in whole.notes[0]
