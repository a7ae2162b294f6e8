"""Atom and JSON feeds of what was added last."""

from __future__ import annotations

import json
import uuid
from xml.etree import ElementTree as Xml

from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper

NAMESPACE = uuid.UUID("6ab2c7a4-6d0b-5c1e-9c39-0d6b1f4c5a10")  # the atlas's own; it makes ids that never change
ATOM = "http://www.w3.org/2005/Atom"
TITLE = "sKis Atlas: additions"
LENGTH = 100


def atom_feed(atlas: Atlas, site_url: str) -> str:
    """Return the feed as Atom 1.0 (RFC 4287)."""
    Xml.register_namespace("", ATOM)
    feed = Xml.Element(f"{{{ATOM}}}feed")
    _text(feed, "title", TITLE)
    _text(feed, "id", _urn("feed"))
    _text(feed, "updated", _timestamp(atlas.last_added or "2026-01-01"))
    _link(feed, "self", f"{site_url}data/feed.atom", "application/atom+xml")
    _link(feed, "alternate", site_url, "text/html")
    _text(Xml.SubElement(feed, f"{{{ATOM}}}author"), "name", "sKis Atlas")
    for paper in newest_additions(atlas):
        entry = Xml.SubElement(feed, f"{{{ATOM}}}entry")
        _text(entry, "title", paper.title)
        _text(entry, "id", _urn(paper.id))
        _text(entry, "updated", _timestamp(paper.added))
        _link(entry, "alternate", page_url(site_url, paper), "text/html")
        for author in paper.authors:
            _text(Xml.SubElement(entry, f"{{{ATOM}}}author"), "name", author.name)
        for placement in paper.placements:
            Xml.SubElement(entry, f"{{{ATOM}}}category", term=placement.leaf.code, label=placement.leaf.label.en or "")
        _text(entry, "summary", _summary(paper))
    Xml.indent(feed)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(feed, encoding="unicode") + "\n"


def json_feed(atlas: Atlas, site_url: str) -> str:
    """Return the feed as JSON Feed 1.1."""
    feed = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": TITLE,
        "home_page_url": site_url,
        "feed_url": f"{site_url}data/feed.json",
        "language": "en",
        "items": [
            {
                "id": _urn(paper.id),
                "url": page_url(site_url, paper),
                "external_url": paper.url,
                "title": paper.title,
                "content_text": _summary(paper),
                "date_published": _timestamp(paper.added),
                "authors": [{"name": author.name} for author in paper.authors],
                "tags": [placement.leaf.code for placement in paper.placements],
            }
            for paper in newest_additions(atlas)
        ],
    }
    return json.dumps(feed, ensure_ascii=False, indent=1) + "\n"


def newest_additions(atlas: Atlas) -> list[Paper]:
    """Return the papers added last, newest first."""
    return sorted(atlas.papers, key=lambda paper: paper.added, reverse=True)[:LENGTH]


def page_url(site_url: str, paper: Paper) -> str:
    """Return the address of the paper's page. `site_url` ends in a slash."""
    return f"{site_url}papers/{paper.id}.html"


def _summary(paper: Paper) -> str:
    return paper.summary.en or ". ".join(p.technique.get("en") for p in paper.placements if p.technique)


def _urn(name: str) -> str:
    return uuid.uuid5(NAMESPACE, name).urn


def _timestamp(day: str) -> str:
    return f"{day}T00:00:00Z"


def _text(parent: Xml.Element, tag: str, text: str) -> None:
    Xml.SubElement(parent, f"{{{ATOM}}}{tag}").text = text


def _link(parent: Xml.Element, rel: str, href: str, kind: str) -> None:
    Xml.SubElement(parent, f"{{{ATOM}}}link", rel=rel, href=href, type=kind)
