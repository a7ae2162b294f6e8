"""nvCOMP's entropy coder of asymmetric numeral systems, through its Python package, beside which codecs are timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from reference_kernels.core.peers import installed
from reference_kernels.core.unit import Inputs, MissingPeerError


def nvcomp_ans(kind: str) -> Callable[[Inputs], Callable[[], torch.Tensor]]:
    """Return nvCOMP's ANS over bytes ("|u1") or in its mode for 16-bit floats ("<f2"): decoding is timed."""

    def prepare(inputs: Inputs) -> Callable[[], torch.Tensor]:
        library: Any = installed("nvidia.nvcomp", "nvidia-nvcomp-cu13")
        source = inputs["source"]
        if not source.is_cuda:
            raise MissingPeerError("nvCOMP needs a GPU")
        stream = torch.cuda.Stream()
        codec = library.Codec(algorithm="ANS", data_type=kind, cuda_stream=stream.cuda_stream)
        data = source.view(torch.uint8 if kind == "|u1" else torch.float16).flatten()
        torch.cuda.synchronize()
        compressed = codec.encode(library.as_array(data))
        torch.cuda.synchronize()

        def call() -> torch.Tensor:
            if torch.cuda.is_current_stream_capturing():
                raise RuntimeError("nvCOMP allocates on its own and cannot be captured in a graph")
            stream.wait_stream(torch.cuda.current_stream())
            # not through DLPack, whose capsule this version of nvCOMP frees twice
            found = torch.as_tensor(codec.decode(compressed, data_type=kind), device=source.device)
            torch.cuda.current_stream().wait_stream(stream)
            return found.view(torch.int16).reshape(source.shape)

        return call

    return prepare
