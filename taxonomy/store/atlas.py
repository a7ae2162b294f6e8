"""What the store says, as plain, connected objects; the list, the exports, the pages and the analyses read these.

`taxonomy.store.reading.read_atlas` makes them from a store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

LANGUAGES = ("en", "zh")
K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class Words:
    """A text in English and Chinese; either may be missing."""

    en: str | None
    zh: str | None

    def __bool__(self) -> bool:
        return bool(self.en or self.zh)

    def get(self, language: str) -> str:
        """Return the text in `language`, or in the other one where it is missing, or ""."""
        first, second = (self.zh, self.en) if language == "zh" else (self.en, self.zh)
        return first or second or ""


@dataclass(frozen=True)
class Term:
    """A word of the vocabulary."""

    code: str
    label: Words
    definition: Words

    @property
    def slug(self) -> str:
        """The last part of the code."""
        return self.code.rpartition("/")[2]


@dataclass(frozen=True)
class Dimension(Term):
    """One of the three questions of sKis, with its color for light and dark pages."""

    title: Words
    question: Words
    color_light: str
    color_dark: str
    behaviors: list[Behavior] = field(default_factory=list, repr=False, compare=False)

    @property
    def leaves(self) -> list[Leaf]:
        """The leaves of all its behaviors."""
        return [leaf for behavior in self.behaviors for leaf in behavior.leaves]


@dataclass(frozen=True)
class Behavior(Term):
    """A kind of optimization, below a dimension."""

    acronym: str
    dimension: Dimension = field(repr=False)
    leaves: list[Leaf] = field(default_factory=list, repr=False, compare=False)

    @property
    def is_leaf(self) -> bool:
        """Whether papers are tagged with the behavior itself."""
        return [leaf.code for leaf in self.leaves] == [self.code]


@dataclass(frozen=True)
class Leaf(Term):
    """What papers are tagged with, below a behavior."""

    behavior: Behavior = field(repr=False)
    trait_group: str | None = None
    traits: list[Trait] = field(default_factory=list, repr=False, compare=False)

    @property
    def dimension(self) -> Dimension:
        """The dimension above."""
        return self.behavior.dimension


@dataclass(frozen=True)
class Objective(Term):
    """A system metric; `better` is "lower" or "higher"."""

    better: str


@dataclass(frozen=True)
class Trait(Term):
    """A comparable fact of the papers of a leaf."""

    type: str


@dataclass(frozen=True)
class Community(Term):
    """A research community, to which venues belong."""


@dataclass(frozen=True)
class Venue:
    """A conference, journal or workshop."""

    code: str
    key: str
    name: str
    kind: str
    community: Community
    url: str


@dataclass(frozen=True)
class Link:
    """`kind` is paper, arxiv, doi, openreview or code; `value` is what the entry says, `url` the address."""

    kind: str
    value: str
    url: str


@dataclass(frozen=True)
class Placement:
    """A paper in a leaf."""

    leaf: Leaf
    role: str
    technique: Words
    why: str | None
    source: str
    note: str | None

    @property
    def is_primary(self) -> bool:
        """Whether this is what the paper is about."""
        return self.role == "primary"

    @property
    def weight(self) -> float:
        """1 for a primary, 0.5 for a secondary placement, as the survey weighs them."""
        return 1.0 if self.is_primary else 0.5


@dataclass(frozen=True)
class Gain:
    """A number that a paper reports: by `factor` or by `percent`: of what `kind`, `against` what, in what `setting`."""

    factor: float | None
    percent: float | None
    kind: str
    against: str | None
    setting: str | None
    up_to: bool

    @property
    def amount(self) -> str:
        """The number as a reader expects it: 2.6× or 37 %."""
        return f"{self.factor:g}×" if self.factor is not None else f"{self.percent:g} %"


@dataclass(frozen=True)
class Effect:
    """How a paper bears on an objective: "direct" or "indirect"."""

    objective: Objective
    effect: str
    source: str
    note: str | None
    gains: list[Gain] = field(default_factory=list)


@dataclass(frozen=True)
class TraitValue:
    """A paper's value (or values) of a trait."""

    leaf: Leaf
    trait: Trait
    values: list[str]


@dataclass
class Paper:
    """A paper with all that is known of it. Lists are in the order of its entry."""

    id: str
    title: str
    name: str | None
    published: str
    year: int
    venue: Venue | None
    venue_year: int | None
    award: str | None
    summary: Words
    read: str | None
    survey: bool
    added: str
    file: str
    authors: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    links: dict[str, Link] = field(default_factory=dict)
    placements: list[Placement] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    evaluation: dict[str, list[str]] = field(default_factory=dict)
    traits: list[TraitValue] = field(default_factory=list)

    @property
    def venue_label(self) -> str:
        """`ICML 2024`, or "" for a preprint."""
        return f"{self.venue.key} {self.venue_year}" if self.venue else ""

    @property
    def url(self) -> str:
        """The best address for the paper itself."""
        order = ("paper", "arxiv", "doi", "openreview", "code")
        return next(self.links[kind].url for kind in order if kind in self.links)

    @property
    def month(self) -> str:
        """Month of the first public version, YYYY-MM."""
        return self.published[:7]

    @property
    def is_double(self) -> bool:
        """Whether the paper is about two behaviors."""
        return len({placement.leaf.behavior.code for placement in self.primary}) > 1

    @property
    def primary(self) -> list[Placement]:
        """The placements that say what the paper is about."""
        return [placement for placement in self.placements if placement.is_primary]

    @property
    def secondary(self) -> list[Placement]:
        """The placements that say what it also does."""
        return [placement for placement in self.placements if not placement.is_primary]


