"""`skis new` writes below papers/ or nowhere, and says on one line why it did not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from skis.cli import app
from skis.settings import Checkout

ANSWERS = {
    "title": "NewCache: A New Cache",
    "authors": "Ada Lovelace, Bob Smith",
    "published": "2025-03",
    "link": "https://arxiv.org/pdf/2503.01234v2",
    "leaf": "kvrm/eviction",
    "technique": "Drops what nobody reads",
    "name": "NewCache",
    "venue": "",
}


def new(checkout: Checkout, **changes: Any) -> Result:
    options = [x for key, value in (ANSWERS | changes).items() for x in (f"--{key}", value)]
    return CliRunner().invoke(app, ["new", "--root", str(checkout.root), *options])


def everything(checkout: Checkout) -> set[Path]:
    return set(checkout.root.parent.rglob("*.yaml"))


@pytest.mark.parametrize(
    "paper_id",
    ["../../../escape", "../2024/x", "{root}/../escape", "a/b", "a\nb", "con", "UPPER", os.fsdecode(b"\xff")],
)
def test_an_id_cannot_lead_out_of_the_folder(empty_checkout: Checkout, paper_id: str):
    before = everything(empty_checkout)
    run = new(empty_checkout, id=paper_id.format(root=empty_checkout.root))
    assert run.exit_code == 2, run.output
    assert "has a bad id" in run.stderr
    assert run.stderr.count("\n") == 1
    assert everything(empty_checkout) == before


def test_a_name_that_gives_a_reserved_id_asks_for_another(empty_checkout: Checkout):
    run = new(empty_checkout, name="Con")
    assert (run.exit_code, "choose another --id" in run.stderr) == (2, True)


@pytest.mark.parametrize("link", ["papers/2025", "papers"])
def test_no_link_is_followed_out_of_papers(empty_checkout: Checkout, tmp_path_factory, link: str):
    outside = tmp_path_factory.mktemp("outside")
    path = empty_checkout.root / link
    if path.is_dir():
        path.rmdir()
    path.symlink_to(outside)
    run = new(empty_checkout)
    assert (run.exit_code, "is a link" in run.stderr) == (2, True), run.output
    assert list(outside.rglob("*")) == []


def test_a_link_in_the_place_of_the_file_is_kept(empty_checkout: Checkout, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "target.yaml"
    (empty_checkout.root / "papers" / "2025").mkdir()
    (empty_checkout.root / "papers" / "2025" / "newcache.yaml").symlink_to(outside)
    run = new(empty_checkout)
    assert (run.exit_code, "exists" in run.stderr) == (2, True)
    assert not outside.exists()


def test_a_target_that_cannot_be_written_is_said(empty_checkout: Checkout):
    (empty_checkout.root / "papers" / "2025").write_text("a file where the folder should be")
    run = new(empty_checkout)
    assert run.exit_code == 2, run.output
    assert run.stderr == "skis: cannot write papers/2025/newcache.yaml: File exists; nothing was written\n"


def test_a_full_disk_leaves_no_half_of_a_file(empty_checkout: Checkout, monkeypatch):
    write = Path.open

    def full(path: Path, *arguments: Any, **options: Any):
        file = write(path, *arguments, **options)
        if path.name == "newcache.yaml":
            file.write = lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        return file

    monkeypatch.setattr(Path, "open", full)
    run = new(empty_checkout)
    assert (run.exit_code, "No space left on device; nothing was written" in run.stderr) == (2, True), run.output
    assert list((empty_checkout.root / "papers").rglob("*.yaml")) == []


@pytest.mark.parametrize("field", ["title", "authors", "published", "link", "leaf", "technique", "name", "venue"])
@pytest.mark.parametrize("text", [os.fsdecode(b"a\xff"), "a\x1b[31mb", "a\nb", "\u3164"])
def test_text_that_no_file_may_hold_is_refused_before_it_is_written(empty_checkout: Checkout, field: str, text: str):
    before = everything(empty_checkout)
    run = new(empty_checkout, **{field: text})
    assert run.exit_code == 2, run.output
    assert isinstance(run.exception, SystemExit)
    assert run.stderr.endswith("skis: nothing was written\n")
    assert all(line.isprintable() for line in run.stderr.splitlines())
    assert everything(empty_checkout) == before
