"""A lossy codec of a cache: deltas to an anchor token, bins that widen with depth, many rANS streams side by side.

Computes
--------
Tokens come in groups of 10; the first of a group is its anchor. Per layer l and channel c, with two bin sizes:
    anchor   q = round(x / step_0),          x' = step_0 q              |q| <= 127
    others   q = round((x - a') / step_1),   x' = a' + step_1 q         |q| <= levels[l]
where a' is the anchor as the decoder will see it, so that errors do not add up: |x - x'| <= step / 2, plus the rounding
of x' to its type. A step is the largest value, or delta, of the channel over the number of levels, which deeper layers
have fewer of. The symbol q + levels is then coded by rANS: with a frequency f[s] out of M = 4096, and F[s] the sum of
those before s, a state of 32 bits takes up a symbol by
    push:  state' = (state // f) M + F + state % f           pop:  s = the symbol whose range holds state % M,
                                                                   state = f (state' // M) + state' % M - F
The state stays in 2^16 … 2^32: before a push that would pass the end, 16 bits of it are written out; after a pop that
falls below, 16 bits are read. That is one word per symbol at most, since M <= 2^16. Symbols are pushed from the last
token to the first.

Layout
------
x [L, T, C]: keys or values of L layers, C = Hkv D channels, fp32, fp16 or bf16. A stream is one channel of one layer
over `chunk` tokens; stream (l, j, c) has number (l J + j) C + c, J = ceil(T / chunk). One lane decodes one stream,
neighbors being neighboring channels, so that numbers are written side by side.
- `words` int16: the streams behind one another. Each begins with its state, high half first; then come the words in the
  order in which the decoder wants them.
- `offsets` int32 [S + 1]: where each stream begins, in words.
- The model, which may serve many tensors: `steps` [2, L, C] fp32 and `frequencies` [L, 2, K, 256] int16, one table
  for anchors and one for deltas per layer and group of `share` channels, K = ceil(C / share). All symbols have f >= 1.

Cost
----
Decoding reads b bits per number, b being the entropy of the symbols, plus 64 bits per stream (offset and state), and
writes the number. Every symbol waits for the one before it: a lookup of 1 byte among 4096, one of the range, one of a
word. Speed comes from the number of streams, L J C. Encoding runs over the symbols twice, to size the streams and to
write them, and waits for the device once, to learn how much to allocate.

Published
---------
CacheGen makes caches 3.5-4.3 times smaller and loads them with 3.2-3.7 times less delay (abstract, SIGCOMM 2024).

Differs
-------
The paper's coder is an arithmetic one; rANS gives the same size and needs one table lookup instead of a search. Steps
follow the largest delta of a channel, so nothing is clipped on the data that they were made for (other data is clipped
to the levels). Tables are shared by groups of channels, since a step per channel has already taken out the scale. The
streaming part (choosing a level by the bandwidth) is not here.

:leaf: kvcc/codec-based-compression
:papers: cachegen
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_shape
from reference_kernels.core.timing import time_call
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work

ANCHOR_LEVELS = 127
BITS = 12  # of a probability
TOTAL = 1 << BITS  # M
SYMBOLS = 256
LOW = 1 << 16  # the least state

_BITS = tl.constexpr(BITS)
_TOTAL = tl.constexpr(TOTAL)
_ANCHOR_LEVELS = tl.constexpr(ANCHOR_LEVELS)


@dataclass(frozen=True)
class Tuning:
    """How the kernels are laid out on the chip; the format does not depend on it."""

    lanes: int = 128  # streams per program
    decode_warps: int = 2
    encode_warps: int = 4
    quantize_warps: int = 4


TUNING = Tuning()


@dataclass(frozen=True)
class Model:
    """What encoder and decoder share: bin sizes and frequencies, on one device."""

    steps: torch.Tensor  # [2, L, C] fp32
    frequencies: torch.Tensor  # [L, 2, K, 256] int16
    levels: tuple[int, ...]  # of the deltas, per layer
    group: int
    chunk: int
    share: int

    @property
    def nbytes(self) -> int:
        """Bytes that a receiver without the model needs; symbols that a layer does not have are left out."""
        tables = self.frequencies.shape[2]
        symbols = sum(2 * ANCHOR_LEVELS + 1 + 2 * levels + 1 for levels in self.levels)
        return self.steps.nbytes + 2 * tables * symbols

    @cached_property
    def ranges(self) -> torch.Tensor:
        """[L, 2, K, 256] int32: frequency of a symbol, and above bit 16 the sum of those before it."""
        counts = self.frequencies.int()
        return (counts | (counts.cumsum(-1, dtype=torch.int32) - counts) << 16).contiguous()

    @cached_property
    def slots(self) -> torch.Tensor:
        """[L, 2, K, 4096] uint8: the symbol whose range holds a remainder."""
        ends = self.frequencies.int().cumsum(-1, dtype=torch.int32)
        remainders = torch.arange(TOTAL, dtype=torch.int32, device=ends.device).expand(*ends.shape[:-1], TOTAL)
        return torch.searchsorted(ends, remainders.contiguous(), right=True).to(torch.uint8)

    @cached_property
    def depth(self) -> torch.Tensor:
        """[L] int32: the levels on the device."""
        return torch.tensor(self.levels, dtype=torch.int32, device=self.steps.device)


@dataclass(frozen=True)
class Encoded:
    """A compressed tensor; the module's docstring has the layout."""

    words: torch.Tensor
    offsets: torch.Tensor
    model: Model
    tokens: int
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the streams and of the model."""
        return self.words.nbytes + self.offsets.nbytes + self.model.nbytes

    def validate(self) -> None:
        """Check every length, once for data that came from elsewhere: reads the device.

        Raises:
            ValueError, TypeError: a stream reaches outside of the words, or parts do not fit together.
        """
        _check_encoded(self)
        sizes = self.offsets.diff()
        bad = (sizes < 2) | (sizes > 2 + self.model.chunk)
        if bool(bad.any()):
            stream = int(bad.nonzero()[0])
            raise ValueError(f"stream {stream} has {int(sizes[stream])} words, not 2 to {2 + self.model.chunk}")
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        if first != 0 or last != len(self.words):
            raise ValueError(f"offsets run from {first} to {last}, there are {len(self.words)} words")


def graded_levels(layers: int, first: int = 31, last: int = 7) -> tuple[int, ...]:
    """Return levels that fall from `first` to `last` in three steps: bins widen where errors matter less."""
    return tuple(round(first + (last - first) * (3 * layer // layers) / 2) for layer in range(layers))


def calibrate(x: torch.Tensor, levels: Sequence[int], *, group: int = 10, chunk: int = 1000, share: int = 128) -> Model:
    """Measure bin sizes and frequencies on a tensor, for itself or for others like it.

    Args:
        x: [L, T, C].
        levels: of the deltas of each layer, 1 … 127.
        group: tokens that share an anchor, itself included.
        chunk: tokens per stream, a multiple of the group.
        share: neighboring channels that share tables.

    Raises:
        ValueError, TypeError: shapes, dtype or numbers do not fit, or x is not finite.
    """
    check_shape("x", x, None, None, None)
    if not x.is_floating_point():
        raise TypeError(f"x must be floating-point, not {x.dtype}")
    layers, tokens, channels = x.shape
    if min(x.shape) < 1:
        raise ValueError(f"x must not be empty, its shape is {list(x.shape)}")
    if len(levels) != layers or not all(1 <= level <= ANCHOR_LEVELS for level in levels):
        raise ValueError(f"levels must be {layers} numbers of 1 to {ANCHOR_LEVELS}, not {list(levels)}")
    if group < 2 or chunk < group or chunk % group or share < 1:
        raise ValueError(f"a chunk ({chunk}) must be a multiple of the group ({group} >= 2), share ({share}) positive")
    steps = torch.empty(2, layers, channels, dtype=torch.float32, device=x.device)
    for layer, level in enumerate(levels):  # one layer at a time: the deltas need fp32
        values = x[layer].float()
        steps[0, layer] = values[::group].abs().amax(0) / ANCHOR_LEVELS
        steps[0, layer].masked_fill_(steps[0, layer] == 0, 1.0)
        seen = torch.floor(values[::group] / steps[0, layer] + 0.5) * steps[0, layer]
        steps[1, layer] = (values - seen.repeat_interleave(group, 0)[:tokens]).abs().amax(0) / level
        steps[1, layer].masked_fill_(steps[1, layer] == 0, 1.0)
    if not bool(steps.isfinite().all()):
        raise ValueError("x must be finite")
    tables = triton.cdiv(channels, share)
    none = torch.empty(layers, 2, tables, SYMBOLS, dtype=torch.int16, device=x.device)
    draft = Model(steps, none, tuple(levels), group, chunk, share)
    counts = count_symbols(quantize(x, draft), draft)
    return Model(steps, _frequencies(counts, draft.levels), draft.levels, group, chunk, share)


def count_symbols(symbols: torch.Tensor, model: Model) -> torch.Tensor:
    """Count symbols [L, T, C] per table: [L, 2, K, 256] int64, anchors first."""
    layers, tokens, channels = symbols.shape
    tables = triton.cdiv(channels, model.share)
    table = torch.arange(channels, device=symbols.device) // model.share * SYMBOLS
    anchor = torch.arange(tokens, device=symbols.device) % model.group == 0
    counts = [
        torch.bincount((symbols[layer][rows].int() + table.int()).flatten(), minlength=tables * SYMBOLS)
        for layer in range(layers)
        for rows in (anchor, ~anchor)
    ]
    return torch.stack(counts).reshape(layers, 2, tables, SYMBOLS)


def _frequencies(counts: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """Scale counts to a sum of M, at least 1 for every symbol of a layer; the most frequent takes what is left over."""
    sizes = torch.tensor([[2 * ANCHOR_LEVELS + 1, 2 * level + 1] for level in levels], device=counts.device)
    sizes = sizes[:, :, None, None]
    exists = torch.arange(SYMBOLS, device=counts.device) < sizes
    counts = counts * exists
    scaled = counts * (TOTAL - sizes) // counts.sum(-1, keepdim=True).clamp(min=1) + exists.long()
    left = TOTAL - scaled.sum(-1, keepdim=True)
    return scaled.scatter_add(-1, scaled.argmax(-1, keepdim=True), left).to(torch.int16)


def quantize(x: torch.Tensor, model: Model, tuning: Tuning = TUNING) -> torch.Tensor:
    """Return the symbols [L, T, C] uint8."""
    layers, tokens, channels = _check_input(x, model)
    symbols = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    if tokens:
        _quantize[(triton.cdiv(channels, tuning.lanes), triton.cdiv(tokens, model.group), layers)](
            x, model.steps, model.depth, symbols, tokens, channels, layers, model.group,
            LANES=tuning.lanes, num_warps=tuning.quantize_warps,
        )  # fmt: skip
    return symbols


def encode(x: torch.Tensor, model: Model, tuning: Tuning = TUNING) -> Encoded:
    """Compress x [L, T, C], contiguous. Waits for the device once.

    Raises:
        ValueError, TypeError: x does not fit to the model.
    """
    layers, tokens, channels = _check_input(x, model)
    chunks = triton.cdiv(tokens, model.chunk)
    symbols = quantize(x, model, tuning)
    offsets = torch.zeros(layers * chunks * channels + 1, dtype=torch.int32, device=x.device)
    words = torch.empty(0, dtype=torch.int16, device=x.device)
    if tokens:
        grid = (chunks, triton.cdiv(channels, tuning.lanes), layers)
        shape = (tokens, channels, model.frequencies.shape[2], model.group, model.chunk, model.share)
        layout = {"LANES": tuning.lanes, "num_warps": tuning.encode_warps}
        _push[grid](symbols, model.ranges, offsets, words, *shape, WRITE=False, **layout)
        offsets.cumsum_(0)
        words = torch.empty(int(offsets[-1]), dtype=torch.int16, device=x.device)
        _push[grid](symbols, model.ranges, offsets, words, *shape, WRITE=True, **layout)
    return Encoded(words, offsets, model, tokens, x.dtype)


def decode(encoded: Encoded, tuning: Tuning = TUNING) -> torch.Tensor:
    """Return x' [L, T, C] in the dtype that was encoded. Reads nothing back; see `Encoded.validate`.

    Raises:
        ValueError, TypeError: the parts do not fit together.
    """
    return _decode(encoded, encoded.dtype, tuning)


def decode_symbols(encoded: Encoded, tuning: Tuning = TUNING) -> torch.Tensor:
    """Return the symbols [L, T, C] uint8, as `quantize` made them."""
    return _decode(encoded, torch.uint8, tuning)


def _decode(encoded: Encoded, dtype: torch.dtype, tuning: Tuning) -> torch.Tensor:
    _check_encoded(encoded)
    model, tokens = encoded.model, encoded.tokens
    _, layers, channels = model.steps.shape
    out = torch.empty(layers, tokens, channels, dtype=dtype, device=encoded.words.device)
    if tokens:
        _pop[(triton.cdiv(tokens, model.chunk), triton.cdiv(channels, tuning.lanes), layers)](
            encoded.words, encoded.offsets, model.slots, model.ranges, model.steps, model.depth, out,
            tokens, channels, layers, model.frequencies.shape[2], model.group, model.chunk, model.share,
            LANES=tuning.lanes, NUMBERS=dtype != torch.uint8, num_warps=tuning.decode_warps,
        )  # fmt: skip
    return out


def _check_input(x: torch.Tensor, model: Model) -> tuple[int, int, int]:
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"x must be float32, float16 or bfloat16, not {x.dtype}")
    _, layers, channels = model.steps.shape
    check_shape("x", x, layers, None, channels)
    if x.device != model.steps.device:
        raise ValueError(f"x is on {x.device}, the model on {model.steps.device}")
    if not x.is_contiguous():
        raise ValueError("x must be contiguous")
    if x.numel() >= 1 << 31:
        raise ValueError(f"x has {x.numel()} numbers; offsets have 32 bits, so encode fewer layers at a time")
    return layers, x.shape[1], channels


def _check_encoded(encoded: Encoded) -> None:
    model = encoded.model
    _, layers, channels = model.steps.shape
    if encoded.tokens < 0:
        raise ValueError(f"there cannot be {encoded.tokens} tokens")
    check_shape("words", encoded.words, None)
    check_shape("offsets", encoded.offsets, layers * triton.cdiv(encoded.tokens, model.chunk) * channels + 1)
    for name, part, dtype in (("words", encoded.words, torch.int16), ("offsets", encoded.offsets, torch.int32)):
        if part.dtype != dtype:
            raise TypeError(f"{name} must be {dtype}, not {part.dtype}")
        if part.device != model.steps.device or not part.is_contiguous():
            raise ValueError(f"{name} must be contiguous and on {model.steps.device}")


@triton.jit
def _quantize(x, steps, depth, symbols, tokens, channels, layers, group, LANES: tl.constexpr):
    """One program: one group of tokens over LANES channels of a layer."""
    layer, channel = tl.program_id(2), tl.program_id(0) * LANES + tl.arange(0, LANES)
    real = channel < channels
    fine = tl.load(steps + layer * channels + channel, mask=real, other=1.0)
    coarse = tl.load(steps + (layers + layer) * channels + channel, mask=real, other=1.0)
    levels = tl.load(depth + layer)
    first = tl.program_id(1) * group
    place = (layer.to(tl.int64) * tokens + first) * channels + channel
    anchor = _bin(tl.load(x + place, mask=real, other=0.0).to(tl.float32), fine, _ANCHOR_LEVELS)
    tl.store(symbols + place, (anchor + _ANCHOR_LEVELS).to(tl.uint8), mask=real)
    seen = anchor.to(tl.float32) * fine
    for _ in range(first + 1, tl.minimum(first + group, tokens)):
        place += channels
        delta = _bin(tl.load(x + place, mask=real, other=0.0).to(tl.float32) - seen, coarse, levels)
        tl.store(symbols + place, (delta + levels).to(tl.uint8), mask=real)


@triton.jit
def _bin(value, step, levels):
    """Return the number of the nearest bin, clipped; the larger of two equally near."""
    number = tl.floor(tl.div_rn(value, step) + 0.5).to(tl.int32)
    return tl.minimum(tl.maximum(number, -levels), levels)


@triton.jit
def _streams(tokens, channels, tables, chunk, share, LANES: tl.constexpr):
    """Return what a program needs to know of its streams: their channels, first, number, length, and first table."""
    piece, layer = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * LANES + tl.arange(0, LANES)
    stream = (layer * tl.num_programs(0) + piece) * channels + channel
    place = (layer.to(tl.int64) * tokens + piece * chunk) * channels + channel
    table = layer * 2 * tables + channel // share
    return channel < channels, stream, place, tl.minimum(chunk, tokens - piece * chunk), table


@triton.jit
def _push(
    symbols, ranges, offsets, words, tokens, channels, tables, group, chunk, share,
    LANES: tl.constexpr, WRITE: tl.constexpr,
):  # fmt: skip
    """One program: LANES streams, from the last token to the first. One launch counts words, the next writes them."""
    real, stream, place, length, table = _streams(tokens, channels, tables, chunk, share, LANES)
    state = tl.full([LANES], 65536, tl.uint32)
    if WRITE:
        at = tl.load(offsets + stream + 1, mask=real, other=0)
    else:
        at = tl.zeros([LANES], tl.int32)
    place += (length - 1).to(tl.int64) * channels
    for back in range(length):
        kind = tl.where((length - 1 - back) % group == 0, 0, tables)
        symbol = tl.load(symbols + place, mask=real, other=0).to(tl.int32)
        span = tl.load(ranges + (table + kind) * 256 + symbol, mask=real, other=1).to(tl.uint32, bitcast=True)
        frequency = span & 0xFFFF
        full = (state >> (32 - _BITS)) >= frequency
        at -= full.to(tl.int32)
        if WRITE:
            tl.store(words + at, state.to(tl.int16), mask=real & full)
        state = tl.where(full, state >> 16, state)
        times = state // frequency
        state = (times << _BITS) + (state - times * frequency) + (span >> 16)
        place -= channels
    if WRITE:
        tl.store(words + at - 1, state.to(tl.int16), mask=real)
        tl.store(words + at - 2, (state >> 16).to(tl.int16), mask=real)
    else:
        tl.store(offsets + stream + 1, 2 - at, mask=real)


@triton.jit
def _pop(
    words, offsets, slots, ranges, steps, depth, out, tokens, channels, layers, tables, group, chunk, share,
    LANES: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """One program: LANES streams, token by token, written as NUMBERS or as symbols."""
    real, stream, place, length, table = _streams(tokens, channels, tables, chunk, share, LANES)
    layer, channel = tl.program_id(2), tl.program_id(1) * LANES + tl.arange(0, LANES)
    fine = tl.load(steps + layer * channels + channel, mask=real, other=0.0)
    coarse = tl.load(steps + (layers + layer) * channels + channel, mask=real, other=0.0)
    levels = tl.load(depth + layer)
    at = tl.load(offsets + stream, mask=real, other=0)
    end = tl.load(offsets + stream + 1, mask=real, other=0)
    high = tl.load(words + at, mask=real, other=0).to(tl.uint32) & 0xFFFF
    state = (high << 16) | (tl.load(words + at + 1, mask=real, other=0).to(tl.uint32) & 0xFFFF)
    at += 2
    ahead = tl.load(words + at, mask=real & (at < end), other=0)  # the next word, one symbol before it can be needed
    anchor = tl.zeros([LANES], tl.float32)
    left = 0  # tokens before the next anchor
    for _ in range(length):
        first = left == 0
        mine = table + tl.where(first, 0, tables)
        slot = (state % _TOTAL).to(tl.int32)
        symbol = tl.load(slots + mine * _TOTAL + slot, mask=real, other=0).to(tl.int32)
        span = tl.load(ranges + mine * 256 + symbol, mask=real, other=0).to(tl.uint32, bitcast=True)
        state = (span & 0xFFFF) * (state >> _BITS) + slot.to(tl.uint32) - (span >> 16)
        low = state < 65536
        state = tl.where(low, (state << 16) | (ahead.to(tl.uint32) & 0xFFFF), state)
        at += low.to(tl.int32)
        ahead = tl.load(words + at, mask=low & (at < end), other=ahead)
        if NUMBERS:
            bins = (symbol - tl.where(first, _ANCHOR_LEVELS, levels)).to(tl.float32)
            number = tl.where(first, 0.0, anchor) + bins * tl.where(first, fine, coarse)
            anchor = tl.where(first, number, anchor)
            tl.store(out + place, number.to(out.dtype.element_ty), mask=real)
        else:
            tl.store(out + place, symbol.to(tl.uint8), mask=real)
        left = tl.where(first, group, left) - 1
        place += channels


def reference(encoded: Encoded, steps: torch.Tensor, source: torch.Tensor | None = None) -> Outputs:
    """The recurrence, all streams at once, in the precision of `steps`; `source` is not looked at."""
    model, tokens = encoded.model, encoded.tokens
    _, layers, channels = steps.shape
    chunks = triton.cdiv(tokens, model.chunk)
    offsets = encoded.offsets.long().reshape(-1)
    words = encoded.words.long() & 0xFFFF
    at = offsets[:-1].clone()
    state = words[at] << 16 | words[at + 1]
    at += 2
    which = torch.arange(channels, device=at.device) // model.share
    frequencies = model.frequencies[:, :, which].long()[:, None].expand(-1, chunks, -1, -1, -1)  # [L, J, 2, C, 256]
    ends = frequencies.cumsum(-1)
    out = steps.new_zeros(layers, chunks, model.chunk, channels)
    anchor = steps.new_zeros(layers, chunks, channels)
    levels = torch.tensor(model.levels, device=at.device)[:, None, None]
    lengths = (tokens - torch.arange(chunks, device=at.device) * model.chunk).clamp(max=model.chunk)[:, None]
    for token in range(min(model.chunk, tokens)):
        kind = int(token % model.group > 0)
        mine = ends[:, :, kind]  # [L, J, C, 256]
        slot = (state % TOTAL).reshape(layers, chunks, channels, 1)
        symbol = (mine <= slot).sum(-1, keepdim=True)  # how many ranges end at or before it
        frequency = frequencies[:, :, kind].gather(-1, symbol)
        before = mine.gather(-1, symbol) - frequency
        symbol = symbol.squeeze(-1)
        going = (token < lengths).expand(layers, -1, channels).reshape(-1)
        state = torch.where(going, frequency.flatten() * (state // TOTAL) + (slot - before).flatten(), state)
        low = going & (state < LOW)
        state = torch.where(low, state << 16 | words[at.clamp(max=len(words) - 1)], state)
        at += low
        if kind == 0:
            anchor = (symbol - ANCHOR_LEVELS) * steps[0][:, None]
            out[:, :, token] = anchor
        else:
            out[:, :, token] = anchor + (symbol - levels) * steps[1][:, None]
    out = out.reshape(layers, -1, channels)[:, :tokens]
    return {"out": out.to(encoded.dtype) if steps.dtype == torch.float32 else out}


def decode_unit(encoded: Encoded, steps: torch.Tensor, source: torch.Tensor | None = None) -> Outputs:
    """Decode; `steps` are the model's and stand among the inputs so that the reference can have them in fp64."""
    return {"out": decode(encoded)}


