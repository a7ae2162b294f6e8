"""reference_kernels/README.md says what units and results say, and is up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from reference_kernels.cli import app
from reference_kernels.readme import duration, readme, write_readme
from reference_kernels.registry import cards
from tests.reference_kernels.repository import ROOT
from tests.reference_kernels.results import GPU, TIMED, WRONG, copied_package, made_up, write_result


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return copied_package(tmp_path, "kvs/quest.py", "kvcc/kivi.py")


def cells(text: str) -> list[list[str]]:
    """Return the rows of all tables as GitHub reads them."""
    rows: list[list[str]] = []
    for token in MarkdownIt("gfm-like").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and token.level >= 4:
            rows[-1].append("".join(child.content for child in token.children or ()))
    return rows


def test_the_committed_readme_is_up_to_date():
    committed = (ROOT / "reference_kernels" / "README.md").read_text("utf-8")
    assert committed == readme(), "run `python -m reference_kernels readme`"


def test_it_names_every_unit_and_all_its_links_lead_somewhere():
    text = readme()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {card.file.removeprefix("reference_kernels/") for card in cards()} <= set(links)
    for link in links:
        assert (ROOT / "reference_kernels" / link).is_file(), link


def test_its_commands_exist():
    run = CliRunner().invoke(app, ["--help"])
    for verb in set(re.findall(r"python -m reference_kernels (\w+)", readme())) | {"simulate"}:
        assert re.search(rf"^│ {verb} ", run.stdout, re.M), verb


def test_a_unit_without_results_is_not_measured(package: Path):
    assert [row[3:] for row in cells(readme(package))[1:]] == [["not measured", "", "", ""]] * 2


def test_papers_that_lie_elsewhere_are_named_and_not_linked(package: Path):
    assert "| quest |" in readme(package)
    assert "../papers/" not in readme(package)


def test_results_are_shown_as_measured(package: Path):
    write_result(package, made_up("quest", {"B=1 | 2": TIMED, "bad": WRONG}))
    assert cells(readme(package))[1:] == [
        ["kvs", "quest", "quest", "B=1 | 2", "200 µs", "81 %", "1.50× fast, dense; 0.50× fast, fp8"],
        ["", "", "", "bad", "wrong, not timed", "", ""],
        ["kvcc/quantization", "kivi", "kivi", "not measured", "", "", ""],
    ]


def test_each_gpu_has_a_table_of_its_own(package: Path):
    write_result(package, made_up("quest", {"a": TIMED}))
    write_result(package, made_up("kivi", {"b": TIMED}, gpu="Other", taken="2026-12-01T00:00:00Z"))
    text = readme(package)
    first, second = text.index(f"### {GPU}\n\nMeasured 2026-11-24."), text.index("### Other\n\nMeasured 2026-12-01.")
    assert [row[1:4:2] for row in cells(text[first:second])[1:]] == [["quest", "a"], ["kivi", "not measured"]]
    assert [row[1:4:2] for row in cells(text[second:])[1:]] == [["quest", "not measured"], ["kivi", "b"]]


@pytest.mark.parametrize("name", ["<img src=x>", "a | b", "[x](https://evil.example)", "*x* `y` _z_", "&lt;", "a\n# b"])
def test_text_of_results_stays_text(package: Path, name: str):
    write_result(package, made_up("quest", {name: TIMED}))
    assert cells(readme(package))[1][3] == " ".join(name.split())


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(8.3328e-5, "83.3 µs"), (4e-7, "0.4 µs"), (9.9999e-4, "1 ms"), (0.0014177, "1.42 ms"), (12, "12 s")],
)
def test_times_have_three_digits_and_a_unit_that_suits(seconds: float, shown: str):
    assert duration(seconds) == shown


def test_it_is_written_beside_the_units(package: Path):
    assert write_readme(package).read_text("utf-8") == readme(package)
