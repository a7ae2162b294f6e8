"""`skis site`."""

from __future__ import annotations

import functools
import http.server
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from skis.commands.build import built, run_build
from skis.commands.shared import HERE, Root, checkout_at, err, needs, say, stop_call


def site(
    serve: Annotated[bool, typer.Option("--serve", help="Serve the website locally afterwards, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="Port of that address.")] = 8000,
    root: Root = HERE,
) -> None:
    """Build store, list and exports, and the website from them. All or nothing."""
    checkout = checkout_at(root)
    with needs("site"):
        for package in ("skis_site.render", "mkdocs", "material", "mkdocs_awesome_nav"):
            import_module(package)
    with err.status("building the website"):
        count = run_build(checkout, website=True)
    say(f"{count} papers: {built(checkout, 'site')}/index.html", style="green")
    if serve:
        _serve(checkout.build / "site", port)


def _serve(folder: Path, port: int) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        stop_call(f"cannot serve at port {port}: {error.strerror}")
    say(f"http://127.0.0.1:{port}/ (Ctrl-C ends)")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("")