def make_inputs(
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    layers: int,
    tokens: int,
    channels: int,
    group: int = 10,
    chunk: int = 1000,
    share: int = 128,
    likeness: float = 0.9,
) -> Inputs:
    """Draw a tensor whose neighboring tokens are alike, calibrate on it and encode it.

    Args:
        device, dtype, seed: as everywhere.
        layers, tokens, channels: L, T, C.
        group, chunk, share: of the model.
        likeness: correlation of a token with the one before it, as part of one slow wave per channel and noise.
    """
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.empty(layers, tokens, channels, dtype=dtype, device=device)
    time = torch.arange(tokens, device=device, dtype=torch.float32)[:, None]
    for layer in x:
        scale = torch.exp(torch.randn(channels, generator=generator, device=device) * 0.85)
        pace = 0.002 + 0.02 * torch.rand(channels, generator=generator, device=device)
        noise = torch.randn(tokens, channels, generator=generator, device=device)
        slow = 2**0.5 * torch.sin(time * pace + 6.3 * torch.rand(channels, generator=generator, device=device))
        layer.copy_((likeness**0.5 * slow + (1 - likeness) ** 0.5 * noise) * scale)
    model = calibrate(x, graded_levels(layers), group=group, chunk=chunk, share=share)
    return {"encoded": encode(x, model), "steps": model.steps, "source": x}


