"""Intel Neural Compressor for ONNX Runtime: the package that took the place of `neural-compressor` 2, which 3 left."""

from __future__ import annotations

from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import config, quantize
from recipes.job import Job, Reader, read_job


class _Samples(Reader, data_reader.CalibrationDataReader):  # type: ignore[misc]
    pass


def choose_config(job: Job) -> config.BaseConfig:
    """Returns the settings of a way, all others at their defaults."""
    if job.recipe == "dynamic":
        return config.DynamicQuantConfig()
    options = {"SmoothQuant": True} if job.recipe == "smoothquant" else {}
    return config.StaticQuantConfig(
        calibration_data_reader=_Samples(job.samples),
        extra_options=options,
        execution_provider="CPUExecutionProvider",
    )


if __name__ == "__main__":
    asked = read_job()
    quantize(str(asked.model), str(asked.out / "model.onnx"), choose_config(asked))
