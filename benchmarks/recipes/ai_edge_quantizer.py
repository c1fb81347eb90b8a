"""ONNX to TFLite by onnx2tf, then Google's AI Edge Quantizer with its own recipes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from recipes.job import Feeds, Job, read_job

RECIPES = {"dynamic": recipe.dynamic_wi8_afp32, "static": recipe.static_wi8_ai8}


def convert(job: Job, folder: Path) -> Path:
    """Returns the FP32 file, of batch 1, its inputs in the model's own layout."""
    shapes = [f"{name}:{','.join(map(str, value.shape))}" for name, value in job.samples[0].items()]
    command = [sys.executable, "-m", "onnx2tf", "-i", str(job.model), "-o", str(folder), "-ois", *shapes]
    command += ["-kat", *job.samples[0], "-tb", "flatbuffer_direct"]
    subprocess.run(command, check=True)
    (found,) = folder.glob("*_float32.tflite")
    return found


def quantize(job: Job) -> None:
    """Writes `model.tflite`."""
    folder = job.out.parent / "converted"
    model = convert(job, folder)
    worker = quantizer.Quantizer(str(model))
    worker.load_quantization_recipe(RECIPES[job.recipe]())
    ranges = None
    if worker.need_calibration:
        ((signature, names),) = Interpreter(str(model)).get_signature_list().items()
        ranges = worker.calibrate({signature: list(_name(job.samples, names["inputs"]))})
    worker.quantize(ranges).export_model(str(job.out / "model.tflite"), overwrite=True)
    shutil.rmtree(folder)


def _name(samples: Any, names: Any) -> Iterator[Feeds]:
    """Yields the samples under the signature's names: those of the model, or one of a kind."""
    for feeds in samples:
        if len(feeds) == len(names) == 1:
            yield {names[0]: next(iter(feeds.values()))}
        else:
            yield {name: np.asarray(feeds[name]) for name in names}


if __name__ == "__main__":
    quantize(read_job())
