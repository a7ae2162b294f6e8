"""Charts: the same bytes each time, the same numbers as their tables, a list behind everything that can be clicked."""

from __future__ import annotations

import csv
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.affinity import Affinity
from analysis.charts import CHARTS, chart
from analysis.charts.chart import Chart
from analysis.charts.files import NoBrowserError, csv_text, page, plain, write_charts
from analysis.effects import effects
from analysis.selection import EmptySelectionError, Selection
from taxonomy.store.atlas import Atlas
from taxonomy.store.row import LANGUAGES

BROWSER = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")))


@pytest.fixture(scope="module", params=CHARTS)
def drawn(request: pytest.FixtureRequest, charts: dict[str, Chart]) -> Chart:
    return charts[request.param]


@pytest.fixture(scope="module")
def alone(small: Callable[..., Atlas]) -> Atlas:
    return small({"alone": {}})


def keys_in(value: Any) -> set[str]:
    """Every key that a point of a figure carries."""
    if isinstance(value, (list, tuple)):
        return set().union(*map(keys_in, value)) if value else set()
    return {value} if isinstance(value, str) and value else set()


def test_a_chart_has_a_title_a_caption_from_its_numbers_and_an_alternative_text(atlas: Atlas, drawn: Chart):
    chinese = chart(drawn.name, atlas, language="zh")
    for said in (drawn, chinese):
        for text in (said.title, said.caption, said.alt):
            assert text
            assert "{" not in text
    assert re.search(r"\d", drawn.caption)
    assert re.search("[\u4e00-\u9fff]", chinese.title + chinese.caption)
    assert drawn.rows == chinese.rows, "the numbers are those of the papers, in whatever language"


def test_what_can_be_clicked_leads_somewhere(atlas: Atlas, drawn: Chart):
    for trace in drawn.figure.data:
        for key in keys_in(trace.customdata):
            if key.startswith("term:"):
                assert key.removeprefix("term:") in atlas.behaviors
            elif drawn.name in ("months", "venues", "code"):
                assert key in drawn.lists or not _any_paper(atlas, key), key
            else:
                assert drawn.lists[key], key
    assert all(papers for papers in drawn.lists.values())


def test_a_row_of_the_table_leads_to_the_list_that_it_names(drawn: Chart):
    keys = [row.key for row in drawn.table if row.key]
    assert set(keys) <= set(drawn.lists)
    if drawn.name == "venues" or drawn.name.startswith("gains"):
        return  # a year's row is the sum of several lists; a point of a gain leads to its paper
    assert set(keys) == set(drawn.lists)
    for row in drawn.table:
        count = next((row.cells[name] for name in ("with code", "affecting", "papers") if name in row.cells), None)
        if drawn.name == "openings":  # without a paper of its own, a combination lists the nearest ones
            assert row.key == row.cells["combination"]
        elif count is not None:
            assert count == len(drawn.lists.get(row.key, []))


def _any_paper(atlas: Atlas, key: str) -> bool:
    return any(paper.month == key for paper in atlas.papers)


def test_colors_of_the_figure_are_known_to_the_dark_page(drawn: Chart):
    used = set(re.findall(r'"(#[0-9a-f]{6})"', drawn.figure.to_json()))
    assert used <= set(drawn.dark) | set(drawn.dark.values())


def test_drawing_twice_gives_the_same_figure_table_and_page(atlas: Atlas, drawn: Chart):
    again = chart(drawn.name, atlas)
    assert plain(again.figure) == plain(drawn.figure)
    assert csv_text(again) == csv_text(drawn)
    assert page(again) == page(drawn)


def test_tables_say_what_the_analyses_say(atlas: Atlas, everything: Affinity, charts: dict[str, Chart]):
    rows = {row["pair"]: row for row in charts["affinity"].rows}
    for pair in everything.pairs:
        assert rows[pair.key]["affinity"] == pytest.approx(pair.affinity, abs=1e-4)
        assert rows[pair.key]["papers"] == pair.observed
    table = effects(atlas)
    for row in charts["effects"].rows:
        cell = table.cells[str(row["behavior"]), str(row["objective"])]
        assert (row["direct"], row["indirect"], row["primary"]) == (len(cell.direct), len(cell.indirect), cell.total)


def test_the_network_draws_one_line_per_pair_and_dashes_those_inside_a_dimension(
    everything: Affinity, charts: dict[str, Chart]
):
    found = replace(everything, threshold=0.14)
    lines = [trace for trace in charts["affinity"].figure.data if trace.mode == "lines"]
    assert len(lines) == len(found.edges)
    assert sum(line.line.dash == "dash" for line in lines) == sum(pair.inside for pair in found.edges)
    assert sorted(line.line.width for line in lines) == pytest.approx(sorted(1 + 22 * p.affinity for p in found.edges))


@pytest.mark.parametrize("name", ["months", "venues"])
def test_parts_of_a_bar_differ_without_color(charts: dict[str, Chart], name: str):
    shapes = [bar.marker.pattern.shape for bar in charts[name].figure.data]
    assert len(set(shapes)) == len(shapes)


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_one_paper_is_enough(alone: Atlas, name: str, language: str):
    assert chart(name, alone, language=language).title


@pytest.mark.parametrize("name", CHARTS)
def test_nothing_is_drawn_of_nothing(atlas: Atlas, name: str):
    with pytest.raises(EmptySelectionError, match="no paper is left"):
        chart(name, atlas, Selection(until="1999"))


class TestFiles:
    def test_tables_and_pages_need_no_browser(self, charts: dict[str, Chart], tmp_path: Path):
        written = write_charts([charts["code"]], tmp_path, ("csv", "html"))
        assert [path.name for path in written] == ["code.csv", "code.html", "plotly.min.js"]
        with (tmp_path / "code.csv").open() as file:
            years = [row["year"] for row in csv.DictReader(file)]
        assert years == sorted(years)
        assert 'src="plotly.min.js"' in (tmp_path / "code.html").read_text("utf-8")

    @pytest.mark.skipif(not BROWSER, reason="NO CHROMIUM IS INSTALLED: no picture was drawn (`make browser`)")
    @pytest.mark.slow
    def test_pictures_are_whole_say_what_they_show_and_are_equal_twice(self, charts: dict[str, Chart], tmp_path: Path):
        drawn = [charts[name] for name in ("affinity", "effects", "months", "gains-throughput")]
        for folder in ("one", "two"):
            write_charts(drawn, tmp_path / folder, ("svg",))
        for picture in drawn:
            one, two = (tmp_path / folder / f"{picture.name}.svg" for folder in ("one", "two"))
            assert one.read_bytes() == two.read_bytes()
            root = ET.parse(one).getroot()
            assert root.get("role") == "img"
            assert str(root.get("aria-label")).startswith(picture.title)
            assert picture.title in "".join(root.itertext())

    def test_without_a_browser_there_is_a_clear_message(self, charts: dict[str, Chart], tmp_path: Path, monkeypatch):
        import kaleido

        def fails(*_: object) -> None:
            raise RuntimeError("Kaleido v1 and later requires Chrome to be installed.")

        monkeypatch.setattr(kaleido, "write_fig_from_object_sync", fails)
        with pytest.raises(NoBrowserError, match="CSV and HTML do not"):
            write_charts([charts["code"]], tmp_path, ("csv", "svg"))
        assert (tmp_path / "code.csv").is_file()
