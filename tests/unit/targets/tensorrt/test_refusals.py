"""The vendor's refusals in words; the lines are ones that TensorRT really wrote."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modelwright.core.errors import (
    BuildFailedError,
    MeasurementInvalidError,
    ModelwrightError,
    ToolchainMissingError,
)
from modelwright.targets.tensorrt.flavours import CLASSIC, RTX
from modelwright.targets.tensorrt.refusals import (
    Refusal,
    VendorLog,
    explain_parser_errors,
    explain_refusal,
    read_parser_errors,
)


def log_of(*lines: str, severity: str = "ERROR") -> VendorLog:
    log = VendorLog()
    for line in lines:
        log.take(severity, line)
    return log


@pytest.mark.parametrize(
    ("line", "kind", "meaning", "cure"),
    [
        (
            "[virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2: OutOfMemory (no further information)",
            BuildFailedError,
            "there is not enough GPU memory",
            "--shapes",
        ),
        (
            "IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream at cudaResources.cpp:25 "
            "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version))",
            ToolchainMissingError,
            "the NVIDIA driver is absent or too old",
            "update the NVIDIA driver",
        ),
        (
            "CUDA initialization failure with error: 35. Please check your CUDA installation",
            ToolchainMissingError,
            "the NVIDIA driver is absent or too old",
            "update the NVIDIA driver",
        ),
        (
            "(cudaError 36: API call is not supported in the installed CUDA driver)",
            ToolchainMissingError,
            "the NVIDIA driver is absent or too old",
            "update the NVIDIA driver",
        ),
        (
            "CUDA initialization failure with error: 100. Please check your CUDA installation",
            ToolchainMissingError,
            "CUDA finds no GPU",
            "nvidia-smi",
        ),
        (
            "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: check_turing_op_compatibility] "
            "Cannot compile operation 'head' for Turing (SM75): FP32 GEMM is not supported. In run at x.cpp:20)",
            BuildFailedError,
            "this compute capability cannot do it",
            "support matrix",
        ),
        (
            "Target GPU SM 61 is not supported by this TensorRT release.",
            BuildFailedError,
            "this compute capability cannot do it",
            "support matrix",
        ),
        (
            "Tactic Selection: no tactics to implement the operation within workspace limit. Consider increase the "
            "allowed workspace size if applicable.",
            BuildFailedError,
            "no kernel fits the workspace limit",
            "workspace-mb",
        ),
    ],
)
def test_causes(line: str, kind: type[ModelwrightError], meaning: str, cure: str) -> None:
    error = explain_refusal(CLASSIC, log_of(line), "build the engine")
    assert type(error) is kind
    assert error.message.startswith(f"TensorRT cannot build the engine: {meaning}")
    assert cure in str(error.hint)
    assert error.detail == line


def test_other_lines_are_told_without_the_vendors_source_files() -> None:
    log = log_of(
        "[graph.cpp::computeInputExecutionUses::556] something before",
        "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no "
        "optimization profile has been defined. In validate at /_src/optimizer/api/network.cpp:4023)",
    )
    error = explain_refusal(RTX, log, "build the engine")
    assert error.message == (
        "TensorRT for RTX cannot build the engine: API Usage Error (Network has dynamic or shape inputs, but no "
        "optimization profile has been defined.)"
    )
    assert str(error.detail).startswith("[graph.cpp")


def test_a_warning_about_memory_is_no_cause_where_there_is_an_error() -> None:
    log = log_of("Error Code 10: Internal Error (Could not find any implementation for node conv1.)")
    log.take("WARNING", "Skipping tactic 8 due to insufficient memory on requested size of 17179869184")
    error = explain_refusal(CLASSIC, log, "build the engine")
    assert error.message.endswith("it has no kernel for this node on that GPU: conv1")
    assert "insufficient memory" in str(error.detail)


def test_silence_is_told_as_such() -> None:
    error = explain_refusal(CLASSIC, VendorLog(), "build the engine", MeasurementInvalidError)
    assert type(error) is MeasurementInvalidError
    assert error.message == "TensorRT cannot build the engine: it does not say why"
    assert error.detail is None


def test_noise_of_builds_that_succeed_is_no_error() -> None:
    log = log_of("Thread context has not been set! Using global log stream.", severity="INTERNAL_ERROR")
    assert log.errors == []


def test_log_keeps_what_is_of_use_and_is_bounded() -> None:
    log = log_of(*(f"line {number}" for number in range(1000)))
    log.take("VERBOSE", "Searching for input: x")
    log.take("VERBOSE", "Layers:\nName: a, LayerType: b, Inputs: []")
    log.take("INFO", "Total Activation Memory: 8339456 bytes")
    log.take("INFO", "Total Weights Memory: 3264 bytes")
    assert len(log.errors) == 200
    assert len(log.tables) == 1
    assert log.memory_bytes == {"Activation": 8339456, "Weights": 3264}


@pytest.mark.parametrize("failure", [lambda: None, lambda: False, lambda: int("null pointer")])
def test_calls_that_come_back_with_nothing(failure: Any) -> None:
    with pytest.raises(BuildFailedError, match="TensorRT cannot start its builder: why it failed"):
        Refusal(CLASSIC, log_of("why it failed")).unless(failure, "start its builder")


def test_calls_that_come_back_with_something() -> None:
    assert Refusal(CLASSIC, VendorLog()).unless(lambda: 0 + 7, "count") == 7


def make_parser(*errors: tuple[str, str, str, str]) -> Any:
    """A parser with errors of (code, text, node, operator), with the vendor's methods."""
    made = [
        SimpleNamespace(
            code=lambda code=code: SimpleNamespace(name=code),
            desc=lambda text=text: text,
            node=lambda number=number: number,
            node_name=lambda node=node: node,
            node_operator=lambda operator=operator: operator,
            func=lambda: "checkNode",
            file=lambda: "onnxOpCheckers.cpp",
            line=lambda: 998,
        )
        for number, (code, text, node, operator) in enumerate(errors)
    ]
    return SimpleNamespace(num_errors=len(made), get_error=lambda index: made[index])


