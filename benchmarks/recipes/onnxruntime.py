"""ONNX Runtime's own quantization as its documentation shows it: pre-process, then static or dynamic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from recipes.job import Job, Reader, read_job

STATIC: dict[str, dict[str, Any]] = {
    "static": {},
    # The documentation's advice for x86 with VNNI and for accuracy of weights.
    "static-u8s8": {
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
    },
}


class _Samples(Reader, CalibrationDataReader):  # type: ignore[misc]
    pass


def quantize(job: Job, prepared: Path) -> None:
    """Writes `model.onnx`."""
    try:
        quant_pre_process(str(job.model), str(prepared))
    except Exception:  # it fails on some transformers; its documentation then leaves symbolic shapes out
        quant_pre_process(str(job.model), str(prepared), skip_symbolic_shape=True)
    result = str(job.out / "model.onnx")
    if job.recipe == "dynamic":
        quantize_dynamic(str(prepared), result)
    else:
        quantize_static(str(prepared), result, _Samples(job.samples), **STATIC[job.recipe])


if __name__ == "__main__":
    asked = read_job()
    work = asked.out.parent / "prepared.onnx"
    quantize(asked, work)
    work.unlink()
