"""Checkouts of the atlas to work on, and entries to put into them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from skis.settings import Checkout, find_checkout
from taxonomy.entries.entry import Entry
from taxonomy.entries.writing import entry_text

ROOT = Path(__file__).parent.parent
SKIS = str(Path(sys.executable).parent / "skis")  # the command, as installed beside this Python

SAMPLE: dict[str, Any] = {
    "title": "Sample: A Paper on Caches",
    "name": "Sample",
    "authors": ["Ada Lovelace", "Íñigo Goiri"],
    "published": "2024-05-06",
    "venue": "ICML 2024",
    "links": {"paper": "https://example.org/sample.pdf", "arxiv": "2405.12345"},
    "summary": {"en": "It keeps less. It costs a little.", "zh": "少存一些，略有代价。"},
    "placements": [
        {
            "leaf": "kvcc/quantization",
            "role": "primary",
            "technique": {"en": "Keeps two bits per number", "zh": "每个数两比特"},
            "why": "The abstract says so",
            "source": "abstract",
        },
        {"leaf": "kvs", "role": "secondary", "source": "full-text", "note": "Only in the appendix"},
    ],
    "effects": {
        "gpu-memory": {
            "effect": "direct",
            "source": "abstract",
            "gains": [
                {"factor": 2.6, "kind": "peak memory, lower", "against": "fp16", "setting": "7B", "up_to": True},
                {"percent": 37.5, "kind": "peak memory, lower"},
            ],
        },
        "quality": {"effect": "indirect", "source": "abstract", "note": "Small"},
    },
    "evaluation": {"models": ["Llama-2-7B"], "hardware": ["A100"], "baselines": ["fp16"]},
    "traits": {"quantization": {"key": "per-channel", "bits": "2", "outliers": "kept apart"}},
    "read": "full-text",
    "added": "2026-11-24",
}


def new_checkout(folder: Path, papers: Path | None = None) -> Checkout:
    """Make a checkout without papers, or with all those of the folder `papers`."""
    for name in ("mkdocs.yml", "mkdocs.zh.yml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "site", folder / "site", ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    if (ROOT / "site" / "node_modules").is_dir():
        (folder / "site" / "node_modules").symlink_to(ROOT / "site" / "node_modules")
    shutil.copytree(ROOT / "taxonomy" / "vocabulary", folder / "taxonomy" / "vocabulary")
    if papers:
        shutil.copytree(papers, folder / "papers")
    else:
        (folder / "papers").mkdir()
    return find_checkout(folder)


def whole_checkout(folder: Path) -> Checkout:
    """Make a checkout with all that the repository has: papers and kernels."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "reference_kernels", folder / "reference_kernels", ignore=ignored)
    return new_checkout(folder, ROOT / "papers")


def write_entry(checkout: Checkout, paper_id: str, facts: dict[str, Any]) -> Path:
    """Write a valid entry's file into its place."""
    entry = Entry.model_validate(facts)
    path = checkout.root / "papers" / entry.published[:4] / f"{paper_id}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(entry_text(entry), encoding="utf-8")
    return path


def some_papers(folder: Path, count: int = 20) -> Path:
    """Copy `count` of the repository's papers into `folder`: KIVI, Quest, and one of every leaf among them."""
    chosen = {path for path in ROOT.glob("papers/*/*.yaml") if path.stem in ("kivi", "quest")}
    by_leaf: dict[str, Path] = {}
    for path in sorted(ROOT.glob("papers/*/*.yaml"), key=lambda path: path.stem):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("  - leaf: "):
                by_leaf.setdefault(line, path)
    for path in (*by_leaf.values(), *sorted(ROOT.glob("papers/2025/*.yaml"))):
        if len(chosen) < count:
            chosen.add(path)
    for path in chosen:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name / path.name)
    shutil.copy(ROOT / "papers" / "out_of_scope.yaml", folder / "out_of_scope.yaml")
    return folder
