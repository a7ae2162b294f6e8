"""Small atlases made of placements and effects alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from analysis.affinity import Affinity, affinity
from analysis.charts import CHARTS, chart
from analysis.charts.chart import Chart
from analysis.selection import SURVEY
from taxonomy.entries.checks import EntryFile
from taxonomy.entries.document import Document
from taxonomy.entries.entry import Entry
from taxonomy.entries.vocabulary import Vocabulary
from taxonomy.store.atlas import Atlas
from taxonomy.store.reading import read_atlas
from taxonomy.store.writing import build_store

Papers = dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def small(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Atlas]:
    """Make an atlas: `small({id: {"primary": [leaves], "secondary": [leaves], "effects": {objective: effect}, …}})`."""

    def make(papers: Papers, vocabulary: Vocabulary = vocabulary) -> Atlas:
        entries = {paper: Entry.model_validate(facts(paper, **given)) for paper, given in sorted(papers.items())}
        files = [EntryFile(i, f"papers/2024/{i}.yaml", entry, Document(i)) for i, entry in entries.items()]
        path = tmp_path_factory.mktemp("store") / "skis.db"
        build_store(path, vocabulary, files)
        return read_atlas(path)

    return make


@pytest.fixture(scope="session")
def everything(atlas: Atlas) -> Affinity:
    """The affinities of behaviors over all papers, drawn a thousand times: once for all tests."""
    return affinity(atlas)


@pytest.fixture(scope="session")
def of_the_survey(atlas: Atlas) -> Affinity:
    """The same over the survey's papers."""
    return affinity(atlas, SURVEY)


@pytest.fixture(scope="session")
def charts(atlas: Atlas) -> dict[str, Chart]:
    """Every chart of all papers in English, by name."""
    return {name: chart(name, atlas) for name in CHARTS}


def facts(
    paper: str,
    primary: tuple[str, ...] | list[str] = ("kvs",),
    secondary: tuple[str, ...] | list[str] = (),
    effects: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a valid entry with these placements, and objectives as `{code: "direct"}` or `{code: [gains]}`."""
    roles = [(leaf, "primary") for leaf in primary] + [(leaf, "secondary") for leaf in secondary]
    objectives: dict[str, Any] = {}
    for code, given in (effects or {}).items():
        objectives[code] = {"effect": "direct", "source": "abstract"}
        objectives[code] |= {"effect": given} if isinstance(given, str) else {"gains": given}
    return {
        "title": f"The paper {paper}",
        "authors": ["Ada Lovelace"],
        "published": "2024-05-06",
        "links": {"paper": f"https://example.org/{paper}"},
        "placements": [{"leaf": leaf, "role": role, "source": "abstract"} for leaf, role in roles],
        "effects": objectives,
        "added": "2026-11-24",
        **more,
    }
