"""Writes this package's README.md from the units' cards and the files of results, without torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from reference_kernels.registry import ROOT
from reference_kernels.table import Result, Row, table

HEADER = ("leaf", "method", "papers", "case", "time", "share", "gain")
UNITS = ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s"))

TEXT = """\
# Reference kernels

KV cache methods from the papers of the atlas, as code that runs: one readable file per method, in PyTorch and Triton.
Each is checked against a plain reference in fp64 and measured beside what one would use otherwise. The package needs
nothing else of this repository.

This page is written by `python -m reference_kernels readme`; change the units, not the page.

## Measure on a GPU

From a clone, on any NVIDIA GPU with bf16 (Ampere or newer):

```sh
pip install -e '.[kernels]'
python -m reference_kernels bench      # all units; `bench kivi quest` takes two of them
```

A result that is wrong is reported and not timed. Peers that are not installed are named and left out. Figures go to
`reference_kernels/results/<gpu>/<unit>.json` with GPU, driver, versions and commit. The cases are sized for
an H100 of 80 GB.

## Check on a CPU

On Linux, Triton's interpreter runs the same kernels without a GPU. torch's build for the CPU saves gigabytes; these are
the versions of Triton and NumPy that the tests use:

```sh
pip install torch --index-url https://download.pytorch.org/whl/cpu
pip install -e '.[kernels]' triton==3.6.0 'numpy<2.4'
python -m reference_kernels run        # small and odd shapes, each against fp64; exit status 1 if one is wrong
```

An output may be off from fp64 by twice the error that the plain reference makes in the same precision, plus one
rounding of its largest value. No tolerance is set by hand. Integers must be equal. On a CPU all check shapes hold. On
an H100 all hold in fp16 and bf16; in fp32, 11 of 116 exceed the bound, by a factor of up to 2.3 and Quest's bounds of
pages most, since `tl.dot` adds its terms in one chain and PyTorch in blocks. `run` takes bf16 on a GPU unless `--dtype`
says otherwise.

`python -m reference_kernels list` names the units and needs no torch; `simulate` replays a trace of requests on a model
of several replicas and needs no GPU.

## How to read a unit

Top down. The docstring is the card: the equation (**Computes**), shapes and dtypes (**Layout**), the bytes and FLOPs
that it cannot do without (**Cost**), what the paper reports (**Published**), what is done otherwise here (**Differs**).
Then come the functions to import, the Triton kernels, `reference` (the specification, in plain PyTorch), `make_inputs`,
`work`, and last `UNIT`, which ties them together for tests and benchmarks. `core/` holds what units share.

## Units

**time** is the median with a cold L2 cache. **share** is that of the ceiling: the least time that the bandwidth and the
matmul rate measured in the same run allow, over the time taken. **gain** is how many times as fast it is as the fastest
peer with 16 bits per number (peers with fewer bits follow, where they were measured); below 1 it is slower.
"""


def readme(package: Path = ROOT) -> str:
    """Return the text of README.md for the package in a folder. Raises BadResultError as `table` does."""
    rows = table(package)
    papers = {path.stem: f"../papers/{path.parent.name}/{path.name}" for path in package.parent.glob("papers/*/*.yaml")}
    gpus = list(dict.fromkeys(result["gpu"] for row in rows for result in row["results"]))
    parts = [TEXT]
    for gpu in gpus:
        days = sorted({r["taken"][:10] for row in rows for r in row["results"] if r["gpu"] == gpu})
        span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        parts += [f"### {_plain(gpu)}\n\nMeasured {_plain(span)}.\n", _table(rows, gpu, papers)]
    return "\n".join(parts if gpus else [*parts, _table(rows, None, papers)])


def write_readme(package: Path = ROOT) -> Path:
    """Write README.md and return where."""
    path = package / "README.md"
    path.write_text(readme(package), encoding="utf-8", newline="\n")
    return path


def duration(seconds: float) -> str:
    """Return a time with three digits and the unit that suits it: `83.3 µs`."""
    values = [(float(f"{seconds / scale:.3g}"), unit) for scale, unit in UNITS]
    value, unit = next((pair for pair in values if pair[0] < 1000), values[-1])
    return f"{value:g} {unit}"


def _table(rows: Iterable[Row], gpu: str | None, papers: dict[str, str]) -> str:
    lines = [HEADER, ("---",) * 4 + ("---:",) * 2 + ("---",)]
    for row in rows:
        card = (
            row["leaf"],
            f"[{_plain(row['name'])}]({row['file'].removeprefix('reference_kernels/')})",
            ", ".join(f"[{_plain(p)}]({papers[p]})" if p in papers else _plain(p) for p in row["papers"]),
        )
        measured = [result for result in row["results"] if result["gpu"] == gpu]
        for result in measured:
            lines.append((*card, _plain(result["case"]), *_figures(result)))
            card = ("", "", "")  # said once
        if not measured:
            lines.append((*card, "not measured", "", "", ""))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figures(result: Result) -> tuple[str, str, str]:
    if result["seconds"] is None or result["share"] is None:
        return "wrong, not timed", "", ""
    share = 100 * result["share"]
    gains = [(result["gain"], result["peer"])] if result["gain"] and result["peer"] else []
    gains += sorted((gain, name) for name, gain in result["others"].items())
    return (
        duration(result["seconds"]),
        f"{share:.0f} %" if share >= 10 else f"{share:.1f} %",
        "; ".join(f"{gain:.2f}× {_plain(name)}" for gain, name in gains),
    )


def _plain(text: str) -> str:
    """Escape what Markdown or HTML would read as its own."""
    return re.sub(r"([\\`*{}\[\]()<>#|&!~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))
