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

from skis.build import export
from taxonomy.entries.names import split_name
from taxonomy.exports.bibtex import bibtex_file
from taxonomy.exports.csl import csl_file
from taxonomy.exports.datapackage import FILES
from taxonomy.exports.feeds import LENGTH, atom_feed, json_feed
from taxonomy.exports.records import papers_csv, papers_json, placements_csv

URL = "https://skis.example/"


def test_pybtex_reads_the_bibtex(content):
    entries = parse_string(bibtex_file(content), "bibtex").entries
    assert list(entries) == sorted(content.by_id)
    for key, entry in entries.items():
        paper = content.by_id[key]
        assert len(entry.persons["author"]) == len(paper.authors)
        assert entry.fields["title"].replace("{", "").replace("}", "").replace("\\&", "&") == paper.title
        assert ("booktitle" in entry.fields or "journal" in entry.fields) == (paper.venue is not None)


def test_bibtexparser_reads_the_bibtex(content):
    library = bibtexparser.parse_string(bibtex_file(content))
    assert library.failed_blocks == []
    assert {entry.key for entry in library.entries} == set(content.by_id)


def test_bibtex_keeps_capitals_that_matter(content):
    text = bibtex_file(content)
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
        ("Van Gogh", ("Van", "Gogh")),
    ],
)
def test_names_are_split(name, parts):
    assert split_name(name) == parts


def test_citeproc_formats_the_csl(content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from citeproc import Citation, CitationItem, CitationStylesBibliography, CitationStylesStyle, formatter
        from citeproc.source.json import CiteProcJSON

        items = json.loads(csl_file(content))
        style = CitationStylesStyle("harvard-cite-them-right", validate=False)
        bibliography = CitationStylesBibliography(style, CiteProcJSON(items), formatter.plain)
        for item in items:
            bibliography.register(Citation([CitationItem(item["id"])]))
        lines = [str(line) for line in bibliography.bibliography()]
    assert len(lines) == len(content.papers)
    assert any("KIVI" in line and "Liu, Z" in line and "2024" in line for line in lines)


def test_frictionless_validates_the_package(content, store: Path, tmp_path: Path):
    (tmp_path / store.name).write_bytes(store.read_bytes())
    export(content, tmp_path, URL)
    report = frictionless.validate(str(tmp_path / "datapackage.json"))
    assert report.valid, report.flatten(["name", "type", "message"])
    package = json.loads((tmp_path / "datapackage.json").read_text())
    for resource in package["resources"]:
        data = (tmp_path / resource["path"]).read_bytes()
        assert resource["hash"] == "sha256:" + hashlib.sha256(data).hexdigest()
        assert resource["bytes"] == len(data)
    assert {resource["path"] for resource in package["resources"]} == set(FILES)


def test_frictionless_notices_a_changed_file(content, store: Path, tmp_path: Path):
    (tmp_path / store.name).write_bytes(store.read_bytes())
    export(content, tmp_path, URL)
    with (tmp_path / "papers.csv").open("a") as file:
        file.write("kivi\n")
    assert not frictionless.validate(str(tmp_path / "datapackage.json")).valid


def test_tables_have_a_row_per_paper_and_per_placement(content):
    papers = list(csv.DictReader(io.StringIO(papers_csv(content))))
    assert [row["id"] for row in papers] == [paper.id for paper in content.papers]
    placements = list(csv.DictReader(io.StringIO(placements_csv(content))))
    assert len(placements) == sum(len(paper.placements) for paper in content.papers)
    of_survey = {paper.id for paper in content.papers if paper.survey}
    assert sum(row["role"] == "primary" and row["paper_id"] in of_survey for row in placements) == 209


def test_json_has_all_facts_and_no_empty_ones(content, content_of, sample):
    assert len(json.loads(papers_json(content))) == len(content.papers)
    record = json.loads(papers_json(content_of({"sample": sample})))[0]
    assert record["behaviors"][0]["technique"] == {"en": "Keeps two bits per number", "zh": "每个数两比特"}
    assert record["objectives"][0]["gains"][0]["factor"] == 2.6
    assert record["ids"] == {"arxiv": "2405.12345"}
    assert "award" not in record
    assert "note" not in record["behaviors"][0]


def test_the_atom_feed_is_sound(content):
    feed = feedparser.parse(atom_feed(content, URL))
    assert not feed.bozo
    assert len(feed.entries) == min(LENGTH, len(content.papers))
    assert len({entry.id for entry in feed.entries}) == len(feed.entries)
    assert all(entry.link.startswith(f"{URL}papers/") and entry.id.startswith("urn:uuid:") for entry in feed.entries)
    assert feed.feed.updated == f"{content.last_added}T00:00:00Z"


def test_both_feeds_have_the_same_items(content):
    feed = json.loads(json_feed(content, URL))
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    atom = feedparser.parse(atom_feed(content, URL))
    assert [item["id"] for item in feed["items"]] == [entry.id for entry in atom.entries]
    assert all(item["content_text"] for item in feed["items"])


def test_ids_of_feed_items_do_not_depend_on_where_the_site_is(content):
    here, there = (json.loads(json_feed(content, url)) for url in (URL, "https://elsewhere.example/atlas/"))
    assert [item["id"] for item in here["items"]] == [item["id"] for item in there["items"]]


def test_feeds_of_an_empty_atlas_are_sound(content_of):
    assert not feedparser.parse(atom_feed(content_of({}), URL)).bozo
