"""Pages of a fixed pool for sequences that grow, fork and share their prefixes (host side, plain Python).

Computes
--------
Which page holds which tokens. A sequence of T tokens holds ceil(T / S) pages; page i is full once T >= (i + 1) S, and
is then indexed under a digest that stands for all tokens up to its end:
    digest(i) = H(digest(i - 1), tokens[i S : (i + 1) S]),   digest(-1) = empty
`admit` walks this chain from the front and shares every page that it finds; `append` writes behind the last token, and
if the page there is not full and not its own, takes a new page and says which page to copy into it (copy-on-write).
A page that no sequence holds any more goes back to the pool, or, if it is indexed, stays findable until an eviction
policy gives it up. So at any time each page is free, cached or used, and in only one of these states.

Layout
------
Slot of a token = page * S + offset, int; the slots of a step are the `slots` of append_kv.py, and `Sequence.pages` is
its row of the block table (core/paging.py). Copies are (source page, target page). In a step the runner first makes all
copies, in order, and then writes the slots, before anything reads them: what is indexed counts as written. A fork
belongs behind the writes of the step.

Cost
----
O(1) per page taken or given back, evictions included, and one hash of 8 S bytes per full page. No operation looks
through a list. At most S - 1 slots of a sequence are empty. It moves no data itself.

Published
---------
No figure quoted: the papers' are of whole servers and not of the allocator.

Differs
-------
A digest that is found is not believed: tokens are compared along the chain, so that a collision is a miss and never
another prompt's page. SGLang keeps a radix tree; a chain of digests finds the same whole pages. A prompt may be found
whole; its last token is then run again, for its logits, with slot -1, which append_kv.py skips. Pages are indexed when
full, those of answers too, and a page whose tokens are indexed already stays outside. A step that does not fit is
refused before anything has changed.

:leaf: kvrm/allocation-and-reuse
:papers: pagedattention, sglang
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from reference_kernels.core.unit import Inputs, Outputs, Unit, Work

Digest = Callable[[bytes, bytes], bytes]
Operation = tuple[str, int, list[int]]  # name, which of the sequences (modulo their number), tokens


class OutOfPagesError(RuntimeError):
    """The pool cannot hold what was asked for; nothing has changed."""


def chain_digest(parent: bytes, tokens: bytes) -> bytes:
    """Return the digest of a page's tokens and, through its parent's digest, of all tokens before."""
    return hashlib.blake2b(parent + tokens, digest_size=16).digest()


@dataclass(eq=False, slots=True)
class Prefix:
    """The tokens of a full page, and the prefix before it."""

    parent: Prefix | None
    tokens: bytes  # 8 per token
    digest: bytes


@dataclass(eq=False)
class Sequence:
    """One sequence: read it, but leave changes to its allocator."""

    pages: list[int] = field(default_factory=list)
    length: int = 0
    cached_tokens: int = 0  # found at admission: their keys and values need no computing
    prefix: Prefix | None = None  # of all full pages
    tail: array[int] = field(default_factory=lambda: array("q"))  # tokens of the page that is not full yet


class EvictionPolicy(Protocol):
    """The order in which cached pages that no sequence holds are given up. All in O(1)."""

    def add(self, page: int) -> None:
        """A cached page lost its last holder."""

    def remove(self, page: int) -> None:
        """A cached page was found and is held again."""

    def evict(self) -> int:
        """Choose a page and forget it; there is at least one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


class LRU:
    """Least recently held first. A sequence lets go of its last page first, so that a prefix outlives what follows."""

    def __init__(self) -> None:
        self._pages: OrderedDict[int, None] = OrderedDict()  # a dict finds its first key in O(deleted keys)

    def add(self, page: int) -> None:
        """Make a page the last to go."""
        self._pages[page] = None

    def remove(self, page: int) -> None:
        """Take out a page."""
        del self._pages[page]

    def evict(self) -> int:
        """Take out the page that has waited longest."""
        return self._pages.popitem(last=False)[0]

    def __len__(self) -> int:
        return len(self._pages)

    def __iter__(self) -> Iterator[int]:
        return iter(self._pages)


