"""KIVI: asymmetric integers of 2, 3 or 4 bits, keys per channel, values per token, and decoding straight from them.

Computes
--------
Keys have a few channels of large magnitude, values have not. So, with x ~ c s + z, c an integer of b bits, rounded to
nearest, z the minimum and s = (max - min) / (2^b - 1) of a group:
    keys:   one (s, z) per channel and 32 tokens,       k[t, d] = ck[t, d] sk[t // 32, d] + zk[t // 32, d]
    values: one (s, z) per token and 32 channels,       v[t, d] = cv[t, d] sv[t, d // 32] + zv[t, d // 32]
The newest tokens, the tail, stay as they are; when the tail is full its oldest 32 tokens are quantized. Decoding is
exact attention over the quantized tokens and the tail:
    out = softmax(scale q . [k, k_tail]) [v, v_tail]
One warp reads one group of 32 tokens at a time. Codes are taken out of 16-bit words where the tensor cores want them (a
word loaded by ldmatrix is already in place, so its codes are too), made fp16 by or-ing them into the mantissa of a
power of two, and scaled, two at a time. With bf16 queries small powers of two are taken off the zeros instead of the
codes, which rounds z - 16 s (or less) to fp16: below the rounding of bf16, and one instruction less for half the codes.
Tokens are the rows of both matrix products and the query heads of a group the 8 columns, since 16 rows of queries would
be mostly padding.
A group whose values are all equal has s = 0 and is restored exactly.

Layout
------
D is a power of two. For D = W J, J codes in a word: word w of a token (of each 32 words, if there are more) holds
channel j W + w in its bits b j ... b j + b - 1, and is then rotated left by two bits (not with 3 bits), so that its two
bytes, exchanged or not, have every code inside of a mantissa.
    k_codes, v_codes  [B, Hkv, T, W] int16; 4 bits: J = 4; 2 bits: J = 8; 3 bits: low two bits as for 2 bits, and
    k_high, v_high    [B, Hkv, T, W / 2] int16 (absent otherwise): word v has a byte for word v and one for v + W / 2 of
                      W (or each 32), with the third bits in the order j = 0, 4, 1, 5, 2, 6, 3, 7
    k_params          [B, Hkv, T / 32, D / 2, 2, 2] fp16: of two neighboring channels both s, then both z
    v_params          [B, Hkv, T / 32, D / 32, 16, 2, 2] fp16: likewise of two neighboring tokens
    k_tail, v_tail    [B, Hkv, R, D] in q's dtype
    quantized, tail   [B] int32, tokens in each part; quantized % 32 = 0
Scales and z - 16 s are fp16, so keys and values must be numbers of at most 4096. q [B, Hq, D], at most 16 query heads
for a key head; returns out [B, Hq, D] and lse [B, Hq] fp32. In fp16 and bf16 dequantized numbers are fp16; with fp32
queries they are fp32.

Cost
----
b + 1 bits per number (32 of s and z for 32 numbers), so 16 / (b + 1) times fewer bytes than bf16: 3.2x at 4 bits,
5.33x at 2 bits, which bounds the gain of a decode step that reads nothing else. 4 B Hq T D FLOPs as in dense
attention.

Published
---------
2.6x less peak memory, up to 4x larger batches, 2.35-3.47x throughput (the authors' README, Llama and Mistral models).
Perplexity of SmolLM2-135M, full cache 11.947: 4/3/2 bits 11.95/12.00/14.06; keys per token instead of per channel
12.06/12.62/18.66, so the choice of axes carries over.

Measured
--------
One H100, B=32 x 8k, against the fastest bf16 peer (cuDNN over contiguous keys, 353 us): 4 bits 125 us, 2.82x; 2 bits
92 us, 3.85x; 3 bits 134 us, 2.63x. The bytes would allow 3.2x, 5.33x and 4x: 0.86, 0.72 and 0.65 of the read
bandwidth. Nsight Compute: at 4 bits DRAM is busy for 78 % of the time and the arithmetic for 44 %, at 2 bits 60 % and
53 %, so neither is the bound; 12 warps per multiprocessor (168 registers) wait for loads and for their own results. A
fifth fewer instructions (615 per 32 tokens instead of 788, 4 bits) and 16 warps instead of 12 (128 registers) changed
the time by 1 % and less. Tried: tiles of 32, 64 and 128 tokens, 1 and 2 warps, 2 to 5 stages, 4 to 48 pieces. Scales
folded into query and weights would save most multiplications of two halves, but make Triton move both between layouts
in every step; a kernel that owns its register layout could do that.

Differs
-------
The authors' quantizer divides by zero on a constant group, and keeps separate tails for keys and values; here both
share one. Their decode is a matrix-vector product over 32-bit words followed by a softmax in separate kernels.

:leaf: kvcc/quantization
:papers: kivi
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_dim, check_heads, check_integers, check_scale, check_shape
from reference_kernels.core.device import interpreted
from reference_kernels.core.lse import LOG2_E, attention
from reference_kernels.core.peers import installed
from reference_kernels.core.pieces import (
    Plan,
    Tuning,
    can_launch_early,
    merge,
    plan_rows,
    store_lse,
    store_mean,
    take_piece,
)
from reference_kernels.core.unit import Inputs, MissingPeerError, Outputs, Peer, Unit, Work
from reference_kernels.kvs.paged_decode import dense_peer

GROUP = 32  # tokens (keys) or channels (values) that share a scale
LARGEST = 4096  # |z - 16 s| < 12 * 4096 is then fp16, with 2 bits too


def words_per_token(dim: int, bits: int) -> int:
    """Return W: 16-bit words that hold the codes (of 3 bits: their low two) of one token and head."""
    if bits not in (2, 3, 4):
        raise ValueError(f"KIVI has 2, 3 or 4 bits, not {bits}")
    check_dim(dim)
    if dim < 2 * GROUP:
        raise ValueError(f"the head size must be at least {2 * GROUP}, not {dim}")
    return dim * (4 if bits == 4 else 2) // 16


@dataclass(frozen=True)
class Quantized:
    """Codes and (scale, zero) pairs of keys or values; see the module's docstring for the layout."""

    codes: torch.Tensor
    high: torch.Tensor | None
    params: torch.Tensor
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        parts = (self.codes, self.params) if self.high is None else (self.codes, self.params, self.high)
        return sum(part.numel() * part.element_size() for part in parts)


