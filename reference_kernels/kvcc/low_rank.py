"""Low-rank keys and values: a small latent per token is cached, shared by a group of heads (Palu).

Computes
--------
The projection of a group of n key heads is factored, W = W_down [W_up of head 1, ..., W_up of head n], and only the
latents h_k = x W_down^k of rank R_k and h_v = x W_down^v of rank R_v are cached. With j the key head i // G of query
head i, l its group j // n, and RoPE_t the rotation at position t,
    k_j[t] = RoPE_t(h_k[l, t] U_k[j]),       v_j[t] = h_v[l, t] U_v[j],
    out[i] = sum_t softmax_t(scale q[i] . k_j[t]) v_j[t].
Keys: RoPE acts on single channels at each position and does not commute with U_k, so keys must be rebuilt; this is
done tile by tile on the tensor cores, for all heads of the group while their common latents are in shared memory, and a
rebuilt key never leaves the registers. Values: the sum over t goes past U_v, so the kernel keeps the weighted mean of
the latents, m[i] = sum_t softmax_t h_v[l, t], and multiplies once: out[i] = m[i] U_v[j]. Whoever folds U_v into the
output projection (Palu does) passes u_v = None and gets m.
Without `cos` and `sin` no rotation is left to apply: latents of keys as they are cached, rotated already (Eigen
Attention and xKV decompose given keys), or of a model without RoPE. Then U_k goes past the sum over channels, into the
query: score[t] = scale (U_k[j] q[i]) . h_k[l, t], and nothing is rebuilt.
`decompose` finds the factors: the truncated SVD, whose error is the discarded singular values (Eckart-Young).

Layout
------
q [B, Hq, D], already rotated at its own position; k_latent [B, N, T, R_k], v_latent [B, N, T, R_v] contiguous, room for
T tokens, N = Hkv / n groups; u_k [Hkv, R_k, D], u_v [Hkv, R_v, D] contiguous; cos, sin [T, D / 2], of q's dtype or
fp32, row t for position t, as "rotate_half" has it: channel d < D / 2 is paired with d + D / 2,
    k'[d] = k[d] cos[t, d] - k[d + D/2] sin[t, d],   k'[d + D/2] = k[d + D/2] cos[t, d] + k[d] sin[t, d];
lengths [B] int32, 0 allowed. D is a power of two, ranks are multiples of 16. Returns out [B, Hq, D] (or m [B, Hq, R_v])
in q's dtype and lse [B, Hq] (natural logarithm) in fp32.

Cost
----
Reads B N T (R_k + R_v) e bytes instead of 2 B Hkv T D e: with R = R_k = R_v the fraction R / (n D) of the cache.
Rebuilding takes 2 R D FLOPs per token and key head, that is n D / e FLOPs per byte read, whatever the rank: 256 for 4
heads of 128 in bf16, as many as an H100 does in the time of a byte (about 260). So up to 4 such heads in a group the
floor is the bandwidth, beyond it is arithmetic; and because both floors meet there, overlap decides what is reached.
Without rotation it is 4 R G n FLOPs per token and group, G n per byte, and bandwidth alone decides.

Published
---------
Palu compresses by more than 91.25 % together with quantization (its README). xKV, which shares a basis among layers,
reports up to 8x compression and 4.23x end to end with selective reconstruction (its abstract, version 2).

Measured
--------
One H100, B=32 x 8k, bf16 peer 361 us: with rotation 518 us at rank 256 (278 TFLOP/s) and 328 us at rank 128, so that
rebuilding keys costs more than the bytes it saves, except for memory; without rotation 191 us (1.89x of 2x) and 102 us
(3.52x of 4x). Latents and tables of the rotated kernel are loaded once per tile without being pipelined: Triton
pipelines only the loop over heads inside. Other layouts were not tried on a GPU.

Differs
-------
Any grouping, sizes, RoPE table and lengths; the authors' kernel fixes 32 heads of 128, theta 10000 and whole blocks,
and computes scores only: softmax and values follow in other kernels. Ranks are one number for all groups of a layer,
Palu searches them per group. Sharing among layers (xKV) is a matter of which layers use the same latents and their own
U. Quantized latents are not here.

:leaf: kvcc/low-rank-approximation
:papers: palu, eigen-attention, xkv
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from reference_kernels.core.checks import check_dim, check_heads, check_integers, check_same, check_shape
from reference_kernels.core.lse import LOG2_E, attention
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
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvcc.split_decode import check_contiguous, check_room
from reference_kernels.kvs.paged_decode import dense_peer

SHARED = 200 << 10  # bytes of shared memory that tiles may take


def tuning_for(q: torch.Tensor, k_rank: int, v_rank: int, rotated: bool) -> Tuning:
    """Return the layout whose tiles fill the shared memory: of latents, and of two matrices U_k where there is room."""
    size, wide_k, wide_v = q.element_size(), triton.next_power_of_2(k_rank), triton.next_power_of_2(v_rank)
    if not rotated:
        token = 3 * (wide_k + wide_v) * size  # three tiles in flight
        block = _power_of_two(SHARED // token, 64)
        return Tuning(block, warps=4, stages=3, pieces=2 if 2 * block * token <= SHARED + 2048 else 1)
    up = wide_k * q.shape[2] * size
    for stages in (2, 1):
        block = (SHARED - stages * up) // (max(wide_k, wide_v) * size)
        if block >= 64 or (stages == 1 and block >= 16):
            return Tuning(_power_of_two(block, 128), warps=8, stages=stages, pieces=1)
    raise ValueError(f"U_k of one head, {k_rank} x {q.shape[2]}, does not fit in shared memory: take smaller groups")


def _power_of_two(most: int, limit: int) -> int:
    """Return the largest power of two of at most `most`, between 16 and `limit`."""
    return min(max(1 << (max(most, 1).bit_length() - 1), 16), limit)


def make_plan(
    q: torch.Tensor, lengths: torch.Tensor, groups: int, k_rank: int, v_rank: int, *, rotated: bool
) -> Plan:  # fmt: skip
    """Cut the work of a step: q [B, Hq, D], lengths [B] int32, N groups, whether keys are rebuilt and rotated."""
    rows = lengths.cpu().repeat_interleave(groups)
    return plan_rows(rows, tuning_for(q, k_rank, v_rank, rotated), q.device)


def decompose(
    matrix: torch.Tensor, rank: int, whitening: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor a matrix into (down, up) of a rank, in its own precision.

    Args:
        matrix: [M, C]: the weight of a group's projection (x @ matrix gives the keys of its n heads behind one
            another, C = n D), or the cached keys themselves (M tokens; `down` is then the latents).
        rank: R.
        whitening: [M, M], positive definite: E[x^T x] of the inputs. Then the expected error of x @ matrix is
            smallest, instead of that of the matrix.

    Returns:
        down [M, R] and up [R, C]; down @ up is the best approximation of the rank, |matrix - down @ up|_F^2 is the sum
        of the discarded squared singular values. `heads_of(up, n)` gives U of the decode kernel.
    """
    check_shape("matrix", matrix, None, None)
    if not 1 <= rank <= min(matrix.shape):
        raise ValueError(f"the rank must lie in 1 ... {min(matrix.shape)}, not {rank}")
    if whitening is None:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, :rank] * s[:rank], vh[:rank]
    root = torch.linalg.cholesky(whitening).mT  # whitening = root^T root, so |x W| is |root W| on average
    u, s, vh = torch.linalg.svd(root @ matrix, full_matrices=False)
    return torch.linalg.solve_triangular(root, u[:, :rank] * s[:rank], upper=True), vh[:rank]


