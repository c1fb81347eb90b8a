"""Turns a source into a verified ONNX model with a signature. Knows nothing of targets."""

from modelwright.core.exported import ExportedModel, load_exported
from modelwright.exporters.exporting import export

__all__ = ["ExportedModel", "export", "load_exported"]
