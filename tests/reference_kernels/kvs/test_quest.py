"""Quest: bounds that hold, pages that are the best ones, and dense attention where every page is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.kvs.paged_decode import make_plan as plan_dense
from reference_kernels.kvs.paged_decode import paged_decode
from reference_kernels.kvs.quest import (
    SPAN,
    UNIT,
    decode_attention,
    make_digests,
    page_scores,
    select_pages,
    update_digests,
)
from tests.reference_kernels.caches import check_close, draw_tokens, paginate, strided, truth
from tests.reference_kernels.conftest import DEVICE

INF = torch.inf


def ints(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def cache(
    lengths: list[int], heads: int = 2, group: int = 2, dim: int = 32, page: int = 16, seed: int = 0
) -> tuple[dict[str, Any], list[torch.Tensor], list[torch.Tensor]]:
    """Return arguments for `decode_attention` (but `pages`), and the keys and values [Hkv, T, D] of each request."""
    k, v = (draw_tokens(lengths, heads, dim, device=DEVICE, seed=2 * seed + i) for i in range(2))
    k_pages, v_pages, table = paginate(k, v, page, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    sizes = ints(*lengths)
    arguments = {
        "q": torch.randn(len(lengths), heads * group, dim, generator=generator).to(DEVICE), "k_pages": k_pages,
        "v_pages": v_pages, "digests": make_digests(k_pages, table, sizes), "block_table": table, "lengths": sizes,
    }  # fmt: skip
    return arguments, k, v


def split(tokens: torch.Tensor, page: int) -> list[torch.Tensor]:
    """Cut one request's tokens [H, T, D] into the parts that lie in pages."""
    return list(tokens.split(page, 1)) if tokens.shape[1] else []


