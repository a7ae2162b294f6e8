"""Measures check, build and page rendering at growing numbers of entries, and writes docs/benchmarks.md.

The entries are the atlas's own, repeated under other ids, titles and addresses. Run it with `make bench`.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from analysis.affinity import affinity
from analysis.charts import CHARTS, chart
from skis.build import build
from skis_site.render import render_pages
from taxonomy.entries.checks import EntryFile, check_papers
from taxonomy.entries.entry import Entry
from taxonomy.entries.vocabulary import load_vocabulary
from taxonomy.entries.writing import entry_text
from taxonomy.store.reading import read_atlas
from taxonomy.store.writing import build_store
from tests.checkouts import ROOT, new_checkout

SIZES = (168, 1000, 10_000)
RUNS = {168: 7, 1000: 5, 10_000: 3}

HEAD = """\
# How time grows with the number of entries

Written by `make bench`. Seconds are medians within one process, after imports; in brackets, milliseconds per entry.
*Check* reads and checks all entries, *store* writes the database, *pages* draws the Markdown of both languages, *build*
is `skis build` as a whole (check, store, list, exports, pages; without the website), *affinity* computes all pairs of
leaves with their tests and bootstrap intervals, *charts* draws every chart, without pictures.

"""


def generate(root: Path, count: int, papers: list[EntryFile]) -> None:
    """Write `count` entries below `root/papers`, the first ones as they are."""
    for number in range(count):
        paper, copy = papers[number % len(papers)], number // len(papers)
        facts = paper.entry.model_dump(exclude_defaults=True)
        if copy:
            facts |= {"title": f"{facts['title']} {copy}", "links": {"paper": f"https://example.org/{number}"}}
            facts["aliases"] = ()
        path = root / "papers" / paper.entry.published[:4] / f"{paper.id}{f'-{copy}' if copy else ''}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(entry_text(Entry.model_validate(facts)), encoding="utf-8")


def median(action: Callable[[], object], runs: int) -> float:
    """Return the median time of `action` in seconds."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(count: int, papers: list[EntryFile], folder: Path) -> dict[str, float]:
    """Return the median seconds of each step at `count` entries."""
    atlas, vocabulary, runs = new_checkout(folder), load_vocabulary(), RUNS[count]
    generate(folder, count, papers)
    checked = check_papers(folder, vocabulary)
    if checked.problems or len(checked.papers) != count:
        raise SystemExit(f"the generated entries are wrong: {checked.problems[:3]}")

    def store() -> None:
        (folder / "x.db").unlink(missing_ok=True)
        build_store(folder / "x.db", vocabulary, checked.papers)

    times = {"check": median(lambda: check_papers(folder, vocabulary), runs), "store": median(store, runs)}
    atlas, data = read_atlas(folder / "x.db"), folder / "data"
    data.mkdir()

    def pages() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        render_pages(atlas, folder, data, folder / "out", atlas.repository)

    times["pages"] = median(pages, runs)
    times["build"] = median(lambda: build(atlas), runs)
    times["affinity"] = median(lambda: affinity(atlas, level="leaf"), runs)
    times["charts"] = median(lambda: [chart(name, atlas) for name in CHARTS], runs)
    return times


def main() -> None:
    """Measure every size and write the table."""
    papers = check_papers(ROOT, load_vocabulary()).papers[: SIZES[0]]
    rows = []
    for count in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            times = measure(count, papers, Path(folder))
        cells = [f"{seconds:.2f} ({1000 * seconds / count:.2f})" for seconds in times.values()]
        rows.append(f"| {count:,} | {' | '.join(cells)} |")
        sys.stdout.write(rows[-1] + "\n")
    names = ("entries", "check", "store", "pages", "build", "affinity", "charts")
    head = f"| {' | '.join(names)} |\n|{'---:|' * len(names)}\n"
    table = head + "\n".join(rows) + "\n"
    machine = f"\nPython {platform.python_version()}, {platform.system()} {platform.machine()}, one core used.\n"
    (ROOT / "docs" / "benchmarks.md").write_text(HEAD + table + machine, encoding="utf-8")


if __name__ == "__main__":
    main()
