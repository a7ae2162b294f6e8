"""The tables of the store, as SQLModel classes. Column names are a public interface: bump `VERSION` with them.

A field of an entry in two languages is two columns, `…_en` and `…_zh`. `position` keeps the order of the source file.
"""

from __future__ import annotations

from typing import get_args

from sqlalchemy import CheckConstraint
from sqlmodel import Field, SQLModel

from taxonomy.entries.entry import SourceCode
from taxonomy.entries.out_of_scope import Criterion

VERSION = 4  # 1: the papers; 2: also the reference kernels; 3: gains in percent; 4: what was left out


def _one_of(column: str, *values: str) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})")


class Term(SQLModel):
    """Columns that every word of the taxonomy has."""

    code: str = Field(primary_key=True)
    position: int
    label_en: str
    label_zh: str
    definition_en: str
    definition_zh: str


class Dimension(Term, table=True):
    """Temporal, spatial, structural."""

    title_en: str
    title_zh: str
    question_en: str
    question_zh: str
    color_light: str
    color_dark: str


class Behavior(Term, table=True):
    """The seven behaviors."""

    dimension_code: str = Field(foreign_key="dimension.code")
    acronym: str


class Leaf(Term, table=True):
    """The leaves that papers are tagged with."""

    behavior_code: str = Field(foreign_key="behavior.code")


class Objective(Term, table=True):
    """What a method improves or costs."""

    better: str


class Community(Term, table=True):
    """Research communities."""


class Venue(SQLModel, table=True):
    """Conferences, journals and workshops."""

    code: str = Field(primary_key=True)
    position: int
    key: str = Field(unique=True)
    name: str
    kind: str
    community_code: str = Field(foreign_key="community.code")
    url: str


class TraitGroup(SQLModel, table=True):
    """The comparison table of one leaf."""

    __tablename__ = "trait_group"

    code: str = Field(primary_key=True)
    position: int
    leaf_code: str = Field(foreign_key="leaf.code")


class Trait(Term, table=True):
    """One column of a comparison table."""

    group_code: str = Field(primary_key=True, foreign_key="trait_group.code")
    type: str


class Paper(SQLModel, table=True):
    """One row per paper. `published` is YYYY-MM-DD or YYYY-MM; `year` is its year."""

    __table_args__ = (_one_of("read", "abstract", "full-text"),)

    id: str = Field(primary_key=True)
    title: str
    name: str | None
    published: str = Field(index=True)
    year: int = Field(index=True)
    venue_code: str | None = Field(foreign_key="venue.code", index=True)
    venue_year: int | None
    award: str | None
    summary_en: str | None
    summary_zh: str | None
    read: str | None
    survey: bool
    added: str
    file: str


class LeftOut(SQLModel, table=True):
    """A paper that was looked at and is not in the atlas. `former_id` is the id it had, if it was in it once."""

    __tablename__ = "left_out"
    __table_args__ = (_one_of("fails", *get_args(Criterion)),)

    position: int = Field(primary_key=True)
    former_id: str | None = Field(unique=True)
    title: str
    url: str | None
    fails: str
    why: str
    decided: str


class Author(SQLModel, table=True):
    """Names as written; one row per spelling."""

    id: int = Field(primary_key=True)
    name: str = Field(unique=True)


class Authorship(SQLModel, table=True):
    """The authors of a paper, in order."""

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    position: int = Field(primary_key=True)
    author_id: int = Field(foreign_key="author.id", index=True)


class Alias(SQLModel, table=True):
    """Other titles of a paper."""

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    position: int = Field(primary_key=True)
    title: str


class Link(SQLModel, table=True):
    """Where a paper is found. `value` is what the entry says, `url` its address."""

    __table_args__ = (_one_of("kind", "paper", "arxiv", "doi", "openreview", "code"),)

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    kind: str = Field(primary_key=True)
    value: str
    url: str


class Placement(SQLModel, table=True):
    """A paper in a leaf."""

    __table_args__ = (
        _one_of("role", "primary", "secondary"),
        _one_of("source", *get_args(SourceCode)),
    )

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    leaf_code: str = Field(primary_key=True, foreign_key="leaf.code", index=True)
    position: int
    role: str
    technique_en: str | None
    technique_zh: str | None
    why: str | None
    source: str
    note: str | None


class Effect(SQLModel, table=True):
    """A paper's bearing on an objective."""

    __table_args__ = (
        _one_of("effect", "direct", "indirect"),
        _one_of("source", *get_args(SourceCode)),
    )

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    objective_code: str = Field(primary_key=True, foreign_key="objective.code", index=True)
    position: int
    effect: str
    source: str
    note: str | None


class Gain(SQLModel, table=True):
    """A number that a paper reports for an objective."""

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    objective_code: str = Field(primary_key=True, foreign_key="objective.code")
    position: int = Field(primary_key=True)
    factor: float | None
    percent: float | None
    kind: str
    against: str | None
    setting: str | None
    up_to: bool


class Evaluation(SQLModel, table=True):
    """Models, hardware and baselines of a paper's evaluation."""

    __table_args__ = (_one_of("kind", "models", "hardware", "baselines"),)

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    kind: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    value: str


