"""NNCF's post-training quantization, for OpenVINO and for ONNX Runtime.

Its requirements leave out the package by which it and OpenVINO report usage to a server.
"""

from __future__ import annotations

from typing import Any

import nncf
import numpy as np
import onnx
import openvino
from recipes.job import Job, read_job


def quantize(job: Job) -> None:
    """Writes `model.xml`, or `model.onnx` for ONNX Runtime."""
    samples = nncf.Dataset(job.samples)
    if job.recipe.startswith("onnx"):
        quantized = nncf.quantize(onnx.load(job.model), samples, **_model_type(job))
        onnx.save(quantized, job.out / "model.onnx")
        return
    model = openvino.convert_model(job.model)
    if job.recipe == "accuracy-control":
        quantized = _quantize_with_accuracy_control(job, model)
    else:
        quantized = nncf.quantize(model, samples, **_model_type(job))
    openvino.save_model(quantized, job.out / "model.xml", compress_to_fp16=False)


def _model_type(job: Job) -> dict[str, Any]:
    return {"model_type": nncf.ModelType.TRANSFORMER} if job.recipe.endswith("transformer") else {}


def _quantize_with_accuracy_control(job: Job, model: Any) -> Any:
    """Calibrates on one half of the samples and validates on the other, with the default limit of 1 point."""
    assert job.labels is not None
    half = len(job.samples) // 2
    pairs = list(zip(job.samples[half:], job.labels[half:], strict=True))

    def validate(compiled: Any, items: Any) -> float:
        right = [int(np.argmax(compiled(feeds)[0])) == int(label) for feeds, label in items]
        return float(np.mean(right))

    return nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(job.samples[:half]),
        validation_dataset=nncf.Dataset(pairs),
        validation_fn=validate,
    )


if __name__ == "__main__":
    quantize(read_job())
