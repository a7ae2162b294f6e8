"""Measures check, build and page rendering at growing numbers of entries, and writes docs/benchmarks.md.

The entries are the atlas's own, repeated under other ids, titles and addresses. Run it with `make bench`.
"""

from __future__ import annotations

import json
import platform
import resource
import shutil
import statistics
import subprocess
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
from taxonomy.exports import STORE, write_exports
from taxonomy.store.reading import read_atlas
from taxonomy.store.writing import build_store
from tests.checkouts import ROOT, new_checkout

COPIES = (1_000, 10_000)  # beside the number of papers that there are

HEAD = """\
# How time and memory grow with the number of entries

Written by `make bench`. Seconds are medians of processor time within one process, after imports; in brackets,
milliseconds per entry. *Check* reads and checks all entries, *store* writes the database, *read* reads all of it,
*exports* writes every export, *build* is `skis build` as a whole (these four and the list), *pages* draws the Markdown
of both languages, which `skis site` does before it calls mkdocs, *affinity* computes all pairs of leaves with their
tests and bootstrap intervals, *charts* draws every chart, without pictures. Memory is the largest that a process took,
up to the end of `skis build` and up to the end of all.

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
    """Return the median time that `action` takes of a processor, in seconds: others may use the machine meanwhile."""
    times = []
    for _ in range(runs):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return statistics.median(times)


def peak() -> int:
    """Return the largest memory that this process took so far, in MB.

    Linux says so in VmHWM; its ru_maxrss would count what the process that started this one had taken.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(count: int, folder: Path) -> dict[str, float]:
    """Return the median seconds of each step at `count` entries, and the memory."""
    checkout, vocabulary, runs = new_checkout(folder), load_vocabulary(), 3 if count < 5_000 else 1
    command = [sys.executable, "-m", "tests.benchmarks.scale", "generate", str(count), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT)  # apart, so that the memory it takes is not counted
    times = {"build": median(lambda: build(checkout), runs)}
    memory = {"memory of build": peak()}
    checked = check_papers(folder, vocabulary)
    data, out = folder / "data", folder / "out"
    data.mkdir()

    def store() -> None:
        (data / STORE).unlink(missing_ok=True)
        build_store(data / STORE, vocabulary, checked.papers)

    times |= {"check": median(lambda: check_papers(folder, vocabulary), runs), "store": median(store, runs)}
    times["read"] = median(lambda: read_atlas(data / STORE), runs)
    atlas = read_atlas(data / STORE)
    times["exports"] = median(lambda: write_exports(atlas, data, checkout.site_url), runs)

    def pages() -> None:
        shutil.rmtree(out, ignore_errors=True)
        render_pages(atlas, folder, data, out, checkout.repository)

    times["pages"] = median(pages, runs)
    times["affinity"] = median(lambda: affinity(atlas, level="leaf"), runs)
    times["charts"] = median(lambda: [chart(name, atlas) for name in CHARTS], runs)
    return times | memory | {"memory": peak()}


STEPS = ("check", "store", "read", "exports", "build", "pages", "affinity", "charts")


def main() -> None:
    """Measure every size, each in a process of its own, and write the table."""
    rows = []
    for count in (len([*ROOT.glob("papers/*/*.yaml")]), *COPIES):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.benchmarks.scale", "measure", str(count), folder]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        found: dict[str, float] = json.loads(run.stdout)
        cells = [f"{found[step]:.2f} ({1000 * found[step] / count:.2f})" for step in STEPS]
        cells += [f"{found[name]} MB" for name in ("memory of build", "memory")]
        rows.append(f"| {count:,} | {' | '.join(cells)} |")
        sys.stdout.write(rows[-1] + "\n")
        sys.stdout.flush()
    names = ("entries", *STEPS, "memory of build", "memory")
    head = f"| {' | '.join(names)} |\n|{'---:|' * len(names)}\n"
    table = head + "\n".join(rows) + "\n"
    machine = f"\nPython {platform.python_version()}, {platform.system()} {platform.machine()}, one core used.\n"
    (ROOT / "docs" / "benchmarks.md").write_text(HEAD + table + machine, encoding="utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["generate", count, folder]:
            generate(Path(folder), int(count), check_papers(ROOT, load_vocabulary()).papers)
        case ["measure", count, folder]:
            sys.stdout.write(json.dumps(measure(int(count), Path(folder))))
        case _:
            main()