def heads_of(up: torch.Tensor, heads: int) -> torch.Tensor:
    """Return U [n, R, D] of the n heads that share latents, from `up` [R, n D]."""
    return up.unflatten(-1, (heads, -1)).transpose(0, 1).contiguous()


def decode_attention(
    q: torch.Tensor,
    k_latent: torch.Tensor,
    v_latent: torch.Tensor,
    u_k: torch.Tensor,
    u_v: torch.Tensor | None,
    lengths: torch.Tensor,
    *,
    cos: torch.Tensor | None = None,
    sin: torch.Tensor | None = None,
    scale: float | None = None,
    plan: Plan | None = None,
) -> Outputs:
    """Attend from one query per request to cached latents. Shapes and layout: the module's docstring.

    With a `plan` of `make_plan` nothing is read back from the device; without one it is made here and lengths are
    checked.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices, lengths or ranks do not fit.
    """
    ups = {"u_k": u_k} if u_v is None else {"u_k": u_k, "u_v": u_v}
    check_same(q=q, k_latent=k_latent, v_latent=v_latent, **ups)
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    check_dim(dim)
    check_shape("k_latent", k_latent, batch, None, None, None)
    _, groups, capacity, k_rank = k_latent.shape
    check_shape("v_latent", v_latent, batch, groups, capacity, None)
    v_rank = v_latent.shape[3]
    check_shape("u_k", u_k, None, k_rank, dim)
    heads = u_k.shape[0]
    group = check_heads(query_heads, heads)
    if groups < 1 or heads % groups:
        raise ValueError(f"{heads} key heads cannot share latents in {groups} groups of equal size")
    if u_v is not None:
        check_shape("u_v", u_v, heads, v_rank, dim)
    for name, rank in (("k_latent", k_rank), ("v_latent", v_rank)):
        if rank < 16 or rank % 16:
            raise ValueError(f"the rank of {name} must be a multiple of 16, not {rank}")
    if (cos is None) != (sin is None):
        raise ValueError("cos and sin must be given together")
    if cos is not None and sin is not None:
        check_same(cos=cos, sin=sin)
        check_shape("sin", sin, cos.shape[0], dim // 2)
        check_shape("cos", cos, None, dim // 2)
        if cos.shape[0] < capacity or cos.device != q.device or cos.dtype not in (q.dtype, torch.float32):
            raise ValueError(f"cos and sin need {capacity} rows on {q.device}, in {q.dtype} or fp32")
        check_contiguous(cos=cos, sin=sin)
    check_shape("lengths", lengths, batch)
    check_integers(q.device, lengths=lengths)
    check_contiguous(k_latent=k_latent, v_latent=v_latent, **ups)
    rotated = cos is not None
    if plan is None:
        check_room(lengths, batch, capacity, q.device)
        plan = make_plan(q, lengths, groups, k_rank, v_rank, rotated=rotated)

    scale = dim**-0.5 if scale is None else scale
    members, wide = query_heads // groups, triton.next_power_of_2(v_rank)
    query = q.contiguous() if rotated else _times(q, u_k.transpose(1, 2), k_rank)
    mean = torch.empty(batch, query_heads, wide, dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, query_heads, dtype=torch.float32, device=q.device)
    part_mean, part_lse = plan.states(batch * groups, members, wide)
    # these two are read by TMA, straight into shared memory
    wide_k = triton.next_power_of_2(k_rank)
    keys = TensorDescriptor.from_tensor(k_latent.flatten(0, 2), [plan.tuning.block, wide_k])
    up = TensorDescriptor.from_tensor(u_k.flatten(0, 1), [wide_k, dim])
    _read_pieces[(len(plan.items),)](
        query, keys, v_latent, up, cos, sin, plan.items, mean, lse, part_mean, part_lse, scale * LOG2_E, capacity,
        GROUPS=groups, HEADS=heads // groups, GROUP=group, COLUMNS=max(triton.next_power_of_2(members), 16), DIM=dim,
        K_RANK=k_rank, V_RANK=v_rank, K_WIDE=triton.next_power_of_2(k_rank), V_WIDE=wide, ROTATED=rotated,
        BLOCK=plan.tuning.block, EARLY=can_launch_early(q.device), num_warps=plan.tuning.warps,
        num_stages=plan.tuning.stages,
    )  # fmt: skip
    merge(plan, part_mean, part_lse, mean, lse)
    out = mean[..., :v_rank] if u_v is None else _times(mean, u_v, dim)
    return {"out": out, "lse": lse}


def _times(x: torch.Tensor, matrices: torch.Tensor, columns: int) -> torch.Tensor:
    """Return x[b, i] @ matrices[i // G] for x [B, Hq, at least X] and matrices [Hkv, X, columns]."""
    batch, query_heads, stride = x.shape
    heads, rank, _ = matrices.shape
    group = query_heads // heads
    out = torch.empty(batch, query_heads, columns, dtype=x.dtype, device=x.device)
    tile = 32
    _multiply[(heads, triton.cdiv(batch * group, 16), triton.cdiv(columns, tile))](
        x.contiguous(), matrices, out, batch * group, query_heads, stride, *matrices.stride(),
        GROUP=group, RANK=rank, WIDE=min(triton.next_power_of_2(rank), 128), COLUMNS=columns, TILE=tile, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _multiply(
    x, matrices, out, rows, query_heads, stride, stride_head, stride_rank, stride_column,
    GROUP: tl.constexpr, RANK: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One program: 16 of the B * G query heads of one key head times TILE columns of its matrix."""
    head = tl.program_id(0)
    row = tl.program_id(1) * 16 + tl.arange(0, 16)
    columns = tl.program_id(2) * TILE + tl.arange(0, TILE)
    query_head = row // GROUP * query_heads + head * GROUP + row % GROUP
    real = (row < rows)[:, None]
    result = tl.zeros([16, TILE], tl.float32)
    for first in range(0, RANK, WIDE):
        ranks = first + tl.arange(0, WIDE)
        left = tl.load(
            x + query_head[:, None] * stride + ranks[None, :], mask=real & (ranks < RANK)[None, :], other=0.0
        )
        place = head * stride_head + ranks[:, None] * stride_rank + columns[None, :] * stride_column
        right = tl.load(matrices + place, mask=(ranks < RANK)[:, None] & (columns < COLUMNS)[None, :], other=0.0)
        result = tl.dot(left, right, result, input_precision="ieee")
    place = query_head[:, None] * COLUMNS + columns[None, :]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=real & (columns < COLUMNS)[None, :])


@triton.jit
def _read_pieces(
    q, k_latent, v_latent, u_k, cos, sin, items, mean_out, lse, part_mean, part_lse, scale, capacity,
    GROUPS: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr, COLUMNS: tl.constexpr, DIM: tl.constexpr,
    K_RANK: tl.constexpr, V_RANK: tl.constexpr, K_WIDE: tl.constexpr, V_WIDE: tl.constexpr, ROTATED: tl.constexpr,
    BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the state of all query heads of one group over one piece of its tokens.

    Tokens are the rows of both products, query heads the columns: rebuilt keys are then the left operand, which the
    tensor cores take from registers.
    """
    MEMBERS: tl.constexpr = HEADS * GROUP
    row, start, stop, slot = take_piece(items, EARLY)
    if row >= 0:
        member, ranks = tl.arange(0, COLUMNS), tl.arange(0, V_WIDE)
        base = row * capacity
        values = v_latent + row.to(tl.int64) * capacity * V_RANK
        first_head = (row % GROUPS) * HEADS
        if ROTATED:
            queries = q + row * MEMBERS * DIM
        else:
            queries = q + row * MEMBERS * K_RANK

        top = tl.full([COLUMNS], float("-inf"), tl.float32)  # running maximum, in powers of two
        total = tl.zeros([BLOCK, COLUMNS], tl.float32)  # summed over tokens at the end only
        mean = tl.zeros([V_WIDE, COLUMNS], tl.float32)
        for first in range(start, stop, BLOCK):
            top, total, mean = _read_tile(
                queries, k_latent, base, values, u_k, first_head, cos, sin, first, stop, scale, top, total, mean,
                HEADS, GROUP, COLUMNS, DIM, K_RANK, V_RANK, K_WIDE, V_WIDE, ROTATED, BLOCK,
            )  # fmt: skip

        sums = tl.sum(total, 0)
        mean = mean / tl.where(sums > 0, sums, 1.0)[None, :]
        store_lse(row, slot, member, top, sums, lse, part_lse, MEMBERS)
        place = member[None, :] * V_WIDE + ranks[:, None]
        store_mean(row, slot, place, mean, (member < MEMBERS)[None, :], mean_out, part_mean, MEMBERS, V_WIDE)


@triton.jit
def _read_tile(
    queries, k_latent, base, values, u_k, first_head, cos, sin, first, stop, scale, top, total, mean,
    HEADS: tl.constexpr, GROUP: tl.constexpr, COLUMNS: tl.constexpr, DIM: tl.constexpr, K_RANK: tl.constexpr,
    V_RANK: tl.constexpr, K_WIDE: tl.constexpr, V_WIDE: tl.constexpr, ROTATED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Read BLOCK tokens into the running state. Past the end the last token is read again, and weighs nothing."""
    tokens, member = first + tl.arange(0, BLOCK), tl.arange(0, COLUMNS)
    live = tokens < stop
    tokens = tl.minimum(tokens, stop - 1)
    latents = k_latent.load([base + first, 0])  # zeros beyond K_RANK; whatever lies past the end is masked below
    if ROTATED:
        half: tl.constexpr = DIM // 2
        halves = tl.arange(0, half)
        angle = tokens[:, None] * half + halves[None, :]
        c, s = tl.load(cos + angle).to(tl.float32), tl.load(sin + angle).to(tl.float32)
        scores = tl.zeros([BLOCK, COLUMNS], tl.float32)
        for head in range(HEADS):
            up = u_k.load([(first_head + head) * K_RANK, 0])  # rows beyond K_RANK meet columns of zeros
            rebuilt = tl.dot(latents, up, input_precision="ieee")
            # d and d + D/2 lie in the same thread: taking the halves apart moves nothing
            low, high = tl.split(tl.permute(tl.reshape(rebuilt, [BLOCK, 2, half]), [0, 2, 1]))
            own = (member // GROUP == head)[None, :]  # zero columns for the queries of other heads: scores just add up
            query = queries + member[None, :] * DIM + halves[:, None]
            low_query = tl.load(query, mask=own, other=0.0)
            high_query = tl.load(query + half, mask=own, other=0.0)
            scores = tl.dot((low * c - high * s).to(latents.dtype), low_query, scores, input_precision="ieee")
            scores = tl.dot((high * c + low * s).to(latents.dtype), high_query, scores, input_precision="ieee")
    else:
        ranks = tl.arange(0, K_WIDE)
        query = queries + member[None, :] * K_RANK + ranks[:, None]
        query = tl.load(query, mask=(member < HEADS * GROUP)[None, :] & (ranks < K_RANK)[:, None], other=0.0)
        scores = tl.dot(latents, query, input_precision="ieee")
    scores = tl.where(live[:, None], scores * scale, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 0))
    weights = tl.exp2(scores - new_top[None, :])
    fade = tl.exp2(top - new_top)
    content = _latents(values, tokens, V_RANK, V_WIDE)
    total = total * fade[None, :] + weights
    mean = tl.dot(tl.trans(content), weights.to(content.dtype), mean * fade[None, :], input_precision="ieee")
    return new_top, total, mean


@triton.jit
def _latents(latents, tokens, RANK: tl.constexpr, WIDE: tl.constexpr):
    """Load the latents of some tokens, [BLOCK, WIDE], zeros beyond RANK."""
    ranks = tl.arange(0, WIDE)
    place = latents + tokens[:, None] * RANK + ranks[None, :]
    if RANK == WIDE:
        tile = tl.load(place)
    else:
        tile = tl.load(place, mask=(ranks < RANK)[None, :], other=0.0)
    return tile


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return RoPE of x [..., T, D] with cos, sin [T, D / 2], halves paired ("rotate_half")."""
    low, high = x.chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(x.dtype)


def reference(
    q: torch.Tensor, k_latent: torch.Tensor, v_latent: torch.Tensor, u_k: torch.Tensor, u_v: torch.Tensor | None,
    lengths: torch.Tensor, cos: torch.Tensor | None = None, sin: torch.Tensor | None = None, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """Dense attention over rebuilt keys and values, one request at a time."""
    heads = u_k.shape[0]
    scale = q.shape[2] ** -0.5 if scale is None else scale
    states = []
    for b, length in enumerate(lengths.tolist()):
        k, v = (x[b, :, :length].repeat_interleave(heads // x.shape[1], 0) for x in (k_latent, v_latent))
        k = k @ u_k
        if cos is not None and sin is not None:
            k = rotate(k, cos[:length], sin[:length])
        states.append(attention(q[b], k, v if u_v is None else v @ u_v, scale))
    return {"out": torch.stack([s[0] for s in states]), "lse": torch.stack([s[1] for s in states])}


def rope_table(length: int, dim: int, theta: float = 10_000.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin [T, D / 2] in fp32: the angle of position t and pair d is t theta^(-2 d / D)."""
    angles = torch.arange(length).double()[:, None] * theta ** (-torch.arange(0, dim, 2).double() / dim)
    return angles.cos().float(), angles.sin().float()


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: list[int], heads: int, group: int, dim: int,
    share: int, k_rank: int, v_rank: int | None = None, rotated: bool = True, fold_values: bool = False,
) -> Inputs:  # fmt: skip
    """Draw latents of unit variance and U that keep it; `share` heads share latents."""
    generator = torch.Generator(device).manual_seed(seed)
    batch, capacity, v_rank = len(lengths), max(*lengths, 1), v_rank or k_rank

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, device=device, generator=generator)

    k_latent, v_latent = (draw(batch, heads // share, capacity, rank) for rank in (k_rank, v_rank))
    for b, length in enumerate(lengths):  # what belongs to no token must not be read
        k_latent[b, :, length:] = float("nan")
        v_latent[b, :, length:] = float("nan")
    inputs: Inputs = {
        "q": draw(batch, heads * group, dim),
        "k_latent": k_latent,
        "v_latent": v_latent,
        "u_k": draw(heads, k_rank, dim) * k_rank**-0.5,
        "u_v": None if fold_values else draw(heads, v_rank, dim) * v_rank**-0.5,
        "lengths": torch.tensor(lengths, dtype=torch.int32, device=device),
    }
    if rotated:
        inputs["cos"], inputs["sin"] = (table.to(device, dtype) for table in rope_table(capacity, dim))
    return inputs


def plan(
    *, q: torch.Tensor, k_latent: torch.Tensor, v_latent: torch.Tensor, lengths: torch.Tensor,
    cos: torch.Tensor | None = None, **_: Any,
) -> Inputs:  # fmt: skip
    """The host's part of a step."""
    batch, groups, capacity, k_rank = k_latent.shape
    check_room(lengths, batch, capacity, q.device)  # here, so that the step itself need not wait for the GPU
    return {"plan": make_plan(q, lengths, groups, k_rank, v_latent.shape[3], rotated=cos is not None)}


def work(
    *, q: torch.Tensor, k_latent: torch.Tensor, v_latent: torch.Tensor, u_k: torch.Tensor, u_v: torch.Tensor | None,
    lengths: torch.Tensor, cos: torch.Tensor | None = None, **_: Any,
) -> Work:  # fmt: skip
    """Every latent and every matrix once, each key rebuilt once if it must be rotated."""
    batch, query_heads, dim = q.shape
    groups, ranks = k_latent.shape[1], k_latent.shape[3] + v_latent.shape[3]
    size, tokens, heads = q.element_size(), int(lengths.sum()), u_k.shape[0]
    read = (tokens * groups * ranks + q.numel() + u_k.numel() + (0 if u_v is None else u_v.numel())) * size
    scores = query_heads * (k_latent.shape[3] if cos is None else dim)
    rebuild = 0 if cos is None else heads * k_latent.shape[3] * dim
    return Work(
        read=read + (0 if cos is None else 2 * int(lengths.max()) * dim // 2 * cos.element_size()),
        written=q.numel() * size + 4 * batch * query_heads,
        flops=2 * tokens * (rebuild + scores + query_heads * v_latent.shape[3]),
    )


def figures(inputs: Inputs, _outputs: Outputs, seconds: float) -> dict[str, float]:
    """Return the share of the cache that is saved, and the rates of bytes and of arithmetic."""
    (heads, _, dim), needed = inputs["u_k"].shape, work(**inputs)
    latents = inputs["k_latent"].shape[1] * (inputs["k_latent"].shape[3] + inputs["v_latent"].shape[3])
    return {
        "memory saved": 1 - latents / (2 * heads * dim),
        "gain at most": 2 * heads * dim / latents,
        "GB/s": needed.moved / seconds / 1e9,
        "TFLOP/s": needed.flops / seconds / 1e12,
        "FLOPs per byte": needed.flops / needed.read,
    }


LLAMA = {"heads": 8, "group": 4, "dim": 128, "share": 4}
UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "odd lengths": {
            "lengths": [1, 15, 16, 17, 300, 0], "heads": 4, "group": 2, "dim": 64, "share": 2, "k_rank": 32,
        },
        "ranks of their own, wide group and head": {
            "lengths": [65, 130], "heads": 2, "group": 8, "dim": 128, "share": 2, "k_rank": 48, "v_rank": 80,
        },
        "no sharing, one query head per key head": {
            "lengths": [150, 5], "heads": 3, "group": 1, "dim": 64, "share": 1, "k_rank": 64, "v_rank": 16,
        },
        "long, values left to the output projection": {
            "lengths": [1023], "heads": 2, "group": 4, "dim": 64, "share": 2, "k_rank": 64, "fold_values": True,
        },
        "no rotation left": {
            "lengths": [17, 0, 1023], "heads": 4, "group": 4, "dim": 64, "share": 4, "k_rank": 80, "rotated": False,
        },
    },
    benchmarks={
        "B=32 x 8k, rank 256": {"lengths": [8192] * 32, **LLAMA, "k_rank": 256},
        "B=32 x 8k, rank 128": {"lengths": [8192] * 32, **LLAMA, "k_rank": 128},
        "B=32 x 8k, rank 256, no rotation": {"lengths": [8192] * 32, **LLAMA, "k_rank": 256, "rotated": False},
        "B=32 x 8k, rank 128, no rotation": {"lengths": [8192] * 32, **LLAMA, "k_rank": 128, "rotated": False},
        "B=1 x 128k, rank 128": {"lengths": [131072], **LLAMA, "k_rank": 128},
    },
    peers={"dense bf16": lambda inputs: dense_peer(inputs["q"], inputs["lengths"], inputs["u_k"].shape[0])},
    figures=figures,
)  # fmt: skip