def test_every_parser_error_is_shown_with_node_operator_and_text() -> None:
    plugin = 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
    parser = make_parser(
        ("INVALID_NODE", plugin, "spell", "Sorcery"),
        ("UNSUPPORTED_NODE", "false", "dyn", "DynamicQuantizeLinear"),
        ("UNSUPPORTED_NODE", "Assertion failed: axis == 1: only axis 1 is supported.", "", "Flatten"),
    )
    error = explain_parser_errors(CLASSIC, parser, VendorLog())
    assert error.message == (
        "TensorRT cannot read the model: node spell (Sorcery): Plugin not found, are the plugin name, version, and "
        "namespace correct? (and 2 more)"
    )
    assert str(error.detail).splitlines() == [
        "node spell (Sorcery): Plugin not found, are the plugin name, version, and namespace correct? "
        "[INVALID_NODE; checkNode, onnxOpCheckers.cpp:998]",
        "node dyn (DynamicQuantizeLinear): TensorRT does not have this operator "
        "[UNSUPPORTED_NODE; checkNode, onnxOpCheckers.cpp:998]",
        "node number 2 (Flatten): axis == 1: only axis 1 is supported. "
        "[UNSUPPORTED_NODE; checkNode, onnxOpCheckers.cpp:998]",
    ]
    assert "by other operators" in str(error.hint)


def test_a_file_that_is_no_model() -> None:
    parser = make_parser(("MODEL_DESERIALIZE_FAILED", "Assertion failed: Failed to parse the ONNX model.", "", ""))
    (fault,) = read_parser_errors(parser)
    assert fault.describe() == "Failed to parse the ONNX model."
    assert explain_parser_errors(CLASSIC, parser, VendorLog()).hint is None


def test_a_parser_that_fails_without_errors_shows_the_log() -> None:
    error = explain_parser_errors(CLASSIC, make_parser(), log_of("In node -1: INVALID_VALUE: no such file"))
    assert "INVALID_VALUE: no such file" in error.message


def test_a_node_without_a_kernel_is_named_with_what_to_do() -> None:
    log = VendorLog(
        errors=["Internal Error (Assertion !layerImpls.empty() failed. Nms_2_4 has no runners that implement it)"]
    )
    error = explain_refusal(RTX, log, "build the engine")
    assert error.message.endswith("it has no kernel for this node on that GPU: Nms_2_4")
    assert "outside" in (error.hint or "")
