"""The build: check, store, list, exports, and for the website pages and HTML; nothing published before all is well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from reference_kernels.table import BadResultError, table
from skis.publish import new_generation, only_build, publish, staged
from skis.settings import Checkout
from taxonomy.entries.checks import SCHEMA_NAME, Checked, check_papers
from taxonomy.entries.out_of_scope import OutOfScope, check_out_of_scope
from taxonomy.entries.problem import Problem
from taxonomy.entries.schema import schema_text
from taxonomy.entries.vocabulary import Vocabulary, load_vocabulary
from taxonomy.exports import STORE, write_exports
from taxonomy.exports.awesome import awesome_list
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


def check(checkout: Checkout, today: date | None = None) -> tuple[Vocabulary, Checked, Sequence[OutOfScope]]:
    """Read vocabulary, entries and what is out of scope. Raises VocabularyError; the result has all other problems.

    No entry may be of a day after `today`, which is read from the clock (UTC) where it is not given.
    """
    today = today or datetime.now(UTC).date()
    vocabulary = load_vocabulary(checkout.vocabulary)
    checked = check_papers(checkout.root, vocabulary, today)
    out_of_scope, problems = check_out_of_scope(checkout.root, checked.papers, today)
    return vocabulary, Checked(checked.papers, sorted({*checked.problems, *problems})), out_of_scope


def build(checkout: Checkout, *, website: bool = False, waiting: Callable[[], None] = lambda: None) -> int:
    """Build store, list and exports, with `website` the pages and their HTML too, and publish them.

    `waiting` is called if another build is at work, which is then waited for. Returns the number of papers.

    Raises:
        VocabularyError, BadEntriesError: the input is wrong.
        WebsiteError: mkdocs found something to complain about.
        OSError, sqlalchemy.exc.SQLAlchemyError: a file could not be written.

    Whatever is raised, the last good result stays as it was.
    """
    with only_build(checkout.build, waiting), new_generation(checkout.build) as generation:
        data = generation / "data"
        data.mkdir()
        schema = _store(checkout, data / STORE)
        atlas = read_atlas(data / STORE)
        write_exports(atlas, data, checkout.site_url)
        if website:
            from skis_site.render import render_pages  # here: only the extra `site` brings what it imports

            render_pages(atlas, checkout.root, data, generation / "pages", checkout.repository)
            build_website(checkout.root, generation / "pages", generation / "site", atlas.last_added)
        awesome = awesome_list(atlas, checkout.site_url)
        with staged({checkout.root / "AWESOME.md": awesome, checkout.root / "papers" / SCHEMA_NAME: schema}):
            publish(checkout.build, generation)
    return len(atlas.papers)


def _store(checkout: Checkout, path: Path) -> str:
    """Check all files, write the store, and return the entries' JSON Schema; what was read is forgotten then."""
    vocabulary, checked, out_of_scope = check(checkout)
    if checked.problems:
        raise BadEntriesError(checked.problems)
    kernels = known_kernels(checkout, vocabulary, checked)
    build_store(path, vocabulary, checked.papers, kernels, out_of_scope)
    return schema_text(vocabulary)


def known_kernels(checkout: Checkout, vocabulary: Vocabulary, checked: Checked) -> Sequence[KernelRow]:
    """Read what the kernel wing says of itself. Raises BadEntriesError where it names what the atlas does not have."""
    try:
        kernels = table(checkout.kernels)
    except BadResultError as error:
        raise BadEntriesError([Problem(f"{checkout.kernels.name}/{error.file}", 1, 1, "", error.reason)]) from None
    problems = check_kernels(kernels, vocabulary, checked.papers)
    if problems:
        raise BadEntriesError(problems)
    return kernels


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
