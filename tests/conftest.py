"""Copies of the atlas to work on, and the website built once for all tests that look at it."""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from reference_kernels.table import table
from skis.build import build
from skis.settings import Atlas, find_atlas
from taxonomy.entries.checks import FIRST_LINE, Checked, EntryFile, check_papers
from taxonomy.entries.document import Document
from taxonomy.entries.entry import Entry
from taxonomy.entries.out_of_scope import check_out_of_scope
from taxonomy.entries.vocabulary import Vocabulary, load_vocabulary
from taxonomy.entries.writing import entry_text
from taxonomy.store.atlas import Atlas as Content
from taxonomy.store.reading import read_atlas
from taxonomy.store.writing import build_store

ROOT = Path(__file__).parent.parent
SKIS = str(Path(sys.executable).parent / "skis")  # the command, as installed beside this Python

SAMPLE: dict[str, Any] = {
    "title": "Sample: A Paper on Caches",
    "name": "Sample",
    "authors": ["Ada Lovelace", "Íñigo Goiri"],
    "published": "2024-05-06",
    "venue": "ICML 2024",
    "links": {"paper": "https://example.org/sample.pdf", "arxiv": "2405.12345"},
    "summary": {"en": "It keeps less. It costs a little.", "zh": "少存一些，略有代价。"},
    "behaviors": [
        {
            "leaf": "kvcc/quantization",
            "role": "primary",
            "technique": {"en": "Keeps two bits per number", "zh": "每个数两比特"},
            "why": "The abstract says so",
            "source": "abstract",
        },
        {"leaf": "kvs", "role": "secondary", "source": "full-text", "note": "Only in the appendix"},
    ],
    "objectives": {
        "gpu-memory": {
            "effect": "direct",
            "source": "abstract",
            "gains": [
                {"factor": 2.6, "kind": "peak memory, lower", "against": "fp16", "setting": "7B", "up_to": True},
                {"percent": 37.5, "kind": "peak memory, lower"},
            ],
        },
        "quality": {"effect": "indirect", "source": "abstract", "note": "Small"},
    },
    "evaluation": {"models": ["Llama-2-7B"], "hardware": ["A100"], "baselines": ["fp16"]},
    "traits": {"quantization": {"key": "per-channel", "bits": "2", "outliers": "kept apart"}},
    "read": "full-text",
    "added": "2026-11-24",
}


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary()


@pytest.fixture
def sample() -> dict[str, Any]:
    """A valid entry with every field filled."""
    return copy.deepcopy(SAMPLE)


def new_atlas(folder: Path, papers: Path | None = None) -> Atlas:
    """Make a copy of the atlas without papers, or with those of the folder `papers` and all kernels."""
    for name in ("mkdocs.yml", "mkdocs.zh.yml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "site", folder / "site", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "taxonomy" / "vocabulary", folder / "taxonomy" / "vocabulary")
    if papers:
        shutil.copytree(papers, folder / "papers")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "reference_kernels", folder / "reference_kernels", ignore=ignored)
    else:
        (folder / "papers").mkdir()
    return find_atlas(folder)


def write_entry(atlas: Atlas, paper_id: str, facts: dict[str, Any]) -> Path:
    """Write a valid entry's file into its place."""
    entry = Entry.model_validate(facts)
    path = atlas.root / "papers" / entry.published[:4] / f"{paper_id}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(entry_text(entry), encoding="utf-8")
    return path


@pytest.fixture
def empty_atlas(tmp_path: Path) -> Atlas:
    """A copy of the atlas without papers."""
    return new_atlas(tmp_path)


@pytest.fixture
def full_atlas(tmp_path: Path) -> Atlas:
    """A copy of the atlas with all its papers."""
    return new_atlas(tmp_path, ROOT / "papers")


@pytest.fixture
def add() -> Callable[[Atlas, str, dict[str, Any]], Path]:
    """Write an entry into an atlas: `add(atlas, id, facts)`."""
    return write_entry


@pytest.fixture
def check_bytes(empty_atlas: Atlas, vocabulary: Vocabulary) -> Callable[..., Checked]:
    """Check one file with the given bytes: `check_bytes(data, name="2024/sample.yaml")`."""

    def check(data: bytes | str, name: str = "2024/sample.yaml") -> Checked:
        path = empty_atlas.root / "papers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str):
            data = data if data.startswith("#") else f"{FIRST_LINE}\n{data}"
            data = data.encode()
        path.write_bytes(data)
        return check_papers(empty_atlas.root, vocabulary)

    return check


@pytest.fixture(scope="session")
def checked(vocabulary: Vocabulary) -> Checked:
    """The repository's own entries, checked."""
    return check_papers(ROOT, vocabulary)


@pytest.fixture(scope="session")
def store(vocabulary: Vocabulary, checked: Checked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the repository's own entries and kernels."""
    path = tmp_path_factory.mktemp("store") / "skis.db"
    left_out, _ = check_out_of_scope(ROOT, checked.papers)
    build_store(path, vocabulary, checked.papers, table(), left_out)
    return path


@pytest.fixture(scope="session")
def content(store: Path) -> Content:
    """What that store says."""
    return read_atlas(store)


@pytest.fixture(scope="session")
def content_of(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Content]:
    """Turn entries into a store and read it: `content_of({id: facts})`."""

    def make(entries: dict[str, dict[str, Any]]) -> Content:
        files = [
            EntryFile(i, f"papers/2024/{i}.yaml", Entry.model_validate(facts), Document(i))
            for i, facts in sorted(entries.items())
        ]
        path = tmp_path_factory.mktemp("content") / "skis.db"
        build_store(path, vocabulary, files)
        return read_atlas(path)

    return make


@pytest.fixture(scope="session")
def website(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """The whole website of the repository's entries, built in a copy."""
    atlas = new_atlas(tmp_path_factory.mktemp("website"), ROOT / "papers")
    build(atlas, website=True)
    return atlas


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Keep the tests that look at one built website on one worker, so that it is built once."""
    for item in items:
        for fixture in ("website", "hostile_website"):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(fixture))