@dataclass(frozen=True)
class KernelResult:
    """A kernel measured in one case on one GPU; see `taxonomy.store.tables.KernelResult`."""

    gpu: str
    case: str
    seconds: float | None
    share: float | None
    gain: float | None
    peer: str | None
    taken: str
    commit: str | None


@dataclass(frozen=True)
class Kernel:
    """A reference implementation of the repository, and the papers it stands for."""

    name: str
    file: str
    leaf: Leaf
    title: str
    papers: list[Paper] = field(default_factory=list, repr=False, compare=False)
    results: list[KernelResult] = field(default_factory=list, repr=False, compare=False)

    @property
    def by_gpu(self) -> dict[str, list[KernelResult]]:
        """Its results by the name of the GPU."""
        return _grouped(self.results, lambda result: [result.gpu])


@dataclass(frozen=True)
class LeftOut:
    """A paper that was looked at and is not in the atlas; see `taxonomy.store.tables.LeftOut`."""

    former_id: str | None
    title: str
    url: str | None
    fails: str
    why: str
    decided: str


@dataclass
class Atlas:
    """Everything in the store. Papers are newest first, words in the order of the vocabulary."""

    dimensions: list[Dimension]
    behaviors: dict[str, Behavior]
    leaves: dict[str, Leaf]
    objectives: dict[str, Objective]
    communities: dict[str, Community]
    venues: dict[str, Venue]
    papers: list[Paper]
    kernels: list[Kernel]
    left_out: list[LeftOut]

    @cached_property
    def left_out_by_criterion(self) -> dict[str, list[LeftOut]]:
        """What was left out, by the criterion that fails; the criterion that most fail first."""
        groups = _grouped(self.left_out, lambda item: [item.fails])
        return dict(sorted(groups.items(), key=lambda group: -len(group[1])))

    @cached_property
    def by_id(self) -> dict[str, Paper]:
        """Papers by id."""
        return {paper.id: paper for paper in self.papers}

    @cached_property
    def last_added(self) -> str:
        """The day of the newest addition, YYYY-MM-DD: the atlas's own clock, "" where it is empty."""
        return max((paper.added for paper in self.papers), default="")

    @cached_property
    def _by_leaf(self) -> dict[str, list[Paper]]:
        return _grouped(self.papers, lambda paper: [placement.leaf.code for placement in paper.placements])

    @cached_property
    def by_objective(self) -> dict[str, list[Paper]]:
        """Papers by the code of each objective they bear on."""
        return _grouped(self.papers, lambda paper: [effect.objective.code for effect in paper.effects])

    @cached_property
    def by_venue(self) -> dict[str, list[Paper]]:
        """Papers by code of venue; preprints are not there."""
        return _grouped(self.papers, lambda paper: [paper.venue.code] if paper.venue else [])

    @cached_property
    def by_year(self) -> dict[int, list[Paper]]:
        """Papers by year of their first public version, newest year first."""
        return _grouped(self.papers, lambda paper: [paper.year])

    @cached_property
    def kernels_by_paper(self) -> dict[str, list[Kernel]]:
        """Kernels by the id of each paper they stand for."""
        return _grouped(self.kernels, lambda kernel: [paper.id for paper in kernel.papers])

    @cached_property
    def kernels_by_leaf(self) -> dict[str, list[Kernel]]:
        """Kernels by the code of their leaf."""
        return _grouped(self.kernels, lambda kernel: [kernel.leaf.code])

    def in_leaf(self, code: str, role: str | None = None) -> list[Paper]:
        """Return the papers of a leaf, with `role` ("primary", "secondary") or with any."""
        papers = self._by_leaf.get(code, [])
        if role is None:
            return papers
        return [p for p in papers if any(m.leaf.code == code and m.role == role for m in p.placements)]

    def in_leaves(self, leaves: Iterable[Leaf], role: str | None = None) -> list[Paper]:
        """Return the papers that stand in any of the leaves, each once."""
        wanted = {paper.id for leaf in leaves for paper in self.in_leaf(leaf.code, role)}
        return [paper for paper in self.papers if paper.id in wanted]


def _grouped(things: list[T], keys: Callable[[T], Iterable[K]]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for thing in things:
        for key in keys(thing):
            groups[key].append(thing)
    return dict(groups)
