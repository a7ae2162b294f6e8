"""The shape of a paper's entry: one YAML file below `papers/`.

Unknown facts are absent. Which codes, venues and traits exist is the vocabulary's business (`taxonomy.entries.checks`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, WithJsonSchema, model_serializer, model_validator

from taxonomy.entries.fields import (
    ArxivId,
    Doi,
    Factor,
    FullDate,
    Line,
    OpenReviewId,
    Paragraph,
    Part,
    PartialDate,
    Percent,
    Url,
)
from taxonomy.entries.names import PERSON_SCHEMA, Person

Role = Literal["primary", "secondary"]
Way = Literal["direct", "indirect"]
Read = Literal["abstract", "full-text"]
SourceCode = Literal["survey", "abstract", "full-text", "code"]
Source = Annotated[
    SourceCode,
    Field(
        description="Where the judgement was read: the survey's own list, the paper's abstract or full text, or the "
        "authors' published code with what it says of itself."
    ),
]


class OneLine(Part):
    """One line in English and, where somebody wrote it, in Chinese."""

    en: Annotated[Line, Field(description="English.")]
    zh: Annotated[Line | None, Field(description="Chinese.")] = None


class Summary(Part):
    """Two or three sentences in our own words: the idea, and what it costs."""

    en: Annotated[Paragraph, Field(description="English.")]
    zh: Annotated[Paragraph | None, Field(description="Chinese.")] = None


class Links(Part):
    """Where the paper and its code are found."""

    paper: Annotated[Url | None, Field(description="Address of the paper as published.")] = None
    arxiv: Annotated[ArxivId | None, Field(description='arXiv number without version, in quotes: "2402.02750".')] = None
    doi: Annotated[Doi | None, Field(description="DOI without resolver: 10.1145/3600006.3613165.")] = None
    openreview: Annotated[OpenReviewId | None, Field(description="Id of the OpenReview forum.")] = None
    code: Annotated[Url | None, Field(description="Repository of the authors' code.")] = None


class Placement(Part):
    """A leaf of the taxonomy that the paper exhibits, and why."""

    leaf: Annotated[Line, Field(description="Code of the leaf, such as kvcc/quantization.")]
    role: Annotated[Role, Field(description="primary: what the paper is about. secondary: what it also does.")]
    technique: Annotated[OneLine | None, Field(description="What it does in this leaf, in one line; no period.")] = None
    why: Annotated[Line | None, Field(description="The reason for this tag, in one line.")] = None
    source: Source
    note: Annotated[Line | None, Field(description="Doubts about this tag, or disagreement with it.")] = None


class Gain(Part):
    """One number that the paper reports, exactly as it states it: a factor or a percentage."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["factor"]}, {"required": ["percent"]}]})

    factor: Annotated[Factor | None, Field(description="The factor as stated; 2.6 for 2.6×.")] = None
    percent: Annotated[Percent | None, Field(description="The change as stated; 37 for 37 % less or more.")] = None
    kind: Annotated[Line, Field(description="What changes and which way, such as `peak memory, lower`.")]
    against: Annotated[Line | None, Field(description="The baseline that the number is relative to.")] = None
    setting: Annotated[Line | None, Field(description="Model, hardware and workload of the measurement.")] = None
    up_to: Annotated[bool, Field(description="true where the source says `up to`.")] = False

    @model_validator(mode="after")
    def _is_one_number(self) -> Self:
        if (self.factor is None) == (self.percent is None):
            raise ValueError("needs a factor or a percent, one of them")
        return self


class Effect(Part):
    """How the paper bears on one objective."""

    effect: Annotated[Way, Field(description="direct: the method aims at this objective. indirect: a consequence.")]
    source: Source
    gains: Annotated[tuple[Gain, ...], Field(max_length=20, description="Numbers that the paper reports.")] = ()
    note: Annotated[Line | None, Field(description="The reason, or what the numbers leave out.")] = None


LINK_KINDS = tuple(Links.model_fields)


class Evaluation(Part):
    """What the paper was evaluated on, as stated."""

    models: Annotated[tuple[Line, ...], Field(max_length=40)] = ()
    hardware: Annotated[tuple[Line, ...], Field(max_length=40)] = ()
    baselines: Annotated[tuple[Line, ...], Field(max_length=40)] = ()


EVALUATION_KINDS = tuple(Evaluation.model_fields)
TraitValue = Line | tuple[Line, ...]


class VenueYear(Part):
    """A venue and the year in which it published the paper, written as `ICML 2024`."""

    key: Line
    year: int

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        match = re.fullmatch(r"(.+) ([0-9]{4})", value.strip()) if isinstance(value, str) else None
        if not match:
            raise ValueError("is not a venue and a year, such as ICML 2024")
        return {"key": match[1], "year": int(match[2])}

    @model_serializer
    def __str__(self) -> str:
        return f"{self.key} {self.year}"


class Entry(Part):
    """A paper."""

    title: Annotated[Line, Field(description="As published.")]
    name: Annotated[Line | None, Field(description="The method's short name, when it has one.", max_length=60)] = None
    aliases: Annotated[
        tuple[Line, ...], Field(max_length=10, description="Other titles of the same paper, such as a preprint's.")
    ] = ()
    authors: Annotated[
        tuple[Annotated[Person, WithJsonSchema(PERSON_SCHEMA)], ...],
        Field(
            min_length=1,
            max_length=300,
            description="All authors in order, Given Family; or {given, family} where the family name has more words.",
        ),
    ]
    published: Annotated[PartialDate, Field(description="First public version: YYYY-MM-DD, or YYYY-MM.")]
    venue: Annotated[
        Annotated[VenueYear, WithJsonSchema({"type": "string"})] | None,
        Field(description="Key of venues.yaml and year: ICML 2024. Absent for a preprint."),
    ] = None
    award: Annotated[
        Line | None, Field(description="An award that the paper was given, such as Best Paper.", max_length=60)
    ] = None
    links: Links
    summary: Summary | None = None
    placements: Annotated[tuple[Placement, ...], Field(min_length=1, max_length=13)]
    effects: Annotated[
        dict[str, Effect],
        Field(default_factory=dict, description="What the method improves or costs, by code of the objective."),
    ]
    evaluation: Evaluation | None = None
    traits: Annotated[
        dict[str, dict[str, TraitValue]],
        Field(default_factory=dict, description="Comparable facts, by group and trait of traits.yaml."),
    ]
    read: Annotated[Read | None, Field(description="How far the curator read; absent: not yet.")] = None
    survey: Annotated[bool, Field(description="true if the survey's own figure or list holds the paper.")] = False
    added: Annotated[FullDate, Field(description="Day on which the entry was added.")]