@pytest.mark.parametrize("page", [1, 5, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_digests_are_minimum_and_maximum_over_the_live_slots(page: int, dtype: torch.dtype):
    lengths = [1, 15, 16, 17, 0, 40]
    k = draw_tokens(lengths, 2, 32, device=DEVICE, dtype=dtype)
    k_pages, _, table = paginate(k, k, page)
    digests = make_digests(k_pages, table, ints(*lengths))
    assert digests.dtype == dtype
    for row, tokens in zip(table, k, strict=True):
        for place, part in zip(row.tolist(), split(tokens, page), strict=False):
            assert torch.equal(digests[place], torch.stack([part.amin(1), part.amax(1)], 1))


@given(
    before=st.lists(st.integers(0, 40), min_size=2, max_size=2),
    added=st.lists(st.integers(0, 30), min_size=2, max_size=2), page=st.sampled_from([4, 16]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_updating_after_an_append_is_building_anew(before: list[int], added: list[int], page: int, seed: int):
    after = [a + b for a, b in zip(before, added, strict=True)]
    k = draw_tokens(after, 2, 16, device=DEVICE, seed=seed)
    k_pages, _, table = paginate(k, k, page, seed=seed)
    old = k_pages.clone()  # as it was: the added tokens are not there yet
    for row, start, stop in zip(table, before, after, strict=True):
        for token in range(start, stop):
            old[row[token // page], :, token % page] = torch.nan
    digests = make_digests(old, table, ints(*before))
    update_digests(digests, k_pages, table, ints(*after), ints(*before))
    used = table[table >= 0].long()
    assert torch.equal(digests[used], make_digests(k_pages, table, ints(*after))[used])


def test_updating_leaves_pages_without_new_tokens_alone():
    arguments, _, _ = cache([40, 32])
    digests = torch.full_like(arguments["digests"], 7.0)
    update_digests(digests, arguments["k_pages"], arguments["block_table"], ints(40, 32), ints(32, 32))
    changed = (digests != 7).flatten(1).any(1).nonzero().flatten()
    assert changed.tolist() == [int(arguments["block_table"][0, 2])]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=2), page=st.sampled_from([1, 4, 16]),
    group=st.sampled_from([1, 3, 4]), loud=st.sampled_from([0.01, 1.0, 100.0]), seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_no_key_scores_higher_than_the_bound_of_its_page(
    lengths: list[int], page: int, group: int, loud: float, seed: int
):
    arguments, k, _ = cache(lengths, 2, group, 16, page, seed)
    q = arguments["q"] * loud
    scores, _ = page_scores(q, arguments["digests"], arguments["block_table"], arguments["lengths"], page)
    for query, tokens, mine in zip(q.double().unflatten(1, (2, group)), k, scores, strict=True):
        for number, part in enumerate(split(tokens, page)):
            best = torch.einsum("hgd,htd->hgt", query, part.double()).flatten(1).amax(1)
            rounding = torch.einsum("hgd,htd->hgt", query.abs(), part.double().abs()).flatten(1).amax(1) * 16 * 2**-24
            assert (mine[:, number] >= best - rounding).all()


def test_scores_are_the_bounds_and_mark_the_newest_page_and_those_that_are_not_there():
    arguments, k, _ = cache([40, 16, 0, 33], heads=2, group=3)
    scores, _ = page_scores(arguments["q"], arguments["digests"], arguments["block_table"], arguments["lengths"], 16)
    queries = arguments["q"].double().unflatten(1, (2, 3))
    for query, tokens, mine in zip(queries, k, scores, strict=True):
        parts = split(tokens, 16)
        assert (mine[:, len(parts) :] == -INF).all()
        for number, part in enumerate(parts):
            low, high = part.amin(1).double(), part.amax(1).double()
            bound = torch.maximum(query * low[:, None], query * high[:, None]).sum(-1).amax(1)
            if number == len(parts) - 1:
                assert (mine[:, number] == INF).all()
            else:
                torch.testing.assert_close(mine[:, number].double(), bound, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("page", [1, 4])
def test_peaks_are_the_largest_scores_of_spans_but_the_newest_pages(page: int):
    arguments, _, _ = cache([300, 1, 0, 33 * page], page=page)
    scores, peaks = page_scores(
        arguments["q"], arguments["digests"], arguments["block_table"], arguments["lengths"], page
    )
    assert torch.equal(peaks, peaks_of(scores))


def test_a_score_may_be_below_zero():
    arguments, _, _ = cache([40], heads=1, group=3)
    k_pages, q = -arguments["k_pages"].abs(), arguments["q"].abs()
    digests = make_digests(k_pages, arguments["block_table"], arguments["lengths"])
    scores, _ = page_scores(q, digests, arguments["block_table"], arguments["lengths"], 16)
    largest = digests[arguments["block_table"][0].long(), 0, 1]  # [N, D]
    torch.testing.assert_close(scores[0, 0, :2], (q[0] @ largest.T).amax(0)[:2], rtol=1e-5, atol=1e-5)
    assert (scores[0, 0, :2] < 0).all()


def test_scores_of_many_pages_do_not_depend_on_how_programs_share_them():
    arguments, _, _ = cache([1000], heads=1, group=1, dim=16, page=4)  # 250 pages: more than one tile of 64
    q, digests, table = (arguments[name] for name in ("q", "digests", "block_table"))
    alone, _ = page_scores(q, digests, table, ints(1000), 4)
    low, high = digests[table[0].long(), 0].unbind(1)
    wanted = torch.maximum(q[0] * low, q[0] * high).sum(-1)
    torch.testing.assert_close(alone[0, 0, :-1], wanted[:-1], rtol=1e-5, atol=1e-5)
    among, _ = page_scores(q.repeat(13, 1, 1), digests, table.repeat(13, 1), ints(*[1000] * 13), 4)
    assert torch.equal(among, alone.expand(13, 1, 250))


def peaks_of(scores: torch.Tensor) -> torch.Tensor:
    """Return the largest score of each span, the newest page's (+inf) left out."""
    rest = scores.masked_fill(scores == INF, -INF)
    rest = torch.nn.functional.pad(rest, (0, -rest.shape[-1] % SPAN), value=-INF)
    return rest.unflatten(-1, (-1, SPAN)).amax(-1)


def choose(rows: list[list[float]], pages: int, page: int = 16, last: int | None = None) -> list[list[int]]:
    """Select among pages named 100, 101, ... of requests with these scores; the newest gets its +inf here."""
    width = max(map(len, rows))
    scores = torch.tensor([[*row[:-1], INF, *[-INF] * (width - len(row))] if row else [-INF] * width for row in rows])
    table = torch.arange(100, 100 + width, dtype=torch.int32, device=DEVICE).repeat(len(rows), 1)
    lengths = ints(*(len(row) * page - (page - (last or page)) if row else 0 for row in rows))
    scores = scores.unsqueeze(1).to(DEVICE)
    kept, counts = select_pages(scores, peaks_of(scores), table, lengths, page, pages)
    for row, size in zip(rows, counts.flatten().tolist(), strict=True):
        number = min(len(row), pages)
        assert size == (number * page - (page - (last or page)) if row else 0)
    return kept[:, 0].tolist()


SCORES = st.one_of(
    st.floats(-(2.0**100), 2.0**100, width=32), st.sampled_from([0.0, 1.0, -1.0, 1e-40, -1e-40, 3.4e38, -3.4e38, 2.0])
).map(lambda x: x + 0.0)  # -0.0 has a test of its own


@given(row=st.lists(SCORES, min_size=1, max_size=33), pages=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_kept_pages_are_the_best_ones_earlier_ones_winning_ties(row: list[float], pages: int):
    (kept,) = choose([row], pages)
    ranked = sorted(range(len(row) - 1), key=lambda i: (-row[i], i))[: pages - 1]
    wanted = sorted(100 + i for i in [*ranked, len(row) - 1])
    assert kept == wanted + [-1] * (min(pages, len(row)) - len(wanted))


@given(row=st.lists(SCORES, min_size=2, max_size=80), pages=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_kept_scores_are_those_of_torchs_topk(row: list[float], pages: int):
    (kept,) = choose([row], pages)
    scores = torch.tensor([*row[:-1], INF])
    mine = scores[[page - 100 for page in kept if page >= 0]]
    assert torch.equal(mine.sort(descending=True).values, scores.topk(min(pages, len(row))).values)


@pytest.mark.parametrize("pages", [1, 2, 5])
def test_among_equals_the_earlier_pages_are_kept(pages: int):
    assert choose([[3.0] * 9], pages) == [[*range(100, 99 + pages), 108]]


def test_zeros_of_both_signs_tie():
    assert choose([[-0.0, 0.0, 5.0]], 2) == [[100, 102]]


@pytest.mark.parametrize("pages", [2, 3, 5])
def test_scores_one_rounding_apart_are_told_apart(pages: int):
    for sign in (1, -1):
        row = [sign * (1 + i * 2**-23) for i in range(8)]
        best = range(108 - pages + 1, 108) if sign > 0 else range(100, 100 + pages - 1)
        assert choose([[*row, 0.0]], pages) == [[*best, 108]]


@given(
    seed=st.integers(0, 999), length=st.integers(40, 300), pages=st.sampled_from([1, 2, 7, 32, 33, 300]),
    levels=st.sampled_from([1, 3, 20, 10**6]), clustered=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_spans_hide_no_page(seed: int, length: int, pages: int, levels: int, clustered: bool):
    row = torch.randint(-levels, levels + 1, (length,), generator=torch.Generator().manual_seed(seed)).float()
    if clustered:  # the best pages lie side by side, in few spans
        row = row.sort().values
    (kept,) = choose([row.tolist()], pages)
    ranked = sorted(range(length - 1), key=lambda i: (-row[i].item(), i))[: pages - 1]
    assert kept == sorted(100 + i for i in [*ranked, length - 1])


def test_the_newest_page_is_always_kept():
    assert choose([[9.0, 8.0, 7.0]], 1) == [[102]]
    assert choose([[9.0, 8.0, -1e30]], 2) == [[100, 102]]


def test_rows_of_other_lengths_are_filled_with_minus_one():
    assert choose([[1.0, 2.0, 3.0, 4.0], [5.0], []], 3) == [[101, 102, 103], [100, -1, -1], [-1, -1, -1]]


def test_only_the_newest_page_may_be_partly_filled():
    choose([[1.0, 5.0, 0.0, 2.0], [1.0]], 2, last=3)  # the lengths are asserted within


@pytest.mark.parametrize(("pages", "lengths", "group"), [(1, [100], 1), (3, [1, 15, 16, 17, 70, 0], 4), (2, [65], 8)])
def test_it_attends_to_exactly_the_kept_pages(pages: int, lengths: list[int], group: int):
    arguments, k, v = cache(lengths, 2, group)
    result = decode_attention(**arguments, pages=pages)
    for b, length in enumerate(lengths):
        count = -(-length // 16)
        for h in range(2):
            kept = [page for page in result["kept"][b, h].tolist() if page >= 0]
            order = [arguments["block_table"][b].tolist().index(page) for page in kept]
            assert order == sorted(order)
            assert len(order) == min(pages, count)
            assert count == 0 or order[-1] == count - 1
            mine = result["scores"][b, h, :count]
            assert torch.equal(mine[order].sort().values, mine.topk(len(order)).values.sort().values)
            parts = [torch.cat([split(x[b][h : h + 1], 16)[i] for i in order] or [x[b][h : h + 1]], 1) for x in (k, v)]
            heads = slice(h * group, (h + 1) * group)
            found = {name: result[name][b : b + 1, heads] for name in ("out", "lse")}
            check_close(found, truth(arguments["q"][b : b + 1, heads], [parts[0]], [parts[1]]))


def test_a_budget_above_the_length_is_dense_attention_exactly():
    arguments, k, v = cache([65, 30, 0, 16], 2, 4)
    result = decode_attention(**arguments, pages=9)
    whole = {name: arguments[name] for name in ("q", "k_pages", "v_pages")}
    table = arguments["block_table"].unsqueeze(1).repeat(1, 2, 1)
    sizes = arguments["lengths"].unsqueeze(1).repeat(1, 2)
    dense = paged_decode(**whole, block_table=table, lengths=sizes, plan=plan_dense(arguments["q"], sizes, 2))
    assert torch.equal(result["out"], dense["out"])
    assert torch.equal(result["lse"], dense["lse"])
    assert torch.equal(result["kept"], table)
    check_close(result, truth(arguments["q"], k, v))


def test_a_larger_budget_keeps_all_that_a_smaller_one_keeps():
    arguments, _, _ = cache([150])
    kept = [set(decode_attention(**arguments, pages=n)["kept"][0, 0].tolist()) for n in (1, 3, 6)]
    assert kept[0] < kept[1] < kept[2]


def test_a_loud_page_is_found():
    arguments, _, _ = cache([160], 1, 1, 64)
    place = int(arguments["block_table"][0, 4])
    arguments["k_pages"][place, 0, 7] = arguments["q"][0, 0] * 10
    arguments["digests"] = make_digests(arguments["k_pages"], arguments["block_table"], arguments["lengths"])
    assert place in decode_attention(**arguments, pages=2)["kept"]


def test_the_scale_is_a_factor_on_the_scores():
    arguments, k, v = cache([30])
    check_close(decode_attention(**arguments, pages=9, scale=0.7), truth(arguments["q"], k, v, 0.7))


def test_the_plan_changes_nothing():
    arguments, _, _ = cache([150, 3])
    plain = decode_attention(**arguments, pages=4)
    planned = decode_attention(**UNIT.planned({**arguments, "pages": 4}))
    assert all(torch.equal(plain[name], planned[name]) for name in plain)


@pytest.mark.parametrize("name", ["q", "digests", "block_table"])
def test_strided_arguments_are_read_as_what_they_are(name: str):
    arguments, _, _ = cache([100, 70])
    wanted = decode_attention(**arguments, pages=3)
    result = decode_attention(**arguments | {name: strided(arguments[name])}, pages=3)
    check_close(result, (wanted["out"].double(), wanted["lse"].double()))


def test_digests_heed_the_strides_of_pages():
    arguments, _, _ = cache([32, 64])
    pages = arguments["k_pages"].transpose(1, 2).contiguous().transpose(1, 2)  # [P, S, H, D] in memory
    digests = make_digests(pages, arguments["block_table"], arguments["lengths"])
    used = arguments["block_table"][arguments["block_table"] >= 0].long()
    assert torch.equal(digests[used], arguments["digests"][used])


def refused(error: type[Exception], match: str, pages: int = 2, **changes: Any) -> None:
    arguments, _, _ = cache([20, 40])
    with pytest.raises(error, match=match):
        decode_attention(**arguments | changes, pages=pages)


@pytest.mark.parametrize("pages", [0, -1])
def test_a_budget_of_no_page_is_refused(pages: int):
    refused(ValueError, f"at least one page must be kept, not {pages}", pages=pages)


def test_what_does_not_fit_is_refused():
    refused(ValueError, "digests must have shape", digests=torch.zeros(7, 2, 1, 32, device=DEVICE))
    refused(TypeError, "digests is torch.float16", digests=torch.zeros(7, 2, 2, 32, dtype=torch.float16, device=DEVICE))
    refused(ValueError, "v_pages must have shape", v_pages=torch.zeros(7, 2, 16, 16, device=DEVICE))
    refused(ValueError, "q must have shape", q=torch.zeros(2, 32, device=DEVICE))
    refused(ValueError, "must be a multiple of the key heads", q=torch.zeros(2, 3, 32, device=DEVICE))
    refused(ValueError, r"lengths must have shape \[2\]", lengths=ints(1, 2, 3))
    refused(TypeError, "block_table must be int32", block_table=torch.zeros(2, 3, dtype=torch.int64, device=DEVICE))
    refused(
        ValueError,
        r"block_table\[1, 0\] is 99, outside of the pool of 7 pages",
        block_table=ints([0, 1, 2], [99, 1, 2]),
    )
    refused(ValueError, "needs 4 pages", lengths=ints(49, 1))
    refused(ValueError, "must not be negative", lengths=ints(-1, 1))


def test_more_pages_than_registers_hold_are_refused():
    table = torch.zeros(1, 16385, dtype=torch.int32, device=DEVICE)
    scores = torch.zeros(1, 1, 16385, device=DEVICE)
    with pytest.raises(
        ValueError, match="at most 16384 pages of a request can be scored, not 16385: take larger pages"
    ):
        select_pages(scores, peaks_of(scores), table, ints(16385), 1, 3)


def test_digests_of_another_cache_are_refused():
    arguments, _, _ = cache([20])
    rest = (arguments["k_pages"], arguments["block_table"], arguments["lengths"])
    with pytest.raises(ValueError, match="digests must have shape"):
        update_digests(arguments["digests"][:1], *rest, ints(0))
    with pytest.raises(TypeError, match="since must be int32"):
        update_digests(arguments["digests"], *rest, torch.zeros(1, device=DEVICE))


def test_work_and_ideal_gain_count_digests_and_kept_pages():
    arguments, _, _ = cache([160, 16], 2, 4, 32)
    inputs = {**arguments, "pages": 2}
    counted = UNIT.work(**inputs)
    queries = 2 * 8 * 32 * 4
    assert counted.read == 2 * 32 * 4 * 2 * (11 + 32 + 16) + queries
    dense = 2 * 32 * 4 * 2 * 176 + queries
    assert UNIT.figures(inputs, {}, 1.0) == {"ideal gain": dense / counted.read}


def test_the_dense_peer_is_only_timed():
    arguments, _, _ = cache([40])
    assert UNIT.peers["dense, ours"]({**arguments, "pages": 1})() is None
