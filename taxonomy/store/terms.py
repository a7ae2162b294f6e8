"""The tables of the vocabulary: the taxonomy's dimensions, behaviors and leaves, objectives, traits and venues."""

from functools import cached_property

from sqlmodel import Field

from taxonomy.store.row import Row, Words, related


class Term(Row):
    """Columns that every word of the taxonomy has."""

    code: str = Field(primary_key=True)
    position: int
    label_en: str
    label_zh: str
    definition_en: str
    definition_zh: str

    @cached_property
    def label(self) -> Words:
        """The name of the term."""
        return Words(self.label_en, self.label_zh)

    @cached_property
    def definition(self) -> Words:
        """What the term means."""
        return Words(self.definition_en, self.definition_zh)

    @cached_property
    def slug(self) -> str:
        """The last part of the code: `quantization` of `kvcc/quantization`."""
        return self.code.rpartition("/")[2]


class Dimension(Term, table=True):
    """One of the three dimensions of sKis: temporal, spatial, structural."""

    title_en: str
    title_zh: str
    question_en: str
    question_zh: str
    color_light: str
    color_dark: str
    behaviors: list["Behavior"] = related(back_populates="dimension", order_by="Behavior.position")

    @cached_property
    def title(self) -> Words:
        """What the dimension is about, as a heading."""
        return Words(self.title_en, self.title_zh)

    @cached_property
    def question(self) -> Words:
        """The question that the dimension's behaviors answer."""
        return Words(self.question_en, self.question_zh)

    @cached_property
    def leaves(self) -> list["Leaf"]:
        """The leaves of all behaviors of the dimension."""
        return [leaf for behavior in self.behaviors for leaf in behavior.leaves]


class Behavior(Term, table=True):
    """One of the behaviors of sKis, such as KV-centric scheduling."""

    dimension_code: str = Field(foreign_key="dimension.code")
    acronym: str
    dimension: Dimension = related(back_populates="behaviors")
    leaves: list["Leaf"] = related(back_populates="behavior", order_by="Leaf.position")

    @cached_property
    def is_leaf(self) -> bool:
        """Whether papers are tagged with the behavior itself."""
        return [leaf.code for leaf in self.leaves] == [self.code]


class TraitGroup(Row, table=True):
    """The comparison table of one leaf."""

    __tablename__ = "trait_group"

    code: str = Field(primary_key=True)
    position: int
    leaf_code: str = Field(foreign_key="leaf.code")
    leaf: "Leaf" = related(back_populates="trait_group")
    traits: list["Trait"] = related(back_populates="group", order_by="Trait.position")


class Leaf(Term, table=True):
    """A leaf of the taxonomy, which papers are placed in."""

    behavior_code: str = Field(foreign_key="behavior.code")
    behavior: Behavior = related(back_populates="leaves")
    trait_group: TraitGroup | None = related(back_populates="leaf", uselist=False)

    @cached_property
    def dimension(self) -> Dimension:
        """The dimension that the leaf belongs to."""
        return self.behavior.dimension

    @cached_property
    def traits(self) -> list["Trait"]:
        """The columns of the leaf's comparison table."""
        return self.trait_group.traits if self.trait_group else []


class Objective(Term, table=True):
    """What a method improves or costs. `better` is "lower" or "higher"."""

    better: str


class Trait(Term, table=True):
    """One column of a comparison table."""

    group_code: str = Field(primary_key=True, foreign_key="trait_group.code")
    type: str
    group: TraitGroup = related(back_populates="traits")


class Community(Term, table=True):
    """A research community, to which venues belong."""


class Venue(Row, table=True):
    """A conference, journal or workshop."""

    code: str = Field(primary_key=True)
    position: int
    key: str = Field(unique=True)
    name: str
    kind: str
    community_code: str = Field(foreign_key="community.code")
    url: str
    community: Community = related()
