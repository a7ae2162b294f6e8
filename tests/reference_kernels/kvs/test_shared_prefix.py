"""Shared prefixes: attention over the concatenated tokens of all nodes above a request, whatever the tree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.budget import to_double
from reference_kernels.core.unit import MissingPeerError
from reference_kernels.kvs.shared_prefix import UNIT, decode_attention, make_plan
from tests.reference_kernels.caches import check_close, draw_tokens, paginate, strided, truth
from tests.reference_kernels.conftest import DEVICE

Node = tuple[int, int, int]  # first request, number of requests, tokens


def ints(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def forest(
    nodes: list[Node], requests: int, heads: int = 1, group: int = 2, dim: int = 32, page: int = 16, seed: int = 0,
    dtype: torch.dtype = torch.float32, tokens: tuple[list[torch.Tensor], list[torch.Tensor]] | None = None,
) -> tuple[dict[str, Any], Any]:  # fmt: skip
    """Return arguments for `decode_attention`, and what it must return: attention over concatenated tokens."""
    sizes = [size for *_, size in nodes]
    k, v = tokens or tuple(
        draw_tokens(sizes, heads, dim, device=DEVICE, dtype=dtype, seed=2 * seed + i) for i in range(2)
    )
    k_pages, v_pages, table = paginate(k, v, page, seed=seed)
    q = torch.randn(requests, heads * group, dim, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)
    first, count, lengths = (ints(column) for column in zip(*nodes, strict=True))
    mine = [[i for i, (low, n, _) in enumerate(nodes) if low <= b < low + n] for b in range(requests)]
    nothing = k[0][:, :0]
    both = [[torch.cat([nothing, *(x[i] for i in above)], 1) for above in mine] for x in (k, v)]
    arguments = {
        "q": q, "k_pages": k_pages, "v_pages": v_pages, "block_table": table, "lengths": lengths, "first": first,
        "count": count,
    }  # fmt: skip
    return arguments, truth(q, *both)


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[Node], int]:
    """Draw nested ranges of requests: every node's requests are cut at random among its children."""
    requests = draw(st.integers(1, 9))
    sizes = st.one_of(st.integers(0, 20), st.sampled_from([31, 32, 33, 65]))
    nodes: list[Node] = [(0, requests, draw(sizes))]
    level = [(0, requests)]
    for _ in range(draw(st.integers(0, 2))):
        deeper = []
        for low, number in level:
            cut = draw(st.integers(0, number))
            deeper += [part for part in ((low, cut), (low + cut, number - cut)) if part[1] and draw(st.booleans())]
        nodes += [(low, number, draw(sizes)) for low, number in deeper]
        level = deeper
    order = draw(st.permutations(range(len(nodes))))
    return [nodes[i] for i in order], requests


