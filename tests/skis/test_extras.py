"""What an install without extras can do, and how it says what it lacks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

from skis.settings import Checkout
from tests.checkouts import write_entry

# Runs `skis` where only the packages named first can be imported, of those that somebody installed.
ONLY = """
import re
import sys
from importlib.metadata import packages_distributions

allowed, sys.argv = set(sys.argv[1].split(",")), ["skis", *sys.argv[2:]]
others = {
    package
    for package, names in packages_distributions().items()
    if not allowed & {re.sub("[-_.]+", "-", name).lower() for name in names}
}

class WithoutOthers:  # a finder that does not find them
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in others else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [WithoutOthers(finder) for finder in sys.meta_path]
from skis.cli import app
app()
"""

pytestmark = pytest.mark.slow


def normalized(name: str) -> str:
    """The name of a distribution as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """The distributions that `pip install name` brings, all the way down, by their metadata."""
    found, waiting = set(), [(name, extras)]
    while waiting:
        package, wanted = waiting.pop()
        if package in found:
            continue
        found.add(package)
        try:
            lines = requires(package) or []
        except PackageNotFoundError:  # of another system, or an older Python
            continue
        for line in lines:
            extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
            if not extra or extra[1] in wanted:
                waiting.append((normalized(re.match(r"[\w.-]+", line)[0]), frozenset()))
    return found


def skis(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ONLY, ",".join(needed("skis-atlas")), *arguments]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=120, check=False)


def test_the_base_is_small():
    base, kernels = needed("skis-atlas"), needed("skis-atlas", frozenset({"kernels"}))
    assert {"pydantic", "sqlmodel", "typer"} <= base
    assert not {"numpy", "scipy", "plotly", "mkdocs", "jinja2", "torch"} & base
    assert "torch" in kernels
    assert not {"mkdocs", "plotly", "scipy"} & kernels


@pytest.mark.parametrize(
    "call",
    [
        ("check",),
        (
            *("new", "--title", "B", "--authors", "Ada Lovelace", "--published", "2025-03", "--leaf", "kvs"),
            *("--name", "B", "--venue", ""),
            *("--link", "https://example.org/b", "--technique", "x"),
        ),
        ("find", "caches"),
        ("show", "sample"),
        ("stats",),
        ("export", "out"),
        ("kernels", "list"),
        ("charts", "--help"),
    ],
    ids=lambda call: call[0],
)
def test_these_commands_need_no_extra(small: Checkout, call):
    run = skis(*call, where=small.root)
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout of one paper, built without extras."""
    from tests.checkouts import SAMPLE, new_checkout

    checkout = new_checkout(tmp_path_factory.mktemp("extras"))
    write_entry(checkout, "sample", SAMPLE)
    run = skis("build", where=checkout.root)
    assert run.returncode == 0, run.stderr
    return checkout


@pytest.mark.parametrize(
    ("call", "package", "extra"),
    [
        (("charts",), "numpy", "analysis"),
        (("site",), "jinja2", "site"),
        (("kernels", "run", "paged_decode"), "torch", "kernels"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_missing_extra_is_said_in_one_line(small: Checkout, call, package, extra):
    run = skis(*call, where=small.root)
    assert run.returncode == 2
    (line,) = run.stderr.strip().splitlines()
    assert f"{package} is not installed" in line
    assert "pip install" in line
    assert f"[{extra}]" in line


def test_kernels_are_listed_without_torch(small: Checkout):
    from reference_kernels.registry import cards

    listed = skis("kernels", "list", "--json", where=small.root)
    assert [unit["name"] for unit in json.loads(listed.stdout)] == [card.name for card in cards()]
