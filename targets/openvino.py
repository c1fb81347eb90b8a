"""OpenVINO on CPUs: FP32, BF16, and INT8 quantized by NNCF.

The three share one conversion (ONNX to OpenVINO IR) and one session. OpenVINO runs models of fixed shape faster than
dynamic ones (1.1 to 1.35 times on small models), so a dynamic model is compiled anew for the first shapes it meets.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.machine import Machine
from modelwright.core.signature import Signature, TensorSpec
from modelwright.targets.base import (
    Array,
    BuildRequest,
    BuildResult,
    Feeds,
    Readiness,
    RunSettings,
    Session,
    Target,
    TargetRecord,
    package_versions,
    require_import,
)

MODEL_FILE = "openvino.xml"
BF16_INSTRUCTION_SETS = frozenset({"avx512_bf16", "amx_bf16"})
FIXED_SHAPES = 2
"""Shapes a dynamic model is compiled for at most, as each compilation repacks the weights. Others run dynamic."""
_FP16_MAX = 65504.0
_INT32_MAX = 2**31 - 1
_RUN_PACKAGES = {"openvino": "openvino>=2025.0"}
# Layer types of the execution graph that do the arithmetic; the others move, reshape or combine what these make.
_COMPUTE_LAYERS = frozenset(
    {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNCell", "RNNSeq", "ScaledDotProductAttention"}
)


class OpenvinoTarget(Target):
    """What the three have in common: conversion, and the session."""

    precision_hint: ClassVar[str]

    def build(self, request: BuildRequest) -> BuildResult:
        request.progress("converting to OpenVINO IR")
        with silence_vendor():
            openvino = import_openvino()
            model = convert_model(openvino, request.model_path, request.signature)
        return self._finish_build(openvino, model, request)

    @abstractmethod
    def _finish_build(self, openvino: Any, model: Any, request: BuildRequest) -> BuildResult:
        """Writes the converted model in this target's precision."""

    @contextlib.contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> Iterator[Session]:
        openvino = import_openvino()
        core = openvino.Core()
        hint = str(recipe.get("inference_precision", self.precision_hint))
        if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            hint = "f32"  # BF16 would at best be emulated; describe_execution tells
        path = directory / model_file
        try:
            session = OpenvinoSession(openvino, core, core.read_model(path), signature, settings.threads, hint)
        except RuntimeError as error:
            raise BadInputError(
                f"OpenVINO cannot load {path}", hint="build the artifact again with this version", detail=str(error)
            ) from error
        yield session


class OpenvinoFp32(OpenvinoTarget):
    """FP32 weights and FP32 arithmetic: on machines with AMX, OpenVINO has to be told so."""

    precision_hint = "f32"
    record = TargetRecord(
        name="openvino-fp32",
        runtime="openvino",
        precision="fp32",
        title="OpenVINO FP32",
        is_float=True,
        needs_calibration=False,
        build_packages=_RUN_PACKAGES,
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        # Another order of summation, nothing else: ResNet-50, an encoder and an LSTM came out at 1.000000.
        min_cosine=0.99999,
    )

    def _finish_build(self, openvino: Any, model: Any, request: BuildRequest) -> BuildResult:
        openvino.save_model(model, request.directory / MODEL_FILE, compress_to_fp16=False)
        return BuildResult(
            model_file=MODEL_FILE,
            recipe={"weights": "fp32", "inference_precision": self.precision_hint},
            versions=package_versions("openvino"),
        )


class OpenvinoBf16(OpenvinoTarget):
    """BF16 arithmetic on CPUs that have it; nothing is calibrated.

    The weights lie in the file as FP16, at half of FP32's size. That costs nothing that BF16 does not cost anyway:
    FP16 keeps 11 significant bits, BF16 8 (ResNet-50 with random weights: cosine 0.9956 from FP32 weights, 0.9954
    from FP16 ones). Weights beyond FP16's range keep the whole file in FP32.
    """

    precision_hint = "bf16"
    record = TargetRecord(
        name="openvino-bf16",
        runtime="openvino",
        precision="bf16",
        title="OpenVINO BF16",
        is_float=True,
        needs_calibration=False,
        build_packages=_RUN_PACKAGES,
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        # Trained models came out at 0.9999 and better. 50 layers of random weights amplify rounding (2**-9 an
        # operation) to 0.995, which is no fault of the artifact; a wrong graph falls far below.
        min_cosine=0.99,
    )

    def check_build(self, machine: Machine) -> Readiness:
        return _check_bf16(machine) or super().check_build(machine)

    def check_run(self, machine: Machine) -> Readiness:
        return _check_bf16(machine) or super().check_run(machine)

    def _finish_build(self, openvino: Any, model: Any, request: BuildRequest) -> BuildResult:
        compress = _fits_fp16(model)
        openvino.save_model(model, request.directory / MODEL_FILE, compress_to_fp16=compress)
        return BuildResult(
            model_file=MODEL_FILE,
            recipe={
                "weights": "fp16" if compress else "fp32",
                "weights_reason": "half the file; BF16 keeps fewer bits" if compress else "beyond FP16's range",
                "inference_precision": self.precision_hint,
            },
            requires={"any_instruction_set": sorted(BF16_INSTRUCTION_SETS)},
            versions=package_versions("openvino"),
        )


