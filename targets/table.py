"""The table of targets: name -> where its class is. Adding a target adds a line here."""

from __future__ import annotations

import importlib

from modelwright.core.errors import UsageError, suggest
from modelwright.core.records.machine import Machine
from modelwright.targets.contract import Target

TABLE = {
    "ort-fp32": "modelwright.targets.ort.target:OrtFp32",
    "ort-int8": "modelwright.targets.ort.target:OrtInt8",
    "ort-int8-dynamic": "modelwright.targets.ort.target:OrtInt8Dynamic",
    "ort-int8-weights": "modelwright.targets.ort.weight_target:OrtInt8Weights",
    "ort-int4-weights": "modelwright.targets.ort.weight_target:OrtInt4Weights",
    "openvino-fp32": "modelwright.targets.openvino.target:OpenvinoFp32",
    "openvino-bf16": "modelwright.targets.openvino.target:OpenvinoBf16",
    "openvino-int8": "modelwright.targets.openvino.target:OpenvinoInt8",
    "openvino-int8-weights": "modelwright.targets.openvino.target:OpenvinoInt8Weights",
    "openvino-int4-weights": "modelwright.targets.openvino.target:OpenvinoInt4Weights",
    "tflite-fp32": "modelwright.targets.tflite.target:TfliteFp32",
    "tflite-fp16": "modelwright.targets.tflite.target:TfliteFp16",
    "tflite-int8": "modelwright.targets.tflite.target:TfliteInt8",
    "tflite-int8-dynamic": "modelwright.targets.tflite.target:TfliteInt8Dynamic",
    "tflite-int4-weights": "modelwright.targets.tflite.target:TfliteInt4Weights",
    "tensorrt-fp32": "modelwright.targets.tensorrt.target:TensorrtFp32",
    "tensorrt-fp16": "modelwright.targets.tensorrt.target:TensorrtFp16",
    "tensorrt-int8": "modelwright.targets.tensorrt.target:TensorrtInt8",
    "tensorrt-rtx-fp32": "modelwright.targets.tensorrt.target:TensorrtRtxFp32",
    "tensorrt-rtx-fp16": "modelwright.targets.tensorrt.target:TensorrtRtxFp16",
    "tensorrt-rtx-int8": "modelwright.targets.tensorrt.target:TensorrtRtxInt8",
    "ort-cuda-fp32": "modelwright.targets.ort.cuda_target:OrtCudaFp32",
    "ort-cuda-fp16": "modelwright.targets.ort.cuda_target:OrtCudaFp16",
    "torch-fp32": "modelwright.targets.pytorch.target:TorchFp32",
    "torch-fp16": "modelwright.targets.pytorch.target:TorchFp16",
    "torch-bf16": "modelwright.targets.pytorch.target:TorchBf16",
    "torch-compile-fp32": "modelwright.targets.pytorch.target:TorchCompileFp32",
    "torch-compile-fp16": "modelwright.targets.pytorch.target:TorchCompileFp16",
    "torch-compile-bf16": "modelwright.targets.pytorch.target:TorchCompileBf16",
}

BASELINE = "ort-fp32"
"""What speed-ups are over unless the user says otherwise: the FP32 model in the runtime that reads it as it is."""


def target_names() -> tuple[str, ...]:
    """Returns the names of all targets, in the order in which people read them."""
    return tuple(TABLE)


def suiting_targets(machine: Machine) -> tuple[str, ...]:
    """Returns the names of the targets that suit a machine, in the order of the table."""
    return tuple(name for name in TABLE if get_target(name).suits(machine))


def get_target(name: str) -> Target:
    """Returns a target by name; imports its module, which loads no vendor package.

    Raises:
        UsageError: There is no such target; names the closest ones.
    """
    if name not in TABLE:
        raise UsageError(f"there is no target {name!r}", hint=suggest(name, TABLE) or f"targets: {', '.join(TABLE)}")
    module, _, attribute = TABLE[name].partition(":")
    target = getattr(importlib.import_module(module), attribute)()
    assert isinstance(target, Target)
    return target
