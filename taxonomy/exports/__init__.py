"""The store in the formats that other programs read. `EXPORTS` is the one table of them all."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from taxonomy.exports.bibtex import bibtex_file
from taxonomy.exports.csl import csl_file
from taxonomy.exports.datapackage import data_package
from taxonomy.exports.datasette import datasette_metadata
from taxonomy.exports.export import Export
from taxonomy.exports.feeds import atom_feed, json_feed
from taxonomy.exports.records import papers_csv, papers_json, placements_csv
from taxonomy.store.atlas import Atlas
from taxonomy.store.row import Words

STORE = "skis.db"
PACKAGE = "datapackage.json"

EXPORTS: dict[str, Export] = {
    export.name: export
    for export in (
        Export(
            STORE,
            Words("the whole store as an SQLite database", "完整数据库，SQLite"),
            "application/vnd.sqlite3",
            format="sqlite",
        ),
        Export(
            PACKAGE,
            Words("Frictionless description, with checksums", "Frictionless 描述，含校验和"),
            "application/json",
        ),
        Export(
            "feed.atom",
            Words("additions, Atom", "新增条目，Atom"),
            "application/atom+xml",
            atom_feed,
        ),
        Export(
            "feed.json",
            Words("additions, JSON Feed", "新增条目，JSON Feed"),
            "application/feed+json",
            json_feed,
        ),
        Export(
            "metadata.yml",
            Words("titles and descriptions for Datasette", "Datasette 所用的标题与说明"),
            "application/yaml",
            lambda _atlas, _site: datasette_metadata(),
        ),
        Export(
            "papers.bib",
            Words("all papers as BibTeX", "全部论文，BibTeX"),
            "application/x-bibtex",
            lambda atlas, _site: bibtex_file(atlas),
            format="bib",
        ),
        Export(
            "papers.csl.json",
            Words("all papers as CSL-JSON, for citation processors", "全部论文，CSL-JSON，供引文处理器使用"),
            "application/vnd.citationstyles.csl+json",
            lambda atlas, _site: csl_file(atlas),
            format="json",
        ),
        Export(
            "papers.csv",
            Words("one row per paper", "每篇论文一行"),
            "text/csv",
            lambda atlas, _site: papers_csv(atlas),
            format="csv",
        ),
        Export(
            "papers.json",
            Words("all facts of all papers", "全部论文的全部信息"),
            "application/json",
            lambda atlas, _site: papers_json(atlas),
            format="json",
        ),
        Export(
            "placements.csv",
            Words("one row per paper and leaf, with its role", "每篇论文的每个归类一行"),
            "text/csv",
            lambda atlas, _site: placements_csv(atlas),
            format="csv",
        ),
    )
}


def write_exports(atlas: Atlas, folder: Path, site_url: str) -> None:
    """Write every export into `folder`, in which the store lies already. `site_url` ends in a slash.

    Raises OSError where a file cannot be written.
    """
    for export in EXPORTS.values():
        if export.write:
            _write(folder / export.name, export.write(atlas, site_url))
    _write(folder / PACKAGE, data_package(folder, EXPORTS.values(), version("skis-atlas")))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
