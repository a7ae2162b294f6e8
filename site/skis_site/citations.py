"""Highwire tags, by which citation managers recognize a paper on its page."""

from __future__ import annotations

from taxonomy.store.papers import Paper


def citation_tags(paper: Paper) -> list[dict[str, str]]:
    """Return name and content of each tag, one tag per author. No tag names a PDF, because the website hosts none."""
    tags = [("title", paper.title), *(("author", author.name) for author in paper.authors)]
    tags.append(("publication_date", (paper.published if not paper.venue else str(paper.venue_year)).replace("-", "/")))
    if paper.venue:
        tags.append(("journal_title" if paper.venue.kind == "journal" else "conference_title", paper.venue.name))
    for kind, name in (("doi", "doi"), ("arxiv", "arxiv_id")):
        if kind in paper.links:
            tags.append((name, paper.links[kind].value))
    return [{"name": name, "content": content} for name, content in tags]