class PaperTrait(SQLModel, table=True):
    """A paper's value of a trait; several rows where it has several."""

    __tablename__ = "paper_trait"

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    group_code: str = Field(primary_key=True, foreign_key="trait_group.code")
    trait_code: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    value: str


class Kernel(SQLModel, table=True):
    """A reference implementation of the repository: `reference_kernels/<behavior>/<name>.py`, of one leaf."""

    name: str = Field(primary_key=True)
    position: int
    file: str
    leaf_code: str = Field(foreign_key="leaf.code", index=True)
    title: str


class KernelPaper(SQLModel, table=True):
    """A paper that a kernel stands for."""

    __tablename__ = "kernel_paper"

    kernel_name: str = Field(primary_key=True, foreign_key="kernel.name")
    paper_id: str = Field(primary_key=True, foreign_key="paper.id", index=True)
    position: int


class KernelResult(SQLModel, table=True):
    """A kernel measured in one case on one GPU, at a time and commit. A wrong result is kept, without figures.

    `seconds` is a median; `share` is the least time that the GPU's measured ceilings allow, over that; `gain` is how
    many times as fast as `peer`, the fastest with 16 bits per number.
    """

    __tablename__ = "kernel_result"

    kernel_name: str = Field(primary_key=True, foreign_key="kernel.name")
    gpu: str = Field(primary_key=True)
    case_name: str = Field(primary_key=True)
    position: int
    seconds: float | None
    share: float | None
    gain: float | None
    peer: str | None
    taken: str
    commit_id: str | None


VIEWS = {
    "paper_list": """
        SELECT p.id, p.title, p.name, p.published,
               (SELECT group_concat(name, '; ') FROM (SELECT a.name FROM authorship s
                JOIN author a ON a.id = s.author_id WHERE s.paper_id = p.id ORDER BY s.position)) AS authors,
               v.key || ' ' || p.venue_year AS venue, p.award,
               (SELECT group_concat(leaf_code, ' ') FROM (SELECT leaf_code FROM placement
                WHERE paper_id = p.id AND role = 'primary' ORDER BY position)) AS primary_leaves,
               (SELECT group_concat(leaf_code, ' ') FROM (SELECT leaf_code FROM placement
                WHERE paper_id = p.id AND role = 'secondary' ORDER BY position)) AS secondary_leaves,
               (SELECT url FROM link WHERE paper_id = p.id AND kind = 'paper') AS paper_url,
               (SELECT url FROM link WHERE paper_id = p.id AND kind = 'code') AS code_url
        FROM paper p LEFT JOIN venue v ON v.code = p.venue_code
        ORDER BY p.published DESC, p.id""",
    "placement_list": """
        SELECT l.paper_id, p.title, p.published, b.dimension_code AS dimension, b.code AS behavior, l.leaf_code AS leaf,
               l.role, CASE l.role WHEN 'primary' THEN 1.0 ELSE 0.5 END AS weight,
               l.technique_en, l.technique_zh, l.why, l.source, l.note
        FROM placement l JOIN paper p ON p.id = l.paper_id JOIN leaf f ON f.code = l.leaf_code
        JOIN behavior b ON b.code = f.behavior_code
        ORDER BY p.published DESC, p.id, l.position""",
    "leaf_count": """
        SELECT f.code, f.label_en AS label, count(DISTINCT CASE WHEN l.role = 'primary' THEN l.paper_id END) AS papers,
               count(DISTINCT CASE WHEN l.role = 'secondary' THEN l.paper_id END) AS secondary_papers
        FROM leaf f LEFT JOIN placement l ON l.leaf_code = f.code GROUP BY f.code ORDER BY f.position""",
    "behavior_count": """
        SELECT b.code, b.label_en AS label, count(DISTINCT CASE WHEN l.role = 'primary' THEN l.paper_id END) AS papers,
               count(DISTINCT l.paper_id) AS papers_with_secondary
        FROM behavior b JOIN leaf f ON f.behavior_code = b.code LEFT JOIN placement l ON l.leaf_code = f.code
        GROUP BY b.code ORDER BY b.position""",
    "dimension_count": """
        SELECT d.code, d.label_en AS label, count(DISTINCT l.paper_id) AS papers
        FROM dimension d JOIN behavior b ON b.dimension_code = d.code JOIN leaf f ON f.behavior_code = b.code
        LEFT JOIN placement l ON l.leaf_code = f.code AND l.role = 'primary' GROUP BY d.code ORDER BY d.position""",
    "venue_count": """
        SELECT v.key AS venue, p.venue_year AS year, v.community_code AS community, count(*) AS papers
        FROM paper p JOIN venue v ON v.code = p.venue_code GROUP BY v.code, p.venue_year
        ORDER BY papers DESC, venue, year""",
    "month_count": """
        SELECT substr(published, 1, 7) AS month, count(*) AS papers FROM paper GROUP BY month ORDER BY month""",
}

# Full-text index. Its rowid is the paper's. English words are stemmed; `zh` holds Chinese text with a space around each
# character, so that a phrase of characters finds any run of them (`taxonomy.store.search` writes such queries).
SEARCH_TABLE = """
CREATE VIRTUAL TABLE paper_search USING fts5(
    title, name, authors, techniques, summary, labels, zh, tokenize = 'porter unicode61 remove_diacritics 2')"""
