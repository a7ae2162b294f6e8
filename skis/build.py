"""The build: check, store, list, exports, pages, website, in this order, and nothing published before all is well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from reference_kernels.table import BadResultError, table
from skis.publish import new_generation, publish, write_atomically
from skis.settings import Atlas
from taxonomy.entries.checks import SCHEMA_NAME, Checked, check_papers
from taxonomy.entries.out_of_scope import OutOfScope, check_out_of_scope
from taxonomy.entries.problem import Problem
from taxonomy.entries.schema import schema_text
from taxonomy.entries.vocabulary import Vocabulary, load_vocabulary
from taxonomy.exports.awesome import awesome_list
from taxonomy.exports.bibtex import bibtex_file
from taxonomy.exports.csl import csl_file
from taxonomy.exports.datapackage import data_package
from taxonomy.exports.datasette import datasette_metadata
from taxonomy.exports.feeds import atom_feed, json_feed
from taxonomy.exports.records import papers_csv, papers_json, placements_csv
from taxonomy.store.atlas import Atlas as Content
from taxonomy.store.kernels import KernelRow, check_kernels
from taxonomy.store.reading import read_atlas
from taxonomy.store.writing import build_store

LANGUAGE_CONFIGS = {"en": "mkdocs.yml", "zh": "mkdocs.zh.yml"}


class BadEntriesError(Exception):
    """Entries are wrong, or what kernels refer to; `problems` says how. Nothing was published."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


class WebsiteError(Exception):
    """Mkdocs refused; the message is what it said. Nothing was published."""


def check(atlas: Atlas) -> tuple[Vocabulary, Checked, Sequence[OutOfScope]]:
    """Read vocabulary, entries and what was left out. Raises VocabularyError; other problems are in the result."""
    vocabulary = load_vocabulary(atlas.vocabulary)
    checked = check_papers(atlas.root, vocabulary)
    left_out, problems = check_out_of_scope(atlas.root, checked.papers)
    return vocabulary, Checked(checked.papers, sorted({*checked.problems, *problems})), left_out


def build(atlas: Atlas, *, website: bool = False) -> int:
    """Build everything, with `website` the HTML too, and publish it. Returns the number of papers.

    Raises:
        VocabularyError, BadEntriesError: the input is wrong.
        WebsiteError: mkdocs found something to complain about.
        OSError, sqlalchemy.exc.SQLAlchemyError: a file could not be written.

    Whatever is raised, the last good result stays as it was.
    """
    from skis_site.render import render_pages  # here: charts need SciPy and plotly, which no other verb waits for

    vocabulary, checked, left_out = check(atlas)
    if checked.problems:
        raise BadEntriesError(checked.problems)
    kernels = known_kernels(atlas, vocabulary, checked)
    with new_generation(atlas.build) as generation:
        data, pages = generation / "data", generation / "pages"
        data.mkdir()
        store = data / "skis.db"
        build_store(store, vocabulary, checked.papers, kernels, left_out)
        content = read_atlas(store)
        export(content, data, atlas.site_url)
        render_pages(content, atlas.root, data, pages, atlas.repository)
        awesome = awesome_list(content, atlas.site_url)
        if website:
            build_website(atlas.root, pages, generation / "site", content.last_added)
        publish(atlas.build, generation)
    write_atomically(atlas.root / "AWESOME.md", awesome)
    write_atomically(atlas.root / "papers" / SCHEMA_NAME, schema_text(vocabulary))
    return len(content.papers)


def known_kernels(atlas: Atlas, vocabulary: Vocabulary, checked: Checked) -> Sequence[KernelRow]:
    """Read what the kernel wing says of itself. Raises BadEntriesError where it names what the atlas does not have."""
    try:
        kernels = table(atlas.kernels)
    except BadResultError as error:
        raise BadEntriesError([Problem(f"{atlas.kernels.name}/{error.file}", 1, 1, "", error.reason)]) from None
    problems = check_kernels(kernels, vocabulary, checked.papers)
    if problems:
        raise BadEntriesError(problems)
    return kernels


def export(content: Content, folder: Path, site_url: str) -> None:
    """Write every export into `folder`, in which the store lies already."""
    files = {
        "papers.json": papers_json(content),
        "papers.csv": papers_csv(content),
        "placements.csv": placements_csv(content),
        "papers.bib": bibtex_file(content),
        "papers.csl.json": csl_file(content),
        "feed.atom": atom_feed(content, site_url),
        "feed.json": json_feed(content, site_url),
        "metadata.yml": datasette_metadata(),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    package = data_package(folder, version("skis-atlas"))
    (folder / "datapackage.json").write_text(package, encoding="utf-8", newline="\n")


def build_website(root: Path, pages: Path, site: Path, last_added: str) -> None:
    """Run mkdocs over `pages` into `site`, one run per language, warnings being errors.

    The clock that mkdocs sees is the day of the last addition, so that the same papers give the same bytes.
    """
    for language, config in LANGUAGE_CONFIGS.items():
        target = site if language == "en" else site / language
        environment = os.environ | {
            "SKIS_PAGES": str(pages / language),
            "SOURCE_DATE_EPOCH": str(_midnight(last_added)),
            "NO_MKDOCS_2_WARNING": "1",
        }
        # Not --quiet: with it, mkdocs drops warnings before --strict can count them.
        command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
        command += ["--config-file", str(root / config), "--site-dir", str(target)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        if run.returncode:
            raise WebsiteError((run.stdout + run.stderr).strip())


def _midnight(day: str) -> int:
    return int(datetime.fromisoformat(day or "2026-01-01").replace(tzinfo=UTC).timestamp())
