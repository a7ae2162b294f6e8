"""The libraries that decode attention is compared with. Each function prepares a call once and returns it.

All raise MissingPeerError with the reason where the library is not installed or cannot do the case.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference_kernels.core.paging import gather, pages_needed
from reference_kernels.core.unit import Inputs, MissingPeerError, Peer

Call = Callable[[], torch.Tensor]


def installed(module: str, package: str) -> Any:
    """Import a peer's module, or say which package is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPeerError(f"{package} is not installed ({error})") from error


def timed_only(call: Callable[[], Any]) -> Callable[[], None]:
    """Return a call without its result, for a peer that does as much but computes something else."""

    def silent() -> None:
        call()

    return silent


def forget_poison(inputs: Inputs) -> None:
    """Replace the NaN of unused slots by zeros, in place: libraries may multiply them by a weight of zero."""
    for value in inputs.values():
        if isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16, torch.float32):
            for piece in value.split(4096):
                piece.nan_to_num_(0.0)


def flashinfer_decode(tensor_cores: bool) -> Peer:
    """FlashInfer's paged decode, planned once; one of its two kernels."""

    def prepare(inputs: Inputs) -> Call:
        flashinfer = installed("flashinfer", "flashinfer-python")
        q, k, v = inputs["q"], inputs["k_pages"], inputs["v_pages"]
        if inputs["lengths"].dim() == 2:
            raise MissingPeerError("FlashInfer has one length per request, not per head")
        indptr, indices, last = ragged_table(inputs["block_table"], inputs["lengths"], k.shape[2])
        workspace = torch.empty(256 << 20, dtype=torch.uint8, device=q.device)
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "HND", use_tensor_cores=tensor_cores)
        wrapper.plan(
            indptr, indices, last, q.shape[1], k.shape[1], q.shape[2], k.shape[2],
            q_data_type=q.dtype, kv_data_type=k.dtype, sm_scale=inputs.get("scale"),
        )  # fmt: skip
        return lambda: wrapper.run(q, (k, v))

    return prepare


def ragged_table(
    table: torch.Tensor, lengths: torch.Tensor, page: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return FlashInfer's form of a block table: indptr [B + 1], indices, last_page_len [B], all int32."""
    counts = pages_needed(lengths, page)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0).to(torch.int32)])
    used = torch.arange(table.shape[1], device=table.device) < counts[:, None]
    return indptr, table[used].contiguous(), (lengths - (counts - 1).clamp(min=0) * page).to(torch.int32)


def sdpa(backend: SDPBackend) -> Peer:
    """PyTorch's attention over contiguous keys and values, of equal lengths."""

    def prepare(inputs: Inputs) -> Call:
        q, k, v = contiguous(inputs)

        def call() -> torch.Tensor:
            with sdpa_kernel(backend):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)[:, :, 0]

        return call

    return prepare


def flex_attention(inputs: Inputs) -> Call:
    """PyTorch's FlexAttention, compiled, over contiguous keys and values of equal lengths."""
    from torch.nn.attention.flex_attention import flex_attention as flex

    q, k, v = contiguous(inputs)
    compiled = torch.compile(flex, dynamic=False)
    return lambda: compiled(q, k, v, enable_gqa=True)[:, :, 0]


def contiguous(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Copy a paged cache of equal lengths into q [B, Hq, 1, D] and k, v [B, Hkv, T, D]."""
    lengths = inputs["lengths"]
    length = int(lengths.max())
    if lengths.dim() != 1 or int(lengths.min()) != length:
        raise MissingPeerError("it needs requests of equal length")
    k, v = (
        torch.stack([gather(inputs[name], row, length) for row in inputs["block_table"]])
        for name in ("k_pages", "v_pages")
    )
    return inputs["q"].unsqueeze(2), k, v


DECODE_PEERS: dict[str, Peer] = {
    "FlashInfer": flashinfer_decode(tensor_cores=False),
    "FlashInfer, tensor cores": flashinfer_decode(tensor_cores=True),
    "SDPA cuDNN, contiguous": sdpa(SDPBackend.CUDNN_ATTENTION),
    "SDPA flash, contiguous": sdpa(SDPBackend.FLASH_ATTENTION),
    "FlexAttention, contiguous": flex_attention,
}
