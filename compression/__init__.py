"""Compression: a trained PyTorch source becomes a smaller one, which is a source like any other."""

from __future__ import annotations

from modelwright.compression.compressing import Compressed, compress
from modelwright.compression.settings import Settings

__all__ = ["Compressed", "Settings", "compress"]
