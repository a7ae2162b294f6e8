"""The command line of the kernels: list them, check them here, measure them on a GPU.

torch is imported by the commands that need it, so that `list` works without it.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from reference_kernels.readme import write_readme
from reference_kernels.registry import Card, card, cards, load
from reference_kernels.table import BadResultError

app = typer.Typer(
    name="kernels",
    help="Reference implementations: list them, check them here, measure them on a GPU.",
    no_args_is_help=True,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Units; all of them when none is named.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]


@app.command("list")
def list_units(as_json: AsJson = False) -> None:
    """List all units with their leaf and papers."""
    if as_json:
        typer.echo(json.dumps([{k: v for k, v in vars(c).items() if k != "sections"} for c in cards()], indent=1))
        return
    table = Table("name", "leaf", "what it is", "papers", box=None, header_style="bold")
    for unit in cards():
        table.add_row(unit.name, unit.leaf, unit.title, ", ".join(unit.papers))
    out.print(table)


@app.command("run")
def run(names: Names = None, dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "") -> None:
    """Check units on small random inputs against fp64: on the GPU, or on the CPU in Triton's interpreter."""
    chosen = _choose(names)
    _need_torch()
    import torch

    from reference_kernels.core.device import choose_device

    device = choose_device()
    out.print(f"on {torch.cuda.get_device_name() if device.type == 'cuda' else 'the CPU, in Triton’s interpreter'}")
    wanted = getattr(torch, dtype, None) if dtype else (torch.bfloat16 if device.type == "cuda" else torch.float32)
    if not isinstance(wanted, torch.dtype):
        _stop(f"{dtype} is not a dtype of torch")
    if not wanted.is_floating_point:
        _stop(f"{dtype} is not a floating-point dtype")
    if wanted == torch.bfloat16 and device.type == "cpu":
        _stop("the interpreter has no bfloat16: take float32 or float16, or a GPU")
    failed = sum(_run_one(unit, device, wanted) for unit in chosen)
    raise typer.Exit(1 if failed else 0)


def _run_one(unit: Card, device: Any, dtype: Any) -> int:
    from reference_kernels.core.bench import check

    described = load(unit.name).UNIT
    failed = 0
    for name, shape in described.shapes.items():
        begun = time.perf_counter()
        suited = dtype if dtype in described.dtypes else described.dtypes[0]
        for verdict in check(described, shape, device=device, dtype=suited):
            failed += not verdict.good
            mark = "[green]✓[/]" if verdict.good else "[red]✗[/]"
            out.print(f"{mark} {unit.name}: {name}: {verdict} [dim]{time.perf_counter() - begun:.1f} s[/]")
    return failed


