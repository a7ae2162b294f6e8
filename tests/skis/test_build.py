"""A build is all or nothing, and the same entries give the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skis.build import BadEntriesError, WebsiteError, build
from skis.publish import staged
from skis.settings import Checkout, find_checkout
from tests.checkouts import SKIS, new_checkout
from tests.reference_kernels.results import TIMED, copied_package, made_up, write_result


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(checkout: Checkout) -> dict[str, str]:
    """Everything that is published, and the list."""
    found = {"AWESOME.md": hashlib.sha256((checkout.root / "AWESOME.md").read_bytes()).hexdigest()}
    for name in ("data", "pages", "site"):
        if (checkout.build / name).exists():
            found |= {f"{name}/{path}": sha for path, sha in digest((checkout.build / name).resolve()).items()}
    return found


def leftovers(checkout: Checkout) -> list[str]:
    """What lies in the build folder that nothing points at."""
    used = {path.resolve().parent.name for path in checkout.build.iterdir() if path.is_symlink()}
    return [path.name for path in (checkout.build / ".generations").iterdir() if path.name not in used]


def test_two_builds_in_two_places_are_byte_identical(website: Checkout, tmp_path: Path):
    """Store, list, exports, pages and website, built once more elsewhere, later, with another hash seed."""
    other = new_checkout(tmp_path, website.root / "papers")
    environment = os.environ | {"PYTHONHASHSEED": "4711", "TZ": "Asia/Shanghai", "LC_ALL": "C"}
    subprocess.run([SKIS, "site", "--root", str(other.root)], check=True, capture_output=True, env=environment)
    first, second = results(website), results(other)
    assert [name for name in first | second if first.get(name) != second.get(name)] == []
    assert len(first) > 700


@pytest.fixture
def built(empty_checkout: Checkout, add, sample) -> Checkout:
    """A small checkout with a good build."""
    add(empty_checkout, "sample", sample)
    build(empty_checkout)
    return empty_checkout


def test_a_bad_entry_leaves_the_last_result(built: Checkout, add, sample):
    before = results(built)
    path = add(built, "second", sample | {"title": "B", "links": {"paper": "https://example.org/b"}})
    path.write_text(path.read_text().replace("role: primary", "role: prime"))
    with pytest.raises(BadEntriesError) as error:
        build(built)
    assert "did you mean primary?" in str(error.value.problems[0])
    assert results(built) == before
    assert leftovers(built) == []


def test_a_kernel_of_an_unknown_paper_leaves_the_last_result(built: Checkout):
    before = results(built)
    copied_package(built.root, "kvs/quest.py")
    with pytest.raises(BadEntriesError) as error:
        build(built)
    expected = 'reference_kernels/kvs/quest.py:1:1: papers: there is no paper "quest"'
    assert [str(problem) for problem in error.value.problems] == [expected]
    assert results(built) == before
    assert leftovers(built) == []


def test_a_broken_file_of_results_leaves_the_last_result(built: Checkout, add, sample):
    add(built, "quest", sample | {"title": "B", "links": {"paper": "https://example.org/b"}})
    package = copied_package(built.root, "kvs/quest.py")
    result = write_result(package, made_up("quest", {"a case": TIMED}))
    assert build(built) == 2
    before = results(built)
    result.write_text("{}")
    with pytest.raises(BadEntriesError) as error:
        build(built)
    assert str(error.value.problems[0]).startswith(f"{result.relative_to(built.root)}:1:1: not a result")
    assert results(built) == before
    assert leftovers(built) == []


def test_a_website_that_mkdocs_refuses_leaves_the_last_result(built: Checkout):
    """A broken template makes a page with a dead link: mkdocs --strict refuses, and nothing is published."""
    build(built, website=True)
    before = results(built)
    template = built.root / "site" / "templates" / "about.en.md.j2"
    template.write_text(template.read_text() + "\n[dead](nowhere.md)\n")
    with pytest.raises(WebsiteError, match=r"nowhere\.md"):
        build(built, website=True)
    assert results(built) == before
    assert leftovers(built) == []


def test_a_good_build_replaces_the_last_and_cleans_up(built: Checkout, add, sample):
    before = results(built)
    add(built, "second", sample | {"title": "B", "links": {"paper": "https://example.org/b"}})
    assert build(built) == 2
    assert results(built) != before
    assert leftovers(built) == []


def run_limited(checkout: Checkout, limit: Callable[[], None]) -> subprocess.CompletedProcess[str]:
    command = [SKIS, "build", "--root", str(checkout.root)]
    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("size", [0, 4096, 100_000, 300_000])
def test_a_file_that_cannot_grow_leaves_the_last_result(full_checkout: Checkout, size: int):
    """No file of the build may become larger than `size`, as on a full disk: writing fails at other steps."""
    build(full_checkout)
    before = results(full_checkout)
    run = run_limited(full_checkout, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    assert run.returncode == 2, run.stdout + run.stderr
    assert "nothing was published" in run.stderr
    assert "Traceback" not in run.stderr
    assert results(full_checkout) == before
    assert leftovers(full_checkout) == []


def test_a_full_disk_leaves_the_last_result(full_checkout: Checkout):
    """A real one: the build folder lies on a small file system, of which the last build takes most."""
    build(full_checkout)
    size = sum(path.lstat().st_size for path in full_checkout.build.rglob("*"))
    shutil.rmtree(full_checkout.build)
    full_checkout.build.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 3 // 2}", "tmpfs", str(full_checkout.build)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("CANNOT MOUNT A SMALL FILE SYSTEM HERE (needs root); the limit on file size is tested instead")
    try:
        first = run_limited(full_checkout, lambda: None)
        assert first.returncode == 0, first.stderr
        before = results(full_checkout)
        second = run_limited(full_checkout, lambda: None)
        assert second.returncode == 2
        assert "No space left" in second.stderr or "disk is full" in second.stderr
        assert results(full_checkout) == before
        assert leftovers(full_checkout) == []
    finally:
        subprocess.run(["umount", str(full_checkout.build)], check=True)


def test_a_build_killed_at_any_moment_leaves_a_whole_result(full_checkout: Checkout):
    """Killed without warning at 12 moments spread over a build: what is published is the old result or the new one."""
    build(full_checkout)
    old = results(full_checkout)
    changed = full_checkout.root / "papers" / "2024" / "kivi.yaml"
    changed.write_text(changed.read_text().replace("name: KIVI", "name: Kivi"))
    reference = new_checkout_like(full_checkout)
    started = time.monotonic()
    subprocess.run([SKIS, "build", "--root", str(reference.root)], check=True, capture_output=True)
    duration = time.monotonic() - started
    new = results(reference)
    assert old != new
    moments = random.Random(7)
    for step in range(12):
        process = subprocess.Popen(
            [SKIS, "build", "--root", str(full_checkout.root)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(duration * (step + moments.random()) / 12)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = results(full_checkout)
        for name in ("data/skis.db", "data/papers.json", "AWESOME.md", "pages/en/papers/kivi.md"):
            assert found[name] in (old[name], new[name])
        for part in ("data/", "pages/"):  # each folder is one or the other as a whole
            of = [{n: sha for n, sha in side.items() if n.startswith(part)} for side in (found, old, new)]
            assert of[0] in of[1:]
        with sqlite3.connect(full_checkout.store) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert build(full_checkout) == len(list(full_checkout.root.glob("papers/*/*.yaml")))
    assert results(full_checkout) == new
    assert leftovers(full_checkout) == []


def new_checkout_like(checkout: Checkout) -> Checkout:
    """Copy an checkout without its build."""
    copy = checkout.root.parent / (checkout.root.name + "-copy")
    shutil.copytree(checkout.root, copy, ignore=shutil.ignore_patterns("build"))
    return find_checkout(copy)


def test_files_beside_a_build_are_replaced_whole_and_after_it_or_not_at_all(tmp_path: Path):
    first, second = tmp_path / "x.txt", tmp_path / "y.txt"
    with staged({first: "first", second: "second"}):
        assert not first.exists()
    assert (first.read_text(), second.read_text()) == ("first", "second")
    with pytest.raises(UnicodeEncodeError), staged({first: "third", second: "fourth \ud800"}):
        pass
    with pytest.raises(OSError, match="full"), staged({first: "third", second: "fourth"}):
        raise OSError("full")
    assert (first.read_text(), second.read_text()) == ("first", "second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.txt", "y.txt"]
    modified = first.stat().st_mtime_ns
    with staged({first: "first"}):
        pass
    assert first.stat().st_mtime_ns == modified


def test_an_empty_checkout_builds(empty_checkout: Checkout):
    assert build(empty_checkout, website=True) == 0
    assert (empty_checkout.build / "site" / "index.html").is_file()
