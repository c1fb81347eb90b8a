"""Hugging Face's optimum-onnx with its preset for AVX-512 VNNI."""

from __future__ import annotations

from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig
from recipes.job import Job, read_job


def quantize(job: Job) -> None:
    """Writes one ONNX file."""
    from datasets import Dataset

    is_static = job.recipe == "static"
    quantizer = ORTQuantizer(job.model)
    settings = AutoQuantizationConfig.avx512_vnni(is_static=is_static, per_channel=is_static)
    ranges = None
    if is_static:
        rows = Dataset.from_list([{name: value[0] for name, value in feeds.items()} for feeds in job.samples])
        calibration = AutoCalibrationConfig.minmax(rows)
        ranges = quantizer.fit(rows, calibration, operators_to_quantize=settings.operators_to_quantize)
    quantizer.quantize(settings, job.out, calibration_tensors_range=ranges)


if __name__ == "__main__":
    quantize(read_job())