def work(*, encoded: Encoded, steps: torch.Tensor, source: torch.Tensor) -> Work:
    """The compressed form read once, every number written once."""
    return Work(read=encoded.nbytes, written=source.numel() * encoded.dtype.itemsize)


def entropy_bits(symbols: torch.Tensor, model: Model) -> float:
    """Return the bits that an ideal code with the same tables, but exact frequencies, would take for all symbols."""
    counts = count_symbols(symbols, model).double()
    shares = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return float(-(counts * shares.clamp(min=1e-300).log2()).sum())


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """Ratio, distance from the entropy, largest error in bins, speeds in bytes of the source; times encoding too."""
    encoded, source = inputs["encoded"], inputs["source"]
    model = encoded.model
    anchor = (torch.arange(encoded.tokens, device=source.device) % model.group == 0)[:, None]
    largest = max(
        float(((x.float() - found.float()) / torch.where(anchor, model.steps[0, i], model.steps[1, i])).abs().max())
        for i, (x, found) in enumerate(zip(source, outputs["out"], strict=True))
    )
    symbols = decode_symbols(encoded)
    same = all(torch.equal(*pair) for pair in zip(symbols, quantize(source, model), strict=True))
    found = {
        "symbols come back": float(same),
        "ratio": source.nbytes / encoded.nbytes,
        "bits per number": 8 * encoded.nbytes / source.numel(),
        "size over entropy": 8 * (encoded.words.nbytes + encoded.offsets.nbytes) / entropy_bits(symbols, model),
        "largest error in bins": largest,
        "decode GB/s": source.nbytes / seconds / 1e9,
    }
    if source.is_cuda:
        found["encode GB/s"] = source.nbytes / time_call(lambda: encode(source, model)).median / 1e9
    return found


UNIT = Unit(
    kernel=decode_unit,
    reference=reference,
    make_inputs=make_inputs,
    work=work,
    shapes={
        "a last chunk that is short": {"layers": 2, "tokens": 47, "channels": 40, "chunk": 20, "share": 16},
        "one token": {"layers": 1, "tokens": 1, "channels": 17},
        "channels past a program": {"layers": 2, "tokens": 16, "channels": 130, "group": 4, "chunk": 8, "share": 64},
    },
    benchmarks={
        "16 layers x 16k tokens": {"layers": 16, "tokens": 16000, "channels": 1024},
        "32 layers x 2k tokens": {"layers": 32, "tokens": 2000, "channels": 1024, "chunk": 500},
    },
    figures=figures,
)
