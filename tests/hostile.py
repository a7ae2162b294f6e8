"""Texts that try to be more than text. All of them are legal in an entry; none of them may do anything anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.reference_kernels.results import TIMED, made_up, write_result

PAYLOADS = [
    "<script>window.pwned=1</script>",
    "</title><script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "' onmouseover='window.pwned=1",
    "<svg/onload=window.pwned=1>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "</script><script>window.pwned=1</script>",
    "<!-- --><script>window.pwned=1</script><!--",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "&#60;script&#62;window.pwned=1&#60;/script&#62;",
    "<style>body{display:none}</style>",
    "</code></pre><script>window.pwned=1</script>",
    "]]><script>window.pwned=1</script>",
    "x](javascript:window.pwned=1)",
    "[x](javascript:window.pwned=1)",
    "![x](https://evil.example/x.png)",
    "[x][y] and [y]: javascript:window.pwned=1",
    "<javascript:window.pwned=1>",
    "<https://evil.example/>",
    "**bold** *em* __under__ ~~gone~~ `code`",
    "# Heading",
    "## Heading {: onclick=window.pwned=1 }",
    "x {: #y .z onclick=window.pwned=1 }",
    "- item",
    "1. item",
    "> quote",
    "| a | b |",
    "---",
    "===",
    "```js",
    "~~~",
    "    indented code",
    "[TOC]",
    "*[HTML]: abbreviation",
    "[^1] and [^1]: footnote",
    "$x^2$ and $$y$$",
    ":smile: and :material-skull:",
    "{{ 7 * 7 }} {% raw %} {# x #}",
    "--8<-- '/etc/passwd'",
    "!ENV [HOME]",
    "key: value # comment",
    '=HYPERLINK("https://evil.example","x")',
    "+1+cmd|' /C calc'!A0",
    "-1+1",
    "@SUM(1+1)",
    "{unbalanced",
    "unbalanced}",
    "}, author = {Evil",
    "\\input{/etc/passwd}",
    "\\\\ \\% \\{ \\",
    "100% & #1 $5 _x_ ~y^2",
    "@article{evil, title={x}}",
    '" # " # {x}',
    "'; DROP TABLE paper; --",
    "www.evil.example and mail@evil.example",
    "https://evil.example/a or HTTP://evil.example or 1http://evil.example",
    "ftp://evil.example/a (www.evil.example) _www.evil.example_",
    "mailto:mail@evil.example xmpp:mail@evil.example/a a.b+c_d-e@evil.example.",
    "x;=1+1",
    '; "=HYPERLINK(""https://evil.example"")',
    "\uff1d1+1",
    "\uff0b1 ; \uff0d1 ;\uff20SUM(1)",
    "Ada Lovelace and Bob Smith and others",
    *(OBJECT_NAMES := ["__proto__", "constructor", "__config"]),  # what every object of a script has
    "@everyone #1 GH-1",
    "e\u0301 \u4e2d\u6587 \U0001f600 \u0645\u0631\u062d\u0628\u0627",
]


def hostile_entry(number: int, payload: str) -> dict[str, Any]:
    """Return an entry with `payload` in every field that takes free text."""
    text = payload if payload in OBJECT_NAMES else f"{payload} {number}"  # titles must differ
    return {
        "title": text,
        "name": payload[:60],
        "aliases": [f"{payload} alias {number}"],
        "authors": ["Ada Lovelace", "D'Arcy *Bob* `Smith` (Jr)"],
        "published": "2024-05",
        "venue": "ICML 2024",
        "award": payload[:60],
        "links": {
            "paper": f"https://example.org/{number}?a=b&c=(d)*e*[f]_g_~h'i!",
            "code": f"https://example.org/c{number}",
        },
        "summary": {"en": text, "zh": text},
        "placements": [
            {
                "leaf": "kvcc/quantization",
                "role": "primary",
                "technique": {"en": text, "zh": text},
                "why": text,
                "note": text,
                "source": "abstract",
            },
            {"leaf": "kvs", "role": "primary", "technique": {"en": text}, "source": "abstract"},
        ],
        "effects": {
            objective: {
                "effect": "direct",
                "source": "abstract",
                "note": text,
                "gains": [{"factor": 2, "kind": text, "against": text, "setting": text}],
            }
            for objective in ("energy", "mean-latency", "throughput", "gpu-memory")  # the last three have charts
        },
        "evaluation": {"models": [text], "hardware": [text], "baselines": [text]},
        "traits": {"quantization": {"outliers": text, "regions": text}},
        "added": "2026-11-24",
    }


def hostile_kernels(folder: Path) -> None:
    """Write a kernel into an atlas whose name, title, cases, peers and GPU try to be more than text."""
    name = 'x" onclick=window.pwned=1 "><img src=x onerror=window.pwned=1>'
    package = folder / "reference_kernels"
    (package / "kvs").mkdir(parents=True)
    card = f"<script>window.pwned=1</script> **{PAYLOADS[2]}**\n\n:leaf: kvs\n:papers: hostile-0\n"
    (package / "kvs" / f"{name}.py").write_text(repr(card), encoding="utf-8")
    cases = {payload: TIMED | {"peers": {payload: {"seconds": {"median": 1.0}}}} for payload in PAYLOADS}
    result = write_result(package, made_up("hostile", cases, gpu=PAYLOADS[0], taken=PAYLOADS[1]))
    result.rename(result.with_name(f"{name}.json"))


ENTRIES = {f"hostile-{number}": hostile_entry(number, payload) for number, payload in enumerate(PAYLOADS)}
