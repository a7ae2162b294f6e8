"""A radix tree of cached prefixes: which pages of the pool hold which run of tokens, and which of them may go.

Plain Python without torch, so that schedulers and simulators can use it; `radix_cache.py` carries its card.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Page = Any  # the tokens of one page, hashable: an int where a page is one token, else a tuple of ints


class Node:
    """A run of whole pages below `parent`; the path from the root to its end is one cached prefix."""

    __slots__ = ("children", "end", "locks", "own", "parent", "queued", "run", "slots", "time")

    def __init__(self, run: tuple[Page, ...], slots: list[int], parent: Node | None, end: int, time: int) -> None:
        self.run = run
        self.slots = slots  # the pool's pages that hold the run
        self.parent = parent
        self.end = end  # pages from the root to the end of the run
        self.time = time  # of the last match or insertion that went through here
        self.children: dict[Page, Node] = {}
        self.own = 0  # locks of handles that end here
        self.locks = 0  # own locks and those of all descendants
        self.queued = False  # whether the heap has an entry of this node


@dataclass(frozen=True)
class Match:
    """The longest cached prefix of a prompt. It protects nothing until it is locked."""

    node: Node
    length: int  # tokens
    slots: tuple[int, ...]  # one per page


class RadixTree:
    """Prefixes of token sequences in whole pages of `page` tokens, with locks and LRU eviction.

    The tree owns the slots (numbers of pages in the pool) that were inserted, until `evict` gives them back. It has no
    capacity: whoever owns the pool evicts when the pool is empty. Numbers of tokens go in and out, except for slots and
    evictions, which count pages.
    """

    def __init__(self, page: int = 1) -> None:
        if page < 1:
            raise ValueError(f"a page holds at least one token, not {page}")
        self.page = page
        self.root = Node((), [], None, 0, 0)
        self._clock = 0
        self._owned: set[int] = set()
        self._protected = 0
        self._heap: list[tuple[int, int, Node]] = []  # (time when queued, order of queuing, node that may be a leaf)
        self._queued = 0

    @property
    def used(self) -> int:
        """Pages in the tree."""
        return len(self._owned)

    @property
    def protected(self) -> int:
        """Pages on the path of a lock."""
        return self._protected

    @property
    def evictable(self) -> int:
        """Pages that `evict` can free: all others, since below an unlocked node nothing is locked."""
        return len(self._owned) - self._protected

    def peek(self, tokens: Sequence[int]) -> int:
        """Return how many tokens of the prompt are cached, and leave everything as it is."""
        pages = self._pages(tokens)
        node, shared = self._walk(pages)
        return (node.end - len(node.run) + shared) * self.page

    def match(self, tokens: Sequence[int], *, touch: bool = True) -> Match:
        """Find the longest cached prefix in whole pages, splitting the node in which it ends.

        Args:
            tokens: the prompt; a last page that is not full never matches.
            touch: whether this counts as a use for LRU.
        """
        node = self._find(self._pages(tokens))
        if touch:
            self._touch(node)
        runs = [part.slots for part in self._path(node)]
        return Match(node, node.end * self.page, tuple(slot for run in reversed(runs) for slot in run))

    def insert(self, tokens: Sequence[int], slots: Sequence[int]) -> int:
        """Add a prefix; only whole pages are kept.

        Args:
            tokens: the prefix from its very first token.
            slots: one per whole page of it.

        Returns:
            Tokens that were present already. The tree keeps its own slots for these; where the caller's differ from the
            ones that it was given by `match`, they are duplicates and the caller must free them.

        Raises:
            ValueError: the number of slots is wrong, or a slot to be added belongs to the tree already.
        """
        pages = self._pages(tokens)
        if len(slots) != len(pages):
            raise ValueError(f"{len(pages)} whole pages of {self.page} tokens need as many slots, not {len(slots)}")
        node, shared = self._walk(pages)
        present = node.end - len(node.run) + shared
        new = list(slots[present:])
        taken = set(new)
        if len(taken) != len(new) or not self._owned.isdisjoint(taken):
            twice = next(slot for slot in new if slot in self._owned or new.count(slot) > 1)
            raise ValueError(f"slot {twice} would be in the tree twice")
        node = self._find(pages)
        self._touch(node)
        if new:
            leaf = Node(pages[present:], new, node, len(pages), self._clock)
            node.children[leaf.run[0]] = leaf
            self._owned |= taken
            self._queue(leaf)
        return present * self.page

    def lock(self, match: Match) -> None:
        """Protect a matched prefix from eviction. Locks count: each needs its `unlock`.

        Raises:
            ValueError: the match is of another tree, or its pages were evicted since.
        """
        for node in self._checked_path(match):
            if node.locks == 0:
                self._protected += len(node.run)
            node.locks += 1
        match.node.own += 1

    def unlock(self, match: Match) -> None:
        """Take back one lock.

        Raises:
            ValueError: there is no such lock.
        """
        path = self._checked_path(match)
        if match.node.own == 0:
            raise ValueError(f"the prefix of {match.length} tokens is not locked")
        match.node.own -= 1
        for node in path:
            node.locks -= 1
            if node.locks == 0:
                self._protected -= len(node.run)
                self._queue(node)

    def victims(self, pages: int) -> list[tuple[Node, int]]:
        """Return what `evict(pages)` would free, least recently used first: nodes, and how many pages of their ends."""
        if pages < 0:
            raise ValueError(f"the number of pages to evict must not be negative, it is {pages}")
        found: list[tuple[Node, int]] = []
        gone: dict[Node, int] = {}  # children that this plan removes
        while pages > 0 and self._heap:
            time, _, node = heapq.heappop(self._heap)
            node.queued = False
            if node.locks or node.parent is None or len(node.children) != gone.get(node, 0):
                continue  # it is queued again when it becomes an unlocked leaf
            if time != node.time:
                self._queue(node)  # used since it was queued
                continue
            count = min(pages, len(node.run))
            found.append((node, count))
            pages -= count
            if count == len(node.run):
                gone[node.parent] = gone.get(node.parent, 0) + 1
                self._queue(node.parent)
        for node, _ in found:
            self._queue(node)
        return found

    def evict(self, pages: int) -> list[int]:
        """Free `pages` pages, least recently used leaves first, each from its end; parents become leaves.

        Returns:
            The freed slots: exactly `pages` of them, or all that are evictable if these are fewer.
        """
        freed: list[int] = []
        for node, count in self.victims(pages):
            keep = len(node.run) - count
            freed += node.slots[keep:]
            if keep == 0 and node.parent is not None:
                del node.parent.children[node.run[0]]
                self._queue(node.parent)
                node.parent = None
            node.run, node.slots, node.end = node.run[:keep], node.slots[:keep], node.end - count
        self._owned.difference_update(freed)
        return freed

    def check_integrity(self) -> None:
        """Walk the whole tree.

        Raises:
            RuntimeError: anything that must always hold does not.
        """
        waiting, seen, protected = [self.root], [], 0
        queued = {id(node) for _, _, node in self._heap}
        while waiting:
            node = waiting.pop()
            seen += node.slots
            protected += len(node.run) if node.locks else 0
            start = node.parent.end if node.parent else 0
            self._require(len(node.run) == len(node.slots) == node.end - start, "a run and its slots differ in length")
            self._require(node is self.root or len(node.run) > 0, "a node is empty")
            self._require(node.locks == node.own + sum(c.locks for c in node.children.values()), "locks do not add up")
            self._require(node.queued == (id(node) in queued), "a node and the heap disagree")
            leaf = node is not self.root and not node.children and not node.locks
            self._require(node.queued or not leaf, "an evictable leaf is not in the heap")
            for first, child in node.children.items():
                self._require(child.parent is node and child.run[0] == first, "a child is in the wrong place")
                self._require(child.time <= node.time, "a child was used after its parent")
                waiting.append(child)
        self._require(len(seen) == len(set(seen)), "a slot is in the tree twice")
        self._require(set(seen) == self._owned, "slots were lost")
        self._require(protected == self._protected, "the number of protected pages is wrong")
        self._require(len(queued) == len(self._heap), "a node is in the heap twice")

    @staticmethod
    def _require(holds: bool, otherwise: str) -> None:
        if not holds:
            raise RuntimeError(f"the radix tree is broken: {otherwise}")

    def _pages(self, tokens: Sequence[int]) -> tuple[Page, ...]:
        if self.page == 1:
            return tuple(tokens)
        return tuple(tuple(tokens[i : i + self.page]) for i in range(0, len(tokens) - self.page + 1, self.page))

    def _walk(self, pages: tuple[Page, ...]) -> tuple[Node, int]:
        """Return the node in which the longest prefix ends, and how many pages of its run belong to it."""
        node, done = self.root, 0
        while done < len(pages) and (child := node.children.get(pages[done])):
            node, size = child, len(child.run)
            if child.run != pages[done : done + size]:
                pairs = zip(child.run, pages[done:], strict=False)
                return node, next((i for i, (a, b) in enumerate(pairs) if a != b), min(size, len(pages) - done))
            done += size
        return node, len(node.run)

    def _find(self, pages: tuple[Page, ...]) -> Node:
        """Return the node at whose end the longest prefix ends, after a split where it ends within a run."""
        node, shared = self._walk(pages)
        if shared == len(node.run) or node.parent is None:
            return node
        # The lower part stays the same object: handles point to ends of runs.
        upper = Node(node.run[:shared], node.slots[:shared], node.parent, node.end - len(node.run) + shared, node.time)
        upper.locks = node.locks
        upper.children[node.run[shared]] = node
        node.parent.children[upper.run[0]] = upper
        node.run, node.slots, node.parent = node.run[shared:], node.slots[shared:], upper
        return upper

    def _path(self, node: Node | None) -> Iterator[Node]:
        while node is not None:
            yield node
            node = node.parent

    def _checked_path(self, match: Match) -> list[Node]:
        path = list(self._path(match.node))
        if path[-1] is not self.root or match.node.end * self.page != match.length:
            raise ValueError(f"the match of {match.length} tokens is of another tree, or was evicted since")
        return path

    def _touch(self, node: Node) -> None:
        self._clock += 1
        for part in self._path(node):
            part.time = self._clock

    def _queue(self, node: Node) -> None:
        """Put a node that may be an evictable leaf into the heap, once; `victims` looks whether it still is one."""
        if not node.queued and node is not self.root:
            node.queued = True
            self._queued += 1
            heapq.heappush(self._heap, (node.time, self._queued, node))
