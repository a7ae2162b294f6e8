"""The page that documents every command and option, as typer writes it. `python -m skis.documentation` prints it."""

from __future__ import annotations

import subprocess
import sys

HEAD = "<!-- Written by `make docs` from the commands' own help. -->\n\n"


def commands_page() -> str:
    """Return the text of docs/commands.md."""
    command = [sys.executable, "-m", "typer", "skis.cli", "utils", "docs", "--name", "skis", "--title", "Commands"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (constants)
    return HEAD + run.stdout.strip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(commands_page())
