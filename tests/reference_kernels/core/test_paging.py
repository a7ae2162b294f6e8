"""The paged layout: what is written into pages comes back, and what belongs to no token is NaN."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.paging import gather, make_cache, pages_needed
from tests.reference_kernels.caches import draw_tokens, paginate

pytestmark = pytest.mark.quick

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(lengths=st.lists(st.integers(0, 10_000), min_size=1, max_size=9), page=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_as_few_pages_as_hold_the_tokens(lengths: list[int], page: int):
    for length, count in zip(lengths, pages_needed(torch.tensor(lengths), page).tolist(), strict=True):
        assert (count - 1) * page < length <= count * page or length == count == 0


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4), heads=st.integers(1, 3), page=st.integers(1, 17),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_gather_undoes_any_block_table(lengths: list[int], heads: int, page: int, seed: int):
    keys, values = (draw_tokens(lengths, heads, 4, device=CPU, seed=seed + i) for i in range(2))
    k_pages, v_pages, table = paginate(keys, values, page, seed=seed)
    for pages, tokens in ((k_pages, keys), (v_pages, values)):
        for row, wanted in zip(table, tokens, strict=True):
            assert torch.equal(gather(pages, row, wanted.shape[1]), wanted)


def test_gather_reads_no_entry_past_the_length():
    pages = torch.arange(3 * 4.0).reshape(3, 1, 4, 1)
    table = torch.tensor([2, 0, 99, -7], dtype=torch.int32)
    for length in range(9):
        assert gather(pages, table, length).flatten().tolist() == [8, 9, 10, 11, 0, 1, 2, 3][:length]
    with pytest.raises(IndexError):
        gather(pages, table, 9)


LENGTHS = [[5, 0, 16, 33], [0], [1, 1], [[3, 0], [17, 16]], [[0, 0]]]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("page", [1, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_make_cache_poisons_exactly_the_unused_slots(lengths: list, page: int, dtype: torch.dtype):
    sizes = torch.tensor(lengths, dtype=torch.int32)
    k_pages, v_pages, table, out = make_cache(sizes, 2, page, 8, dtype=dtype, generator=seeded())
    assert torch.equal(out, sizes)
    live = torch.zeros(len(k_pages), page, dtype=torch.bool)
    for row, length in zip(table.reshape(-1, table.shape[-1]), sizes.flatten().tolist(), strict=True):
        for token in range(length):
            place = (int(row[token // page]), token % page)
            assert not live[place], "two tokens share a slot"
            live[place] = True
        assert (row[-(-length // page) :] == -1).all()
    for pages in (k_pages, v_pages):
        assert pages.dtype == dtype
        wanted = ~live[:, None, :, None].expand(pages.shape)
        assert torch.equal(torch.isnan(pages), wanted)
        assert torch.isfinite(pages[~wanted]).all()
    assert not torch.equal(k_pages[~torch.isnan(k_pages)], v_pages[~torch.isnan(v_pages)]) or not live.any()


@pytest.mark.parametrize("lengths", LENGTHS)
def test_make_cache_wastes_no_page(lengths: list):
    sizes = torch.tensor(lengths, dtype=torch.int32)
    k_pages, _, table, _ = make_cache(sizes, 2, 16, 8, dtype=torch.float32, generator=seeded())
    counts = [-(-n // 16) for n in sizes.flatten().tolist()]
    assert k_pages.shape == (max(sum(counts), 1), 1 if sizes.dim() == 2 else 2, 16, 8)
    assert table.shape == (*sizes.shape, max(*counts, 1))
    assert table.dtype == torch.int32
    assert sorted(table[table >= 0].tolist()) == list(range(sum(counts)))


def test_pages_lie_in_random_order():
    table = make_cache(torch.tensor([640]), 1, 16, 1, dtype=torch.float32, generator=seeded())[2]
    assert table[0].tolist() != sorted(table[0].tolist())


def test_the_generator_decides_numbers_and_places():
    def cache(seed: int) -> list[torch.Tensor]:
        made = make_cache(torch.tensor([50, 3]), 2, 16, 8, dtype=torch.float32, generator=seeded(seed))
        return [part.nan_to_num(7.0) for part in made]

    assert all(map(torch.equal, cache(1), cache(1)))
    assert not any(map(torch.equal, cache(1)[:3], cache(2)[:3]))
