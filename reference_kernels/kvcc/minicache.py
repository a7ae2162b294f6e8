"""MiniCache: two neighboring layers share one direction per token and keep a norm each.

Computes
--------
Layers a and b = a + 1, for every token and key head, keys and values alike: with the unit vectors u_a, u_b and the
angle w between them (SLERP, interpolation on the sphere)
    e = sin((1 - t) w) / sin w  u_a + sin(t w) / sin w  u_b,       restored: x_a = |x_a| e,   x_b = |x_b| e.
Where the angular distance w / pi of keys or of values exceeds `threshold`, in 0 ... 1, the token of that head is kept
apart: the place for e holds x_a itself with norm 1, and x_b goes to a list. So layer a never looks at the list, and
layer b attends to the merged tokens without the ones kept apart, and to its list: softmax does not mind the order.
Decoding restores nothing in memory. The norm of a key scales its score, the norm of a value its weight:
    score[t] = scale |k_t| (q . e_t),      out = sum_t softmax_t(score) |v_t| e'_t.
`merge_layers` reads four tensors once; `restore` gives a layer back; `adjacent_similarity` tells whether a model fits.

Layout
------
Layers go in as k, v [B, Hkv, T, D] contiguous with lengths [B] int32, 0 allowed, and come out as a dict: k, v [B, Hkv,
T, D] (directions, or x_a); k_norms, v_norms [2, B, Hkv, T] fp32, layer a first, k_norms[1] = -1 where a token is kept
apart; kept_k, kept_v [M, D] (x_b, in the order of b, h, t), kept_at [M] int32 (t) and kept_start [B Hkv + 1] int32:
the list of row r = b Hkv + h is kept_start[r] ... kept_start[r + 1]. q [B, Hq, D], D a power of two; returns out [B,
Hq, D] in q's dtype and lse [B, Hq] (natural logarithm) in fp32.

Cost
----
Two layers take 2 T (D e + 8) + M (2 D e + 4) bytes per head instead of 4 T D e, M tokens being kept apart: in bf16 with
D = 128, 48 % less if all merge, 2 % more if none does. A decode step of one layer still reads 2 T (D e + 4) bytes, and
layer b its list: the gain is capacity, not speed. 4 B Hq T D FLOPs; bound by bandwidth.

Published
---------
LLaMA-2-7B on ShareGPT, against the full cache in fp16: 1.53x smaller by merging alone (abstract at NeurIPS 2024); with
4 bits as well up to 5.02x smaller, about 5x the throughput, 41 % less memory (abstract on arXiv). Against it: adjacent
layers of SmolLM2-135M have a mean cosine of -0.01 (keys) and -0.005 (values), at most 0.18, measured for this atlas;
the premise does not hold there, nearly every token would be kept apart. xKV's authors say the same of other models.
Measure `adjacent_similarity` first.

Measured
--------
One H100, B=32 x 8k, a tenth of the tokens kept apart: 363 us for the first layer and 398 us for the second, 0.99x and
0.91x of dense bf16 attention: 43 % less memory, no time saved.

Differs
-------
t = 0.6 is the value attributed to the paper, not re-read; it is a parameter. So is the threshold, which has no default
and decides per token and head, for keys and values together. Merging a prompt is shown, not appending to it. Opposite
vectors have no SLERP: the direction is that of the layer nearer to t. There is no public code to compare with.

:leaf: kvcc/structural-compression
:papers: minicache
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_dim, check_heads, check_integers, check_same, check_shape
from reference_kernels.core.device import interpreted
from reference_kernels.core.lse import LOG2_E, attention
from reference_kernels.core.pieces import Plan, can_launch_early, merge, store_lse, store_mean, take_piece
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvcc.split_decode import (
    check_contiguous,
    check_room,
    fold,
    make_row_plan,
)
from reference_kernels.kvs.paged_decode import dense_peer


def adjacent_similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the cosines [...] of the keys (or values) [..., D] of two layers; MiniCache wants them near 1."""
    return torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1)


