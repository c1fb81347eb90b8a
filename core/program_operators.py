"""Operators that a saved program may call and torch does not know of itself."""

from __future__ import annotations

import contextlib


def register_quantized_operators() -> None:
    """Lets torch know the operators of programs that were trained for quantization. For child processes only."""
    with contextlib.suppress(ImportError):  # a program that calls none of them needs no torch that has them
        import torch.ao.quantization.fx._decomposed  # noqa: F401
