"""Which targets suit a machine: known answers for every built-in profile and for detected machines."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from modelwright.core.records.machine import Gpu, Machine
from modelwright.profiles import builtin_names, load_profile
from modelwright.targets.table import suiting_targets

ORT = {"ort-fp32", "ort-int8", "ort-int8-dynamic"}
OPENVINO = {"openvino-fp32", "openvino-int8"}
TFLITE = {"tflite-fp32", "tflite-fp16", "tflite-int8", "tflite-int8-dynamic"}
TORCH = {"torch-fp32", "torch-fp16", "torch-compile-fp32", "torch-compile-fp16"}
TORCH_BF16 = {"torch-bf16", "torch-compile-bf16"}
ORT_CUDA = {"ort-cuda-fp32", "ort-cuda-fp16"}
TENSORRT = {"tensorrt-fp32", "tensorrt-fp16", "tensorrt-int8"}
TENSORRT_RTX = {"tensorrt-rtx-fp32", "tensorrt-rtx-fp16", "tensorrt-rtx-int8"}
KNOWN = ORT | OPENVINO | TFLITE | TORCH | TORCH_BF16 | {"openvino-bf16"} | ORT_CUDA | TENSORRT | TENSORRT_RTX
"""What is answered for here; a target that comes later has a test of its own."""
PC = ORT | OPENVINO | TFLITE | {"torch-fp32"}
GPU_HOST = ORT | OPENVINO | TORCH | ORT_CUDA | TENSORRT

BUILTIN = {
    "desktop-i5-10400": PC,
    "x86-avx2": PC,
    "x86-avx512-vnni": PC,
    "x86-amx": PC | {"openvino-bf16"},
    "raspberry-pi-4": ORT | TFLITE,
    "raspberry-pi-5": ORT | TFLITE,
    "jetson-orin-nano": ORT | TFLITE | TORCH | TORCH_BF16 | ORT_CUDA | TENSORRT,
    "nvidia-t4": GPU_HOST | TENSORRT_RTX,
    "nvidia-a100": GPU_HOST | TORCH_BF16 | TENSORRT_RTX,
    "nvidia-h200": GPU_HOST | TORCH_BF16,
    "rtx-4090": GPU_HOST | TORCH_BF16 | TENSORRT_RTX,
}


def detected(architecture: str, *instruction_sets: str, capability: str | None = None) -> Machine:
    gpu = None if capability is None else Gpu(name="NVIDIA", compute_capability=capability)
    return Machine(
        name="host", architecture=architecture, instruction_sets=frozenset(instruction_sets), cores=4, gpu=gpu
    )


def test_the_known_answers_are_of_all_profiles() -> None:
    assert set(BUILTIN) == set(builtin_names())


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_what_suits_a_built_in_profile(name: str) -> None:
    found = suiting_targets(load_profile(name).machine())
    assert set(found) & KNOWN == BUILTIN[name]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (detected("x86_64"), PC),
        (detected("x86_64", "avx2", "avx512_vnni"), PC),
        (detected("x86_64", "avx2", "avx512_bf16"), PC | {"openvino-bf16"}),
        (detected("x86_64", "amx_bf16"), PC | {"openvino-bf16"}),
        (detected("aarch64", "asimd", "bf16"), ORT | TFLITE),
        (detected("riscv64"), ORT | TFLITE),
        (detected("x86_64", "avx2", capability="7.5"), GPU_HOST | TFLITE | TENSORRT_RTX),
        (detected("x86_64", "avx2", capability="8.0"), GPU_HOST | TFLITE | TORCH_BF16 | TENSORRT_RTX),
        (detected("x86_64", "avx2", capability="9.0"), GPU_HOST | TFLITE | TORCH_BF16),
        (detected("x86_64", "avx2", capability="10.3"), GPU_HOST | TFLITE | TORCH_BF16),
        (
            detected("x86_64", "amx_bf16", capability="12.0"),
            GPU_HOST | TFLITE | TORCH_BF16 | TENSORRT_RTX | {"openvino-bf16"},
        ),
        (detected("aarch64", "asimd", capability="8.7"), BUILTIN["jetson-orin-nano"]),
    ],
)
def test_what_suits_a_detected_machine(machine: Machine, expected: set[str]) -> None:
    assert set(suiting_targets(machine)) & KNOWN == expected


def test_a_card_beside_an_open_cpu_is_no_place_for_tflite_and_this_very_machine_is() -> None:
    here = detected("x86_64", "avx2", capability="8.9")
    described = replace(here, name="rtx-4090")
    assert (set(suiting_targets(here)) - set(suiting_targets(described))) & KNOWN == TFLITE
