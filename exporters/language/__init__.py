"""Causal language models: a folder of transformers becomes a verified FP32 graph that takes and gives its cache."""

from __future__ import annotations

from modelwright.core.records.language import LanguageModel, load_language
from modelwright.exporters.language.exporting import export_language, write_folder
from modelwright.exporters.language.source import is_language_source

__all__ = ["LanguageModel", "export_language", "is_language_source", "load_language", "write_folder"]
