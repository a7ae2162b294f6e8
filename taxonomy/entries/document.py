"""Reads one YAML file from a stranger: a small, safe part of YAML, with the place of every value.

What is accepted is mappings, lists and scalars. Every scalar is text: the models give it a type, so `2402.02750` keeps
its last zero and `no` stays a word. Anchors, aliases, tags, duplicate keys, several documents, deep nesting,
oversized files, wrong encodings and invisible characters are refused. libyaml does the parsing.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from taxonomy.entries.characters import HIDDEN
from taxonomy.entries.problem import Problem, shown

MAX_BYTES = 64 * 1024
MAX_DEPTH = 12
NOT_PLAIN = "is a link or a special file; only plain files are read"

Path_ = tuple[str | int, ...]
Place = tuple[int, int]


@dataclass
class Document:
    """A file's plain value (dicts, lists, strings) and where each part of it stands.

    `values` maps the path of a value to the line and column of that value, `keys` the path of a mapping's item to
    those of its key. Both count from 1.
    """

    file: str
    value: Any = None
    values: dict[Path_, Place] = field(default_factory=dict)
    keys: dict[Path_, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    first_line: str = ""

    def place(self, path: Path_, *, key: bool = False) -> Place:
        """Return the place of `path`, or of its nearest known parent. `key` asks for the key, not the value."""
        while path:
            found = (self.keys.get(path) if key else None) or self.values.get(path) or self.keys.get(path)
            if found:
                return found
            path = path[:-1]
        return self.values.get((), (1, 1))

    def problem(self, path: Path_, message: str, suggestion: str = "", *, key: bool = False) -> None:
        """Record a problem at `path`."""
        line, column = self.place(path, key=key)
        self.problems.append(Problem(self.file, line, column, dotted(path), message, suggestion))


def dotted(path: Path_) -> str:
    """Write a path as `placements[0].leaf`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def read_document(path: Path, name: str, max_bytes: int = MAX_BYTES) -> Document:
    """Read `path`, calling it `name` in messages. Never raises for bad content: see `Document.problems`.

    Only a plain file is read. A link could lead to any file of the machine, whose text messages would then quote, and
    a pipe would keep the reader waiting.
    """
    try:
        with open(path, "rb", opener=_open_without_following) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Document(name, problems=[Problem(name, 1, 1, "", NOT_PLAIN)])
            data = file.read(max_bytes + 1)
    except OSError as error:
        reason = NOT_PLAIN if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        return Document(name, problems=[Problem(name, 1, 1, "", reason)])
    return parse_document(data, name, max_bytes)


def _open_without_following(path: str, flags: int) -> int:
    """Open a file that is no link, without waiting for whoever writes into a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def parse_document(data: bytes, name: str, max_bytes: int = MAX_BYTES) -> Document:
    """Parse the bytes of one file. See `read_document`."""
    document = Document(name)
    if len(data) > max_bytes:
        document.problem((), f"is larger than {max_bytes // 1024} KiB")
        return document
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        document.problems.append(Problem(name, line, column, "", "is not UTF-8 text"))
        return document
    document.first_line = text.partition("\n")[0].rstrip("\r")
    hidden = HIDDEN.search(text)
    if hidden:
        at = hidden.start()
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        what = "a tab" if hidden[0] == "\t" else f"the invisible character U+{ord(hidden[0]):04X}"
        document.problems.append(Problem(name, line, column, "", f"contains {what}; a file holds visible text only"))
        return document
    try:
        _Composer(document, check_scalars="\\" in text).compose(text)
    except _RefusedError:
        document.value = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        deep = "nesting depth" in str(error.problem)  # the parser has a limit of its own, and may reach it first
        message = f"is nested more than {MAX_DEPTH} levels deep" if deep else f"is not valid YAML: {error.problem}"
        document.problems.append(Problem(name, line, column, "", message))
        document.value = None
    except yaml.YAMLError as error:
        document.problems.append(Problem(name, 1, 1, "", f"is not valid YAML: {' '.join(str(error).split())}"))
        document.value = None
    return document


def _start(event: yaml.Event) -> Place:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


class _RefusedError(Exception):
    """The document uses a part of YAML that is not accepted; the problem has been recorded."""


class _Composer:
    """Builds the plain value from libyaml's events, keeping places."""

    def __init__(self, document: Document, *, check_scalars: bool) -> None:
        self.document = document
        self.check_scalars = check_scalars

    def compose(self, text: str) -> None:
        # CSafeLoader exists in every wheel of PyYAML; the pure-Python loader is ten times slower.
        self.events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.refuse(event, (), "holds more than one YAML document")
            elif isinstance(event, yaml.NodeEvent):
                self.document.value = self.node(event, ())

    def refuse(self, event: yaml.Event, path: Path_, message: str) -> NoReturn:
        self.document.problems.append(Problem(self.document.file, *_start(event), dotted(path), message))
        raise _RefusedError

    def node(self, event: yaml.Event, path: Path_) -> Any:
        self.document.values[path] = _start(event)
        if not isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) or event.anchor:
            self.refuse(event, path, "uses a YAML anchor or alias; write the value out")
        if len(path) > MAX_DEPTH:
            self.refuse(event, path, f"is nested more than {MAX_DEPTH} levels deep")
        if event.tag:
            self.refuse(event, path, f"uses the YAML tag {shown(event.tag)}; a value is plain text")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return self.mapping(path)

    def scalar(self, event: yaml.ScalarEvent, path: Path_) -> str:
        value: str = event.value
        if self.check_scalars:
            hidden = HIDDEN.search(value)
            if hidden:
                self.refuse(event, path, f"contains the invisible character U+{ord(hidden[0]):04X}")
        return value

    def sequence(self, path: Path_) -> list[Any]:
        items: list[Any] = []
        for event in self.events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self.node(event, (*path, len(items))))
        return items

    def mapping(self, path: Path_) -> dict[str, Any]:
        items: dict[str, Any] = {}
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent):
                self.refuse(event, path, "has a key that is not plain text")
            key = self.node(event, (*path, event.value))
            place = self.document.values.pop((*path, key))
            if key in items:
                self.refuse(event, (*path, key), "is given twice")
            if key == "<<":
                self.refuse(event, (*path, key), "uses a YAML merge key; write the values out")
            self.document.keys[(*path, key)] = place
            items[key] = self.node(next(self.events), (*path, key))
        return items
