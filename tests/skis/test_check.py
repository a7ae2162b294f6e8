"""`skis check` prints one line per problem, with a place to open, whatever a stranger's file and its name hold."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skis.cli import app
from skis.settings import Checkout
from taxonomy.entries.checks import FIRST_LINE
from taxonomy.entries.problem import SHOWN_OF_A_FILE

PLACE = re.compile(r"papers/2024/\S+\.yaml:[0-9]+:[0-9]+: .+")


def lines(checkout: Checkout, *options: str) -> list[str]:
    run = CliRunner().invoke(app, ["check", "--no-github", "--root", str(checkout.root), *options])
    assert run.exit_code == 1, run.output
    assert not isinstance(run.exception, UnicodeError)
    return run.stdout.removesuffix("\n").split("\n")


def write(checkout: Checkout, text: str, name: str = "sample.yaml") -> Path:
    folder = checkout.root / "papers" / "2024"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"{FIRST_LINE}\n{text}", encoding="utf-8")
    return path


@pytest.mark.parametrize("number", [100, 1234])  # both are names of emoji
def test_the_number_of_a_line_stays_a_number(empty_checkout: Checkout, number: int):
    write(empty_checkout, "#\n" * (number - 2) + "nmae: x\n")
    assert f'papers/2024/sample.yaml:{number}:1: nmae: "nmae" is not a field here (did you mean name?)' in lines(
        empty_checkout
    )


@pytest.mark.parametrize("key", ["[bold]", "[/]", ":smile:", "[link=https://evil.example]x[/link]"])
def test_a_key_that_looks_like_a_style_is_printed_as_it_stands(empty_checkout: Checkout, key: str):
    write(empty_checkout, f'"{key}": x\n')
    assert f'papers/2024/sample.yaml:2:1: {key}: "{key}" is not a field here' in lines(empty_checkout)


HOSTILE_NAMES = {
    "line feed": "a\n::error::forged.yaml",
    "carriage return": "a\r::error::forged.yaml",
    "bidi override": "a\u202eforged.yaml",
    "escape": "a\x1b[2J.yaml",
    "older command": "##[error]forged.yaml",
    "not UTF-8": os.fsdecode(b"\xff.yaml"),
    "like a message": "a.yaml:1:1: ::error::forged.yaml",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_the_name_of_a_file_forges_no_line(empty_checkout: Checkout, name: str):
    write(empty_checkout, "title: x\n", name)
    (line,) = lines(empty_checkout)
    assert line.startswith("papers/2024/")
    assert "has a bad id" in line
    (annotation,) = lines(empty_checkout, "--github")
    assert re.match(r"::error file=papers/2024/[^,:]*,line=1,col=1::has a bad id", annotation)
    (problem,) = json.loads("\n".join(lines(empty_checkout, "--json")))
    for text in (line, annotation, problem["file"], problem["message"]):
        assert text.isprintable()
        assert "##[" not in text


@pytest.mark.parametrize("key", ["a\\n::error::forged", "a\\r##[error]forged", "x" * 3000])
def test_a_key_forges_no_line(empty_checkout: Checkout, key: str):
    write(empty_checkout, f'"{key}": x\n')
    for line in lines(empty_checkout):
        assert PLACE.fullmatch(line)
        assert "##[" not in line
        assert len(line) < 300
    assert all(line.startswith("::error file=papers/") for line in lines(empty_checkout, "--github"))


def test_of_a_file_with_many_problems_the_first_are_listed_and_the_others_counted(empty_checkout: Checkout):
    write(empty_checkout, "".join(f"k{n}: x\n" for n in range(5000)))
    write(empty_checkout, "title: x\n", "other.yaml")
    missing = 5  # authors, published, links, placements, added
    for option in ("--no-github", "--github"):
        printed = lines(empty_checkout, option)
        assert len(printed) == missing + SHOWN_OF_A_FILE + 1
        assert f"{5001 + missing - SHOWN_OF_A_FILE} more problems in this file" in printed[-1]
    assert len(json.loads("\n".join(lines(empty_checkout, "--json")))) == 5001 + 2 * missing


def test_a_link_that_is_asked_about_is_reported(empty_checkout: Checkout, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (empty_checkout.root / "papers" / "2023").symlink_to(outside)
    for path in ("papers", "papers/2023"):
        assert "papers/2023:1:1: is a link" in lines(empty_checkout, str(empty_checkout.root / path))[0]
    dangling = write(empty_checkout, "title: x\n").with_name("dangling.yaml")
    dangling.symlink_to("nowhere")
    assert "dangling.yaml:1:1: is a link" in lines(empty_checkout, str(dangling))[0]
    dangling.unlink()
    dangling.symlink_to(dangling.name)
    assert "dangling.yaml:1:1: is a link" in lines(empty_checkout, str(dangling))[0]


def test_a_path_that_does_not_exist_is_named_on_one_line(empty_checkout: Checkout):
    run = CliRunner().invoke(
        app, ["check", "--root", str(empty_checkout.root), "no\n::error::where", os.fsdecode(b"\xff")]
    )
    assert (run.exit_code, run.stderr) == (2, "skis: no\\u000a::error::where does not exist\n")
