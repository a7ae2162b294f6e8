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
from skis.publish import write_atomically
from skis.settings import Atlas, find_atlas
from tests.conftest import SKIS, new_atlas
from tests.reference_kernels.results import TIMED, copied_package, made_up, write_result


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(atlas: Atlas) -> dict[str, str]:
    """Everything that is published, and the list."""
    found = {"AWESOME.md": hashlib.sha256((atlas.root / "AWESOME.md").read_bytes()).hexdigest()}
    for name in ("data", "pages", "site"):
        if (atlas.build / name).exists():
            found |= {f"{name}/{path}": sha for path, sha in digest((atlas.build / name).resolve()).items()}
    return found


def leftovers(atlas: Atlas) -> list[str]:
    """What lies in the build folder that nothing points at."""
    used = {path.resolve().parent.name for path in atlas.build.iterdir() if path.is_symlink()}
    return [path.name for path in (atlas.build / ".generations").iterdir() if path.name not in used]


def test_two_builds_in_two_places_are_byte_identical(website: Atlas, tmp_path: Path):
    """Store, list, exports, pages and website, built once more elsewhere, later, with another hash seed."""
    other = new_atlas(tmp_path, website.root / "papers")
    environment = os.environ | {"PYTHONHASHSEED": "4711", "TZ": "Asia/Shanghai", "LC_ALL": "C"}
    subprocess.run([SKIS, "site", "--root", str(other.root)], check=True, capture_output=True, env=environment)
    first, second = results(website), results(other)
    assert [name for name in first | second if first.get(name) != second.get(name)] == []
    assert len(first) > 700


@pytest.fixture
def built(empty_atlas: Atlas, add, sample) -> Atlas:
    """A small atlas with a good build."""
    add(empty_atlas, "sample", sample)
    build(empty_atlas)
    return empty_atlas


def test_a_bad_entry_leaves_the_last_result(built: Atlas, add, sample):
    before = results(built)
    path = add(built, "second", sample | {"title": "B", "links": {"paper": "https://example.org/b"}})
    path.write_text(path.read_text().replace("role: primary", "role: prime"))
    with pytest.raises(BadEntriesError) as error:
        build(built)
    assert "did you mean primary?" in str(error.value.problems[0])
    assert results(built) == before
    assert leftovers(built) == []


def test_a_kernel_of_an_unknown_paper_leaves_the_last_result(built: Atlas):
    before = results(built)
    copied_package(built.root, "kvs/quest.py")
    with pytest.raises(BadEntriesError) as error:
        build(built)
    expected = 'reference_kernels/kvs/quest.py:1:1: papers: there is no paper "quest"'
    assert [str(problem) for problem in error.value.problems] == [expected]
    assert results(built) == before
    assert leftovers(built) == []


def test_a_broken_file_of_results_leaves_the_last_result(built: Atlas, add, sample):
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


def test_a_website_that_mkdocs_refuses_leaves_the_last_result(built: Atlas):
    """A broken template makes a page with a dead link: mkdocs --strict refuses, and nothing is published."""
    build(built, website=True)
    before = results(built)
    template = built.root / "site" / "templates" / "about.en.md.j2"
    template.write_text(template.read_text() + "\n[dead](nowhere.md)\n")
    with pytest.raises(WebsiteError, match=r"nowhere\.md"):
        build(built, website=True)
    assert results(built) == before
    assert leftovers(built) == []


def test_a_good_build_replaces_the_last_and_cleans_up(built: Atlas, add, sample):
    before = results(built)
    add(built, "second", sample | {"title": "B", "links": {"paper": "https://example.org/b"}})
    assert build(built) == 2
    assert results(built) != before
    assert leftovers(built) == []


def run_limited(atlas: Atlas, limit: Callable[[], None]) -> subprocess.CompletedProcess[str]:
    command = [SKIS, "build", "--root", str(atlas.root)]
    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("size", [0, 4096, 100_000, 300_000])
def test_a_file_that_cannot_grow_leaves_the_last_result(full_atlas: Atlas, size: int):
    """No file of the build may become larger than `size`, as on a full disk: writing fails at other steps."""
    build(full_atlas)
    before = results(full_atlas)
    run = run_limited(full_atlas, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    assert run.returncode == 2, run.stdout + run.stderr
    assert "nothing was published" in run.stderr
    assert "Traceback" not in run.stderr
    assert results(full_atlas) == before
    assert leftovers(full_atlas) == []


def test_a_full_disk_leaves_the_last_result(full_atlas: Atlas):
    """A real one: the build folder lies on a small file system, of which the last build takes most."""
    build(full_atlas)
    size = sum(path.lstat().st_size for path in full_atlas.build.rglob("*"))
    shutil.rmtree(full_atlas.build)
    full_atlas.build.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 3 // 2}", "tmpfs", str(full_atlas.build)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("CANNOT MOUNT A SMALL FILE SYSTEM HERE (needs root); the limit on file size is tested instead")
    try:
        first = run_limited(full_atlas, lambda: None)
        assert first.returncode == 0, first.stderr
        before = results(full_atlas)
        second = run_limited(full_atlas, lambda: None)
        assert second.returncode == 2
        assert "No space left" in second.stderr or "disk is full" in second.stderr
        assert results(full_atlas) == before
        assert leftovers(full_atlas) == []
    finally:
        subprocess.run(["umount", str(full_atlas.build)], check=True)


def test_a_build_killed_at_any_moment_leaves_a_whole_result(full_atlas: Atlas):
    """Killed without warning at 12 moments spread over a build: what is published is the old result or the new one."""
    build(full_atlas)
    old = results(full_atlas)
    changed = full_atlas.root / "papers" / "2024" / "kivi.yaml"
    changed.write_text(changed.read_text().replace("name: KIVI", "name: Kivi"))
    reference = new_atlas_like(full_atlas)
    started = time.monotonic()
    subprocess.run([SKIS, "build", "--root", str(reference.root)], check=True, capture_output=True)
    duration = time.monotonic() - started
    new = results(reference)
    assert old != new
    moments = random.Random(7)
    for step in range(12):
        process = subprocess.Popen(
            [SKIS, "build", "--root", str(full_atlas.root)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(duration * (step + moments.random()) / 12)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = results(full_atlas)
        for name in ("data/skis.db", "data/papers.json", "AWESOME.md", "pages/en/papers/kivi.md"):
            assert found[name] in (old[name], new[name])
        for part in ("data/", "pages/"):  # each folder is one or the other as a whole
            of = [{n: sha for n, sha in side.items() if n.startswith(part)} for side in (found, old, new)]
            assert of[0] in of[1:]
        with sqlite3.connect(full_atlas.store) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert build(full_atlas) == len(list(full_atlas.root.glob("papers/*/*.yaml")))
    assert results(full_atlas) == new
    assert leftovers(full_atlas) == []


def new_atlas_like(atlas: Atlas) -> Atlas:
    """Copy an atlas without its build."""
    copy = atlas.root.parent / (atlas.root.name + "-copy")
    shutil.copytree(atlas.root, copy, ignore=shutil.ignore_patterns("build"))
    return find_atlas(copy)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "x.txt"
    write_atomically(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "second \ud800")
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    modified = path.stat().st_mtime_ns
    write_atomically(path, "first")
    assert path.stat().st_mtime_ns == modified


def test_an_empty_atlas_builds(empty_atlas: Atlas):
    assert build(empty_atlas, website=True) == 0
    assert (empty_atlas.build / "site" / "index.html").is_file()
