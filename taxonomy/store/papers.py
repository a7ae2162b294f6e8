"""The tables of papers: their facts, their placements in the taxonomy, and their effects on objectives."""

from functools import cached_property
from typing import get_args

from sqlalchemy.orm import attribute_keyed_dict, relationship
from sqlmodel import Field, Relationship, col

from taxonomy.entries.entry import EVALUATION_KINDS, LINK_KINDS, Read, Role, SourceCode, Way
from taxonomy.entries.out_of_scope import Criterion
from taxonomy.store.row import LOADED, Row, Words, in_order, one_of, related
from taxonomy.store.terms import Leaf, Objective, Trait, Venue


class Authorship(Row, table=True):
    """The authors of a paper, in order."""

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    position: int = Field(primary_key=True)
    author_id: int = Field(foreign_key="author.id", index=True)


class Author(Row, table=True):
    """People as papers name them: one row per spelling, with the given and the family name."""

    id: int = Field(primary_key=True)
    name: str
    given: str | None
    family: str


class Paper(Row, table=True):
    """One row per paper. `published` is YYYY-MM-DD or YYYY-MM; `year` is its year."""

    __table_args__ = (one_of("read", *get_args(Read)),)

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
    venue: Venue | None = related()
    authors: list[Author] = related(secondary="authorship", order_by="Authorship.position")
    aliases: list["Alias"] = related(order_by="Alias.position")
    links: dict[str, "Link"] = Relationship(
        sa_relationship=relationship(
            "Link",
            collection_class=attribute_keyed_dict("kind"),
            order_by=lambda: in_order(col(Link.kind), LINK_KINDS),
            **LOADED,
        )
    )
    placements: list["Placement"] = related(order_by="Placement.position")
    effects: list["Effect"] = related(order_by="Effect.position")
    evaluations: list["Evaluation"] = related(
        order_by=lambda: (in_order(col(Evaluation.kind), EVALUATION_KINDS), col(Evaluation.position))
    )
    traits: list["PaperTrait"] = related(order_by="(PaperTrait.group_code, PaperTrait.trait_code, PaperTrait.position)")

    @cached_property
    def summary(self) -> Words:
        """The paper's idea and its cost, in two or three sentences."""
        return Words(self.summary_en, self.summary_zh)

    @cached_property
    def venue_label(self) -> str:
        """`ICML 2024`, or "" for a preprint."""
        return f"{self.venue.key} {self.venue_year}" if self.venue else ""

    @cached_property
    def url(self) -> str:
        """The best address for the paper itself."""
        return next(link.url for link in self.links.values())

    @cached_property
    def month(self) -> str:
        """Month of the first public version, YYYY-MM."""
        return self.published[:7]

    @cached_property
    def primary(self) -> list["Placement"]:
        """The placements that say what the paper is about."""
        return [placement for placement in self.placements if placement.is_primary]

    @cached_property
    def secondary(self) -> list["Placement"]:
        """The placements that say what it exhibits besides."""
        return [placement for placement in self.placements if not placement.is_primary]

    @cached_property
    def is_double(self) -> bool:
        """Whether the paper is about two behaviors."""
        return len({placement.leaf.behavior_code for placement in self.primary}) > 1

    @cached_property
    def evaluation(self) -> dict[str, list[str]]:
        """What the paper was evaluated on, by kind: models, hardware, baselines."""
        found: dict[str, list[str]] = {}
        for item in self.evaluations:
            found.setdefault(item.kind, []).append(item.value)
        return found


class Alias(Row, table=True):
    """Other titles of a paper."""

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    position: int = Field(primary_key=True)
    title: str


class Link(Row, table=True):
    """Where a paper is found. `value` is what the entry says, `url` its address."""

    __table_args__ = (one_of("kind", *LINK_KINDS),)

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    kind: str = Field(primary_key=True)
    value: str
    url: str


class Placement(Row, table=True):
    """A paper in a leaf."""

    __table_args__ = (
        one_of("role", *get_args(Role)),
        one_of("source", *get_args(SourceCode)),
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
    leaf: Leaf = related()

    @cached_property
    def technique(self) -> Words:
        """What the paper does in this leaf, in one line."""
        return Words(self.technique_en, self.technique_zh)

    @cached_property
    def is_primary(self) -> bool:
        """Whether this is what the paper is about."""
        return self.role == "primary"

    @cached_property
    def weight(self) -> float:
        """1 for a primary, 0.5 for a secondary placement, as the survey weighs them."""
        return 1.0 if self.is_primary else 0.5


class Effect(Row, table=True):
    """A paper's bearing on an objective."""

    __table_args__ = (
        one_of("effect", *get_args(Way)),
        one_of("source", *get_args(SourceCode)),
    )

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    objective_code: str = Field(primary_key=True, foreign_key="objective.code", index=True)
    position: int
    effect: str
    source: str
    note: str | None
    objective: Objective = related()
    gains: list["Gain"] = related(
        primaryjoin="and_(Effect.paper_id == foreign(Gain.paper_id),"
        " Effect.objective_code == foreign(Gain.objective_code))",
        order_by="Gain.position",
    )


class Gain(Row, table=True):
    """A number that a paper reports for an objective: by `factor` or by `percent`."""

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    objective_code: str = Field(primary_key=True, foreign_key="objective.code")
    position: int = Field(primary_key=True)
    factor: float | None
    percent: float | None
    kind: str
    against: str | None
    setting: str | None
    up_to: bool

    @cached_property
    def amount(self) -> str:
        """The number as a reader expects it: 2.6× or 37 %."""
        return f"{self.factor:g}×" if self.factor is not None else f"{self.percent:g} %"


class Evaluation(Row, table=True):
    """Models, hardware and baselines of a paper's evaluation."""

    __table_args__ = (one_of("kind", *EVALUATION_KINDS),)

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    kind: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    value: str


class PaperTrait(Row, table=True):
    """A paper's value of a trait; several rows where it has several."""

    __tablename__ = "paper_trait"

    paper_id: str = Field(primary_key=True, foreign_key="paper.id")
    group_code: str = Field(primary_key=True, foreign_key="trait_group.code")
    trait_code: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    value: str
    trait: Trait = related(
        primaryjoin="and_(Trait.group_code == foreign(PaperTrait.group_code),"
        " Trait.code == foreign(PaperTrait.trait_code))",
    )


class OutOfScope(Row, table=True):
    """A paper that was looked at and is not in the atlas. `former_id` is the id it had, if it was in it once."""

    __tablename__ = "out_of_scope"
    __table_args__ = (one_of("fails", *get_args(Criterion)),)

    position: int = Field(primary_key=True)
    former_id: str | None = Field(unique=True)
    title: str
    url: str | None
    fails: str
    why: str
    decided: str
