"""BibTeX: one entry per paper, keyed by the paper's id."""

from __future__ import annotations

import re

from taxonomy.exports.escaping import bibtex
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Author, Paper

# A word with a capital or a digit after its first letter loses its meaning in lower case: LLM, KVQuant, H2O.
_PROTECTED = re.compile(r"(?<![\w\\])(?=\w+[A-Z0-9])[\w-]+")


def bibtex_entry(paper: Paper) -> str:
    """Return the paper as one BibTeX entry with a line end."""
    kind, fields = _kind(paper)
    fields = {
        "title": _title(paper),
        "author": " and ".join(bibtex_author(author) for author in paper.authors),
        **fields,
        **_identifiers(paper),
    }
    body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@{kind}{{{paper.id},\n{body}}}\n"


def bibtex_file(atlas: Atlas) -> str:
    """Return all papers, in order of id."""
    return "\n".join(bibtex_entry(paper) for paper in sorted(atlas.papers, key=lambda p: p.id))


def _kind(paper: Paper) -> tuple[str, dict[str, str]]:
    if paper.venue is None:
        return "misc", {"year": str(paper.year)}
    name, year = bibtex(paper.venue.name), str(paper.venue_year)
    if paper.venue.kind == "journal":
        return "article", {"journal": name, "year": year}
    return "inproceedings", {"booktitle": name, "year": year}


def _title(paper: Paper) -> str:
    title = _PROTECTED.sub(lambda m: "\0" + m[0] + "\1", paper.title)
    if paper.name and title.startswith(paper.name):
        title = f"\0{paper.name}\1{title[len(paper.name) :]}"
    return bibtex(title).replace("\0", "{").replace("\1", "}")


def bibtex_author(author: Author) -> str:
    """Return a name as `Family, Given`, in braces what BibTeX would take apart."""
    family = bibtex(author.family)
    if not author.given:
        return f"{{{family}}}"
    return f"{{{family}}}, {bibtex(author.given)}" if " " in family else f"{family}, {bibtex(author.given)}"


def _identifiers(paper: Paper) -> dict[str, str]:
    fields = {"url": paper.url}
    if "doi" in paper.links:
        fields["doi"] = paper.links["doi"].value
    if "arxiv" in paper.links:
        fields |= {"eprint": paper.links["arxiv"].value, "archivePrefix": "arXiv"}
    return fields
