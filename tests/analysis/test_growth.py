"""Charts of a taxonomy that has grown: nothing is counted in advance, and no two things look alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from analysis.challenges import challenges
from analysis.charts import CHARTS
from analysis.charts.chart import Chart
from analysis.charts.colors import INK, LINE, PAPER, QUIET, color_of, dash, free_colors, grays, hatching, mark
from analysis.observations import observations
from analysis.published import compare
from analysis.selection import EVERYTHING
from skis_site.analysis_pages import analysis_pages
from skis_site.wording import read_wording
from taxonomy.entries.vocabulary import Vocabulary
from taxonomy.store.atlas import Atlas
from taxonomy.store.row import LANGUAGES

WORDS = {"label": {"en": "More", "zh": "更多"}, "definition": {"en": "More.", "zh": "更多。"}}
COLORED = ("affinity", "months")  # and gains: the charts in which a color means a dimension


def grown(vocabulary: Vocabulary) -> Vocabulary:
    """Two more behaviors in the first dimension, a violet dimension, two objectives, two communities with venues."""
    violet = {"title": WORDS["label"], "question": WORDS["label"], "color": {"light": "#612fbd", "dark": "#b097de"}}
    new: dict[str, list[dict[str, Any]]] = {
        "dimensions": [{"code": "violet", **violet, **WORDS}],
        "behaviors": [
            {"code": f"new{i}", "acronym": f"NEW{i}", "dimension": dimension, **WORDS}
            for i, dimension in enumerate(["temporal", "temporal", "violet"])
        ],
        "leaves": [{"code": f"new{i}", "behavior": f"new{i}", **WORDS} for i in range(3)],
        "objectives": [{"code": f"goal{i}", "better": "lower", **WORDS} for i in range(2)],
        "communities": [{"code": f"field{i}", **WORDS} for i in range(2)],
        "venues": [
            {"key": f"NEW{i}", "code": f"venue{i}", "name": "New", "kind": "journal", "community": f"field{i}"}
            | {"url": "https://example.org/"}
            for i in range(2)
        ],
    }
    lists = {name: [*vocabulary.model_dump()[name], *more] for name, more in new.items()}
    return Vocabulary.model_validate(vocabulary.model_dump() | lists)


@pytest.fixture(scope="module")
def atlas(vocabulary: Vocabulary, small: Callable[..., Atlas]) -> Atlas:
    """Papers in every leaf, and in every pair of neighbors, with every objective and community."""
    words = grown(vocabulary)
    leaves, goals = [leaf.code for leaf in words.leaves], [objective.code for objective in words.objectives]
    papers = {
        f"p{i}x{n}": {
            "primary": [leaf],
            "secondary": [leaves[i - back] for back in (1, 2, 5)],
            "effects": {goals[(i + n) % len(goals)]: [{"factor": 2 + n, "kind": "any, lower", "up_to": n % 2 == 0}]},
            "venue": f"{words.venues[-1 - n].key} 2024" if n < 2 else None,
            "published": f"202{3 + n % 2}-0{1 + n}",
        }
        for i, leaf in enumerate(leaves)
        for n in range(5)
    }
    papers["kivi"] = {"survey": True}  # of the survey's own figure, to be compared with it
    return small(papers, vocabulary=words)


@pytest.fixture(scope="module")
def charts(atlas: Atlas) -> dict[str, Chart]:
    return {name: draw(atlas, EVERYTHING, "en") for name, draw in CHARTS.items()}


@pytest.mark.slow
def test_every_chart_analysis_and_page_is_made(atlas: Atlas, root):
    for language in LANGUAGES:
        pages = [*analysis_pages(atlas, read_wording(root / "site" / "translations.yaml", language))]
        drawn = [item.chart for page in pages for item in page.context.get("charts", [])]
        assert {chart.name for chart in drawn if chart.rows} == {*CHARTS}
        assert len(pages) == 7  # five topics, the comparison with the survey, and the page that leads to them
    assert observations(atlas)
    assert challenges(atlas)
    assert compare(atlas)


def test_tables_have_what_the_vocabulary_has(atlas: Atlas, charts: dict[str, Chart]):
    assert {*atlas.behaviors} < {*charts["months"].columns}
    assert {*atlas.communities} < {*charts["venues"].columns}
    assert {row["objective"] for row in charts["effects"].rows} == {*atlas.objectives}
    assert len(charts["affinity"].rows) == 10 * 9 / 2


@pytest.mark.parametrize("name", ["months", "venues"])
def test_no_two_parts_of_a_bar_look_alike(charts: dict[str, Chart], name: str):
    bars = charts[name].figure.data
    colors = [bar.marker.color for bar in bars]
    assert len(set(colors)) == len(colors) > 7
    assert len({charts[name].dark[color] for color in colors}) == len(colors)
    assert len({(bar.marker.pattern.shape, bar.marker.pattern.size) for bar in bars}) == len(colors)


def test_no_two_lines_look_alike(charts: dict[str, Chart]):
    drawn = charts["affinity-over-time"]
    lines = drawn.figure.data
    assert len(lines) > 8
    for looks in (
        [line.line.color for line in lines],
        [line.line.dash for line in lines],
        [drawn.dark[line.line.color] for line in lines],
        [line.marker.symbol for line in lines],
    ):
        assert len(set(looks)) == len(looks)


def test_colors_hatchings_and_dashes_never_run_out(atlas: Atlas):
    many = 40
    for made in (free_colors(atlas.dimensions, many), grays(many)):
        assert len(made) == len(set(made.values())) == many
        assert not {INK, QUIET, LINE, PAPER} & made.keys()
    assert len({str(hatching(i)) for i in range(many)}) == len({dash(i) for i in range(many)}) == many
    assert len({mark(i) for i in range(many)}) == 32


def test_a_color_that_means_a_dimension_means_nothing_else(atlas: Atlas, charts: dict[str, Chart]):
    meant = {color_of(term, dark=dark) for term in (*atlas.dimensions, *atlas.behaviors.values()) for dark in (0, 1)}
    free = {*free_colors(atlas.dimensions, 60)} | {*grays(20)} | {*free_colors(atlas.dimensions, 60).values()}
    assert not meant & free
    for name, chart in charts.items():
        if name not in COLORED and not name.startswith("gains"):
            used = {*re.findall(r"#[0-9a-f]{6}", chart.figure.to_json()), *chart.dark, *chart.dark.values()}
            assert not meant & used, name


def test_dimensions_have_their_own_colors_where_they_are_meant(atlas: Atlas, charts: dict[str, Chart]):
    behaviors = [*atlas.behaviors.values()]
    assert [bar.marker.color for bar in charts["months"].figure.data] == [color_of(b) for b in behaviors]
    nodes = charts["affinity"].figure.data[-1]
    assert [*nodes.marker.color] == [behavior.dimension.color_light for behavior in behaviors]
    for behavior in behaviors:
        assert charts["months"].dark[color_of(behavior)] == color_of(behavior, dark=True)
