"""Lossless compression of a bf16 cache: raw signs and mantissas, 3-bit exponents in a window per channel.

Computes
--------
decode(encode(x)) = x, bit for bit, for any bf16 x [T, C] with C even. A bf16 number is sign s, exponent e (8 bits) and
mantissa m (7 bits). Sign and mantissa look random and are kept as they are: 8 bits. Exponents of one channel cluster:
for a normal variable of any scale, 7 neighboring exponents hold about 97.6 %. So for every channel and block of 512
tokens one `low` is stored, and
    code = e - low   if 0 <= e - low <= 6,   else 7 (escape) and e itself goes to a list, one byte.
`low` (0 … 248) is the one with the fewest escapes among 128 rows of the block. With a share p of escapes a number takes
11 + 8 p bits, 11.24 with the overhead below, against 8 + H(e) for an ideal code of the exponents without context.

Layout
------
x is read as 32-bit pairs of adjacent channels. A unit is 4096 numbers: 128 lanes x 16 rows x 1 pair. W is the
largest power of two that divides C / 2, at most 128; a unit covers W pairs of channels and 16 G tokens, G = 128 / W;
row r of lane l is token r G + l // W and pair l % W of the unit. Units go along channels first, then tokens; the last
are padded with rows of code 0. M = 0x807F807F are the bits of sign and mantissa in a pair.
- `rest` int32 [U, 8, 128]: word r = (x_r & M) | (rotate_left(x_{r+8}, 8) & ~M): four numbers in a word.
- `windows` uint8 [ceil(T / block), C]: low; a block is 512 tokens, or one unit's where that is more.
- `payload`: for each unit codes and escapes, or, where that is not less, all exponents:
  3 x 128 words of codes: in each half of a word bits 1 … 15 hold five codes, row r >= 1 being field (r - 1) // 3 of
  word (r - 1) % 3; bit 0 of word b holds bit b of row 0. Then the escapes in the order of lane, half, row, and zeros
  up to 16 bytes. Or 8 x 128 words with the other half of the bits, (x_r & ~M) | (rotate_left(x_{r+8}, 8) & M).
- `offsets` int32 [U + 1]: where the payload of each unit begins, in steps of 16 bytes.
With this order the two numbers of a pair are rebuilt together in about four integer instructions, and the mask of
the escapes of 32 numbers in ten.

Cost
----
Decoding reads 1.4 and writes 2 bytes per number: at best 0.59 of the bandwidth comes out as bf16. Encoding reads x
twice (to size the payload, to write it) and a quarter of it to place windows. It waits for the device once, to learn
how much to allocate. Noise grows by 0.05 % and one byte per channel and block, 0.15 % in all for whole blocks. Padding
to whole units matters only to tensors of a few thousand numbers.

Published
---------
SplitZip reports 613.3 GB/s for encoding, 2181.8 GB/s for decoding, and 1.32 times faster transfer (abstract; it names
no GPU: the decoding figure is above what its format allows on an H100).

Measured
--------
One H100, 512 MB of normal numbers with log-normal channel scales: ratio 1.423, 0.979 of the bound by the entropy of
the exponents; encoding 739 GB/s (717 to 767), the wait for the device included; decoding 1,702 GB/s, 0.56 of the copy
bandwidth of 3.02 TB/s, 0.96 of what it allows for the bytes. nvCOMP's ANS decodes 7 to 8 times slower. It was 1,500
when escapes were rewritten after their rows: scattered stores of two bytes cost more than a masked load for each row.
1, 2 and 4 warps give 1,674, 1,666 and 1,705. Hints to evict early made decoding slower.

Differs
-------
SplitZip indexes the 16 most frequent exponents of a chunk with 4 bits: 1.33 at best. Here a code has 3 bits, since the
window belongs to one channel. Escapes carry no positions: their rank follows from the codes. There is no calibration
ahead of time, and a unit that does not compress is stored raw.

:leaf: kvcc/codec-based-compression
:papers: splitzip
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_shape
from reference_kernels.core.timing import time_call
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvcc.nvcomp_peer import nvcomp_ans

LANES = 128  # pairs side by side in a unit
ROWS = 16  # rows of a unit's lane
BLOCK = 512  # tokens that share a window, unless one unit has more
RAW = 2 * LANES  # steps of 16 bytes that a raw unit takes
CODES = 12 * LANES  # bytes of codes before the escapes
LAST_WINDOW = 248  # so that low + 7, which stands in the place of an escape for a while, is still an exponent

_LANES = tl.constexpr(LANES)
_RAW = tl.constexpr(RAW)
_CODES = tl.constexpr(CODES)
_LAST_WINDOW = tl.constexpr(LAST_WINDOW)
_REST = tl.constexpr(0x807F807F)
_EXPONENT = tl.constexpr(0x7F807F80)


@dataclass(frozen=True)
class Tuning:
    """How the kernels are laid out on the chip; the format does not depend on it, but for `sample`."""

    decode_warps: int = 4
    encode_warps: int = 1  # 128 lanes over one warp: 16 bytes per lane and access
    sample: int = 128  # rows of a block that decide on its windows
    window_pairs: int = 32  # pairs of channels per program that places windows
    window_warps: int = 4


TUNING = Tuning()


@dataclass(frozen=True)
class Encoded:
    """A compressed tensor; the module's docstring has the layout."""

    rest: torch.Tensor
    windows: torch.Tensor
    payload: torch.Tensor  # int32, 4 per step
    offsets: torch.Tensor
    tokens: int
    channels: int

    @property
    def nbytes(self) -> int:
        """Bytes in all, without the two sizes."""
        return sum(part.nbytes for part in (self.rest, self.windows, self.payload, self.offsets))

    def validate(self) -> None:
        """Check shapes and every offset, once for data that came from elsewhere: reads the device.

        Raises:
            ValueError, TypeError: decoding would read outside of the payload, or parts do not fit together.
        """
        _check(self)
        steps = self.offsets.diff()
        bad = (steps < CODES // 16) | (steps > RAW)
        if bool(bad.any()):
            unit = int(bad.nonzero()[0])
            raise ValueError(f"unit {unit} has {16 * int(steps[unit])} bytes, not {CODES} to {16 * RAW}")
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        if first != 0 or 4 * last != self.payload.numel():
            raise ValueError(
                f"offsets run from {first} to {last}, the payload from 0 to {self.payload.numel() / 4:g} (in 16 bytes)"
            )
        if self.windows.numel() and int(self.windows.max()) > LAST_WINDOW:
            raise ValueError(f"windows start at {LAST_WINDOW} at most, one at {int(self.windows.max())}")


@dataclass(frozen=True)
class _Grid:
    """How a tensor is cut into units."""

    width: int  # W, pairs of channels of a unit
    tokens: int  # of a unit
    down: int  # units along tokens
    across: int  # units along channels
    per_block: int  # units along tokens with one window
    blocks: int

    @classmethod
    def of(cls, tokens: int, channels: int) -> _Grid:
        pairs = channels // 2
        width = min(pairs & -pairs, LANES)
        height = ROWS * LANES // width
        per_block = max(BLOCK // height, 1)
        down = triton.cdiv(tokens, height)
        return cls(width, height, down, pairs // width, per_block, triton.cdiv(down, per_block))


def encode(x: torch.Tensor, tuning: Tuning = TUNING) -> Encoded:
    """Compress x [T, C] bf16, contiguous, C even. Waits for the device once.

    Channels should be what keeps its scale over tokens: [T, Hkv * D], or one head's [T, D].

    Raises:
        TypeError: not bf16.
        ValueError: not two-dimensional, an odd number of channels, or not contiguous.
    """
    if x.dtype != torch.bfloat16:
        raise TypeError(f"x must be bfloat16, not {x.dtype}")
    check_shape("x", x, None, None)
    tokens, channels = x.shape
    if channels < 2 or channels % 2:
        raise ValueError(f"the number of channels must be even and positive, not {channels}")
    if not x.is_contiguous():
        raise ValueError("x must be contiguous")
    grid = _Grid.of(tokens, channels)
    units, pairs = grid.down * grid.across, channels // 2
    rest = torch.empty(units, ROWS // 2, LANES, dtype=torch.int32, device=x.device)
    windows = torch.empty(grid.blocks, channels, dtype=torch.uint8, device=x.device)
    offsets = torch.zeros(units + 1, dtype=torch.int32, device=x.device)
    payload = torch.empty(0, dtype=torch.int32, device=x.device)
    if units:
        bits, columns = x.view(torch.int16), min(grid.width, tuning.window_pairs)
        _place_windows[(grid.blocks, pairs // columns)](
            bits.view(torch.int32), windows, tokens, pairs, grid.per_block * grid.tokens,
            COLUMNS=columns, SAMPLE=tuning.sample, num_warps=tuning.window_warps,
        )  # fmt: skip
        arguments = (bits, windows.view(torch.int16), offsets, rest)
        shape = {"WIDTH": grid.width, "PER_BLOCK": grid.per_block, "num_warps": tuning.encode_warps}
        _encode_units[(units,)](*arguments, payload, tokens, pairs, WRITE=False, **shape)
        offsets.cumsum_(0)
        payload = torch.empty(4 * int(offsets[-1]), dtype=torch.int32, device=x.device)
        _encode_units[(units,)](*arguments, payload, tokens, pairs, WRITE=True, **shape)
    return Encoded(rest, windows, payload, offsets, tokens, channels)


def decode(encoded: Encoded, tuning: Tuning = TUNING) -> torch.Tensor:
    """Return the tensor [T, C] bf16. Reads nothing back; call `Encoded.validate` first on data from elsewhere.

    Raises:
        ValueError, TypeError: the parts do not fit together.
    """
    _check(encoded)
    grid = _Grid.of(encoded.tokens, encoded.channels)
    out = torch.empty(encoded.tokens, encoded.channels, dtype=torch.bfloat16, device=encoded.rest.device)
    if out.numel():
        _decode_units[(grid.down * grid.across,)](
            encoded.rest, encoded.windows.view(torch.int16), encoded.payload, encoded.payload.view(torch.uint8),
            encoded.offsets, out.view(torch.int32), encoded.tokens, encoded.channels // 2,
            WIDTH=grid.width, PER_BLOCK=grid.per_block, num_warps=tuning.decode_warps,
        )  # fmt: skip
    return out


def _check(encoded: Encoded) -> None:
    tokens, channels = encoded.tokens, encoded.channels
    if tokens < 0 or channels < 2 or channels % 2:
        raise ValueError(f"there is no tensor of {tokens} tokens and {channels} channels")
    grid = _Grid.of(tokens, channels)
    units = grid.down * grid.across
    check_shape("rest", encoded.rest, units, ROWS // 2, LANES)
    check_shape("windows", encoded.windows, grid.blocks, channels)
    check_shape("payload", encoded.payload, None)
    check_shape("offsets", encoded.offsets, units + 1)
    wanted = {"rest": torch.int32, "windows": torch.uint8, "payload": torch.int32, "offsets": torch.int32}
    for name, dtype in wanted.items():
        part = getattr(encoded, name)
        if part.dtype != dtype:
            raise TypeError(f"{name} must be {dtype}, not {part.dtype}")
        if part.device != encoded.rest.device or not part.is_contiguous():
            raise ValueError(f"{name} must be contiguous and on {encoded.rest.device}")


@triton.jit
def _place_windows(x, windows, tokens, pairs, block, COLUMNS: tl.constexpr, SAMPLE: tl.constexpr):
    """One program: the windows of COLUMNS pairs of channels over a block of tokens, from SAMPLE rows of it."""
    first = tl.program_id(0) * block
    step = (tl.minimum(block, tokens - first) + SAMPLE - 1) // SAMPLE
    rows = first + tl.arange(0, SAMPLE) * step
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    real = (rows < tl.minimum(first + block, tokens))[:, None] & (columns < pairs)[None, :]
    pair = tl.load(x + rows.to(tl.int64)[:, None] * pairs + columns[None, :], mask=real, other=0)
    place = windows + (tl.program_id(0).to(tl.int64) * pairs + columns) * 2
    tl.store(place, _best_window(tl.where(real, (pair >> 7) & 0xFF, -1)).to(tl.uint8), mask=columns < pairs)
    tl.store(place + 1, _best_window(tl.where(real, (pair >> 23) & 0xFF, -1)).to(tl.uint8), mask=columns < pairs)


@triton.jit
def _best_window(exponents):
    """Return for each column of [R, N] the start of the 7 exponents that hold most of it; -1 is no exponent.

    Windows end at exponents that occur, from the largest down. A column is done when fewer are left than the best has.
    """
    top = tl.max(exponents, 0)
    left = tl.sum((exponents >= 0).to(tl.int32), 0)
    low, best = tl.zeros_like(top), tl.zeros_like(top)
    while tl.max(left - best, 0) > 0:
        start = tl.minimum(tl.maximum(top - 6, 0), _LAST_WINDOW)
        inside = tl.sum(((exponents <= start[None, :] + 6) & (exponents >= start[None, :])).to(tl.int32), 0)
        low, best = tl.where(inside > best, start, low), tl.maximum(inside, best)
        left -= tl.sum((exponents == top[None, :]).to(tl.int32), 0)
        top = tl.max(tl.where(exponents < top[None, :], exponents, -1), 0)
    return low


@triton.jit
def _encode_units(
    x, windows, offsets, rest, payload, tokens, pairs,
    WIDTH: tl.constexpr, PER_BLOCK: tl.constexpr, WRITE: tl.constexpr,
):  # fmt: skip
    """One program: one unit. The first launch finds the size of its payload, the second writes it."""
    unit, lane = tl.program_id(0), tl.arange(0, _LANES)
    start, place, token, low = _locate(unit, windows, tokens, pairs, WIDTH, PER_BLOCK)
    words = x.to(tl.pointer_type(tl.int32), bitcast=True) + start
    across: tl.constexpr = _LANES // WIDTH
    rows = ()
    for r in tl.static_range(16):
        pair = tl.load(words + place + r * across * pairs, mask=token + r * across < tokens, other=0)
        pair = tl.where(token + r * across < tokens, pair.to(tl.uint32, bitcast=True), low)
        rows += (pair,)  # type: ignore[assignment]
    zero = tl.zeros([_LANES], tl.uint32)
    codes = (zero, zero, zero)
    for r in tl.static_range(16):
        codes = _add_code(codes, _code(rows[r], low), r)
    lost = _lost(codes)
    count = _ones(lost)
    total = tl.sum(count, 0)
    size = tl.minimum((_CODES + total + 15) // 16, _RAW)
    if not WRITE:
        tl.store(offsets + unit + 1, size)
    else:
        rest += unit.to(tl.int64) * (8 * _LANES) + lane
        for r in tl.static_range(8):
            tl.store(rest + r * _LANES, _mix(rows[r], _rotate_left(rows[r + 8])).to(tl.int32, bitcast=True))
        target = payload + tl.load(offsets + unit).to(tl.int64) * 4
        if size == _RAW:
            for r in tl.static_range(8):
                word = _mix(_rotate_left(rows[r + 8]), rows[r])
                tl.store(target + r * _LANES + lane, word.to(tl.int32, bitcast=True))
        else:
            for k in tl.static_range(3):
                tl.store(target + k * _LANES + lane, codes[k].to(tl.int32, bitcast=True))
            escapes = target.to(tl.pointer_type(tl.uint8), bitcast=True) + _CODES
            spare = total + tl.arange(0, 16)
            tl.store(escapes + spare, tl.zeros([16], tl.uint8), mask=spare < size * 16 - _CODES)
            rank = tl.cumsum(count, 0) - count
            numbers = x + start * 2
            for _ in range(tl.max(count, 0)):
                bit, rest_of = _first_bit(lost)
                number = numbers + (place + (bit & 15) * across * pairs) * 2 + (bit >> 4)
                exponent = tl.load(number, mask=lost != 0, other=0) >> 7
                tl.store(escapes + rank, exponent.to(tl.uint8), mask=lost != 0)
                rank += 1
                lost = rest_of


@triton.jit
def _decode_units(
    rest, windows, payload, escapes, offsets, out, tokens, pairs, WIDTH: tl.constexpr, PER_BLOCK: tl.constexpr
):
    """One program: one unit. An escape first gets the exponent low + 7, then the difference to its own."""
    unit, lane = tl.program_id(0), tl.arange(0, _LANES)
    begin, end = tl.load(offsets + unit), tl.load(offsets + unit + 1)
    start, place, token, low = _locate(unit, windows, tokens, pairs, WIDTH, PER_BLOCK)
    rest += unit.to(tl.int64) * (8 * _LANES) + lane
    source = payload + begin.to(tl.int64) * 4 + lane
    out += start
    across: tl.constexpr = _LANES // WIDTH
    halves = _load_words(rest, 8)  # all loads come before the first store, which the compiler must not pass
    if end - begin == _RAW:
        others = _load_words(source, 8)
        for r in tl.static_range(8):
            upper = _mix(halves[r], others[r]).to(tl.int32, bitcast=True)
            lower = _rotate_right(_mix(others[r], halves[r])).to(tl.int32, bitcast=True)
            tl.store(out + place + r * across * pairs, upper, mask=token + r * across < tokens)
            tl.store(out + place + (r + 8) * across * pairs, lower, mask=token + (r + 8) * across < tokens)
    else:
        codes = _load_words(source, 3)
        lost = _lost(codes)
        count = _ones(lost)
        room = (end - begin) * 16 - _CODES
        lost = tl.where(tl.sum(count, 0) <= room, lost, 0)  # of a corrupt unit no escape is read
        listed = escapes + begin.to(tl.int64) * 16 + _CODES + tl.cumsum(count, 0) - count
        left, right = 0, _ones(lost & 0xFFFF)  # of the lane's escapes, the next one in each half
        left_low, right_low = ((low >> 7) & 0xFF) + 7, (low >> 23) + 7  # what an escape has been given for an exponent
        for r in tl.static_range(16):
            half = halves[r] if r < 8 else _rotate_right(halves[r - 8])
            pair = (half & _REST) + low + _take_code(codes, r)
            left_lost, right_lost = (lost >> r) & 1, (lost >> (16 + r)) & 1
            left_exponent = tl.load(listed + left, mask=left_lost != 0, other=0).to(tl.uint32)
            right_exponent = tl.load(listed + right, mask=right_lost != 0, other=0).to(tl.uint32)
            pair += tl.where(left_lost != 0, left_exponent - left_low, 0) << 7
            pair += tl.where(right_lost != 0, right_exponent - right_low, 0) << 23
            tl.store(
                out + place + r * across * pairs, pair.to(tl.int32, bitcast=True), mask=token + r * across < tokens
            )
            left += left_lost.to(tl.int32)
            right += right_lost.to(tl.int32)


@triton.jit
def _locate(unit, windows, tokens, pairs, WIDTH: tl.constexpr, PER_BLOCK: tl.constexpr):
    """Return where a unit starts in x, the place and token of each lane's first row, and its two windows, shifted."""
    lane = tl.arange(0, _LANES)
    height: tl.constexpr = 16 * _LANES // WIDTH
    across = pairs // WIDTH
    down = unit // across
    column = (unit % across) * WIDTH
    start = (down * height).to(tl.int64) * pairs + column
    place = (lane // WIDTH) * pairs + lane % WIDTH
    low = tl.load(windows + (down // PER_BLOCK).to(tl.int64) * pairs + column + lane % WIDTH).to(tl.uint32)
    return start, place, down * height + lane // WIDTH, ((low & 0xFF) << 7) | ((low & 0xFF00) << 15)


@triton.jit
def _load_words(words, COUNT: tl.constexpr):
    """Return COUNT words of each lane."""
    found = ()
    for k in tl.static_range(COUNT):
        found += (tl.load(words + k * _LANES).to(tl.uint32, bitcast=True),)  # type: ignore[assignment]
    return found


@triton.jit
def _code(pair, low):
    """Return the codes of a pair of numbers, in bits 0-2 and 16-18."""
    left = ((pair >> 7) & 0xFF) - ((low >> 7) & 0xFF)  # wraps below the window: a large number
    right = ((pair >> 23) & 0xFF) - (low >> 23)
    return tl.minimum(left, 7) | (tl.minimum(right, 7) << 16)


@triton.jit
def _add_code(codes, code, ROW: tl.constexpr):
    """Put the codes of a row into the three words."""
    if ROW == 0:
        added = (code & 0x10001, (code >> 1) & 0x10001, (code >> 2) & 0x10001)
    else:
        moved = code << (1 + 3 * ((ROW - 1) // 3))
        none = tl.zeros_like(code)
        word: tl.constexpr = (ROW - 1) % 3
        added = (moved if word == 0 else none, moved if word == 1 else none, moved if word == 2 else none)
    return (codes[0] | added[0], codes[1] | added[1], codes[2] | added[2])


@triton.jit
def _take_code(codes, ROW: tl.constexpr):
    """Return the codes of a row where the exponents lie in a pair: bits 7-9 and 23-25."""
    shift: tl.constexpr = 6 - 3 * ((ROW - 1) // 3)
    if ROW == 0:
        code = ((codes[0] & 0x10001) << 7) | ((codes[1] & 0x10001) << 8) | ((codes[2] & 0x10001) << 9)
    elif shift >= 0:
        code = (codes[(ROW - 1) % 3] << shift) & 0x03800380
    else:
        code = (codes[(ROW - 1) % 3] >> -shift) & 0x03800380
    return code


@triton.jit
def _lost(codes):
    """Return the mask of escapes: bit r for the left number of row r, bit 16 + r for the right one."""
    found = codes[0] & codes[1] & codes[2] & 0x10001
    for k in tl.static_range(3):
        found |= (codes[k] & (codes[k] >> 1) & (codes[k] >> 2) & 0x24922492) << k
    return found


@triton.jit
def _first_bit(mask):
    """Return the number of the lowest bit, 16 * half + row for a mask of escapes, and the mask without it."""
    lowest = (mask & (0 - mask)).to(tl.float32)  # a power of two: its exponent is the number of the bit
    return (lowest.to(tl.int32, bitcast=True) >> 23) - 127, mask & (mask - 1)


@triton.jit
def _ones(mask):
    """Count bits; the compiler knows the pattern and emits one instruction."""
    mask = mask - ((mask >> 1) & 0x55555555)
    mask = (mask & 0x33333333) + ((mask >> 2) & 0x33333333)
    return ((((mask + (mask >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def _mix(rest, exponents):
    return (rest & _REST) | (exponents & _EXPONENT)


@triton.jit
def _rotate_left(word):
    return (word << 8) | (word >> 24)


@triton.jit
def _rotate_right(word):
    return (word >> 8) | (word << 24)


def reference(encoded: Encoded, source: torch.Tensor | None = None) -> Outputs:
    """Read the layout field by field, 2048 units at a time: the bits of x [T, C] as int16. `source` is not used."""
    grid = _Grid.of(encoded.tokens, encoded.channels)
    units = grid.down * grid.across
    tiles = [_read_units(encoded, grid, first, min(first + 2048, units)) for first in range(0, units, 2048)]
    shape = (grid.down, grid.across, ROWS, LANES // grid.width, grid.width, 2)
    bits = torch.cat(tiles).reshape(shape) if tiles else encoded.rest.new_empty(shape, dtype=torch.int16)
    bits = bits.permute(0, 2, 3, 1, 4, 5).reshape(-1, encoded.channels)[: encoded.tokens]
    return {"bits": bits.contiguous()}


def _read_units(encoded: Encoded, grid: _Grid, first: int, last: int) -> torch.Tensor:
    """Return the bits of some units, [units, 16 rows, 128 lanes, 2 halves] int16."""
    device = encoded.rest.device
    rest = encoded.rest[first:last].long() & 0xFFFFFFFF
    begin, end = encoded.offsets[first:last].long(), encoded.offsets[first + 1 : last + 1].long()
    raw = end - begin == RAW
    words = encoded.payload.new_zeros(last - first, 4 * RAW).long()  # each unit's payload, as far as it goes
    inside = torch.arange(4 * RAW, device=device) < 4 * (end - begin)[:, None]
    words[inside] = encoded.payload[4 * int(begin[0]) : 4 * int(end[-1])].long() & 0xFFFFFFFF

    def split(low: torch.Tensor) -> torch.Tensor:
        return torch.stack([low & 0xFFFF, low >> 16], -1)

    def rotate(word: torch.Tensor) -> torch.Tensor:
        return (word >> 8) | ((word & 0xFF) << 24)

    number = split(torch.cat([rest & 0x807F807F, rotate(rest & 0x7F807F80)], 1))
    other = words.unflatten(1, (8, LANES))
    stored = split(torch.cat([other & 0x7F807F80, rotate(other & 0x807F807F)], 1)) >> 7  # if the unit is raw

    codes = split(words[:, : 3 * LANES].unflatten(1, (3, LANES)))  # [units, 3, 128, 2]
    rows = [sum((codes[:, b] & 1) << b for b in range(3))]
    rows += [(codes[:, (r - 1) % 3] >> (1 + 3 * ((r - 1) // 3))) & 7 for r in range(1, ROWS)]
    code = torch.stack(rows, 1)  # type: ignore[arg-type]
    unit = torch.arange(first, last, device=device)
    columns = (unit % grid.across * grid.width)[:, None] + torch.arange(LANES, device=device) % grid.width
    block = unit // grid.across // grid.per_block
    low = encoded.windows.unflatten(1, (-1, 2))[block[:, None], columns].long()  # [units, 128, 2]

    lost = code.permute(0, 2, 3, 1).flatten(1) == 7  # in the order of the list
    place = CODES + (lost.long().cumsum(1) - 1).clamp(0, 16 * RAW - CODES - 1)
    listed = ((words.gather(1, place // 4) >> (8 * (place % 4))) & 0xFF).unflatten(1, (LANES, 2, ROWS))
    exponent = torch.where(code == 7, listed.permute(0, 3, 1, 2), low[:, None] + code)
    number |= torch.where(raw[:, None, None, None], stored, exponent) << 7
    return number.to(torch.int16)


def decode_bits(encoded: Encoded, source: torch.Tensor | None = None) -> Outputs:
    """Decode; bits rather than numbers, since a NaN must come back too."""
    return {"bits": decode(encoded).view(torch.int16)}


def make_inputs(
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    tokens: int,
    channels: int,
    spread: float = 0.85,
    noise: float = 0.0,
) -> Inputs:
    """Draw a tensor like a cache and encode it: normal, with log-normal scales of channels.

    Args:
        device: where.
        dtype: bf16.
        seed: of the generator.
        tokens: T.
        channels: C.
        spread: deviation of the logarithm of the scales; 0.85 gives exponents an entropy of 3.0 bits.
        noise: share of tokens that are random bits, in one piece at the end.
    """
    generator = torch.Generator(device).manual_seed(seed)
    scales = torch.exp(torch.randn(channels, generator=generator, device=device) * spread)
    x = torch.empty(tokens, channels, dtype=dtype, device=device)
    for piece in x.split(8192):
        piece.copy_(torch.randn(piece.shape, generator=generator, device=device) * scales)
    bits = x.view(torch.int16)
    bits[tokens - int(noise * tokens) :].random_(-32768, 32768, generator=generator)
    return {"encoded": encode(x), "source": bits}


def work(*, encoded: Encoded, source: torch.Tensor) -> Work:
    """The compressed form read once, every number written once."""
    return Work(read=encoded.nbytes, written=source.nbytes)


def exponent_entropy(bits: torch.Tensor) -> float:
    """Return the entropy of the exponents, in bits per number."""
    counts = torch.zeros(256, dtype=torch.float64, device=bits.device)
    for piece in bits.flatten().split(1 << 24):
        counts += torch.bincount((piece.int() >> 7) & 0xFF, minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log2()).sum())


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """Ratio and its bound without context, and speeds in terms of bf16 bytes; encoding is timed here."""
    encoded, source = inputs["encoded"], inputs["source"]
    bound = 16 / (8 + exponent_entropy(source))
    found = {
        "lossless": float(torch.equal(outputs["bits"], source)),
        "ratio": source.nbytes / encoded.nbytes,
        "bound by exponent entropy": bound,
        "share of the bound": source.nbytes / encoded.nbytes / bound,
        "decode GB/s": source.nbytes / seconds / 1e9,
    }
    if source.is_cuda:
        x = source.view(torch.bfloat16)
        found["encode GB/s"] = source.nbytes / time_call(lambda: encode(x)).median / 1e9
    return found


UNIT = Unit(
    kernel=decode_bits,
    reference=reference,
    make_inputs=make_inputs,
    work=work,
    shapes={
        "one token, one pair": {"tokens": 1, "channels": 2},
        "tokens past a unit": {"tokens": 17, "channels": 256},
        "eight pairs a unit": {"tokens": 300, "channels": 48},
        "half of it random bits": {"tokens": 66, "channels": 256, "noise": 0.5},
    },
    benchmarks={"512 MB": {"tokens": 262144, "channels": 1024}, "64 MB": {"tokens": 32768, "channels": 1024}},
    peers={"nvCOMP ANS, fp16 mode": nvcomp_ans("<f2"), "nvCOMP ANS, bytes": nvcomp_ans("|u1")},
    figures=figures,
    output="bits",
    dtypes=(torch.bfloat16,),
)