def merge_layers(
    k_a: torch.Tensor, v_a: torch.Tensor, k_b: torch.Tensor, v_b: torch.Tensor, lengths: torch.Tensor, *,
    threshold: float, t: float = 0.6,
) -> Outputs:  # fmt: skip
    """Merge the caches of two layers. Waits for the GPU to know how many tokens are kept apart: once per prompt.

    Args:
        k_a, v_a, k_b, v_b: [B, Hkv, T, D].
        lengths: [B] int32.
        threshold: largest angular distance w / pi of tokens that are merged: 1 merges all, 0 only equal directions.
        t: 0 takes the direction of layer a, 1 that of layer b.

    Returns:
        The dict of the module's docstring; `decode_attention(q, **merged, lengths=lengths, layer=...)` takes it.
    """
    check_same(k_a=k_a, v_a=v_a, k_b=k_b, v_b=v_b)
    check_shape("k_a", k_a, None, None, None, None)
    for name, other in (("v_a", v_a), ("k_b", k_b), ("v_b", v_b)):
        check_shape(name, other, *k_a.shape)
    check_contiguous(k_a=k_a, v_a=v_a, k_b=k_b, v_b=v_b)
    batch, heads, capacity, dim = k_a.shape
    check_dim(dim)
    check_room(lengths, batch, capacity, k_a.device)
    if not (0 <= t <= 1 and 0 <= threshold <= 1):
        raise ValueError(f"t and threshold must lie in 0 ... 1, not {t} and {threshold}")
    k, v = torch.empty_like(k_a), torch.empty_like(v_a)
    k_norms, v_norms = (torch.empty(2, *k.shape[:3], dtype=torch.float32, device=k.device) for _ in range(2))
    apart = torch.zeros(k.shape[:3], dtype=torch.int8, device=k.device)
    block = 256 if interpreted() else max(2048 // dim, 8)  # the interpreter pays per program
    _merge_tokens[(batch * heads, triton.cdiv(capacity, block))](
        k_a, v_a, k_b, v_b, lengths, k, v, k_norms, v_norms, apart, float(t),
        threshold * math.pi if threshold < 1 else math.inf, capacity, k_norms.stride(0), HEADS=heads, DIM=dim,
        BLOCK=block, num_warps=4,
    )  # fmt: skip
    row, at = apart.flatten(0, 1).nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=batch * heads)
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return {
        "k": k,
        "v": v,
        "k_norms": k_norms,
        "v_norms": v_norms,
        "kept_k": k_b.flatten(0, 1)[row, at],
        "kept_v": v_b.flatten(0, 1)[row, at],
        "kept_at": at.to(torch.int32),
        "kept_start": start.to(torch.int32),
    }