@app.command("bench")
def bench(
    names: Names = None,
    into: Annotated[
        Path | None, typer.Option("--out", help="Folder for the JSON files.", show_default="results/")
    ] = None,
) -> None:
    """Measure units and their peers on this machine's GPU and write the results as JSON."""
    chosen = _choose(names)
    _need_torch()
    import torch

    if not torch.cuda.is_available():
        _stop(
            "there is no GPU here, and the interpreter's times would say nothing. `run` checks the kernels on a CPU; "
            "measured results of others are in reference_kernels/results"
        )
    from reference_kernels.core import ceilings, results
    from reference_kernels.core.worker import Worker

    limits, machine = ceilings.measure(), results.machine()
    machine["taken"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    out.print(machine["gpu"], *(f"{key} {value:.3g}/s" for key, value in limits.as_dict().items()))
    wrong = 0
    with Worker() as worker:
        for unit in chosen:
            measured = {}
            for name in load(unit.name).UNIT.benchmarks:
                try:
                    measured[name] = worker.bench(unit.name, name, limits)
                except Exception as error:  # one case must not cost the others their time on the GPU
                    reason = str(error).split("\n")[0]
                    err.print(f"✗ {unit.name}: {name}: {type(error).__name__}: {reason}", style="red", markup=False)
                    wrong += 1
                    continue
                wrong += not all(c["good"] for c in measured[name]["checks"])
                _show(unit.name, name, measured[name])
            if measured:
                results.write(
                    unit.name,
                    {"unit": unit.name, "machine": machine, "ceilings": limits.as_dict(), "cases": measured},
                    into or results.RESULTS,
                )
    raise typer.Exit(1 if wrong else 0)


def _show(unit: str, case: str, result: dict[str, Any]) -> None:
    if "seconds" not in result:
        out.print(f"[red]✗ {unit}: {case}: wrong, not timed: {result['checks']}[/]")
        return
    mine = result["seconds"]["median"]
    out.print(f"{unit}: {case}: [bold]{mine * 1e6:.1f} us[/], {result['share']:.3f} of the ceiling", end="")
    for name, value in result.get("figures", {}).items():
        out.print(f", {name} {value:.4g}", end="")
    out.print()
    for name, peer in result.get("peers", {}).items():
        if "missing" in peer:
            out.print(f"    [dim]{name}: {peer['missing']}[/]")
        else:
            other = peer["seconds"]["median"]
            out.print(f"    {name}: {other * 1e6:.1f} us, ours is {other / mine:.2f}x as fast")


@app.command("simulate")
def simulate(
    trace: Annotated[
        Path | None, typer.Argument(metavar="TRACE", help="A trace in Mooncake's JSONL; a generated one if left out.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="round-robin, least-loaded or exploit-explore; repeat it to compare.", show_default="all"),
    ] = None,
    order: Annotated[str, typer.Option(help="Who is next within a replica: fcfs or longest-prefix.")] = "fcfs",
    replicas: Annotated[int, typer.Option(help="How many, each with a prefix cache of its own.")] = 4,
    capacity: Annotated[
        int | None, typer.Option(help="Tokens of KV per replica.", show_default="what an 8B model leaves on an H100")
    ] = None,
    speed: Annotated[float, typer.Option(help="Let requests arrive this many times as fast.")] = 1.0,
    ttft: Annotated[float, typer.Option(help="Objective for the time to the first token, in seconds.")] = 5.0,
    tpot: Annotated[float, typer.Option(help="Objective for the time per output token, in seconds.")] = 0.1,
    as_json: AsJson = False,
) -> None:
    """Replay a trace on a model of several replicas and compare how requests are routed among them."""
    from reference_kernels.kvs.serving.policies import ROUTERS
    from reference_kernels.kvs.serving.report import MEANINGS, Objectives, report
    from reference_kernels.kvs.serving.trace import generate_trace, load_trace

    try:
        requests = load_trace(trace) if trace else generate_trace()
        figures = report(
            requests, policy or list(ROUTERS), replicas=replicas, order=order, capacity_tokens=capacity, speed=speed,
            objectives=Objectives(ttft, tpot),
        )  # fmt: skip
    except OSError as error:
        _stop(f"{trace}: {error.strerror}")
    except ValueError as error:
        _stop(str(error))
    if not trace:
        err.print("no trace was given: these are generated conversations", style="dim")
    if as_json:
        facts = {"trace": str(trace) if trace else None, "requests": len(requests)}
        plain = {name: {k: None if v != v else v for k, v in one.items()} for name, one in figures.items()}  # no NaN
        typer.echo(json.dumps({**facts, "replicas": replicas, "order": order, "policies": plain}, indent=1))
        return
    table = Table(f"{len(requests):,} requests, replicas: {replicas}, {order}", box=None, header_style="bold")
    for name in figures:
        table.add_column(name, justify="right")
    for key, meaning in MEANINGS.items():
        values = [one[key] for one in figures.values()]
        table.add_row(meaning, *(f"{v:,.4g}" if isinstance(v, float) else f"{v:,}" for v in values))
    out.print(table, "Times come from a cost model of stated numbers; nothing was measured.")


@app.command("readme")
def readme() -> None:
    """Write reference_kernels/README.md from the units and their results."""
    try:
        out.print(f"wrote {write_readme()}", style="green", markup=False)
    except BadResultError as error:
        err.print(f"kernels: {error}", style="red", markup=False)
        raise typer.Exit(1) from None


def _choose(names: Iterable[str] | None) -> list[Card]:
    """Return the named cards, or all; an unknown name ends the command."""
    try:
        return [card(name) for name in names or ()] or list(cards())
    except KeyError as error:
        _stop(f"there is no unit {error}; `list` names them all")


def _need_torch() -> None:
    """End the command where torch or Triton is missing; import neither, the device is chosen first."""
    for package in ("torch", "triton"):
        if not importlib.util.find_spec(package):
            _stop(f"{package} is not installed: in a clone, pip install -e '.[kernels]'")


def _stop(message: str) -> NoReturn:
    err.print(f"kernels: {message}", style="red", markup=False)
    raise typer.Exit(2)
