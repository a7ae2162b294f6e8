"""The allocator of pages: no page has two owners, nothing is lost, and a found prefix is the right one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference_kernels.kvrm.append_kv import append_kv
from reference_kernels.kvrm.block_allocator import (
    LRU,
    UNIT,
    BlockAllocator,
    OutOfPagesError,
    Sequence,
    chain_digest,
)
from reference_kernels.kvs.paged_decode import paged_decode

TEXT = st.lists(st.integers(0, 1), max_size=14)
Text = tuple[int, ...]


class Youngest(LRU):
    """Gives up the page that was let go last: prefixes go before what follows them."""

    def evict(self) -> int:
        return self._pages.popitem(last=True)[0]


class Lowest:
    """Gives up the page with the lowest number."""

    def __init__(self) -> None:
        self._pages: set[int] = set()
        self.add, self.remove = self._pages.add, self._pages.remove

    def evict(self) -> int:
        page = min(self._pages)
        self._pages.remove(page)
        return page

    def __len__(self) -> int:
        return len(self._pages)

    def __iter__(self) -> Iterator[int]:
        return iter(self._pages)


DIGESTS = {
    "blake2b": chain_digest,
    "all the same": lambda _parent, _tokens: b"",
    "one bit": lambda parent, tokens: bytes([(sum(parent) + sum(tokens)) % 2]),
    "blind to the parent": lambda _parent, tokens: tokens,
}


class Machine(RuleBasedStateMachine):
    """Plays an engine: `memory` is what the pages of a GPU would hold, and sequences are read back from it.

    Keys and values depend on all tokens before, so a slot holds the whole text up to its token.
    """

    @initialize(
        pages=st.integers(1, 12),
        size=st.integers(1, 4),
        policy=st.sampled_from([LRU, Youngest, Lowest]),
        digest=st.sampled_from(sorted(DIGESTS)),
    )
    def start(self, pages: int, size: int, policy: type, digest: str) -> None:
        self.allocator = BlockAllocator(pages, size, policy(), DIGESTS[digest])
        self.memory: list[Text | None] = [None] * pages * size
        self.live: list[tuple[Sequence, list[int]]] = []

    def write(self, slots: list[int], text: list[int]) -> None:
        """Write the last tokens of a text."""
        assert len(slots) == len(set(slots))
        for end, slot in enumerate(slots, len(text) - len(slots) + 1):
            self.memory[slot] = tuple(text[:end])

    def state(self) -> tuple[int, int, int, list[tuple[list[int], int]]]:
        a = self.allocator
        return a.free, a.cached, a.used, [(s.pages[:], s.length) for s, _ in self.live]

    @rule(tokens=TEXT)
    def admit(self, tokens: list[int]) -> None:
        before = self.state()
        try:
            sequence = self.allocator.admit(tokens)
        except OutOfPagesError:
            assert self.state() == before
            return
        assert sequence.cached_tokens % self.allocator.page_size == 0
        self.write(self.allocator.slots(sequence, sequence.cached_tokens), tokens)
        self.live.append((sequence, list(tokens)))

    @precondition(lambda self: self.live)
    @rule(tokens=TEXT, data=st.data())
    def append(self, tokens: list[int], data: st.DataObject) -> None:
        sequence, text = data.draw(st.sampled_from(self.live))
        before = self.state()
        try:
            slots, copies = self.allocator.append(sequence, tokens)
        except OutOfPagesError:
            assert self.state() == before
            return
        size = self.allocator.page_size
        assert len(copies) <= 1
        for source, target in copies:
            assert not any(target in other.pages for other, _ in self.live if other is not sequence)
            self.memory[target * size : (target + 1) * size] = self.memory[source * size : (source + 1) * size]
        assert len(slots) == len(tokens)
        text += tokens
        self.write(slots, text)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        sequence, text = data.draw(st.sampled_from(self.live))
        used = self.allocator.used
        self.live.append((self.allocator.fork(sequence), text[:]))
        assert self.allocator.used == used

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(self.live))
        self.live.remove(pair)
        self.allocator.release(pair[0])
        with pytest.raises(ValueError, match="released before"):
            self.allocator.release(pair[0])

    @invariant()
    def every_sequence_reads_its_own_tokens(self) -> None:
        for sequence, text in self.live:
            written = [self.memory[slot] for slot in self.allocator.slots(sequence)]
            assert written == [tuple(text[: end + 1]) for end in range(len(text))]

    @invariant()
    def nothing_is_lost(self) -> None:
        a = self.allocator
        a.check_integrity()
        assert a.free + a.cached + a.used == a.pages

    @invariant()
    def pages_that_are_not_full_are_written_by_one_sequence_only(self) -> None:
        size = self.allocator.page_size
        for page in range(self.allocator.pages):
            holders = {
                tuple(t) for s, t in self.live for i, p in enumerate(s.pages) if p == page and len(t) < size * (i + 1)
            }
            assert len(holders) <= 1  # forks that have not parted yet share it with the same text


Machine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMachine = Machine.TestCase


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(["tight pool", "pages of 1", "pages of 16", "one page"]))
@settings(max_examples=25, deadline=None)
def test_hashing_finds_what_a_search_over_all_prefixes_finds(seed: int, shape: str):
    inputs = UNIT.make_inputs(device=torch.device("cpu"), dtype=torch.float32, seed=seed, **UNIT.shapes[shape])
    found, truth = UNIT.kernel(**inputs), UNIT.reference(**inputs)
    assert all(torch.equal(found[name], truth[name]) for name in truth)


def test_random_operations_reach_the_interesting_states():
    inputs = UNIT.make_inputs(device=torch.device("cpu"), dtype=torch.float32, seed=1, **UNIT.shapes["tight pool"])
    log = UNIT.kernel(**inputs)
    assert all(int(log[name].sum()) > 0 for name in ("cached_tokens", "copies", "refused", "cached"))


def test_a_prompt_is_found_up_to_its_last_full_page():
    allocator = BlockAllocator(10, 4)
    first = allocator.admit(range(10))
    second = allocator.admit(range(10))
    assert second.cached_tokens == 8
    assert second.pages[:2] == first.pages[:2]
    assert second.pages[2] != first.pages[2]


def test_the_same_tokens_behind_another_prefix_are_not_found():
    allocator = BlockAllocator(10, 2)
    allocator.admit([1, 1, 7, 7])
    assert allocator.admit([2, 2, 7, 7]).cached_tokens == 0
    assert allocator.admit([7, 7]).cached_tokens == 0


@pytest.mark.parametrize("digest", sorted(DIGESTS))
def test_colliding_digests_lose_hits_but_never_return_wrong_pages(digest: str):
    allocator = BlockAllocator(20, 2, digest=DIGESTS[digest])
    one = allocator.admit([1, 1, 7, 7])
    other = allocator.admit([2, 2, 7, 7])
    assert not set(one.pages) & set(other.pages)
    assert allocator.admit([1, 1, 7, 7]).pages[0] == one.pages[0]  # the first of those that collide stays
    again = allocator.admit([2, 2, 7, 7])  # its first page may be found, but then not the 7, 7 of another prefix
    assert not set(again.pages) & set(one.pages)


def test_pages_of_answers_are_found_too():
    allocator = BlockAllocator(10, 4)
    sequence = allocator.admit([1, 2, 3])
    for token in (4, 5, 6, 7, 8):
        allocator.append(sequence, [token])
    assert allocator.admit([1, 2, 3, 4, 5, 6, 7, 8, 9]).cached_tokens == 8


def test_released_pages_are_found_until_they_are_evicted():
    allocator = BlockAllocator(4, 2)
    allocator.release(allocator.admit([1, 1, 2, 2, 3]))
    assert (allocator.free, allocator.cached, allocator.used) == (2, 2, 0)
    again = allocator.admit([1, 1, 2, 2])
    assert again.cached_tokens == 4
    allocator.release(again)
    allocator.release(allocator.admit([9] * 8))  # takes all
    assert allocator.admit([1, 1, 2, 2]).cached_tokens == 0


def test_a_prefix_outlives_what_follows_it():
    allocator = BlockAllocator(3, 1)
    allocator.release(allocator.admit([1, 2, 3]))
    allocator.release(allocator.admit([8]))  # evicts one page: that of the 3
    assert allocator.admit([1, 2]).cached_tokens == 2


def test_least_recently_held_prompt_goes_first():
    allocator = BlockAllocator(3, 1)
    for prompt in ([1], [2], [3], [1]):
        allocator.release(allocator.admit(prompt))
    allocator.release(allocator.admit([4]))
    assert allocator.admit([1]).cached_tokens == 1
    assert allocator.admit([2]).cached_tokens == 0


def test_policy_is_an_object_that_decides():
    allocator = BlockAllocator(3, 1, Youngest())
    for prompt in ([1], [2], [3]):
        allocator.release(allocator.admit(prompt))
    allocator.admit([4])
    assert allocator.admit([3]).cached_tokens == 0


def test_pages_in_use_are_never_evicted():
    allocator = BlockAllocator(2, 1)
    allocator.admit([1, 2])
    with pytest.raises(OutOfPagesError, match="1 more pages are needed, 0 of 2"):
        allocator.admit([3])


def test_pages_that_a_prompt_shares_do_not_count_as_room_for_its_rest():
    allocator = BlockAllocator(3, 1)
    allocator.release(allocator.admit([1, 2]))
    with pytest.raises(OutOfPagesError):
        allocator.admit([1, 2, 3, 4])  # 3 pages are free or cached, but 2 of them are the prefix itself
    allocator.check_integrity()
    assert allocator.admit([1, 2, 3]).cached_tokens == 2


def test_the_last_of_two_forks_writes_in_place():
    allocator = BlockAllocator(10, 4)
    parent = allocator.admit([1, 2])
    child = allocator.fork(parent)
    shared = parent.pages[0]
    slots, copies = allocator.append(child, [3])
    assert copies == [(shared, child.pages[0])]
    assert slots == [child.pages[0] * 4 + 2]
    assert allocator.append(parent, [4]) == ([shared * 4 + 2], [])


def test_forks_at_the_end_of_a_page_copy_nothing():
    allocator = BlockAllocator(10, 2)
    parent = allocator.admit([1, 2])
    assert allocator.append(allocator.fork(parent), [3])[1] == []


def test_a_copy_needs_a_page_like_any_other():
    allocator = BlockAllocator(1, 4)
    child = allocator.fork(allocator.admit([1]))
    with pytest.raises(OutOfPagesError):
        allocator.append(child, [2])
    allocator.check_integrity()


def test_no_more_than_a_page_per_sequence_is_wasted():
    allocator = BlockAllocator(100, 16)
    for length in (1, 15, 16, 17, 100):
        sequence = allocator.admit(range(1000 * length, 1000 * length + length))
        assert 0 <= len(sequence.pages) * 16 - length <= 15


def test_a_sequence_without_tokens_holds_no_pages():
    allocator = BlockAllocator(1, 4)
    empty = allocator.admit([])
    assert empty.pages == []
    assert allocator.append(empty, []) == ([], [])
    allocator.release(empty)
    allocator.check_integrity()


def test_unknown_sequences_are_refused():
    allocator, other = BlockAllocator(4, 2), BlockAllocator(4, 2)
    foreign = other.admit([1])
    for action in (allocator.release, allocator.fork, lambda s: allocator.append(s, [1])):
        with pytest.raises(ValueError, match="does not hold"):
            action(foreign)


def test_bad_sizes_policies_and_tokens_are_refused():
    with pytest.raises(ValueError, match="positive"):
        BlockAllocator(0, 16)
    with pytest.raises(ValueError, match="positive"):
        BlockAllocator(4, 0)
    policy = LRU()
    policy.add(3)
    with pytest.raises(ValueError, match="another pool"):
        BlockAllocator(4, 2, policy)
    allocator = BlockAllocator(4, 2)
    for bad, error in (([1.5], TypeError), (["a"], TypeError), ([1 << 64], OverflowError)):
        with pytest.raises(error):
            allocator.admit(bad)
    assert allocator.free == 4


@pytest.mark.parametrize(
    ("damage", "law"),
    [
        (lambda a, s: a._references.__setitem__(s.pages[0], 2), "references"),
        (lambda a, s: a._free.append(s.pages[0]), "free, cached or used"),
        (lambda a, s: a._index.clear(), "index"),
        (lambda a, s: s.pages.pop(), "length needs"),
    ],
)
def test_integrity_check_names_the_law_that_is_broken(damage, law: str):
    allocator = BlockAllocator(4, 2)
    sequence = allocator.admit([1, 2, 3])
    allocator.check_integrity()
    damage(allocator, sequence)
    with pytest.raises(RuntimeError, match=law):
        allocator.check_integrity()


def test_time_per_page_does_not_grow_with_the_pool():
    def seconds(pages: int) -> float:
        allocator = BlockAllocator(pages, 1)
        allocator.release(allocator.admit(range(pages)))  # all cached, none free
        best = float("inf")
        for round_ in range(5):
            begun = time.perf_counter()
            for i in range(200):
                allocator.release(allocator.admit([-1 - 200 * round_ - i]))
            best = min(best, time.perf_counter() - begun)
        return best

    assert seconds(50_000) < 10 * seconds(500)  # 100 times the pages


def test_a_cache_filled_through_the_allocator_attends_like_a_dense_one(device: torch.device):
    generator = torch.Generator(device).manual_seed(0)
    page, heads, dim = 4, 2, 16
    allocator = BlockAllocator(32, page)
    k_pages, v_pages = (torch.empty(32, heads, page, dim, device=device) for _ in range(2))  # NaN in tests
    keys, values = (torch.randn(50, heads, dim, device=device, generator=generator) for _ in range(2))  # of a token

    def write(slots: list[int], tokens: list[int]) -> None:
        where = torch.tensor(tokens, device=device)
        append_kv(keys[where], values[where], k_pages, v_pages, torch.tensor(slots, dtype=torch.int32, device=device))

    prompt = list(range(11))
    first = allocator.admit(prompt)
    write(allocator.slots(first), prompt)
    second = allocator.admit([*prompt[:8], 20, 21])
    write(allocator.slots(second, second.cached_tokens), [20, 21])
    child = allocator.fork(first)
    texts = [(first, [*prompt, 30, 31]), (second, [*prompt[:8], 20, 21, 40, 41, 42]), (child, [*prompt, 33])]
    for sequence, text in texts:
        tokens = text[sequence.length :]
        slots, copies = allocator.append(sequence, tokens)
        for source, target in copies:
            k_pages[target], v_pages[target] = k_pages[source], v_pages[source]
        write(slots, tokens)

    table = torch.full((3, 8), -1, dtype=torch.int32, device=device)
    for row, (sequence, _) in zip(table, texts, strict=True):
        row[: len(sequence.pages)] = torch.tensor(sequence.pages)
    lengths = torch.tensor([len(text) for _, text in texts], dtype=torch.int32, device=device)
    q = torch.randn(3, heads, dim, device=device, generator=generator)
    out = paged_decode(q, k_pages, v_pages, table, lengths)["out"]
    for i, (_, text) in enumerate(texts):
        k, v = keys[text].transpose(0, 1), values[text].transpose(0, 1)
        truth = torch.nn.functional.scaled_dot_product_attention(q[i].unsqueeze(1), k, v).squeeze(1)
        torch.testing.assert_close(out[i], truth, rtol=1e-5, atol=1e-5)
