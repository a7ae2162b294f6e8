"""The radix tree: exact matches, locks that hold, and least-recently-used eviction page by page."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from reference_kernels.kvs.radix_cache import RadixTree, hit_lengths


class Model:
    """The same cache without a tree: one record per page, found by the whole prefix that it ends."""

    def __init__(self, page: int) -> None:
        self.page = page
        self.slots: dict[tuple[int, ...], int] = {}
        self.times: dict[tuple[int, ...], int] = {}
        self.locks: list[tuple[int, ...]] = []
        self.clock = 0

    def prefixes(self, tokens: list[int]) -> list[tuple[int, ...]]:
        return [tuple(tokens[:end]) for end in range(self.page, len(tokens) + 1, self.page)]

    def cached(self, tokens: list[int]) -> list[tuple[int, ...]]:
        return list(itertools.takewhile(self.slots.__contains__, self.prefixes(tokens)))

    def touch(self, tokens: list[int]) -> None:
        self.clock += 1
        self.times.update(dict.fromkeys(self.cached(tokens), self.clock))

    def locked(self, prefix: tuple[int, ...]) -> bool:
        return any(lock[: len(prefix)] == prefix for lock in self.locks)

    def evict(self, pages: int) -> list[int]:
        freed = []
        while len(freed) < pages:
            inner = {prefix[: -self.page] for prefix in self.slots}
            leaves = [prefix for prefix in self.slots if prefix not in inner and not self.locked(prefix)]
            if not leaves:
                break
            oldest = min(leaves, key=self.times.__getitem__)
            freed.append(self.slots.pop(oldest))
            del self.times[oldest]
        return freed


prompts = st.lists(st.integers(0, 2), max_size=12)


class RadixMachine(RuleBasedStateMachine):
    """Any sequence of calls leaves the tree and the model with the same content, and frees the same pages."""

    locks = Bundle("locks")
    page = 1

    def __init__(self) -> None:
        super().__init__()
        self.tree, self.model, self.fresh = RadixTree(self.page), Model(self.page), itertools.count()

    @rule(tokens=prompts)
    def insert(self, tokens):
        cached = self.model.cached(tokens)
        fresh = [next(self.fresh) for _ in self.model.prefixes(tokens)]
        assert self.tree.insert(tokens, fresh) == len(cached) * self.page
        for prefix, slot in zip(self.model.prefixes(tokens), fresh, strict=True):
            self.model.slots.setdefault(prefix, slot)
        self.model.touch(tokens)

    @rule(tokens=prompts, touch=st.booleans())
    def match(self, tokens, touch):
        cached = self.model.cached(tokens)
        assert self.tree.peek(tokens) == len(cached) * self.page
        found = self.tree.match(tokens, touch=touch)
        assert found.length == len(cached) * self.page
        assert found.slots == tuple(self.model.slots[prefix] for prefix in cached)
        if touch:
            self.model.touch(tokens)

    @rule(target=locks, tokens=prompts)
    def lock(self, tokens):
        found = self.tree.match(tokens, touch=False)
        self.tree.lock(found)
        self.model.locks.append(tuple(tokens[: found.length]))
        return found, tuple(tokens[: found.length])

    @rule(lock=consumes(locks))
    def unlock(self, lock):
        self.tree.unlock(lock[0])
        self.model.locks.remove(lock[1])

    @rule(pages=st.integers(0, 8))
    def evict(self, pages):
        planned = [slot for node, size in self.tree.victims(pages) for slot in node.slots[len(node.slots) - size :]]
        freed = self.tree.evict(pages)
        assert freed == planned
        assert sorted(freed) == sorted(self.model.evict(pages))

    @invariant()
    def tree_equals_model(self):
        self.tree.check_integrity()
        assert self.tree.used == len(self.model.slots)
        assert self.tree.protected == sum(map(self.model.locked, self.model.slots))
        assert self.tree.evictable + self.tree.protected == self.tree.used
        assert self.tree.root.locks == len(self.model.locks)
        for prefix in self.model.locks:
            assert self.tree.peek(prefix) == len(prefix)

    def teardown(self):
        for prefix in list(self.model.locks):
            self.tree.unlock(self.tree.match(prefix))
        assert len(self.tree.evict(10**6)) == len(self.model.slots)
        assert self.tree.used == 0


class RadixMachineOfThrees(RadixMachine):
    page = 3


TestPagesOfOneToken = RadixMachine.TestCase
TestPagesOfThreeTokens = RadixMachineOfThrees.TestCase
TestPagesOfOneToken.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPagesOfThreeTokens.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def filled(*sequences: list[int], page: int = 1) -> RadixTree:
    tree, fresh = RadixTree(page), itertools.count(100)
    for tokens in sequences:
        tree.insert(tokens, [next(fresh) for _ in range(len(tokens) // page)])
    return tree


def test_only_whole_pages_match():
    tree = filled([1, 2, 3, 4, 5, 6, 7, 8, 9], page=4)
    assert tree.used == 2
    assert tree.match([1, 2, 3, 4, 5, 6, 7, 0]).length == 4
    assert tree.match([1, 2, 3]).length == 0


def test_caller_learns_which_of_its_pages_are_duplicates():
    tree = filled([1, 2, 3, 4])
    assert tree.insert([1, 2, 9, 9], [7, 8, 9, 10]) == 2
    assert tree.match([1, 2, 9, 9]).slots == (100, 101, 9, 10)


def test_handle_stays_good_when_its_path_is_split():
    tree = filled([1, 2, 3, 4])
    handle = tree.match([1, 2, 3, 4])
    tree.lock(handle)
    tree.match([1, 2])
    tree.insert([1, 5], [100, 7])
    tree.check_integrity()
    assert tree.protected == 4
    assert tree.evict(10) == [7]
    tree.unlock(handle)
    assert sorted(tree.evict(10)) == [100, 101, 102, 103]


def test_eviction_takes_the_end_of_the_least_recent_leaf_first():
    tree = filled([1, 2, 3], [1, 2, 4, 5])  # slots 100 101 102 for the first, 105 106 for the end of the second
    tree.match([1, 2, 3])
    assert tree.evict(1) == [106]
    assert tree.evict(2) == [105, 102]
    assert tree.match([1, 2, 3]).length == 2


def test_use_renews_a_leaf_that_waits_in_the_heap():
    tree = filled([1, 1], [2, 2], [3, 3])
    tree.match([1, 1])
    assert tree.evict(2) == [102, 103]


def test_plan_of_eviction_changes_nothing():
    tree = filled([1, 2, 3], [1, 4], [5])
    assert [size for _, size in tree.victims(4)] == [2, 1, 1]
    tree.check_integrity()
    assert tree.used == 5
    assert tree.victims(4) == tree.victims(4)


def test_long_chain_of_single_pages_needs_no_recursion():
    tree = RadixTree()
    tokens = list(range(1500))
    for end in range(1, 1501):
        tree.insert(tokens[:end], tokens[:end])
    handle = tree.match(tokens)
    tree.lock(handle)
    tree.check_integrity()
    tree.unlock(handle)
    assert tree.evict(1500) == tokens[::-1]


def test_evicted_match_cannot_be_locked():
    tree = filled([1, 2, 3])
    whole = tree.match([1, 2, 3])
    tree.evict(1)
    with pytest.raises(ValueError, match=r"match of 3 tokens .* evicted since"):
        tree.lock(whole)
    gone = tree.match([1, 2])
    tree.evict(2)
    with pytest.raises(ValueError, match="evicted since"):
        tree.lock(gone)


def test_match_of_another_tree_cannot_be_locked():
    with pytest.raises(ValueError, match="another tree"):
        filled([1]).lock(filled([1]).match([1]))


def test_unlock_needs_a_lock_of_that_very_prefix():
    tree = filled([1, 2, 3])
    tree.lock(tree.match([1, 2, 3]))
    with pytest.raises(ValueError, match="2 tokens is not locked"):
        tree.unlock(tree.match([1, 2]))


def test_slots_must_fit_the_prefix_and_be_new():
    tree = filled([1, 2])
    with pytest.raises(ValueError, match="2 whole pages of 1 tokens need as many slots, not 1"):
        tree.insert([3, 4], [7])
    with pytest.raises(ValueError, match="slot 101 would be in the tree twice"):
        tree.insert([3], [101])
    with pytest.raises(ValueError, match="slot 7 would be in the tree twice"):
        tree.insert([3, 4], [7, 7])
    tree.check_integrity()
    assert tree.used == 2


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="at least one token, not 0"):
        RadixTree(0)
    with pytest.raises(ValueError, match="must not be negative, it is -1"):
        RadixTree().evict(-1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda tree, node: node.slots.append(5), "differ in length"),
        (lambda tree, node: setattr(node, "locks", 3), "locks do not add up"),
        (lambda tree, node: setattr(node, "queued", False), "heap disagree"),
        (lambda tree, node: tree._heap.clear() or setattr(node, "queued", False), "not in the heap"),
        (lambda tree, node: setattr(node, "time", 99), "used after its parent"),
        (lambda tree, node: tree.root.children.update({9: node}), "wrong place"),
        (lambda tree, node: node.slots.__setitem__(0, 101), "twice"),
        (lambda tree, node: tree._owned.add(55), "slots were lost"),
        (lambda tree, node: setattr(tree, "_protected", 1), "protected pages"),
        (lambda tree, node: tree._heap.append(tree._heap[0]), "heap twice"),
    ],
)
def test_check_notices_damage(damage, words):
    tree = filled([1, 2])
    tree.check_integrity()
    damage(tree, tree.match([1, 2]).node)
    with pytest.raises(RuntimeError, match=words):
        tree.check_integrity()


def test_lengths_must_sum_to_the_tokens():
    with pytest.raises(ValueError, match="sum to the 3 tokens, not 2"):
        hit_lengths(torch.zeros(3, dtype=torch.int64), torch.tensor([1, 1]), 1)
