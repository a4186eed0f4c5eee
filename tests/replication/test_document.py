"""The page: what stands in it, where it is written, and that its figures can be read on a narrow one."""

import shutil

import polars as pl
import pytest
from chromium import BROWSER, browser

from medbert_jax import cli
from medbert_jax.replication.document import BEGIN, END, RUNS, generated_part, markdown, write_tables
from medbert_jax.replication.drawn import figures


def test_a_folder_gets_the_page_its_figures_and_every_run(made, tmp_path):
    page, *rest = write_tables(made, tmp_path / "out")
    text = page.read_text()
    assert page == tmp_path / "out" / "results.md" and text.count("simulated") > 50
    for path in rest:
        assert path.is_file() and (path.suffix != ".svg" or f"]({path.name})" in text)
    assert {path.name for path in rest if path.suffix == ".svg"} == {
        f"{kind}-{name}-matched-cerner-simulated.svg" for kind in ("fig4", "gain") for name in ("dhf", "paca")
    }
    runs = pl.read_csv(tmp_path / "out" / RUNS)
    assert len(runs) == made.results["run_id"].n_unique() == runs["run_id"].n_unique()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) == 6 and "## Other experiments" not in headings
    assert f"{len(runs)} runs are filed" in text and "looked at" in text
    before = {path: path.read_bytes() for path in (page, *rest)}
    write_tables(made, tmp_path / "out")
    assert {path: path.read_bytes() for path in before} == before


def test_a_document_is_made_anew_between_its_two_lines(made, tmp_path):
    page = tmp_path / "results.md"
    page.write_text(f"# Mine\n\n{BEGIN}\nbefore\n{END}\n\nAfter.\n")
    write_tables(made, page)
    text = page.read_text()
    assert text.startswith("# Mine\n") and text.endswith(f"{END}\n\nAfter.\n") and "before\n" not in text
    assert generated_part(page).strip() == markdown(made, list(figures(made)), "results/").strip()
    assert "](results/fig4-" in text and (tmp_path / "results" / RUNS).is_file()
    write_tables(made, page)
    assert page.read_text() == text


@pytest.mark.parametrize(
    "content", ["# Mine\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"]
)
def test_a_document_that_does_not_say_where_stays_as_it_is(made, tmp_path, content):
    page = tmp_path / "results.md"
    page.write_text(content)
    with pytest.raises(ValueError, match="write them into it, or name a folder"):
        write_tables(made, page)
    assert page.read_text() == content and list(tmp_path.iterdir()) == [page]


def test_the_command_writes_keeps_and_tells(made_folder, tmp_path, capsys, monkeypatch):
    results = shutil.copytree(made_folder, tmp_path / "results")
    (results / "test_patients" / f"{'b' * 64}.parquet").unlink()
    typed = f"medbert tables {results} {tmp_path / 'out'} --draws 100 --keep {tmp_path / 'kept'}"
    monkeypatch.setattr("sys.argv", typed.split())
    cli.main()
    said = capsys.readouterr()
    assert f"results kept in {tmp_path / 'kept'}" in said.out and f"{tmp_path / 'out' / 'results.md'}, and" in said.out
    assert "in no table, for its test patients are not filed (--cohorts): paca-matched (bbbbbbbb)" in said.err
    assert "Without their test patients, and so in no table: paca-matched" in (tmp_path / "out/results.md").read_text()
    shutil.rmtree(results / "test_patients")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "--cohorts DATA_DIR/disease_cohort" in capsys.readouterr().err


HEAD = "<!doctype html><meta name=viewport content='width=device-width'>"


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium")
def test_no_figure_is_wider_than_a_narrow_page_or_smaller_than_can_be_read(made, tmp_path):
    """360 px, as of a telephone. The figures are paths: how large letters come out is how much they are scaled."""
    (*_,) = write_tables(made, tmp_path)
    images = [path.name for path in sorted(tmp_path.glob("*.svg"))]
    tags = "".join(f'<img src="{name}" style="max-width:100%">' for name in images)
    (tmp_path / "page.html").write_text(f"{HEAD}<body style='margin:8px'>{tags}")
    with browser() as page:
        page.open((tmp_path / "page.html").as_uri(), width=360, height=800)
        assert page.run("document.documentElement.scrollWidth") <= 360
        shown = page.run("[...document.images].map(one => [one.width, one.naturalWidth])")
    assert len(shown) == 4
    # Letters are of 8 and 9 points in a figure of 5.2 inches.
    assert all(natural and 8 * width / natural * 96 / 72 > 6.5 for width, natural in shown)
