"""Radix cache: prompts reuse the KV of the longest prefix that is cached, in whole pages.

Computes
--------
For a prompt x and all prefixes c inserted before and not evicted since, with S tokens per page:
    hit(x) = S * max_c floor(lcp(x, c) / S)
where lcp is the number of leading tokens in common. The prefixes lie in a radix tree (radix_tree.py): an edge is a
run of whole pages, a node keeps the numbers of the pages of the pool that hold the run, and two prefixes share the
nodes of what they have in common. `match` walks from the root, one dictionary look-up per node and one comparison per
page, and splits the node in which the prefix ends, so that the handle that it returns stands for exactly that prefix.
`lock` counts a reference on every node of the path; only nodes without references may go. `evict` frees the least
recently used leaf first, from its end; a parent whose last child went is a leaf itself.

A scheduler serves a request with:
    match; lock it; evict what the pool lacks for the rest; compute the rest; insert prompt and pages; free the pages
    whose content `insert` found present; match and lock the whole, unlock the first; unlock when the request ends.

Layout
------
tokens: integers; here [N] int64, prompts behind one another, with their lengths [B] int64. Slots: one integer per
page, the page's number in the pool of core/paging.py. A last page that is not full is neither matched nor kept, since
the next request would write into it. S = 1 is allowed. All of it is host memory and plain Python: the walk follows
pointers, and one request takes microseconds while its prefill takes milliseconds.

Cost
----
match and insert take O(T / S + nodes on the path) for T tokens, lock O(nodes on the path), evict O(log n) per leaf that
it frees, with n nodes. A node's heap entry is renewed only when it is popped with an old time, so that using a prefix
costs nothing in the heap.

Published
---------
No figure is quoted: SGLang's are of whole servers. The bound of any policy is the hit rate of a cache that never
evicts, which `kernels simulate` reports for a trace.

Differs
-------
SGLang collects the leaves into a new heap at every eviction and evicts whole nodes; here one heap lives as long as the
tree, and the last node is cut so that exactly the wanted number of pages is freed (least recently used page by page).
Removed neighbours are not merged into longer runs, which changes nothing that can be seen from outside.

:leaf: kvs
:papers: sglang
"""

from __future__ import annotations

import random
from typing import Any

import torch

from reference_kernels.core.checks import check_shape
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvs.radix_tree import Match, RadixTree

__all__ = ["UNIT", "Match", "RadixTree", "hit_lengths"]


def hit_lengths(tokens: torch.Tensor, lengths: torch.Tensor, page: int) -> Outputs:
    """Send prompts through an unbounded cache, one after the other: match, then insert.

    Args:
        tokens: [N] int64, the prompts behind one another.
        lengths: [B] int64, their lengths; they sum to N.
        page: tokens per page.

    Returns:
        hits [B] int64, cached tokens of each prompt when it came; pages [] int64, pages in the tree at the end.
    """
    tree, fresh, hits = RadixTree(page), 0, []
    for prompt in _prompts(tokens, lengths):
        hit = tree.match(prompt)
        missing = len(prompt) // page - len(hit.slots)
        tree.insert(prompt, [*hit.slots, *range(fresh, fresh + missing)])
        fresh += missing
        hits.append(hit.length)
    return {"hits": torch.tensor(hits, dtype=torch.int64), "pages": torch.tensor(tree.used)}


def reference(tokens: torch.Tensor, lengths: torch.Tensor, page: int) -> Outputs:
    """The equation: compare every prompt with all before it; the pages are the distinct prefixes of whole pages."""
    prompts = _prompts(tokens, lengths)
    hits = []
    for i, prompt in enumerate(prompts):
        common = 0
        for other in prompts[:i]:
            shortest = min(len(prompt), len(other))
            equal = [prompt[k] == other[k] for k in range(shortest)]
            common = max(common, equal.index(False) if False in equal else shortest)
        hits.append(common // page * page)
    distinct = {tuple(prompt[:end]) for prompt in prompts for end in range(page, len(prompt) + 1, page)}
    return {"hits": torch.tensor(hits, dtype=torch.int64), "pages": torch.tensor(len(distinct))}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, prompts: int, longest: int, page: int, words: int = 3
) -> Inputs:
    """Draw prompts of which most continue a random part of an earlier one, over `words` different tokens.

    The tokens stay on the CPU whatever the device, since the cache is the host's.
    """
    draw = random.Random(seed)  # noqa: S311 - a test's dice, no secret
    made: list[list[int]] = []
    for _ in range(prompts):
        earlier = draw.choice(made) if made and draw.random() < 0.8 else []
        kept = earlier[: draw.randint(0, len(earlier))]
        length = draw.randint(len(kept), longest)
        made.append(kept + [draw.randrange(words) for _ in range(length - len(kept))])
    return {
        "tokens": torch.tensor([token for prompt in made for token in prompt], dtype=torch.int64),
        "lengths": torch.tensor([len(prompt) for prompt in made], dtype=torch.int64),
        "page": page,
    }


def work(*, tokens: torch.Tensor, lengths: torch.Tensor, page: int, **_: Any) -> Work:
    """Every token read once, one slot written per page."""
    return Work(read=8 * tokens.numel(), written=8 * int((lengths // page).sum()))


def _prompts(tokens: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
    check_shape("tokens", tokens, None)
    check_shape("lengths", lengths, None)
    if int(lengths.sum()) != len(tokens) or bool((lengths < 0).any()):
        raise ValueError(f"lengths must not be negative and sum to the {len(tokens)} tokens, not {int(lengths.sum())}")
    return [part.tolist() for part in tokens.split(lengths.tolist())]


UNIT = Unit(
    kernel=hit_lengths,
    reference=reference,
    make_inputs=make_inputs,
    work=work,
    shapes={
        "page of one token": {"prompts": 60, "longest": 40, "page": 1},
        "page of 4, lengths that do not fit": {"prompts": 60, "longest": 70, "page": 4},
        "page of 16": {"prompts": 40, "longest": 300, "page": 16, "words": 2},
        "prompts shorter than a page": {"prompts": 10, "longest": 7, "page": 8},
        "nothing shared": {"prompts": 10, "longest": 30, "page": 1, "words": 1_000_000},
        "one prompt": {"prompts": 1, "longest": 17, "page": 2},
    },
    dtypes=(torch.float32,),
    output="hits",
)
