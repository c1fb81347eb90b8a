"""Exporters: an FP32 source becomes a verified ONNX model with a signature, compared with its source."""

from __future__ import annotations

from modelwright.core.records.exported import ExportedModel, load_exported
from modelwright.exporters.exporting import export

__all__ = ["ExportedModel", "export", "load_exported"]
