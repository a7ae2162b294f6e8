"""What `pip install` takes along is what is there."""

from __future__ import annotations

import tomllib
from pathlib import Path


def test_every_package_is_installed(root: Path):
    setup = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    places = {setup["package-dir"].get(name, name.replace(".", "/")) for name in setup["packages"]}
    tops = ("taxonomy", "skis", "site/skis_site", "reference_kernels", "analysis")
    found = {path.parent.relative_to(root).as_posix() for top in tops for path in (root / top).rglob("*.py")}
    assert places == found
    assert all((root / place / "__init__.py").is_file() for place in places)
