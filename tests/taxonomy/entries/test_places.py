"""Only plain files in plain folders are read: nothing behind a link, no pipe, and what cannot be read is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skis.build import check
from skis.settings import Checkout
from taxonomy.entries.vocabulary import FOLDER, VocabularyError, load_vocabulary

SECRET = "secret: do not show\n"


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "secret.yaml")


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nowhere")


def loop(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


Trap = Callable[[Path, Path], None]
TRAPS = pytest.mark.parametrize("trap", [link, pipe, dangling, loop])


@pytest.fixture
def outside(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.yaml").write_text(SECRET)
    return folder


def found(checkout: Checkout) -> list[str]:
    return [str(problem) for problem in check(checkout)[1].problems]


@TRAPS
@pytest.mark.parametrize(
    "name", ["out_of_scope.yaml", "schema.json", "2024/trap.yaml", "2024/trap", "trap.yaml", "2023"]
)
def test_a_link_or_a_pipe_below_papers_is_refused_unread(empty_checkout, outside, trap: Trap, name: str):
    (empty_checkout.root / "papers" / "2024").mkdir()
    trap(empty_checkout.root / "papers" / name, outside)
    assert found(empty_checkout) == [f"papers/{name}:1:1: is a link or a special file; only plain files are read"]


@TRAPS
def test_a_link_or_a_pipe_in_the_vocabulary_is_refused_unread(tmp_path: Path, outside, trap: Trap):
    for file in FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "venues.yaml").unlink()
    trap(tmp_path / "venues.yaml", outside)
    with pytest.raises(VocabularyError) as error:
        load_vocabulary(tmp_path)
    place = "taxonomy/vocabulary/venues.yaml:1:1"
    assert str(error.value) == f"{place}: is a link or a special file; only plain files are read"


def test_the_vocabulary_is_no_link(tmp_path: Path):
    (tmp_path / "vocabulary").symlink_to(FOLDER)
    with pytest.raises(VocabularyError, match=r"taxonomy/vocabulary:1:1: is a link"):
        load_vocabulary(tmp_path / "vocabulary")


def test_a_folder_of_a_year_that_is_a_link_is_not_entered(empty_checkout, outside: Path):
    (empty_checkout.root / "papers" / "2024").symlink_to(outside)
    assert found(empty_checkout) == ["papers/2024:1:1: is a link or a special file; only plain files are read"]


def test_papers_is_no_link(empty_checkout, outside: Path):
    papers = empty_checkout.root / "papers"
    papers.rmdir()
    (outside / "2024").mkdir()
    (outside / "2024" / "x.yaml").write_text(SECRET)
    papers.symlink_to(outside)
    assert "papers:1:1: is a link; papers/ is a folder of the repository" in found(empty_checkout)


@pytest.mark.parametrize("kind", ["none", "file", "pipe"])
def test_papers_is_a_folder(empty_checkout, kind: str):
    papers = empty_checkout.root / "papers"
    papers.rmdir()
    if kind == "file":
        papers.write_text("")
    if kind == "pipe":
        os.mkfifo(papers)
    assert any(problem.startswith("papers:1:1: cannot be read") for problem in found(empty_checkout))


def test_a_folder_that_cannot_be_listed_is_said(empty_checkout, add, sample, monkeypatch):
    add(empty_checkout, "sample", sample)
    (empty_checkout.root / "papers" / "2023").mkdir()
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "2023":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert found(empty_checkout) == ["papers/2023:1:1: cannot be read: Permission denied"]


def test_what_is_hidden_or_empty_is_passed_over(empty_checkout, outside: Path):
    papers = empty_checkout.root / "papers"
    (papers / "2024").mkdir()
    (papers / "2024" / ".sample.yaml.swp").write_text(SECRET)
    (papers / ".cache").symlink_to(outside)
    assert found(empty_checkout) == []


def test_a_folder_within_a_year_is_out_of_place(empty_checkout):
    (empty_checkout.root / "papers" / "2024" / "deep").mkdir(parents=True)
    assert "papers/2024/deep:1:1: is not in its place" in found(empty_checkout)[0]
