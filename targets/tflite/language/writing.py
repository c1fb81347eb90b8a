"""Writes the file of a language model: both graphs over the same weights."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.records.language import LanguageModel
from modelwright.targets.tflite.language.decoder import DECODE, PREFILL, DecoderWriter
from modelwright.targets.tflite.language.matrices import Matrices
from modelwright.targets.tflite.language.model_file import ModelFile

MODEL_FILE = "model.tflite"


def write_model(record: LanguageModel, matrices: Matrices, folder: Path) -> Path:
    """Writes a model into a folder, and returns the file; another one there is replaced.

    Args:
        record: Of the model.
        matrices: How its products are.
        folder: Made where it is not there.
    """
    folder.mkdir(exist_ok=True)
    path = folder / MODEL_FILE
    with ModelFile(path) as file:
        for name in (DECODE, PREFILL):
            graph = file.add_graph(name)
            DecoderWriter(matrices.model, record, matrices, graph, has_cache=name == DECODE).write()
        file.finish()
    return path
