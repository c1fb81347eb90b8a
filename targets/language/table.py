"""The table of targets that generate text: name -> where its class is. Adding a target adds a line here."""

from __future__ import annotations

import importlib

from modelwright.core.errors import UsageError, suggest
from modelwright.core.records.machine import Machine
from modelwright.targets.language.contract import LanguageTarget

TABLE = {
    "ort-fp32": "modelwright.targets.ort.language.target:OrtLanguageFp32",
    "ort-int8-weights": "modelwright.targets.ort.language.target:OrtLanguageInt8Weights",
    "ort-int4-weights": "modelwright.targets.ort.language.target:OrtLanguageInt4Weights",
    "openvino-fp32": "modelwright.targets.openvino.language.target:OpenvinoFp32",
    "openvino-bf16": "modelwright.targets.openvino.language.target:OpenvinoBf16",
    "openvino-int8-weights": "modelwright.targets.openvino.language.target:OpenvinoInt8Weights",
    "openvino-int4-weights": "modelwright.targets.openvino.language.target:OpenvinoInt4Weights",
    "tflite-fp32": "modelwright.targets.tflite.language.target:TfliteLanguageFp32",
    "tflite-int8-dynamic": "modelwright.targets.tflite.language.target:TfliteLanguageInt8Dynamic",
    "tflite-int4-weights": "modelwright.targets.tflite.language.target:TfliteLanguageInt4Weights",
    "torch-fp32": "modelwright.targets.pytorch.language.target:TorchFp32",
    "torch-bf16": "modelwright.targets.pytorch.language.target:TorchBf16",
    "torch-int8-dynamic": "modelwright.targets.pytorch.language.target:TorchInt8Dynamic",
}

BASELINE = "torch-fp32"
"""What ratios are against unless the user says otherwise: the model as it runs before anything is done to it."""


def target_names() -> tuple[str, ...]:
    """Returns the names of all targets, in the order in which people read them."""
    return tuple(TABLE)


def suiting_targets(machine: Machine) -> tuple[str, ...]:
    """Returns the names of the targets that suit a machine, in the order of the table."""
    return tuple(name for name in TABLE if get_target(name).suits(machine))


def get_target(name: str) -> LanguageTarget:
    """Returns a target by name; imports its module, which loads no vendor package.

    Raises:
        UsageError: There is no such target; names the closest ones.
    """
    if name not in TABLE:
        raise UsageError(
            f"there is no target {name!r} for language models",
            hint=suggest(name, TABLE) or f"targets for language models: {', '.join(TABLE)}",
        )
    module, _, attribute = TABLE[name].partition(":")
    target = getattr(importlib.import_module(module), attribute)()
    assert isinstance(target, LanguageTarget)
    return target
