"""The documentation of the commands: complete, generated, and true."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

from skis.cli import app
from skis.documentation import commands_page
from skis.settings import Checkout
from tests.checkouts import ROOT, SAMPLE, new_checkout, write_entry
from tests.skis.calls import skis

PAGES = ("README.md", "CONTRIBUTING.md")


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name, `skis kernels run`."""
    waiting = [("skis", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        for inner, below in getattr(command, "commands", {}).items():
            waiting.append((f"{name} {inner}", below))


@pytest.mark.parametrize(("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in every_command()])
def test_every_command_and_option_has_help_and_is_in_the_documentation(name: str, command: click.Command):
    page = html.unescape((ROOT / "docs" / "commands.md").read_text(encoding="utf-8"))
    assert command.help
    section = page if name == "skis" else re.split(r"\n##+ `", page.split(f"## `{name}`\n", 1)[1])[0]
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name}"
        assert parameter.help.splitlines()[0] in section
        if parameter.param_type_name == "option":
            assert all(option in section for option in parameter.opts)


def test_the_page_of_the_commands_is_as_generated():
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == commands_page(), "`make docs` renews it"


def documented() -> list[str]:
    """Every call of `skis` in a block of code, or in backquotes, that README and CONTRIBUTING hold."""
    calls = set()
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        lines = [
            line
            for block in re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, re.S | re.M)
            for line in block.splitlines()
        ]
        lines += re.findall(r"`([^`\n]+)`", text)
        for line in lines:
            match = re.match(r"(?:\$ )?(?:\.venv/bin/)?skis ([^#]+)", line.strip())
            if match and not re.search(r"[\[\]{}…]|--serve|--help|^(site|kernels (bench|run))\b", match[1]):
                calls.add(match[1].strip())
    return sorted(calls)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout of one paper by the name of KIVI, built."""
    checkout = new_checkout(tmp_path_factory.mktemp("documented"))
    write_entry(checkout, "kivi", SAMPLE | {"title": "KIVI: 2-bit quantization", "added": "2026-11-24"})
    assert skis("build", where=checkout.root).returncode == 0
    return checkout


@pytest.mark.parametrize("call", documented())
@pytest.mark.slow
def test_every_documented_call_runs(built: Checkout, call: str):
    answers = "\n".join(["New: a paper", "Ada Lovelace", "2025-03", "https://example.org/n", "kvs", "It", call, "", ""])
    run = skis(*shlex.split(call), where=built.root, stdin=answers)
    complete = "--complete" in call  # it lists what the sample lacks
    assert run.returncode == int(complete), run.stderr


def test_calls_are_found():
    assert {"check", "build", "new", "stats", "show kivi --bibtex"} <= set(documented())


def test_make_targets_that_are_named_exist(root: Path):
    makefile = (root / "Makefile").read_text()
    text = "".join((root / page).read_text() for page in PAGES)
    for target in set(re.findall(r"`make (\w+)|^make (\w+)", text, re.M)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.M), target
