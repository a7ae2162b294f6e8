"""Fixtures that several wings share. What they need is imported on use: a bare GPU machine has none of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from skis.settings import Checkout
    from taxonomy.entries.checks import Checked
    from taxonomy.entries.vocabulary import Vocabulary
    from taxonomy.store.atlas import Atlas

ROOT = Path(__file__).parent.parent

settings.register_profile("untimed", deadline=None)  # machines are shared: no test fails for the time it takes
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    from taxonomy.entries.vocabulary import load_vocabulary

    return load_vocabulary()


@pytest.fixture
def sample() -> dict[str, Any]:
    """A valid entry with every field filled."""
    from tests.checkouts import SAMPLE

    return copy.deepcopy(SAMPLE)


@pytest.fixture
def empty_checkout(tmp_path: Path) -> Checkout:
    """A checkout without papers."""
    from tests.checkouts import new_checkout

    return new_checkout(tmp_path)


@pytest.fixture
def add() -> Callable[[Checkout, str, dict[str, Any]], Path]:
    """Write an entry into a checkout: `add(checkout, id, facts)`."""
    from tests.checkouts import write_entry

    return write_entry


@pytest.fixture
def check_bytes(empty_checkout: Checkout, vocabulary: Vocabulary) -> Callable[..., Checked]:
    """Check one file with the given bytes: `check_bytes(data, name="2024/sample.yaml")`."""
    from taxonomy.entries.checks import FIRST_LINE, check_papers

    def check(data: bytes | str, name: str = "2024/sample.yaml") -> Checked:
        path = empty_checkout.root / "papers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str):
            data = data if data.startswith("#") else f"{FIRST_LINE}\n{data}"
            data = data.encode()
        path.write_bytes(data)
        return check_papers(empty_checkout.root, vocabulary)

    return check


@pytest.fixture(scope="session")
def checked(vocabulary: Vocabulary) -> Checked:
    """The repository's own entries, checked."""
    from taxonomy.entries.checks import check_papers

    return check_papers(ROOT, vocabulary)


@pytest.fixture(scope="session")
def store(vocabulary: Vocabulary, checked: Checked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the repository's own entries and kernels."""
    from reference_kernels.table import table
    from taxonomy.entries.out_of_scope import check_out_of_scope
    from taxonomy.store.writing import build_store

    path = tmp_path_factory.mktemp("store") / "skis.db"
    out_of_scope, _ = check_out_of_scope(ROOT, checked.papers)
    build_store(path, vocabulary, checked.papers, table(), out_of_scope)
    return path


@pytest.fixture(scope="session")
def atlas(store: Path) -> Atlas:
    """What that store says."""
    from taxonomy.store.reading import read_atlas

    return read_atlas(store)


@pytest.fixture(scope="session")
def atlas_of(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Atlas]:
    """Turn entries into a store and read it: `atlas_of({id: facts})`."""
    from taxonomy.entries.checks import EntryFile
    from taxonomy.entries.document import Document
    from taxonomy.entries.entry import Entry
    from taxonomy.store.reading import read_atlas
    from taxonomy.store.writing import build_store

    def make(entries: dict[str, dict[str, Any]]) -> Atlas:
        files = [
            EntryFile(i, f"papers/2024/{i}.yaml", Entry.model_validate(facts), Document(i))
            for i, facts in sorted(entries.items())
        ]
        path = tmp_path_factory.mktemp("store") / "skis.db"
        build_store(path, vocabulary, files)
        return read_atlas(path)

    return make


@pytest.fixture(scope="session")
def website(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The whole website of the repository's entries, built in a checkout of its own."""
    from skis.build import build
    from tests.checkouts import whole_checkout

    checkout = whole_checkout(tmp_path_factory.mktemp("website"))
    build(checkout, website=True)
    return checkout


SLOW_FIXTURES = ("website", "hostile_website", "untouched", "compiled")  # each builds a website, or all kernels


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know `--quick`, which `make quick` gives."""
    parser.addoption("--quick", action="store_true", help="leave out browsers, whole websites, and most of the kernels")


def is_quick(item: pytest.Item) -> bool:
    """Whether a test is part of `make quick`; tests of kernels say so by a mark."""
    if "reference_kernels" in item.path.parts:
        return item.get_closest_marker("quick") is not None
    return not (item.get_closest_marker("slow") or item.get_closest_marker("browser")) and not (
        {*SLOW_FIXTURES} & {*getattr(item, "fixturenames", ())}
    )


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not quick, if asked; keep tests of one slow fixture on one worker, which makes it once."""
    if config.getoption("--quick"):
        config.hook.pytest_deselected(items=[item for item in items if not is_quick(item)])
        items[:] = [item for item in items if is_quick(item)]
    for item in items:
        for fixture in SLOW_FIXTURES:
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(fixture))
