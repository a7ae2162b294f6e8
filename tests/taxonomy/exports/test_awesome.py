"""The Awesome list: made from the store alone, complete, fresh, and good enough for awesome-lint."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from skis.settings import find_checkout
from taxonomy.exports.awesome import awesome_list

URL = "https://skis.example/"
TOOL = Path(__file__).parents[2] / "tools" / "node_modules" / ".bin" / "awesome-lint"


@pytest.fixture(scope="module")
def text(atlas) -> str:
    return awesome_list(atlas, URL)


def test_the_committed_list_is_fresh(root: Path, atlas):
    expected = awesome_list(atlas, find_checkout(root).site_url)
    assert (root / "AWESOME.md").read_text(encoding="utf-8") == expected, "run `skis build` and commit AWESOME.md"


def test_every_paper_is_listed_in_full_once_and_referred_to_from_its_other_leaf(text, atlas):
    items = [line for line in text.splitlines() if re.match(r"- \[.*\]\(.*\) - ", line)]
    assert len(items) == sum(len(paper.primary) for paper in atlas.papers)
    in_full = [line for line in items if f"[Page]({URL}papers/" in line]
    assert len(in_full) == len(atlas.papers)
    assert sum("Listed under " in line for line in items) == len(items) - len(in_full)


def test_counts_of_the_contents_are_those_of_the_store(text, atlas):
    for behavior in atlas.behaviors.values():
        line = next(line for line in text.splitlines() if f"({behavior.acronym})](#" in line)
        assert line.endswith(f"({len(atlas.in_leaves(behavior.leaves, 'primary'))})")


def test_links_of_the_contents_lead_to_headings(text):
    headings = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= headings


def test_papers_of_a_leaf_are_newest_first(text, atlas):
    section = text.split("#### Eviction\n")[1]
    ids = [paper.id for paper in atlas.in_leaf("kvrm/eviction", "primary")]
    places = [section.index(f"{URL}papers/{paper_id}.html") for paper_id in ids]
    assert places == sorted(places)


def test_no_picture_and_no_address_twice(text):
    assert "![" not in text
    assert "<img" not in text
    tokens = MarkdownIt().parse(text)
    links = [c.attrs["href"] for t in tokens for c in t.children or [] if c.type == "link_open"]
    assert [href for href, n in Counter(links).items() if n > 1] == []


def test_code_that_papers_share_is_linked_once_and_named_by_the_others(text, atlas):
    papers = [paper for paper in atlas.papers if "code" in paper.links]
    addresses = {paper.links["code"].url for paper in papers}
    assert len(addresses) < len(papers)
    assert text.count("[Code](") == len(addresses)
    assert text.count("Code with ") == len(papers) - len(addresses)


@pytest.mark.slow
def test_awesome_lint_finds_nothing(root: Path, tmp_path: Path):
    """In a repository with a remote, as on GitHub.

    Two rules cannot be judged here: `awesome-github` (description and topics) and `awesome-git-repo-age` ask the code
    host, and pass silently without a network. The rule `awesome-badge` is switched off in the list itself, because the
    badge is a picture from another host.
    """
    if not TOOL.exists():
        pytest.skip("AWESOME-LINT IS NOT INSTALLED: `make linter` installs it where npm is")
    for name in ("AWESOME.md", "CONTRIBUTING.md", "LICENSE"):
        shutil.copy(root / name, tmp_path / name)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(tmp_path)]
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["remote", "add", "origin", "https://github.com/skis-atlas/skis-atlas.git"],
        ["config", "branch.main.remote", "origin"],
        ["add", "."],
        ["commit", "--quiet", "--message=x", "--date=2020-01-01T00:00:00Z"],
    ):
        subprocess.run(
            [*git, *command], check=True, env={"GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z", "PATH": "/usr/bin:/bin"}
        )
    run = subprocess.run([TOOL, "AWESOME.md"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "⚠" not in run.stdout + run.stderr
