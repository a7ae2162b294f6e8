"""Renders the pages of the website as Markdown files, from which mkdocs builds the HTML.

Every value that a template prints is escaped for Markdown and HTML at once (`escaping.entities`), so no text of an
entry can become markup, whichever of the two it stands in.
"""

from __future__ import annotations

import html
import json
import posixpath
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.charts.files import SCRIPT, csv_text
from skis_site.addresses import Target, page_of, relative
from skis_site.analysis_pages import analysis_pages
from skis_site.escaping import entities
from skis_site.figures import duration, percent
from skis_site.navigation import navigation
from skis_site.pages import Page, all_pages
from skis_site.script import plotly_script, worker_shim
from skis_site.wording import Wording, read_wording
from taxonomy.exports import EXPORTS
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper
from taxonomy.store.row import LANGUAGES, Words
from taxonomy.store.terms import Leaf

SITE = "site"


@dataclass(frozen=True)
class File:
    """An export as the data page lists it."""

    name: str
    label: Words
    size: int

    @property
    def shown_size(self) -> str:
        """The size in kB or MB, as text."""
        return f"{self.size / 1e6:.1f} MB" if self.size >= 1e6 else f"{max(1, round(self.size / 1e3))} kB"


def render_pages(atlas: Atlas, root: Path, data: Path, out: Path, repository: str) -> int:
    """Write the pages of every language below `out`, and the files of `data` beside the English ones.

    `root` is the atlas's folder (templates and translations are in `root/site`), `repository` the address of its
    source, for links to a paper's file. Returns the number of pages.
    """
    environment = _environment(root / SITE / "templates")
    shared = {"atlas": atlas, "repository": repository, "exports": _files(data)}
    written = 0
    for language in LANGUAGES:
        wording = read_wording(root / SITE / "translations.yaml", language)
        draw = _Drawing(environment, wording, shared)
        analyses = [*analysis_pages(atlas, wording)]
        for page in (*all_pages(atlas, wording), *analyses):
            _write(out / language / page.path.replace(".html", ".md"), draw(page))
            written += 1
        _write(out / language / ".nav.yml", navigation(atlas, wording))
        if language == LANGUAGES[0]:  # charts and their tables are the same in every language
            _write_charts(analyses, root / SITE, out / language / "assets")
        _write(out / language / "assets" / "dimensions.css", _dimension_colors(atlas))
        _write(out / language / "assets" / "iframe-worker.js", worker_shim(root / SITE))
    shutil.copytree(data, out / LANGUAGES[0] / "data")
    return written


def _write_charts(pages: list[Page], site: Path, assets: Path) -> None:
    """Write the tables of the pages' charts, and the script that draws them."""
    charts = [item.chart for page in pages for item in page.context.get("charts", [])]
    for chart in charts:
        _write(assets / "charts" / f"{chart.name}.csv", csv_text(chart))
    if charts:
        _write(assets / SCRIPT, plotly_script(site))


def _environment(templates: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,  # with `finalize`, every printed value is Markup by then
        finalize=entities,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "percent": percent}
    return environment


class _Drawing:
    """Draws the pages of one language."""

    def __init__(self, environment: Environment, wording: Wording, shared: dict[str, Any]) -> None:
        self.environment = environment
        self.shared = shared | {"w": wording, "lang": wording.language}
        # Other languages live one level below the English root.
        self.up = "" if wording.language == LANGUAGES[0] else "../"
        self.rows: dict[tuple[str, str, str], Markup] = {}

    def __call__(self, page: Page) -> str:
        context = self.context(posixpath.dirname(page.path))
        root = context["root"]
        body = self.environment.get_template(page.template).render(context, page=page, **page.context)
        alternate = {code: root(page.path if code == LANGUAGES[0] else f"{code}/{page.path}") for code in LANGUAGES}
        meta = {"title": page.title, "description": page.description, "alternate": alternate, "root": root("")}
        return f"---\n{_front_matter(meta | page.meta)}---\n\n{body}"

    def context(self, folder: str) -> dict[str, Any]:
        """What the templates of pages in `folder` are given: `link` to a page, `root` of the site, `row` of a paper."""

        def link(target: Target, anchor: str = "") -> str:
            return relative(page_of(target) + anchor, folder)

        def root(path: str) -> str:
            return relative(self.up + path, folder)

        def row(paper: Paper, here: Leaf | None = None) -> Markup:
            return self.row(folder, paper, here)

        return self.shared | {"link": link, "root": root, "row": row}

    def row(self, folder: str, paper: Paper, here: Leaf | None) -> Markup:
        """Render a paper of a list. It is the same on all pages of a folder, so it is rendered once per folder."""
        key = (folder, paper.id, here.code if here else "")
        if key not in self.rows:
            template = self.environment.get_template("paper_row.j2")
            self.rows[key] = Markup(template.render(self.context(folder), paper=paper, here=here))  # noqa: S704
        return self.rows[key]


def _files(data: Path) -> list[File]:
    """The files of the data page."""
    return [File(export.name, export.label, (data / export.name).stat().st_size) for export in EXPORTS.values()]


def _front_matter(meta: dict[str, Any]) -> str:
    """Write values as JSON, which is YAML. Texts are escaped for HTML: Material prints some of them unescaped."""
    return "".join(f"{key}: {json.dumps(_escaped(value), ensure_ascii=False)}\n" for key, value in meta.items())


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _dimension_colors(atlas: Atlas) -> str:
    """The colors of the vocabulary as CSS: --sk-<dimension> for both schemes, and --dim within .sk-dim-<dimension>."""
    light = "".join(f"--sk-{d.code}:{d.color_light};" for d in atlas.dimensions)
    dark = "".join(f"--sk-{d.code}:{d.color_dark};" for d in atlas.dimensions)
    classes = "".join(f".sk-dim-{d.code}{{--dim:var(--sk-{d.code})}}\n" for d in atlas.dimensions)
    return f':root{{{light}}}\n[data-md-color-scheme="slate"]{{{dark}}}\n{classes}'