@given(
    tree=trees(),
    shape=st.sampled_from([(1, 1), (2, 2), (1, 4)]),
    page=st.sampled_from([3, 16]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_it_is_attention_over_the_concatenated_tokens(tree: Any, shape: tuple[int, int], page: int, seed: int):
    arguments, wanted = forest(*tree, *shape, page=page, seed=seed)
    check_close(decode_attention(**arguments), wanted)


@pytest.mark.parametrize(
    ("nodes", "requests", "group"),
    [
        ([(0, 8, 33), (2, 1, 5)], 8, 2),  # 16 rows: one full tile of the smallest class
        ([(0, 17, 33), (2, 1, 5)], 17, 1),  # 17: the next class
        ([(0, 16, 40), (0, 8, 9)], 16, 4),  # 64 rows, 32 rows
        ([(0, 65, 20), (64, 1, 7)], 65, 1),  # 65: the largest class
        ([(0, 33, 30), (1, 32, 11)], 33, 4),  # 132 and 128 rows: more than one tile, and one full
    ],
)
def test_tiles_of_all_classes_are_right_at_their_limits(nodes: list[Node], requests: int, group: int):
    arguments, wanted = forest(nodes, requests, 1, group)
    check_close(decode_attention(**arguments), wanted)


@given(
    sizes=st.tuples(st.integers(1, 50), st.integers(1, 50)), requests=st.integers(1, 9), seed=st.integers(0, 99)
)  # fmt: skip
@settings(max_examples=6, deadline=None)
def test_a_node_may_be_split_into_two(sizes: tuple[int, int], requests: int, seed: int):
    k, v = (draw_tokens([sum(sizes), 5], 1, 32, device=DEVICE, seed=seed + i) for i in (0, 50))
    whole, wanted = forest([(0, requests, sum(sizes)), (0, 1, 5)], requests, seed=seed, tokens=(k, v))
    parts = tuple([*x[0].split(sizes, 1), x[1]] for x in (k, v))
    split, _ = forest([(0, requests, sizes[0]), (0, requests, sizes[1]), (0, 1, 5)], requests, seed=seed, tokens=parts)
    assert torch.equal(whole["q"], split["q"])
    check_close(decode_attention(**split), wanted)
    check_close(decode_attention(**whole), wanted)
    exact = {name: to_double(value) for name, value in split.items()}
    check_close(UNIT.reference(**exact), wanted, 1e-12)


def test_the_order_of_nodes_does_not_matter():
    nodes = [(0, 5, 20), (0, 2, 33), (2, 3, 1), (4, 1, 17)]
    k, v = (draw_tokens([n[2] for n in nodes], 1, 32, device=DEVICE, seed=i) for i in range(2))
    results = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        arguments, wanted = forest([nodes[i] for i in order], 5, tokens=([k[i] for i in order], [v[i] for i in order]))
        results.append(decode_attention(**arguments))
        check_close(results[-1], wanted)


def test_requests_without_tokens_give_zeros_and_minus_infinity():
    arguments, wanted = forest([(1, 2, 40), (3, 1, 0)], 5)
    result = decode_attention(**arguments)
    for b in (0, 3, 4):
        assert (result["out"][b] == 0).all()
        assert (result["lse"][b] == -torch.inf).all()
    assert torch.isfinite(result["lse"][1:3]).all()
    check_close(result, wanted)


@pytest.mark.parametrize("nodes", [[(0, 2, 0)], [(0, 2, 0), (1, 1, 0)]])
def test_a_tree_without_any_token_is_nothing(nodes: list[Node]):
    result = decode_attention(**forest(nodes, 2)[0])
    assert (result["out"] == 0).all()
    assert (result["lse"] == -torch.inf).all()


def test_a_tree_without_sharing_is_paged_decode():
    lengths = [1, 15, 17, 0]
    arguments, wanted = forest([(b, 1, n) for b, n in enumerate(lengths)], 4, 2, 4, 64)
    check_close(decode_attention(**arguments), wanted)


def test_fp16_is_within_its_rounding():
    arguments, wanted = forest([(0, 5, 40), (0, 1, 7), (3, 2, 18)], 5, 2, 4, 64, dtype=torch.float16)
    result = decode_attention(**arguments)
    assert result["out"].dtype == torch.float16
    check_close(result, wanted, 2e-3)


def test_poison_in_unused_slots_never_leaks():
    arguments, wanted = forest([(0, 3, 17), (1, 1, 33)], 3)
    assert torch.isnan(arguments["k_pages"]).any()
    for poison in (torch.nan, torch.inf):
        poisoned = {name: arguments[name].nan_to_num(poison) for name in ("k_pages", "v_pages")}
        check_close(decode_attention(**arguments | poisoned), wanted)


def test_the_scale_is_a_factor_on_the_scores():
    arguments, _ = forest([(0, 2, 30)], 2)
    k, v = (draw_tokens([30], 1, 32, device=DEVICE, seed=i) * 2 for i in range(2))
    check_close(decode_attention(**arguments, scale=0.9), truth(arguments["q"], k, v, 0.9))


@pytest.mark.parametrize("name", ["q", "block_table"])
def test_strided_arguments_are_read_as_what_they_are(name: str):
    arguments, wanted = forest([(0, 3, 40), (1, 1, 20)], 3, 2, 2)
    check_close(decode_attention(**arguments | {name: strided(arguments[name])}), wanted)


def test_a_plan_is_only_a_matter_of_time():
    arguments, _ = forest([(0, 20, 70), (0, 3, 40), (5, 1, 9)], 20)
    plan = make_plan(*(arguments[name] for name in ("q", "first", "count", "lengths")), 1)
    plain, planned = decode_attention(**arguments), decode_attention(**arguments, plan=plan)
    assert all(torch.equal(plain[name], planned[name]) for name in plain)


@given(tree=trees(), heads=st.integers(1, 2), group=st.sampled_from([1, 5, 16]))
@settings(max_examples=30, deadline=None)
def test_every_query_of_a_node_reads_every_token_exactly_once(tree: Any, heads: int, group: int):
    nodes, requests = tree
    q = torch.empty(requests, heads * group, 16)
    first, count, lengths = (torch.tensor(column, dtype=torch.int32) for column in zip(*nodes, strict=True))
    plan = make_plan(q, first, count, lengths, heads)
    reads: dict[tuple[int, int, int], list[tuple[int, int]]] = {}  # node, head, row -> ranges
    states = {slot: query for query, slots in enumerate(plan.slots.tolist()) for slot in slots if slot >= 0}
    assert len(states) == int((plan.slots >= 0).sum()), "no slot belongs to two queries"
    written = set()
    for launch in plan.launches:
        for node, head, low, start, stop, slot in launch.items.tolist():
            for row in range(low, min(low + launch.rows, nodes[node][1] * group)):
                reads.setdefault((node, head, row), []).append((start, stop))
                query = (nodes[node][0] + row // group) * heads * group + head * group + row % group
                assert states[slot + row - low] == query
                written.add(slot + row - low)
    assert written == set(states), "every state that is merged was written"
    wanted = {
        (i, h, row) for i, (_, n, size) in enumerate(nodes) if size for h in range(heads) for row in range(n * group)
    }  # fmt: skip
    assert set(reads) == wanted
    for (node, *_), ranges in reads.items():
        reached = 0
        for start, stop in sorted(ranges):
            assert start == reached < stop
            reached = stop
        assert reached == nodes[node][2]


def refused(error: type[Exception], match: str, **changes: Any) -> None:
    arguments, _ = forest([(0, 3, 20), (1, 1, 40)], 3, 1, 2)
    with pytest.raises(error, match=match):
        decode_attention(**arguments | changes)


@pytest.mark.parametrize(("first", "count"), [([0, 3], [3, 1]), ([0, 1], [4, 1]), ([-1, 1], [2, 1]), ([0, 1], [3, 0])])
def test_nodes_naming_requests_that_do_not_exist_are_refused(first: list[int], count: list[int]):
    refused(ValueError, "must name requests 0 to 2, at least one for each node", first=ints(first), count=ints(count))


def test_what_does_not_fit_is_refused():
    zeros = torch.zeros
    refused(ValueError, "q must have shape", q=zeros(3, 32, device=DEVICE))
    refused(ValueError, "k_pages must have shape", k_pages=zeros(7, 1, 16, 64, device=DEVICE))
    refused(ValueError, "v_pages must have shape", v_pages=zeros(7, 1, 8, 32, device=DEVICE))
    refused(TypeError, "k_pages is torch.float16", k_pages=zeros(7, 1, 16, 32, dtype=torch.float16, device=DEVICE))
    refused(ValueError, r"first must have shape \[2\]", first=ints([0]))
    refused(ValueError, r"count must have shape \[2\]", count=ints([1, 1, 1]))
    refused(ValueError, r"block_table must have shape \[2, any\]", block_table=ints([[0, 1, 2]]))
    refused(TypeError, "first must be int32, not torch.int64", first=zeros(2, dtype=torch.int64, device=DEVICE))
    refused(ValueError, r"block_table\[0, 1\] is 50, outside of the pool", block_table=ints([[0, 50, 1], [2, 3, 4]]))
    refused(ValueError, "needs 4 pages, the block table has 3 columns", lengths=ints([20, 49]))
    refused(ValueError, "must not be negative", lengths=ints([20, -1]))
    refused(ValueError, "scale must be positive", scale=-1.0)


def test_query_heads_must_be_a_multiple_of_the_key_heads():
    arguments, _ = forest([(0, 3, 20)], 3, 2, 2)
    with pytest.raises(ValueError, match="query heads, 3, must be a multiple of the key heads, 2"):
        decode_attention(**arguments | {"q": torch.zeros(3, 3, 32, device=DEVICE)})


def test_work_counts_a_node_once_and_its_queries_each():
    arguments, _ = forest([(0, 4, 100), (0, 1, 10)], 4, 2, 2, 32)
    counted = UNIT.work(**arguments)
    assert counted.read == 2 * 110 * 2 * 32 * 4 + 4 * 4 * 32 * 4
    assert counted.flops == 4 * 4 * 32 * 410
    assert UNIT.figures(arguments, {}, 1.0)["ideal gain"] == pytest.approx(410 / 110)


def test_the_peer_without_sharing_computes_the_same():
    arguments, wanted = forest([(0, 3, 32), (0, 1, 5), (2, 1, 17)], 3)
    out = UNIT.peers["without sharing, ours"](arguments)()
    torch.testing.assert_close(out.double(), wanted[0], rtol=1e-5, atol=1e-5)


def test_the_peer_without_sharing_says_what_it_cannot_do():
    arguments, _ = forest([(0, 3, 33), (0, 1, 5)], 3)
    with pytest.raises(MissingPeerError, match="a shared node that ends within a page cannot be flattened"):
        UNIT.peers["without sharing, ours"](arguments)