def restore(
    k: torch.Tensor, v: torch.Tensor, k_norms: torch.Tensor, v_norms: torch.Tensor, kept_k: torch.Tensor,
    kept_v: torch.Tensor, kept_at: torch.Tensor, kept_start: torch.Tensor, *, layer: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return keys and values [B, Hkv, T, D] of layer 0 (a) or 1 (b), in the dtype of `k`."""
    k, v = (x * norms[layer].unsqueeze(-1) for x, norms in ((k, k_norms), (v, v_norms)))
    if layer == 1:
        rows = torch.arange(len(kept_start) - 1, device=k.device).repeat_interleave(kept_start.diff())
        place = (rows, kept_at.long())
        k.flatten(0, 1)[place], v.flatten(0, 1)[place] = kept_k.to(k.dtype), kept_v.to(v.dtype)
    return k.to(kept_k.dtype), v.to(kept_v.dtype)


def nbytes(merged: Outputs) -> int:
    """Return the bytes in memory of two merged layers."""
    return sum(merged[name].numel() * merged[name].element_size() for name in MERGED)


MERGED = ("k", "v", "k_norms", "v_norms", "kept_k", "kept_v", "kept_at", "kept_start")


def decode_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, k_norms: torch.Tensor, v_norms: torch.Tensor,
    kept_k: torch.Tensor, kept_v: torch.Tensor, kept_at: torch.Tensor, kept_start: torch.Tensor, lengths: torch.Tensor,
    *, layer: int, scale: float | None = None, plan: Plan | None = None,
) -> Outputs:  # fmt: skip
    """Attend from one query per request to layer 0 (a) or 1 (b) of a merged pair. Shapes: the module's docstring.

    With a plan, made for this layer, nothing is read back from the device; without one it is made here and lengths are
    checked.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or lengths do not fit.
    """
    check_same(q=q, k=k, v=v, kept_k=kept_k, kept_v=kept_v)
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    check_dim(dim)
    check_shape("k", k, batch, None, None, dim)
    check_shape("v", v, *k.shape)
    heads, capacity = k.shape[1:3]
    group = check_heads(query_heads, heads)
    check_same(k_norms=k_norms, v_norms=v_norms)
    for name, norms in (("k_norms", k_norms), ("v_norms", v_norms)):
        check_shape(name, norms, 2, batch, heads, capacity)
    check_shape("kept_k", kept_k, None, dim)
    check_shape("kept_v", kept_v, *kept_k.shape)
    check_shape("kept_at", kept_at, len(kept_k))
    check_shape("kept_start", kept_start, batch * heads + 1)
    check_shape("lengths", lengths, batch)
    check_integers(q.device, kept_at=kept_at, kept_start=kept_start, lengths=lengths)
    check_contiguous(k=k, v=v, k_norms=k_norms, v_norms=v_norms, kept_k=kept_k, kept_v=kept_v, kept_start=kept_start)
    if layer not in (0, 1):
        raise ValueError(f"layer must be 0 or 1, not {layer}")
    if plan is None:
        plan = _plan(q, k, kept_start, lengths, layer)
    out, lse = torch.empty_like(q), torch.empty(batch, query_heads, dtype=torch.float32, device=q.device)
    part_out, part_lse = plan.states(batch * heads, group, dim)
    scale = dim**-0.5 if scale is None else scale
    _read_pieces[(len(plan.items),)](
        q.contiguous(), k, v, k_norms[layer], v_norms[layer], kept_k, kept_v, kept_start, lengths, plan.items,
        out, lse, part_out, part_lse, scale * LOG2_E, capacity,
        HEADS=heads, GROUP=group, ROWS=max(triton.next_power_of_2(group), 16), DIM=dim, LISTED=layer == 1,
        BLOCK=plan.tuning.block, EARLY=can_launch_early(q.device), num_warps=plan.tuning.warps,
        num_stages=plan.tuning.stages,
    )  # fmt: skip
    merge(plan, part_out, part_lse, out, lse)
    return {"out": out, "lse": lse}


def _plan(q: torch.Tensor, k: torch.Tensor, kept_start: torch.Tensor, lengths: torch.Tensor, layer: int) -> Plan:
    """Cut rows of merged tokens, followed for layer b by those kept apart."""
    batch, heads, capacity, dim = k.shape
    check_room(lengths, batch, capacity, q.device)
    rows = lengths.repeat_interleave(heads)
    return make_row_plan(q, rows + kept_start.diff() if layer == 1 else rows, 2 * dim)


@triton.jit
def _sine(x):
    """Return sin x for 0 <= x <= pi to 6e-8; the library's reduces larger angles too, which costs registers."""
    x = tl.minimum(x, 3.14159265 - x)
    y = x * x
    return x * (1 - y / 6 * (1 - y / 20 * (1 - y / 42 * (1 - y / 72 * (1 - y / 110)))))


@triton.jit
def _slerp(a, b, t):
    """Return the direction between vectors [BLOCK, D], their sizes and their angle [BLOCK]."""
    size_a, size_b = tl.sqrt(tl.sum(a * a, 1)), tl.sqrt(tl.sum(b * b, 1))
    a = a / tl.where(size_a > 0, size_a, 1.0)[:, None]
    b = b / tl.where(size_b > 0, size_b, 1.0)[:, None]
    a, b = tl.where((size_a > 0)[:, None], a, b), tl.where((size_b > 0)[:, None], b, a)  # zero has any direction
    sine = tl.sqrt(tl.sum((a - b) * (a - b), 1)) * 0.5  # of half the angle; no cancellation, as a . b near 1 would have
    cosine = tl.minimum(tl.sqrt(tl.sum((a + b) * (a + b), 1)) * 0.5, 1.0)
    # arccos(x) = sqrt(1 - x) P(x) to 2e-8 (Abramowitz and Stegun 4.4.46), with 1 - cosine = sine^2 / (1 + cosine)
    series = -0.0012624911
    series = series * cosine + 0.0066700901
    series = series * cosine - 0.0170881256
    series = series * cosine + 0.0308918810
    series = series * cosine - 0.0501743046
    series = series * cosine + 0.0889789874
    series = series * cosine - 0.2145988016
    series = series * cosine + 1.5707963050
    angle = 2 * series * sine / tl.sqrt(1 + cosine)
    curved = (sine > 1e-3) & (cosine > 1e-3)
    below = tl.where(curved, 2 * sine * cosine, 1.0)
    straight = tl.where(sine > 1e-3, tl.where(t < 0.5, 0.0, 1.0), t)  # opposite vectors: the nearer one
    weight_a = tl.where(curved, _sine((1 - t) * angle) / below, 1 - straight)
    weight_b = tl.where(curved, _sine(t * angle) / below, straight)
    return weight_a[:, None] * a + weight_b[:, None] * b, size_a, size_b, angle


@triton.jit
def _merge_tokens(
    k_a, v_a, k_b, v_b, lengths, k, v, k_norms, v_norms, apart, t, limit, capacity, stride_layer,
    HEADS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK tokens of one head, keys and values of both layers."""
    row = tl.program_id(0).to(tl.int64)
    first, length = tl.program_id(1) * BLOCK, tl.load(lengths + row // HEADS)
    if first < length:
        tokens, dims = first + tl.arange(0, BLOCK), tl.arange(0, DIM)
        live = tokens < length
        place = row * capacity + tokens
        places, mask = place[:, None] * DIM + dims[None, :], live[:, None]
        key_a = tl.load(k_a + places, mask=mask, other=0.0).to(tl.float32)
        key_b = tl.load(k_b + places, mask=mask, other=0.0).to(tl.float32)
        value_a = tl.load(v_a + places, mask=mask, other=0.0).to(tl.float32)
        value_b = tl.load(v_b + places, mask=mask, other=0.0).to(tl.float32)
        key, key_size_a, key_size_b, key_angle = _slerp(key_a, key_b, t)
        value, value_size_a, value_size_b, value_angle = _slerp(value_a, value_b, t)
        far = (key_angle > limit) | (value_angle > limit)
        tl.store(k + places, tl.where(far[:, None], key_a, key).to(k.dtype.element_ty), mask=mask)
        tl.store(v + places, tl.where(far[:, None], value_a, value).to(v.dtype.element_ty), mask=mask)
        tl.store(k_norms + place, tl.where(far, 1.0, key_size_a), mask=live)
        tl.store(v_norms + place, tl.where(far, 1.0, value_size_a), mask=live)
        tl.store(k_norms + stride_layer + place, tl.where(far, -1.0, key_size_b), mask=live)
        tl.store(v_norms + stride_layer + place, tl.where(far, 0.0, value_size_b), mask=live)
        tl.store(apart + place, far.to(tl.int8), mask=live)


@triton.jit
def _read_pieces(
    q, k, v, k_norms, v_norms, kept_k, kept_v, kept_start, lengths, items, out, lse, part_out, part_lse, scale,
    capacity, HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, LISTED: tl.constexpr,
    BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the state of the G query heads of one row over one piece of its tokens, merged ones first."""
    row, start, stop, slot = take_piece(items, EARLY)
    if row >= 0:
        group, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
        mine = q + (row * GROUP + group)[:, None] * DIM + dims[None, :]
        query = tl.load(mine, mask=(group < GROUP)[:, None], other=0.0)
        base = row.to(tl.int64) * capacity
        length = tl.load(lengths + row // HEADS)

        top = tl.full([ROWS], float("-inf"), tl.float32)  # running maximum, in powers of two
        total = tl.zeros([ROWS], tl.float32)
        mean = tl.zeros([ROWS, DIM], tl.float32)
        end = tl.minimum(stop, length)
        for first in range(start, end, BLOCK):
            tokens = first + tl.arange(0, BLOCK)
            live = tokens < end
            tokens = tl.minimum(tokens, end - 1)  # past the end the last token is read again, and weighs nothing
            place = tokens[:, None] * DIM + dims[None, :]
            k_norm, v_norm = tl.load(k_norms + base + tokens), tl.load(v_norms + base + tokens)
            keys = tl.load(k + base * DIM + place)
            scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * (scale * k_norm)[None, :]
            scores = tl.where((live & (k_norm >= 0))[None, :], scores, float("-inf"))
            values = tl.load(v + base * DIM + place)
            top, total, mean = fold(scores, values, v_norm[None, :], top, total, mean)
        if LISTED:
            begin = tl.load(kept_start + row) - length
            end = begin + stop
            for first in range(begin + tl.maximum(start, length), end, BLOCK):
                tokens = first + tl.arange(0, BLOCK)
                live = tokens < end
                place = tl.minimum(tokens, end - 1).to(tl.int64)[:, None] * DIM + dims[None, :]
                keys = tl.load(kept_k + place)
                scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
                scores = tl.where(live[None, :], scores, float("-inf"))
                values = tl.load(kept_v + place)
                top, total, mean = fold(scores, values, 1.0, top, total, mean)
        mean = mean / tl.where(total > 0, total, 1.0)[:, None]
        store_lse(row, slot, group, top, total, lse, part_lse, GROUP)
        place = group[:, None] * DIM + dims[None, :]
        store_mean(row, slot, place, mean, (group < GROUP)[:, None], out, part_out, GROUP, DIM)


def reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, k_norms: torch.Tensor, v_norms: torch.Tensor,
    kept_k: torch.Tensor, kept_v: torch.Tensor, kept_at: torch.Tensor, kept_start: torch.Tensor, lengths: torch.Tensor,
    *, layer: int, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """Dense attention over the restored layer, one request at a time."""
    scale = q.shape[2] ** -0.5 if scale is None else scale
    keys, values = restore(k, v, k_norms, v_norms, kept_k, kept_v, kept_at, kept_start, layer=layer)
    states = [
        attention(q[b], keys[b, :, :length], values[b, :, :length], scale) for b, length in enumerate(lengths.tolist())
    ]
    return {"out": torch.stack([s[0] for s in states]), "lse": torch.stack([s[1] for s in states])}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: list[int], heads: int, group: int, dim: int,
    layer: int = 1, threshold: float = 0.25, apart: float = 0.1, t: float = 0.6,
) -> Inputs:  # fmt: skip
    """Draw two layers whose tokens point nearly the same way, but for a share `apart`, and merge them."""
    generator = torch.Generator(device).manual_seed(seed)
    batch, capacity = len(lengths), max(*lengths, 1)
    sizes = torch.tensor(lengths, dtype=torch.int32, device=device)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, device=device, generator=generator)

    far = torch.rand(batch, heads, capacity, 1, device=device, generator=generator) < apart

    def layers() -> list[torch.Tensor]:
        pair = [draw(batch, heads, capacity, dim)]
        pair.append(torch.where(far, draw(*pair[0].shape), 0.8 * (pair[0] + 0.5 * draw(*pair[0].shape))))
        for b, length in enumerate(lengths):  # what belongs to no token must not be read
            for x in pair:
                x[b, :, length:] = float("nan")
        return pair

    (k_a, k_b), (v_a, v_b) = layers(), layers()
    merged = merge_layers(k_a, v_a, k_b, v_b, sizes, threshold=threshold, t=t)
    return {"q": draw(batch, heads * group, dim), **merged, "lengths": sizes, "layer": layer}


def plan(
    *, q: torch.Tensor, k: torch.Tensor, kept_start: torch.Tensor, lengths: torch.Tensor, layer: int, **_: Any
) -> Inputs:  # fmt: skip
    """The host's part of a step."""
    return {"plan": _plan(q, k, kept_start, lengths, layer)}


def work(
    *, q: torch.Tensor, k: torch.Tensor, kept_k: torch.Tensor, lengths: torch.Tensor, layer: int, **_: Any
) -> Work:  # fmt: skip
    """Every merged token with its norms once, for layer b every token kept apart too; those are in the merged part, but
    need not be read there."""
    batch, query_heads, dim = q.shape
    heads, size = k.shape[1], q.element_size()
    tokens, kept = int(lengths.sum()) * heads, len(kept_k) * layer
    return Work(
        read=2 * (tokens - kept) * (dim * size + 4) + 2 * kept * dim * size + q.numel() * size,
        written=q.numel() * size + 4 * batch * query_heads,
        flops=4 * tokens * (query_heads // heads) * dim,
    )


def figures(inputs: Inputs, _outputs: Outputs, seconds: float) -> dict[str, float]:
    """Return the share of tokens kept apart, and the memory saved over two layers, in the real layout."""
    k = inputs["k"]
    return {
        "tokens kept apart": len(inputs["kept_k"]) / (int(inputs["lengths"].sum()) * k.shape[1]),
        "memory saved": 1 - nbytes({name: inputs[name] for name in MERGED}) / (4 * k.numel() * k.element_size()),
        "GB/s": work(**inputs).moved / seconds / 1e9,
    }


UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "odd lengths": {"lengths": [1, 15, 16, 17, 1023, 0], "heads": 2, "group": 4, "dim": 128},
        "the first layer": {"lengths": [300, 5], "heads": 3, "group": 1, "dim": 64, "layer": 0},
        "wide group and head": {"lengths": [3, 130], "heads": 1, "group": 8, "dim": 256, "apart": 0.5},
        "none merged": {"lengths": [700, 0, 33], "heads": 1, "group": 4, "dim": 64, "threshold": 0.0},
        "all merged": {"lengths": [129, 500], "heads": 2, "group": 4, "dim": 64, "threshold": 1.0},
    },
    benchmarks={
        "B=32 x 8k, 10 % apart": {"lengths": [8192] * 32, "heads": 8, "group": 4, "dim": 128},
        "B=32 x 8k, first layer": {"lengths": [8192] * 32, "heads": 8, "group": 4, "dim": 128, "layer": 0},
        "B=1 x 128k, 10 % apart": {"lengths": [131072], "heads": 8, "group": 4, "dim": 128},
    },
    peers={"dense bf16": lambda inputs: dense_peer(inputs["q"], inputs["lengths"], inputs["k"].shape[1])},
    figures=figures,
)
