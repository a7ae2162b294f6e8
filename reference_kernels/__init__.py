"""Runnable reference implementations of KV cache methods: one readable unit per method, in PyTorch and Triton.

The package stands alone: it needs torch (and Triton for the fast paths) and nothing else of this repository.
Importing it imports neither; `reference_kernels.registry` lists the units without torch.
"""