class OpenvinoInt8(OpenvinoTarget):
    """INT8 by NNCF's post-training quantization, chosen among recipes on the tuning samples."""

    precision_hint = "f32"
    record = TargetRecord(
        name="openvino-int8",
        runtime="openvino",
        precision="int8",
        title="OpenVINO INT8",
        is_float=False,
        needs_calibration=True,
        uses_samples=True,
        build_packages={**_RUN_PACKAGES, "nncf": "nncf>=3.0"},
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        # A quantized model's last line: below it, something is broken rather than rounded.
        min_cosine=0.95,
    )

    def _finish_build(self, openvino: Any, model: Any, request: BuildRequest) -> BuildResult:
        from modelwright.targets.openvino_quantization import quantize_model

        with silence_vendor():
            nncf = require_import("nncf", "openvino")
        quantized, recipe, notes = quantize_model(openvino, nncf, model, request)
        openvino.save_model(quantized, request.directory / MODEL_FILE, compress_to_fp16=False)
        return BuildResult(
            model_file=MODEL_FILE, recipe=recipe, versions=package_versions("openvino", "nncf"), notes=notes
        )


class OpenvinoSession(Session):
    """A model on the CPU, compiled for the shapes it meets.

    Args:
        openvino: The vendor's package.
        core: Its device manager.
        model: As read or converted.
        signature: Of the ONNX model.
        threads: For one inference; 0 lets OpenVINO choose.
        hint: `f32` or `bf16`: what float operations run in.
    """

    def __init__(self, openvino: Any, core: Any, model: Any, signature: Signature, threads: int, hint: str) -> None:
        self._openvino, self._core, self._model, self._signature = openvino, core, model, signature
        self._input_ports = find_ports(model.inputs, signature.inputs)
        self._output_ports = find_ports(model.outputs, signature.outputs)
        self._wide_inputs = [spec.name for spec in signature.inputs if spec.dtype in {"int64", "uint64", "uint32"}]
        self._hint = hint
        # One inference at a time on its own threads. Not pinned: every artifact of a comparison would be pinned to
        # the same first core, and could not move away from a busy neighbour on a shared machine.
        self._properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": hint,
            "ENABLE_CPU_PINNING": False,
        }
        self._is_dynamic = model.is_dynamic()
        self._fixed: dict[tuple[tuple[int, ...], ...], Any] = {}
        self._any_shape: Any = None
        self._current: Any = None
        if not self._is_dynamic:
            self._any_shape = self._compile(model)
        elif signature.batch_is_dynamic and len(signature.dynamic_dimensions) == 1:
            # Only the batch is open, and 1 is by far the likeliest: compiling counts as loading then.
            shapes = tuple((1, *cast("tuple[int, ...]", (spec.shape or ())[1:])) for spec in signature.inputs)
            self._select(shapes)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        self.bind(feeds)()
        return {
            spec.name: np.array(self._current.get_output_tensor(port).data, dtype=spec.dtype)
            for spec, port in zip(self._signature.outputs, self._output_ports, strict=True)
        }

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        for name in self._wide_inputs:
            if feeds[name].size and max(-int(feeds[name].min()), int(feeds[name].max())) > _INT32_MAX:
                raise BadInputError(
                    f"{name} holds integers beyond 32 bits, which OpenVINO would cut off on a CPU without a word",
                    hint="use a target of another runtime for this model",
                )
        # A tensor shares the array's memory and keeps it alive; OpenVINO shares only what is writable.
        wrap = self._openvino.Tensor
        tensors = [
            (port, wrap(np.require(feeds[spec.name], requirements=["C", "A", "W"]), shared_memory=True))
            for spec, port in zip(self._signature.inputs, self._input_ports, strict=True)
        ]
        request = self._select(tuple(tuple(tensor.shape) for _, tensor in tensors))

        def infer() -> None:
            for port, tensor in tensors:
                request.set_input_tensor(port, tensor)
            request.infer(share_outputs=True)
            self._current = request

        return infer

    def describe_execution(self) -> dict[str, Any]:
        """Returns the precisions of the execution graph's nodes, and the properties in force."""
        if self._current is None:
            return {"precision": None, "reason": "nothing has run yet"}
        compiled = self._current.get_compiled_model()
        nodes: Counter[str] = Counter()
        for node in compiled.get_runtime_model().get_ops():
            facts = node.get_rt_info()
            if facts["layerType"].get() in _COMPUTE_LAYERS:
                precision = facts["runtimePrecision"].get()
                nodes["i8" if precision == "u8" else precision] += 1
        hint = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        dominant = (nodes.most_common(1)[0][0] if nodes else hint).replace("i8", "int8")
        described: dict[str, Any] = {
            "precision": dominant,
            "compute_nodes": dict(nodes),
            "inference_precision_hint": hint,
            "threads": compiled.get_property("INFERENCE_NUM_THREADS"),
            "cpu_pinning": compiled.get_property("ENABLE_CPU_PINNING"),
            "shapes": self._describe_shapes(),
            "source": f"execution graph of OpenVINO {package_versions('openvino')['openvino']}",
        }
        if self._hint == "bf16" and not nodes["bf16"] and not nodes["i8"]:
            described["warning"] = f"BF16 was asked for, but the operators ran in {dominant}"
        return described

    def _describe_shapes(self) -> str:
        if not self._is_dynamic:
            return "fixed in the model"
        fixed = "; ".join(str([list(shape) for shape in shapes]) for shapes in self._fixed)
        last = "dynamic" if self._current is self._any_shape else "fixed"
        return f"last run: {last}; fixed for {fixed or 'none'}, dynamic for any other"

    def _select(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        """Returns the inference request to use for these input shapes, given in the signature's order."""
        request = self._fixed.get(shapes)
        if request is None and self._is_dynamic and len(self._fixed) < FIXED_SHAPES:
            fixed = self._model.clone()
            # A model that cannot be reshaped runs dynamic, which answers or says what is wrong with the shape.
            with contextlib.suppress(RuntimeError):
                fixed.reshape(dict(zip(self._input_ports, shapes, strict=True)))
                request = self._fixed[shapes] = self._compile(fixed)
        if request is None:
            if self._any_shape is None:
                self._any_shape = self._compile(self._model)
            request = self._any_shape
        return request

    def _compile(self, model: Any) -> Any:
        return self._core.compile_model(model, "CPU", self._properties).create_infer_request()


def import_openvino() -> Any:
    """Imports OpenVINO without its usage reports.

    Raises:
        ToolchainMissingError: It is absent or broken.
    """
    # OpenVINO and NNCF send an event to an analytics server at import and with each conversion, unless this package
    # is missing. A build tool must not: a None here makes its import fail, which both expect.
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
    return require_import("openvino", "openvino")


@contextlib.contextmanager
def silence_vendor() -> Iterator[None]:
    """Keeps progress bars, log lines and deprecation warnings of the vendor's Python code off our own output."""
    out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with out, err, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def convert_model(openvino: Any, path: Path, signature: Signature) -> Any:
    """Converts ONNX to an OpenVINO model whose ports carry the ONNX names.

    `read_model` would do, but leaves the graph as torch wrote it: NNCF then misses the grouped convolutions, whose
    weights lie behind a Reshape, and attention stays unfused (1.12 and 1.15 times slower in INT8).

    Raises:
        BuildFailedError: An operator that OpenVINO does not know, by name; or the graph does not convert.
    """
    try:
        model = openvino.convert_model(str(path))
    except Exception as error:
        found = re.search(r"No conversion rule found for operations: *(.+)", str(error))
        what = f"it has no conversion for {found.group(1).strip()}" if found else "the conversion failed"
        raise BuildFailedError(
            f"OpenVINO cannot convert {path.name}: {what}",
            hint="replace the operator in the model, export with another opset, or use the ort-* targets",
            detail=str(error),
        ) from error
    for ports, specs in ((model.inputs, signature.inputs), (model.outputs, signature.outputs)):
        for index, spec in zip(find_ports(ports, specs), specs, strict=True):
            if spec.name not in ports[index].get_names():
                ports[index].get_tensor().add_names({spec.name})
    return model


def find_ports(ports: Any, specs: tuple[TensorSpec, ...]) -> list[int]:
    """Returns the index of each input's or output's port: by its name, else by its place.

    Raises:
        BuildFailedError: The model has fewer or more of them than the signature, and names do not tell which.
    """
    indices = []
    for place, spec in enumerate(specs):
        named = [index for index, port in enumerate(ports) if spec.name in port.get_names()]
        if not named and len(ports) != len(specs):
            raise BuildFailedError(
                f"{spec.name} is missing from the OpenVINO model, which has {len(ports)} ports for {len(specs)} names",
                hint="give every input and output of the ONNX model a use and a name of its own",
            )
        indices.append(named[0] if named else place)
    return indices


def _check_bf16(machine: Machine) -> Readiness | None:
    """Returns why the machine cannot run BF16; None when it can."""
    if machine.instruction_sets & BF16_INSTRUCTION_SETS:
        return None
    reason = f"{machine.name} has neither avx512_bf16 nor amx_bf16: OpenVINO would run FP32 under the name of BF16"
    return Readiness.no(reason, "use openvino-fp32 or openvino-int8, or the profile of a machine that has it")


def _fits_fp16(model: Any) -> bool:
    """Whether no weight would be clamped in FP16. OpenVINO itself spares lone constants such as mask values."""
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "f32":
            values = node.data
            if values.size > 1 and np.any((np.abs(values) > _FP16_MAX) & np.isfinite(values)):
                return False
    return True