def quantize_keys(keys: torch.Tensor, bits: int) -> Quantized:
    """Quantize keys [B, Hkv, T, D], T a multiple of 32, per channel over groups of 32 tokens."""
    codes, params = _quantize(_groups_of_tokens(keys), bits, dim=3)
    return _packed(codes.flatten(2, 3), _paired(*(x.squeeze(3) for x in params)), bits)


def quantize_values(values: torch.Tensor, bits: int) -> Quantized:
    """Quantize values [B, Hkv, T, D], T a multiple of 32, per token over groups of 32 channels."""
    codes, params = _quantize(_groups_of_tokens(values).unflatten(-1, (-1, GROUP)), bits, dim=5)
    pairs = _paired(*(x.squeeze(5).transpose(3, 4) for x in params))
    return _packed(codes.flatten(4).flatten(2, 3), pairs, bits)


def dequantize_keys(quantized: Quantized, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return keys [B, Hkv, T, D] = c s + z, computed in `dtype`."""
    scale, zero = _split(quantized.params, dtype)  # [B, Hkv, T / 32, D]
    codes = unpack(quantized).to(dtype).unflatten(2, (-1, GROUP))
    return (codes * scale.unsqueeze(3) + zero.unsqueeze(3)).flatten(2, 3)


def dequantize_values(quantized: Quantized, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return values [B, Hkv, T, D] = c s + z, computed in `dtype`."""
    scale, zero = (x.transpose(3, 4).flatten(2, 3).unsqueeze(-1) for x in _split(quantized.params, dtype))
    return (unpack(quantized).to(dtype).unflatten(-1, (-1, GROUP)) * scale + zero).flatten(3)


def unpack(quantized: Quantized) -> torch.Tensor:
    """Return the codes [B, Hkv, T, D] as int32."""
    block = min(quantized.codes.shape[-1], GROUP)
    places = [x.to(quantized.codes.device) for x in _places(quantized.bits)]
    words = (quantized.codes.int() & 0xFFFF).unflatten(-1, (-1, 1, block))  # [..., W / L, 1, L]
    if quantized.bits != 3:
        words = words >> 2 | words << 14 & 0xFFFF
    codes = (words >> places[0]) & (15 if quantized.bits == 4 else 3)
    if quantized.high is not None:
        pairs = (quantized.high.int() & 0xFFFF).unflatten(-1, (-1, 1, block // 2))
        codes = codes | (((torch.cat([pairs & 0xFF, pairs >> 8], -1) >> places[1]) & 1) << 2)
    return codes.flatten(-3)


def _places(bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first bit of the j-th code in a word, before it is rotated, and its bit in a byte of `high` [J, 1]."""
    j = torch.arange(4 if bits == 4 else 8)[:, None]
    return j * (4 if bits == 4 else 2), j % 4 * 2 + j // 4


def _groups_of_tokens(tensor: torch.Tensor) -> torch.Tensor:
    check_shape("keys or values", tensor, None, None, None, None)
    if not tensor.is_floating_point():
        raise TypeError(f"keys and values must be floating-point, not {tensor.dtype}")
    if tensor.shape[2] % GROUP:
        raise ValueError(f"only whole groups of {GROUP} tokens can be quantized, not {tensor.shape[2]} tokens")
    return tensor.float().unflatten(2, (-1, GROUP))


def _quantize(groups: torch.Tensor, bits: int, dim: int) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Return codes (int32), and scale and zero (fp16), sharing along `dim`."""
    low, high = groups.amin(dim, keepdim=True), groups.amax(dim, keepdim=True)
    if groups.numel() and not float(torch.maximum(low.abs(), high.abs()).max()) <= LARGEST:
        raise ValueError(f"keys and values must be numbers of at most {LARGEST}: z - 16 s must be fp16")
    zero = low.half()
    scale = ((high - zero.float()).double() / (2**bits - 1)).half()  # a GPU multiplies by the inverse: not so in fp64
    steps = torch.where(scale > 0, (groups - zero.float()) / scale.float(), 0.0)
    codes = torch.round(steps).clamp(0, 2**bits - 1).int()  # ties to even
    return codes, (scale, zero)


def _paired(scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """Return [..., N / 2, 2, 2]: of two neighbors of the last axis first both scales, then both zeros."""
    return torch.stack([x.unflatten(-1, (-1, 2)) for x in (scale, zero)], -2)


def _split(params: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    scale, zero = (x.flatten(-2).to(dtype) for x in params.unbind(-2))
    return scale, zero


def _packed(codes: torch.Tensor, params: torch.Tensor, bits: int) -> Quantized:
    """Pack codes [B, Hkv, T, D] int32 into 16-bit words; the inverse of `unpack`."""
    places = [x.to(codes.device) for x in _places(bits)]
    words = words_per_token(codes.shape[-1], bits)
    lanes = codes.unflatten(-1, (-1, len(places[0]), min(words, GROUP)))  # [..., W / L, J, L]
    packed = ((lanes & (15 if bits == 4 else 3)) << places[0]).sum(-2).flatten(-2)
    if bits != 3:
        packed = packed << 2 & 0xFFFF | packed >> 14
    high = None
    if bits == 3:
        low_byte, high_byte = ((lanes >> 2) << places[1]).sum(-2).chunk(2, -1)
        high = _signed((low_byte | high_byte << 8).flatten(-2))
    return Quantized(_signed(packed), high, params.contiguous(), bits)


def _signed(words: torch.Tensor) -> torch.Tensor:
    return torch.where(words >= 1 << 15, words - (1 << 16), words).to(torch.int16)


def decode_attention(
    q: torch.Tensor, keys: Quantized, values: Quantized, quantized: torch.Tensor, k_tail: torch.Tensor,
    v_tail: torch.Tensor, tail: torch.Tensor, *, scale: float | None = None, plan: Plan | None = None,
) -> Outputs:  # fmt: skip
    """Attend from one query per request to its quantized tokens and its tail. Shapes: the module's docstring.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or (without a plan) `quantized` is no multiple of
        32.
    """
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    check_shape("codes of keys", keys.codes, batch, None, None, words_per_token(dim, keys.bits))
    heads, capacity = keys.codes.shape[1:3]
    group = check_heads(query_heads, heads)
    if group > 16:
        raise ValueError(f"at most 16 query heads can share a key head, not {group}")
    if values.bits != keys.bits or values.codes.shape != keys.codes.shape:
        raise ValueError("keys and values must have the same bits and shape")
    check_shape("parameters of keys", keys.params, batch, heads, capacity // GROUP, dim // 2, 2, 2)
    check_shape("parameters of values", values.params, batch, heads, capacity // GROUP, dim // GROUP, 16, 2, 2)
    check_shape("k_tail", k_tail, batch, heads, None, dim)
    check_shape("v_tail", v_tail, *k_tail.shape)
    check_integers(q.device, quantized=quantized, tail=tail)
    if k_tail.dtype != q.dtype or v_tail.dtype != q.dtype:
        raise TypeError(f"the tail is {k_tail.dtype} and {v_tail.dtype}, q is {q.dtype}")
    if plan is None:
        counts = ((quantized, capacity), (tail, k_tail.shape[2]))
        fit = all(int(count.min()) >= 0 and int(count.max()) <= room for count, room in counts)
        if not fit or bool((quantized % GROUP != 0).any()):
            raise ValueError(
                f"quantized must count whole groups of {GROUP} of the {capacity} tokens, tail what is there"
            )
        plan = make_plan(quantized, heads, keys.bits, q.device)
    q, k_tail, v_tail = q.contiguous(), k_tail.contiguous(), v_tail.contiguous()
    out, lse = torch.empty_like(q), torch.empty(batch, query_heads, dtype=torch.float32, device=q.device)
    part_out, part_lse = plan.states(batch * heads, group, dim)
    planes = keys.high is not None
    columns = 8 if group <= 8 else 16
    small = dim * columns <= 1024  # larger heads or groups would spill registers
    _read_pieces[(len(plan.items),)](
        q, keys.codes, keys.high if planes else keys.codes, keys.params.view(torch.int32),
        values.codes, values.high if planes else values.codes, values.params.view(torch.int32),
        k_tail, v_tail, quantized, tail, plan.items, out, lse, part_out, part_lse, check_scale(scale, dim) * LOG2_E,
        capacity, k_tail.shape[2],
        HEADS=heads, GROUP=group, COLUMNS=columns, DIM=dim, WORDS=keys.codes.shape[3], BITS=keys.bits,
        TOKENS=GROUP, UNROLL=plan.tuning.block // GROUP if small else 1, ASM=not interpreted(),
        EARLY=can_launch_early(q.device),
        num_warps=plan.tuning.warps, num_stages=plan.tuning.stages,
    )  # fmt: skip
    merge(plan, part_out, part_lse, out, lse)
    return {"out": out, "lse": lse}


# The fastest of 8 layouts (4 bits), 8 (2 bits) and 5 (3 bits) tried on an H100. One of registers capped at 128, so that
# 16 programs fit on a multiprocessor, was no faster.
TUNINGS = {
    2: Tuning(block=2 * GROUP, warps=1, stages=2, pieces=12),
    3: Tuning(block=GROUP, warps=1, stages=2, pieces=12),
    4: Tuning(block=GROUP, warps=1, stages=2, pieces=12),
}


def make_plan(
    quantized: torch.Tensor, heads: int, bits: int, device: torch.device, tuning: Tuning | None = None
) -> Plan:
    """Cut the quantized tokens [B] of every row; the tail is read with the last piece."""
    return plan_rows(quantized.cpu().repeat_interleave(heads), tuning or TUNINGS[bits], device)


@triton.jit
@no_type_check  # its loop makes tuples longer, which mypy takes for a change of type
def _read_pieces(
    q, k_codes, k_high, k_params, v_codes, v_high, v_params, k_tail, v_tail, quantized, tail, items, out, lse, part_out,
    part_lse, scale, capacity, tail_capacity,
    HEADS: tl.constexpr, GROUP: tl.constexpr, COLUMNS: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
    BITS: tl.constexpr, TOKENS: tl.constexpr, UNROLL: tl.constexpr, ASM: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the state of the G query heads of one row over one piece of its tokens (and the tail)."""
    row, start, stop, slot = take_piece(items, EARLY)
    if row >= 0:
        EXACT: tl.constexpr = q.dtype.element_ty != tl.bfloat16
        FLOAT: tl.constexpr = tl.float32 if q.dtype.element_ty == tl.float32 else tl.float16
        LANES: tl.constexpr = WORDS if WORDS < TOKENS else TOKENS  # words of a block, and channels of a tile
        BLOCKS: tl.constexpr = WORDS // LANES
        CODES: tl.constexpr = DIM // WORDS  # in a word
        PADDED: tl.constexpr = LANES if LANES >= 16 else 16  # tensor cores want at least 16
        column, lane, token = tl.arange(0, COLUMNS), tl.arange(0, PADDED), tl.arange(0, TOKENS)
        exists = lane < LANES
        real = exists[:, None] & (column < GROUP)[None, :]
        mine = q + (row * GROUP + column)[None, :] * DIM + lane[:, None]
        queries, means = (), ()
        for tile in tl.static_range(BLOCKS * CODES):
            query = tl.load(mine + tile * LANES, mask=real, other=0.0).to(tl.float32) * scale
            queries += (query.to(FLOAT),)
            means += (tl.zeros([PADDED, COLUMNS], tl.float32),)
        top = tl.full([COLUMNS], float("-inf"), tl.float32)
        ones = tl.full([16, TOKENS], 1.0, FLOAT)
        totals = tl.zeros([16, COLUMNS], tl.float32)  # 16 equal rows, summed by the tensor cores

        by_token = token[:, None] * WORDS + lane[None, :]
        by_lane = token[None, :] * WORDS + lane[:, None]
        # two words of codes share one word of `high`: either half of the lanes loads it and gets zeros for the other,
        # so that their sum needs no selection by lane
        by_token_high = token[:, None] * (WORDS // 2) + (lane % (LANES // 2))[None, :]
        by_lane_high = token[None, :] * (WORDS // 2) + (lane % (LANES // 2))[:, None]
        lower, upper = lane < LANES // 2, exists & (lane >= LANES // 2)
        row_words = row.to(tl.int64) * capacity * WORDS
        row_groups = row.to(tl.int64) * (capacity // TOKENS)
        for first in range(start, stop, TOKENS * UNROLL):
            # keys: rows are tokens
            scores = ()
            for part in tl.static_range(UNROLL):
                begin = first + part * TOKENS
                live = begin < stop
                params = k_params + (row_groups + begin // TOKENS) * DIM
                score = tl.zeros([TOKENS, COLUMNS], tl.float32)
                for block in tl.static_range(BLOCKS):
                    words = row_words + begin * WORDS + block * LANES + by_token
                    packed = tl.load(k_codes + words, mask=live & exists[None, :], other=0)
                    low, high = packed, packed
                    if BITS == 3:
                        halves = k_high + (row_words + begin * WORDS + block * LANES) // 2 + by_token_high
                        low = tl.load(halves, mask=live & lower[None, :], other=0)
                        high = tl.load(halves, mask=live & upper[None, :], other=0)
                    for j in tl.static_range(CODES):
                        s, z = _load_params(params, lane + (block * CODES + j) * LANES, live & exists, FLOAT, ASM)
                        keys = _restore(packed, low, high, s[None, :], z[None, :], j, BITS, FLOAT, ASM, EXACT)
                        score = tl.dot(keys, queries[block * CODES + j], score, input_precision="ieee")
                scores += (score if part == 0 else tl.where(live, score, float("-inf")),)
            highest = scores[0]
            for part in tl.static_range(1, UNROLL):
                highest = tl.maximum(highest, scores[part])
            new_top = tl.maximum(top, tl.max(highest, 0))
            fade = tl.exp2(top - new_top)
            top = new_top
            weights = ()
            for part in tl.static_range(UNROLL):
                weight = tl.exp2(scores[part] - new_top[None, :])
                weights += (weight.to(FLOAT),)
            totals = totals * fade[None, :]
            for part in tl.static_range(UNROLL):
                totals = tl.dot(ones, weights[part], totals, input_precision="ieee")
            # values: rows are channels, ldmatrix transposes the words
            faded = ()
            for tile in tl.static_range(BLOCKS * CODES):
                faded += (means[tile] * fade[None, :],)
            means = faded
            for part in tl.static_range(UNROLL):
                begin = first + part * TOKENS
                live = begin < stop
                params = v_params + (row_groups + begin // TOKENS) * DIM
                added = ()
                for block in tl.static_range(BLOCKS):
                    words = row_words + begin * WORDS + block * LANES + by_lane
                    packed = tl.load(v_codes + words, mask=live & exists[:, None], other=0)
                    low, high = packed, packed
                    if BITS == 3:
                        halves = v_high + (row_words + begin * WORDS + block * LANES) // 2 + by_lane_high
                        low = tl.load(halves, mask=live & lower[:, None], other=0)
                        high = tl.load(halves, mask=live & upper[:, None], other=0)
                    for j in tl.static_range(CODES):
                        if (block * CODES + j) * LANES % TOKENS == 0:  # the next 32 channels
                            s, z = _load_params(params, token + (block * CODES + j) * LANES, live, FLOAT, ASM)
                        values = _restore(packed, low, high, s[None, :], z[None, :], j, BITS, FLOAT, ASM, EXACT)
                        mean = means[block * CODES + j]
                        added += (tl.dot(values, weights[part], mean, input_precision="ieee"),)
                means = added

        total = tl.max(totals, 0)
        request = row // HEADS
        if stop == tl.load(quantized + request):  # the last piece: the tail, as it is
            left = tl.load(tail + request)
            for first in tl.range(0, left, TOKENS, num_stages=1):
                live = first + token < left
                there = live[:, None] & exists[None, :]
                place = (row.to(tl.int64) * tail_capacity + first + token)[:, None] * DIM + lane[None, :]
                score = tl.zeros([TOKENS, COLUMNS], tl.float32)
                for tile in tl.static_range(BLOCKS * CODES):
                    keys = tl.load(k_tail + place + tile * LANES, mask=there, other=0.0).to(FLOAT)
                    score = tl.dot(keys, queries[tile], score, input_precision="ieee")
                score = tl.where(live[:, None], score, float("-inf"))
                new_top = tl.maximum(top, tl.max(score, 0))
                weight = tl.exp2(score - new_top[None, :])
                fade = tl.exp2(top - new_top)
                total = total * fade + tl.sum(weight, 0)
                top = new_top
                added = ()
                for tile in tl.static_range(BLOCKS * CODES):
                    values = tl.trans(tl.load(v_tail + place + tile * LANES, mask=there, other=0.0).to(FLOAT))
                    added += (tl.dot(values, weight.to(FLOAT), means[tile] * fade[None, :], input_precision="ieee"),)
                means = added

        inverse = 1.0 / tl.where(total > 0, total, 1.0)
        store_lse(row, slot, column, top, total, lse, part_lse, GROUP)
        for tile in tl.static_range(BLOCKS * CODES):
            place = column[None, :] * DIM + lane[:, None] + tile * LANES
            store_mean(row, slot, place, means[tile] * inverse[None, :], real, out, part_out, GROUP, DIM)


@triton.jit
def _load_params(params, place, mask, FLOAT: tl.constexpr, ASM: tl.constexpr):
    """Return scales and zeros at `place`; for the tensor cores both are the int32 as it is, see `_instructions`."""
    if ASM and tl.float16 == FLOAT:
        scale = tl.load(params + place, mask=mask, other=0)
        zero = scale
    else:
        first = params.to(tl.pointer_type(tl.float16), bitcast=True) + (place // 2 * 4 + place % 2)
        scale = tl.load(first, mask=mask, other=0.0).to(FLOAT)
        zero = tl.load(first + 2, mask=mask, other=0.0).to(FLOAT)
    return scale, zero


@triton.jit
def _restore(
    words, low, high, scale, zero,
    J: tl.constexpr, BITS: tl.constexpr, FLOAT: tl.constexpr, ASM: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Return c s + z for the J-th codes of 16-bit words; s and z are broadcast against the words."""
    if ASM and tl.float16 == FLOAT:
        pair = tl.broadcast_to(scale, words.shape)
        return tl.inline_asm_elementwise(
            _instructions(J, BITS, EXACT), "=r,r,r,r,r,r" if BITS == 3 else "=r,r,r,r",
            [words, pair, low, high] if BITS == 3 else [words, pair], dtype=tl.float16, is_pure=True, pack=2,
        )  # fmt: skip
    word = words.to(tl.int32) & 0xFFFF
    if BITS != 3:
        word = (word >> 2) | (word << 14)
    code = (word >> ((4 if BITS == 4 else 2) * J)) & (15 if BITS == 4 else 3)
    if BITS == 3:
        third = low.to(tl.int32) | (high.to(tl.int32) >> 8)
        code = code | (((third >> (J % 4 * 2 + J // 4)) & 1) << 2)
    return code.to(FLOAT) * scale + zero


@triton.constexpr_function
def _instructions(j, bits, exact):
    """Return PTX that makes fp16 of the j-th codes of two words $1 at once, with scales $2 and zeros $3.

    $2 and $3 are neighbors of an int32 tensor of parameters: in the layout of the tensor cores' left operand, neighbors
    along the sum (channels of keys, tokens of values) are neighbors in registers, and `pack=2` takes them together.

    Or-ed into the mantissa of 2^(10 - n), a code that begins at bit n of the mantissa makes 2^(10 - n) + c. What lies
    above the mantissa is fetched by exchanging the bytes of each word. Of 3 bits the third comes from $4 or the upper
    bytes of $5. Then either c = (2^(10 - n) + c) - 2^(10 - n), exactly, or, if that is at most 16, it is taken off the
    zeros, once for many codes.
    """
    width, half = (4, 2) if bits == 4 else (2, 4)  # half of the codes of a word
    n = width * (j % half) + (0 if bits == 3 else 2)
    ones = 0x00010001
    low = (15 if bits == 4 else 3) << n
    offset = 10 - n
    above = offset > 4 or exact
    magic, minus = ((15 + offset) << 10) * ones, ((15 + offset) << 10 | 0x8000) * ones
    high = f"""
        shr.b32 u, $5, 8;
        or.b32 u, u, $4;
        shl.b32 u, u, {2 - j // 4};
        lop3.b32 t, u, 0x{(4 << n) * ones:08x}, t, 0xEA;"""
    remove = """
        mov.b32 one, 0x3C003C00;
        fma.rn.f16x2 t, t, one, minus;
        fma.rn.f16x2 $0, t, $2, $3;"""
    fold = """
        fma.rn.f16x2 z, $2, minus, $3;
        fma.rn.f16x2 $0, t, $2, z;"""
    return f"""{{
        .reg .b32 t, u, z, one, magic, minus;
        mov.b32 magic, 0x{magic:08x};
        mov.b32 minus, 0x{minus:08x};
        {"prmt.b32 t, $1, $1, 0x2301" if j >= half else "mov.b32 t, $1"};
        lop3.b32 t, t, 0x{low * ones:08x}, magic, 0xEA;{high if bits == 3 else ""}{remove if above else fold}
    }}"""


def reference(
    q: torch.Tensor, keys: Quantized, values: Quantized, quantized: torch.Tensor, k_tail: torch.Tensor,
    v_tail: torch.Tensor, tail: torch.Tensor, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """Attention over what the codes stand for."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    k, v = dequantize_keys(keys, q.dtype), dequantize_values(values, q.dtype)
    states = []
    for b, (long, short) in enumerate(zip(quantized.tolist(), tail.tolist(), strict=True)):
        all_keys, all_values = (
            torch.cat([old[b, :, :long], new[b, :, :short]], 1) for old, new in ((k, k_tail), (v, v_tail))
        )
        states.append(attention(q[b], all_keys, all_values, scale))
    out, lse = (torch.stack(part) for part in zip(*states, strict=True))
    return {"out": out, "lse": lse}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, quantized: Any, tail: Any, heads: int, group: int, dim: int,
    bits: int, window: int = 128,
) -> Inputs:  # fmt: skip
    """Draw keys with a few loud channels, values without, and quantize them; what is past `tail` is NaN."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, generator=generator)

    batch, capacity = len(quantized), -(-max(quantized) // GROUP) * GROUP
    loud = 1 + 4 * (torch.rand(heads, 1, dim, device=device, generator=generator) < 0.05)
    caches: dict[str, Any] = {"keys": [], "values": []}
    for _ in range(batch):  # one request at a time: the originals need 8 times the memory of the codes
        caches["keys"].append(quantize_keys((draw(heads, capacity, dim) * loud)[None].to(dtype), bits))
        caches["values"].append(quantize_values(draw(1, heads, capacity, dim).to(dtype), bits))
    inputs: Inputs = {
        name: Quantized(
            torch.cat([part.codes for part in parts]),
            torch.cat([part.high for part in parts]) if bits == 3 else None,
            torch.cat([part.params for part in parts]),
            bits,
        )
        for name, parts in caches.items()
    }
    lengths = torch.tensor(tail, dtype=torch.int32, device=device)
    unused = torch.arange(window, device=device) >= lengths[:, None]  # [B, R]
    for name, loudness in (("k_tail", loud), ("v_tail", 1)):
        inputs[name] = (draw(batch, heads, window, dim) * loudness).to(dtype)
        inputs[name].masked_fill_(unused[:, None, :, None], float("nan"))
    inputs["quantized"] = torch.tensor(quantized, dtype=torch.int32, device=device)
    return {"q": draw(batch, heads * group, dim).to(dtype), **inputs, "tail": lengths}


def plan(*, q: torch.Tensor, keys: Quantized, quantized: torch.Tensor, **_: Any) -> Inputs:
    """The host's part of a step."""
    return {"plan": make_plan(quantized, keys.codes.shape[1], keys.bits, q.device)}


def work(*, q: torch.Tensor, keys: Quantized, quantized: torch.Tensor, tail: torch.Tensor, **_: Any) -> Work:
    """Codes, parameters and tail once."""
    batch, query_heads, dim = q.shape
    heads = keys.codes.shape[1]
    size = q.element_size()
    old, new = int(quantized.sum()) * heads, int(tail.sum()) * heads  # tokens times key heads
    read = 2 * old * dim * (keys.bits + 1) // 8 + 2 * new * dim * size + q.numel() * size
    flops = 4 * (old + new) * (query_heads // heads) * dim
    return Work(read, q.numel() * size + 4 * batch * query_heads, flops)


def dense(library: str | None = None) -> Peer:
    """Decoding as many tokens in 16 bits, by `paged_decode` or a library."""

    def prepare(inputs: Inputs) -> Callable[[], None]:
        lengths = inputs["quantized"] + inputs["tail"]
        return dense_peer(inputs["q"], lengths, inputs["keys"].codes.shape[1], library)

    return prepare


def quanto(inputs: Inputs) -> Any:
    """Return what transformers does with quanto: dequantize the whole cache, then attend; only timed."""
    library = installed("optimum.quanto", "optimum-quanto")
    keys, q = inputs["keys"], inputs["q"]
    kind = {2: "qint2", 4: "qint4"}.get(keys.bits)
    if kind is None:
        raise MissingPeerError(f"quanto has no {keys.bits}-bit integers")
    bits = getattr(library, kind)
    batch, heads, tokens = keys.codes.shape[:3]

    def quantized() -> Any:
        numbers = torch.randn(batch, heads, tokens, q.shape[2], dtype=q.dtype, device=q.device)
        scale, zero = library.MaxOptimizer()(numbers, bits, 0, GROUP)
        return library.quantize_weight(numbers, bits, 0, scale, zero, GROUP)

    k, v, query = quantized(), quantized(), q.unsqueeze(2)

    def call() -> None:
        attend = torch.nn.functional.scaled_dot_product_attention
        attend(query, k.dequantize(), v.dequantize(), enable_gqa=True)

    return call


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """Bits per number, with their scales."""
    keys = inputs["keys"]
    numbers = keys.params.numel() // 2 * GROUP
    return {"bits per number": 8 * keys.nbytes / numbers}


BENCH = {"tail": [32] * 32, "quantized": [8192 - 32] * 32, "heads": 8, "group": 4, "dim": 128}
UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "2 bits": {"quantized": [0, 32, 96], "tail": [5, 0, 31], "heads": 2, "group": 4, "dim": 128, "bits": 2},
        "3 bits": {"quantized": [64, 160], "tail": [1, 40], "heads": 2, "group": 8, "dim": 128, "bits": 3},
        "4 bits": {"quantized": [0, 32, 320], "tail": [17, 0, 128], "heads": 2, "group": 1, "dim": 128, "bits": 4},
        "2 bits, small head": {"quantized": [64], "tail": [33], "heads": 1, "group": 4, "dim": 64, "bits": 2},
        "4 bits, large head": {"quantized": [64], "tail": [3], "heads": 1, "group": 16, "dim": 256, "bits": 4},
        "nothing cached": {"quantized": [0], "tail": [0], "heads": 1, "group": 1, "dim": 64, "bits": 4},
    },
    benchmarks={f"{bits} bits, B=32 x 8k": {**BENCH, "bits": bits} for bits in (4, 2, 3)},
    peers={
        "ours, bf16": dense(),
        **{f"{name}, bf16": dense(name) for name in ("FlashInfer, tensor cores", "SDPA cuDNN, contiguous")},
        "quanto, then SDPA": quanto,
    },
    figures=figures,
)
