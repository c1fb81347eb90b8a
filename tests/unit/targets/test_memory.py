"""How each runtime says that the GPU's memory does not suffice, and what must not be taken for it."""

from __future__ import annotations

import pytest

from modelwright.core.errors import MeasurementInvalidError
from modelwright.targets import get_target, target_names

RUNNING_OUT = {
    "torch-fp16": "CUDA out of memory. Tried to allocate 2.00 GiB.",
    "torch-compile-fp32": "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
    "tensorrt-fp16": "IExecutionContext: Error Code 2: OutOfMemory (Requested size was 1073741824 bytes)",
    "tensorrt-rtx-int8": "Error Code 2: OutOfMemory",
    "ort-cuda-fp32": "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1073741824",
    "ort-cuda-fp16": "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
}


@pytest.mark.parametrize(("target", "words"), RUNNING_OUT.items())
def test_a_runtimes_own_words_are_known(target: str, words: str) -> None:
    assert get_target(target).explain_memory(RuntimeError(words)) == f"RuntimeError: {words}"


@pytest.mark.parametrize("target", [name for name in target_names() if "cuda" in get_target(name).record.devices])
def test_cudas_words_are_known_to_all_wherever_they_stand(target: str) -> None:
    error = MeasurementInvalidError("it failed", detail="CUDA_ERROR_OUT_OF_MEMORY (2): out of memory")
    outer = ValueError("outer")
    outer.__cause__ = error
    assert get_target(target).explain_memory(outer) == "ValueError: outer"
    assert get_target(target).explain_memory(ValueError("the shape does not fit")) is None


def test_a_runtime_does_not_speak_for_another() -> None:
    assert get_target("ort-cuda-fp32").explain_memory(RuntimeError("Error Code 2: OutOfMemory")) is None