class BlockAllocator:
    """A pool of `pages` pages of `page_size` tokens.

    Args:
        pages: pages of the pool, numbered from 0.
        page_size: S, tokens per page.
        policy: which cached page goes first; LRU if none is given. It must be empty and is used by this pool alone.
        digest: of (digest of the parent, 8 bytes per token).

    Raises:
        ValueError: a size is not positive, or the policy is in use.
    """

    def __init__(
        self, pages: int, page_size: int, policy: EvictionPolicy | None = None, digest: Digest = chain_digest
    ) -> None:
        if pages < 1 or page_size < 1:
            raise ValueError(f"pages and page_size must be positive, not {pages} and {page_size}")
        self.pages, self.page_size = pages, page_size
        self.policy: EvictionPolicy = LRU() if policy is None else policy
        if len(self.policy):
            raise ValueError("the policy knows pages of another pool")
        self._digest = digest
        self._free = list(range(pages - 1, -1, -1))  # a stack
        self._references = [0] * pages
        self._contents: list[Prefix | None] = [None] * pages  # of indexed pages
        self._index: dict[bytes, int] = {}
        self._live: set[Sequence] = set()

    @property
    def free(self) -> int:
        """Pages that hold nothing."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Pages that no sequence holds, but a prompt may still find."""
        return len(self.policy)

    @property
    def used(self) -> int:
        """Pages that sequences hold."""
        return self.pages - self.free - self.cached

    def admit(self, tokens: Iterable[int]) -> Sequence:
        """Start a sequence: share the pages of its longest known prefix and take new ones for the rest.

        The first `cached_tokens` tokens of the result need no computing; `slots(sequence, cached_tokens)` is where
        the others go.

        Raises:
            OutOfPagesError: the rest does not fit.
            TypeError, OverflowError: a token is not an integer of 64 bits.
        """
        numbers = array("q", list(tokens))
        found, prefix = self._find(numbers)
        waiting = sum(not self._references[page] for page in found)  # sharing them takes them from the policy
        self._require(-(-len(numbers) // self.page_size) - len(found), self.free + self.cached - waiting)
        for page in found:
            if not self._references[page]:
                self.policy.remove(page)
            self._references[page] += 1
        known = len(found) * self.page_size
        sequence = Sequence(found, known, known, prefix)
        self._live.add(sequence)
        self.append(sequence, numbers[known:])
        return sequence

    def append(self, sequence: Sequence, tokens: Iterable[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Make room for further tokens.

        Returns:
            The slots of the tokens, and at most one copy (source page, target page) to make before writing to them.

        Raises:
            OutOfPagesError: they do not fit.
            ValueError: the sequence is unknown.
            TypeError, OverflowError: a token is not an integer of 64 bits.
        """
        self._check(sequence)
        numbers = array("q", list(tokens))
        start = sequence.length
        # a page that is not full belongs to several sequences after a fork only
        shared = bool(numbers) and bool(sequence.tail) and self._references[sequence.pages[-1]] > 1
        more = -(-(start + len(numbers)) // self.page_size) - len(sequence.pages)
        self._require(more + shared, self.free + self.cached)
        copies = []
        if shared:
            source, target = sequence.pages[-1], self._take()
            self._references[source] -= 1
            sequence.pages[-1] = target
            copies.append((source, target))
        sequence.pages.extend(self._take() for _ in range(more))
        sequence.length += len(numbers)
        self._index_full_pages(sequence, numbers)
        return self.slots(sequence, start), copies

    def fork(self, sequence: Sequence) -> Sequence:
        """Return a second sequence with the same tokens, in the same pages.

        Raises:
            ValueError: the sequence is unknown.
        """
        self._check(sequence)
        twin = Sequence(sequence.pages[:], sequence.length, sequence.length, sequence.prefix, sequence.tail[:])
        for page in twin.pages:
            self._references[page] += 1
        self._live.add(twin)
        return twin

    def release(self, sequence: Sequence) -> None:
        """End a sequence. Its indexed pages stay findable until the policy gives them up.

        Raises:
            ValueError: the sequence is unknown, for example because it was released before.
        """
        self._check(sequence)
        self._live.remove(sequence)
        for page in reversed(sequence.pages):
            self._references[page] -= 1
            if self._references[page]:
                continue
            if self._contents[page]:
                self.policy.add(page)
            else:
                self._free.append(page)

    def slots(self, sequence: Sequence, start: int = 0) -> list[int]:
        """Return where the tokens from `start` on are kept."""
        size = self.page_size
        return [sequence.pages[t // size] * size + t % size for t in range(start, sequence.length)]

    def check_integrity(self) -> None:
        """Count everything again from the sequences, in O(pages + tokens / S).

        Raises:
            RuntimeError: names the laws that are broken.
        """
        held = Counter(page for sequence in self._live for page in sequence.pages)
        free, cached, used = set(self._free), set(self.policy), set(held)
        contents = {page: content for page, content in enumerate(self._contents) if content}
        laws = {
            "a page is free, cached or used, and only one of them": (
                self.free + self.cached + len(used) == self.pages and len(free | cached | used) == self.pages
            ),
            "references are those of the sequences": self._references == [held[page] for page in range(self.pages)],
            "the index names the indexed pages": self._index == {c.digest: page for page, c in contents.items()},
            "cached pages are indexed, free ones are not": cached <= set(contents) and not free & set(contents),
            "a sequence holds the pages that its length needs": all(
                len(s.pages) == -(-s.length // self.page_size) and len(s.tail) == s.length % self.page_size
                for s in self._live
            ),
        }
        broken = [law for law, holds in laws.items() if not holds]
        if broken:
            raise RuntimeError(f"broken: {'; '.join(broken)}")

    def _find(self, tokens: array[int]) -> tuple[list[int], Prefix | None]:
        """Return the pages of the longest indexed prefix of whole pages, and that prefix."""
        found: list[int] = []
        prefix: Prefix | None = None
        for start in range(0, len(tokens) - self.page_size + 1, self.page_size):
            page = self._look_up(self._longer(prefix, tokens[start : start + self.page_size]))
            if page is None:
                break
            found.append(page)
            prefix = self._contents[page]
        return found, prefix

    def _longer(self, parent: Prefix | None, tokens: array[int]) -> Prefix:
        data = tokens.tobytes()
        return Prefix(parent, data, self._digest(parent.digest if parent else b"", data))

    def _look_up(self, prefix: Prefix) -> int | None:
        """Return the page that holds exactly this prefix."""
        page = self._index.get(prefix.digest)
        content = None if page is None else self._contents[page]
        if content is None or content.tokens != prefix.tokens or not _equal(content.parent, prefix.parent):
            return None
        content.parent = prefix.parent  # one object from now on: the next comparison is one step
        return page

    def _index_full_pages(self, sequence: Sequence, tokens: array[int]) -> None:
        """Index the pages that new tokens fill; the rest of them becomes the tail."""
        size = self.page_size
        first = (sequence.length - len(tokens)) // size
        pending = sequence.tail + tokens
        full = len(pending) // size
        for i, page in enumerate(sequence.pages[first : first + full]):
            prefix = self._longer(sequence.prefix, pending[i * size : (i + 1) * size])
            twin = self._look_up(prefix)
            if twin is None and prefix.digest not in self._index:  # where two prefixes collide, the first stays
                self._index[prefix.digest] = page
                self._contents[page] = prefix
            sequence.prefix = prefix if twin is None else self._contents[twin]
        sequence.tail = pending[full * size :]

    def _take(self) -> int:
        """Return a page for one sequence; the caller has seen to it that there is one."""
        if self._free:
            page = self._free.pop()
        else:
            page = self.policy.evict()
            content = self._contents[page]
            if content:
                del self._index[content.digest]
            self._contents[page] = None
        self._references[page] = 1
        return page

    def _require(self, needed: int, available: int) -> None:
        if needed > available:
            raise OutOfPagesError(f"{needed} more pages are needed, {available} of {self.pages} are free or cached")

    def _check(self, sequence: Sequence) -> None:
        if sequence not in self._live:
            raise ValueError("this allocator does not hold the sequence: it was released before, or is another's")


def _equal(one: Prefix | None, other: Prefix | None) -> bool:
    """Compare the tokens of two prefixes: one step where they are one object, as they are but after evictions."""
    while one is not other:
        if one is None or other is None or one.tokens != other.tokens:
            return False
        one, other = one.parent, other.parent
    return True


COLUMNS = ("cached_tokens", "copies", "refused", "used", "cached")


def replay(*, operations: list[Operation], pages: int, page_size: int) -> Outputs:
    """Run a list of operations; return, after each: tokens found, copies, whether it was refused, pages by state."""
    allocator = BlockAllocator(pages, page_size)
    live: list[Sequence] = []
    log = []
    for name, which, tokens in operations:
        found = copies = refused = 0
        try:
            if name == "admit":
                live.append(allocator.admit(tokens))
                found = live[-1].cached_tokens
            elif not live:
                pass  # whatever was to be admitted did not fit
            elif name == "append":
                copies = len(allocator.append(live[which % len(live)], tokens)[1])
            elif name == "fork":
                live.append(allocator.fork(live[which % len(live)]))
            else:
                allocator.release(live.pop(which % len(live)))
        except OutOfPagesError:
            refused = 1
        log.append((found, copies, refused, allocator.used, allocator.cached))
    return dict(zip(COLUMNS, torch.tensor(log).T, strict=True))


@dataclass(eq=False)
class _Page:
    """A page of the model."""

    idle_since: int = 0


def reference(*, operations: list[Operation], pages: int, page_size: int) -> Outputs:
    """The same by brute force: whole prefixes for digests, counting again for counters, the clock for the order."""
    live: list[tuple[list[_Page], list[int]]] = []
    known: dict[tuple[int, ...], _Page] = {}
    clock, log = 0, []

    def used() -> set[_Page]:
        return {page for held, _ in live for page in held}

    def take() -> _Page:
        idle = {prefix: page for prefix, page in known.items() if page not in used()}
        if len(used()) + len(idle) == pages:
            del known[min(idle, key=lambda prefix: idle[prefix].idle_since)]
        return _Page()

    def extend(held: list[_Page], old: list[int], new: list[int]) -> int:
        """Add tokens to a sequence; return whether a page had to be copied, or -1 if there is no room."""
        total = len(old) + len(new)
        shared = bool(new) and len(old) % page_size > 0 and sum(held[-1] in other for other, _ in live) > 1
        if -(-total // page_size) - len(held) + shared > pages - len(used()):
            return -1
        if shared:
            held[-1] = take()
        while len(held) * page_size < total:
            held.append(take())
        for end in range((len(old) // page_size + 1) * page_size, total + 1, page_size):
            known.setdefault(tuple((old + new)[:end]), held[end // page_size - 1])
        old += new
        return int(shared)

    for name, which, tokens in operations:
        found = copies = 0
        if name == "admit":
            held: list[_Page] = []
            for end in range(page_size, len(tokens) + 1, page_size):
                if tuple(tokens[:end]) not in known:
                    break
                held.append(known[tuple(tokens[:end])])
            found = len(held) * page_size
            live.append((held, tokens[:found]))
            copies = extend(held, live[-1][1], tokens[found:])
            if copies < 0:
                found = 0
                live.pop()
        elif not live:
            pass
        elif name == "append":
            held, old = live[which % len(live)]
            copies = extend(held, old, tokens)
        elif name == "fork":
            held, old = live[which % len(live)]
            live.append((held[:], old[:]))
        else:
            held, _ = live.pop(which % len(live))
            for page in reversed(held):
                if page not in used():
                    page.idle_since = clock = clock + 1
        idle = sum(page not in used() for page in known.values())
        log.append((found, max(copies, 0), int(copies < 0), len(used()), idle))
    return dict(zip(COLUMNS, torch.tensor(log).T, strict=True))


def make_inputs(
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    operations: int,
    pages: int,
    page_size: int,
    alphabet: int = 3,
    longest: int = 40,
) -> Inputs:
    """Draw operations in which prompts often begin like earlier ones. Device and dtype do not matter here."""
    draw = random.Random(seed)  # noqa: S311
    texts: list[list[int]] = [[]]
    drawn: list[Operation] = []
    for _ in range(operations):
        name = draw.choices(["admit", "append", "fork", "release"], [4, 5, 2, 3])[0]
        tokens = [draw.randrange(alphabet) for _ in range(draw.randrange(longest if name == "admit" else longest // 4))]
        if name == "admit":
            before = draw.choice(texts)
            tokens = (before[: draw.randrange(len(before) + 1)] + tokens)[:longest]
            texts.append(tokens)
        drawn.append((name, draw.randrange(1 << 30), tokens))
    return {"operations": drawn, "pages": pages, "page_size": page_size}


def work(*, operations: list[Operation], **_: Any) -> Work:
    """Every token hashed once."""
    return Work(read=sum(8 * len(tokens) for _, _, tokens in operations))


UNIT = Unit(
    kernel=replay,
    reference=reference,
    make_inputs=make_inputs,
    work=work,
    shapes={
        "pages of 1": {"operations": 60, "pages": 40, "page_size": 1, "longest": 12},
        "room for all": {"operations": 120, "pages": 1000, "page_size": 4},
        "tight pool": {"operations": 200, "pages": 24, "page_size": 4},
        "pages of 16": {"operations": 120, "pages": 30, "page_size": 16, "alphabet": 2, "longest": 130},
        "one page": {"operations": 20, "pages": 1, "page_size": 8, "longest": 10},
    },
    dtypes=(torch.float32,),
)
