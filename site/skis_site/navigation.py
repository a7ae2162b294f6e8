"""The navigation tree, for the plugin awesome-nav: sections and terms, without papers and venues.

A navigation of 1,000 papers makes mkdocs quadratic: half a minute and hundreds of megabytes instead of seconds.
"""

from __future__ import annotations

import json
from typing import Any

from skis_site.addresses import Target, page_of
from skis_site.analysis_pages import topics
from skis_site.wording import Wording
from taxonomy.store.atlas import Atlas
from taxonomy.store.terms import Behavior

Item = dict[str, Any]


def navigation(atlas: Atlas, w: Wording) -> str:
    """Return the text of `.nav.yml` (JSON, which is YAML)."""
    taxonomy: list[Any] = ["taxonomy/index.md"]
    for dimension in atlas.dimensions:
        items: list[Any] = [_file(dimension), *(_behavior(behavior, w) for behavior in dimension.behaviors)]
        taxonomy.append({w.of(dimension.label): items})
    objectives: list[Any] = ["objectives/index.md"]
    objectives += [{w.of(objective.label): _file(objective)} for objective in atlas.objectives.values()]
    papers: list[Any] = ["papers/index.md", *({str(year): _file(f"years/{year}.html")} for year in atlas.by_year)]
    tree = [
        {w("home"): "index.md"},
        {w("taxonomy"): taxonomy},
        {w("papers"): papers},
        {w("objectives"): objectives},
        {w("venues"): "venues/index.md"},
        {w("analysis"): ["analysis/index.md", *_analysis(atlas, w)]},
        {w("kernels"): "kernels/index.md"},
        {w("data"): "data.md"},
        {w("about"): "about.md"},
    ]
    return json.dumps({"nav": tree}, ensure_ascii=False, indent=1) + "\n"


def _analysis(atlas: Atlas, w: Wording) -> list[Any]:
    return [{title: _file(path)} for path, title in topics(atlas, w).items()]


def _behavior(behavior: Behavior, w: Wording) -> Item:
    if behavior.is_leaf:
        return {f"{behavior.acronym} · {w.of(behavior.label)}": _file(behavior)}
    leaves = [{w.of(leaf.label): _file(leaf)} for leaf in behavior.leaves]
    return {f"{behavior.acronym} · {w.of(behavior.label)}": [_file(behavior), *leaves]}


def _file(target: Target) -> str:
    return page_of(target).removesuffix("html") + "md"
