"""The exports are read by the programs they are made for, and say what the store says."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import warnings
from pathlib import Path

import bibtexparser
import feedparser
import frictionless
import pytest
from pybtex.database import parse_string

from taxonomy.entries.names import split_name
from taxonomy.exports import EXPORTS, write_exports
from taxonomy.exports.bibtex import bibtex_file
from taxonomy.exports.csl import csl_file
from taxonomy.exports.feeds import LENGTH, atom_feed, json_feed
from taxonomy.exports.records import papers_csv, papers_json, placements_csv

URL = "https://skis.example/"


def test_pybtex_reads_the_bibtex(atlas):
    entries = parse_string(bibtex_file(atlas), "bibtex").entries
    assert list(entries) == sorted(atlas.by_id)
    for key, entry in entries.items():
        paper = atlas.by_id[key]
        assert len(entry.persons["author"]) == len(paper.authors)
        assert entry.fields["title"].replace("{", "").replace("}", "").replace("\\&", "&") == paper.title
        assert ("booktitle" in entry.fields or "journal" in entry.fields) == (paper.venue is not None)


def test_bibtexparser_reads_the_bibtex(atlas):
    library = bibtexparser.parse_string(bibtex_file(atlas))
    assert library.failed_blocks == []
    assert {entry.key for entry in library.entries} == set(atlas.by_id)


def test_bibtex_keeps_capitals_that_matter(atlas):
    text = bibtex_file(atlas)
    assert "title = {{KIVI}: A Tuning-Free Asymmetric 2bit Quantization for {KV} Cache}" in text
    assert "{FlashInfer}: Efficient and Customizable Attention Engine for {LLM} Inference Serving" in text


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Ada Lovelace", ("Ada", "Lovelace")),
        ("Ran Ben Basat", ("Ran", "Ben Basat")),
        ("Antonio De Domenico", ("Antonio", "De Domenico")),
        ("Ludwig van der Berg", ("Ludwig", "van der Berg")),
        ("Sammy Davis Jr.", ("Sammy", "Davis Jr.")),
        ("Plato", ("", "Plato")),
        ("Di Wu", ("Di", "Wu")),  # a given name that looks like a particle
    ],
)
def test_names_are_split(name, parts):
    assert split_name(name) == parts


@pytest.mark.slow
def test_citeproc_formats_the_csl(atlas):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from citeproc import Citation, CitationItem, CitationStylesBibliography, CitationStylesStyle, formatter
        from citeproc.source.json import CiteProcJSON

        items = json.loads(csl_file(atlas))
        style = CitationStylesStyle("harvard-cite-them-right", validate=False)
        bibliography = CitationStylesBibliography(style, CiteProcJSON(items), formatter.plain)
        for item in items:
            bibliography.register(Citation([CitationItem(item["id"])]))
        lines = [str(line) for line in bibliography.bibliography()]
    assert len(lines) == len(atlas.papers)
    assert any("KIVI" in line and "Liu, Z" in line and "2024" in line for line in lines)


def test_frictionless_validates_the_package(atlas, store: Path, tmp_path: Path):
    (tmp_path / store.name).write_bytes(store.read_bytes())
    write_exports(atlas, tmp_path, URL)
    report = frictionless.validate(str(tmp_path / "datapackage.json"))
    assert report.valid, report.flatten(["name", "type", "message"])
    package = json.loads((tmp_path / "datapackage.json").read_text())
    for resource in package["resources"]:
        data = (tmp_path / resource["path"]).read_bytes()
        assert resource["hash"] == "sha256:" + hashlib.sha256(data).hexdigest()
        assert resource["bytes"] == len(data)
    assert {resource["path"] for resource in package["resources"]} == {
        export.name for export in EXPORTS.values() if export.format
    }
    assert {path.name for path in tmp_path.iterdir()} == set(EXPORTS)


def test_frictionless_notices_a_changed_file(atlas, store: Path, tmp_path: Path):
    (tmp_path / store.name).write_bytes(store.read_bytes())
    write_exports(atlas, tmp_path, URL)
    with (tmp_path / "papers.csv").open("a") as file:
        file.write("kivi\n")
    assert not frictionless.validate(str(tmp_path / "datapackage.json")).valid


def test_tables_have_a_row_per_paper_and_per_placement(atlas):
    papers = list(csv.DictReader(io.StringIO(papers_csv(atlas))))
    assert [row["id"] for row in papers] == [paper.id for paper in atlas.papers]
    placements = list(csv.DictReader(io.StringIO(placements_csv(atlas))))
    assert len(placements) == sum(len(paper.placements) for paper in atlas.papers)
    of_survey = {paper.id for paper in atlas.papers if paper.survey}
    assert sum(row["role"] == "primary" and row["paper_id"] in of_survey for row in placements) == 209


def test_json_has_all_facts_and_no_empty_ones(atlas, atlas_of, sample):
    assert len(json.loads(papers_json(atlas))) == len(atlas.papers)
    record = json.loads(papers_json(atlas_of({"sample": sample})))[0]
    assert record["placements"][0]["technique"] == {"en": "Keeps two bits per number", "zh": "每个数两比特"}
    assert record["effects"][0]["gains"][0]["factor"] == 2.6
    assert record["ids"] == {"arxiv": "2405.12345"}
    assert "award" not in record
    assert "note" not in record["placements"][0]


def test_the_atom_feed_is_sound(atlas):
    feed = feedparser.parse(atom_feed(atlas, URL))
    assert not feed.bozo
    assert len(feed.entries) == min(LENGTH, len(atlas.papers))
    assert len({entry.id for entry in feed.entries}) == len(feed.entries)
    assert all(entry.link.startswith(f"{URL}papers/") and entry.id.startswith("urn:uuid:") for entry in feed.entries)
    assert feed.feed.updated == f"{atlas.last_added}T00:00:00Z"


def test_both_feeds_have_the_same_items(atlas):
    feed = json.loads(json_feed(atlas, URL))
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    atom = feedparser.parse(atom_feed(atlas, URL))
    assert [item["id"] for item in feed["items"]] == [entry.id for entry in atom.entries]
    assert all(item["content_text"] for item in feed["items"])


def test_ids_of_feed_items_do_not_depend_on_where_the_site_is(atlas):
    here, there = (json.loads(json_feed(atlas, url)) for url in (URL, "https://elsewhere.example/atlas/"))
    assert [item["id"] for item in here["items"]] == [item["id"] for item in there["items"]]


def test_feeds_of_an_empty_atlas_are_sound(atlas_of):
    assert not feedparser.parse(atom_feed(atlas_of({}), URL)).bozo
