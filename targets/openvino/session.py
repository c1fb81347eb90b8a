"""Running models in OpenVINO on the CPU, compiled for the shapes that they meet, and reading back what ran."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.contract import Array, Feeds, RunSettings, Session
from modelwright.targets.openvino.profile import find_matmuls, profile_request, read_compute_precisions
from modelwright.targets.openvino.settings import list_properties, read_properties_in_force
from modelwright.targets.readiness import package_versions, require_import

FIXED_SHAPES = 2
"""Shapes a dynamic model is compiled for at most, as each compilation repacks the weights. Others run dynamic."""
WITHOUT_FUSION = {"SNIPPETS_MODE": "DISABLE"}
"""Compiles without the kernels that OpenVINO makes up for several layers at once. Those of two or more quantized
fully connected layers gave wrong numbers where an activation has a zero point (OpenVINO 2026.4)."""
IN_FLOATS = {"LP_TRANSFORMS_MODE": "NO"}
"""Computes in floats what a model rounds by its own scales; OpenVINO makes integer kernels of it otherwise."""
ACTIVATIONS_IN_FLOATS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
ACTIVATIONS_IN_INTEGERS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
"""What is multiplied with weights of few bits: rounded to 8 bits as it comes, a scale for 32 values, or not."""
_KNOWN_PROPERTIES = {
    "INFERENCE_PRECISION_HINT": ("f32", "bf16"),
    "SNIPPETS_MODE": ("DISABLE",),
    "LP_TRANSFORMS_MODE": ("NO",),
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": ("0", "32"),
    "KV_CACHE_PRECISION": ("bf16", "f32", "u8"),
}
"""All that recipes may set, and to what."""
_UNTRUSTED_HINT = "build the artifact here, from a source that you trust"
_INT32_MAX = 2**31 - 1


class OpenvinoSession(Session):
    """A model on the CPU, compiled for the shapes it meets.

    Args:
        openvino: The vendor's package.
        core: Its device manager.
        model: As read or converted.
        signature: Of the ONNX model.
        settings: How to run.
        hint: `f32` or `bf16`: what float operations run in.
        options: Further properties to compile with.
    """

    def __init__(
        self,
        openvino: Any,
        core: Any,
        model: Any,
        signature: Signature,
        settings: RunSettings,
        hint: str,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._openvino, self._core, self._model, self._signature = openvino, core, model, signature
        self._input_ports = find_ports(model.inputs, signature.inputs)
        self._output_ports = find_ports(model.outputs, signature.outputs)
        self._wide_inputs = [spec.name for spec in signature.inputs if spec.dtype in {"int64", "uint64", "uint32"}]
        self._types = {
            spec.name: _dtype_of(model.inputs[port])
            for spec, port in zip(signature.inputs, self._input_ports, strict=True)
        }
        self._hint = hint
        self._settings = settings
        self._properties = {**list_properties(settings), "INFERENCE_PRECISION_HINT": hint, **(options or {})}
        if settings.profiled:
            self._properties["PERF_COUNT"] = True
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
            (port, wrap(np.require(feeds[spec.name], self._types[spec.name], ["C", "A", "W"]), shared_memory=True))
            for spec, port in zip(self._signature.inputs, self._input_ports, strict=True)
        ]
        request = self._select(tuple(tuple(tensor.shape) for _, tensor in tensors))

        def infer() -> None:
            for port, tensor in tensors:
                request.set_input_tensor(port, tensor)
            request.infer(share_outputs=True)
            self._current = request

        return infer

    def share(self) -> Session:
        """Returns a session on the same compiled models, with inference requests of its own."""
        other = copy.copy(self)
        other._fixed = {shapes: _make_request(request) for shapes, request in self._fixed.items()}  # noqa: SLF001
        other._any_shape = None if self._any_shape is None else _make_request(self._any_shape)  # noqa: SLF001
        return other

    def profile_operators(self, feeds: Feeds) -> OperatorProfile:
        return profile_request(self._model, lambda: self._current, self.bind(feeds))

    def describe_execution(self) -> dict[str, Any]:
        """Returns the precisions of the execution graph's nodes, and the properties in force."""
        if self._current is None:
            return {"precision": None, "reason": "nothing has run yet"}
        compiled = self._current.get_compiled_model()
        matmuls = find_matmuls({node.get_friendly_name(): node.get_type_name() for node in self._model.get_ops()})
        nodes: Counter[str] = Counter()
        for layer in compiled.get_runtime_model().get_ops():
            nodes.update("i8" if name == "u8" else name for name in read_compute_precisions(layer, matmuls))
        hint = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        dominant = (nodes.most_common(1)[0][0] if nodes else hint).replace("i8", "int8")
        described: dict[str, Any] = {
            "precision": dominant,
            "compute_nodes": dict(nodes),
            "inference_precision_hint": hint,
            "threads": compiled.get_property("INFERENCE_NUM_THREADS"),
            "cpu_pinning": compiled.get_property("ENABLE_CPU_PINNING"),
            **({"settings": read_properties_in_force(compiled, chosen)} if (chosen := self._settings.options) else {}),
            "shapes": self._describe_shapes(),
            "source": f"execution graph of OpenVINO {package_versions('openvino')['openvino']}",
        }
        if self._hint == "bf16" and dominant not in {"bf16", "int8"} and not nodes["bf16"] + nodes["i8"]:
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


def _make_request(request: Any) -> Any:
    return request.get_compiled_model().create_infer_request()


def read_properties(recipe: Mapping[str, Any], hint: str) -> dict[str, str]:
    """Returns what a recipe has a model compiled with, if that is what builds of ours write.

    Others change what is measured, or name folders that OpenVINO writes to.

    Args:
        recipe: Of a manifest, which may come from anywhere.
        hint: What float operations run in where the recipe does not say.

    Raises:
        BadInputError: Names the property.
    """
    options = recipe.get("compile_options") or {}
    if not isinstance(options, Mapping):
        raise BadInputError("the recipe's compile_options are no table", hint=_UNTRUSTED_HINT)
    properties = {"INFERENCE_PRECISION_HINT": recipe.get("inference_precision", hint), **options}
    for name, value in properties.items():
        if value not in _KNOWN_PROPERTIES.get(name, ()):
            raise BadInputError(
                f"the recipe asks OpenVINO for {name} = {value!r:.100}, which no build sets", hint=_UNTRUSTED_HINT
            )
    return properties


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


def fit_types(model: Any, feeds: Iterable[Feeds]) -> Iterator[dict[str, Array]]:
    """Yields inputs in the types of a model's ports, which carry the ONNX names: float64 is float32 there."""
    types = {name: _dtype_of(port) for port in model.inputs for name in port.get_names()}
    for inputs in feeds:
        yield {name: np.asarray(value, types[name]) for name, value in inputs.items()}


def _dtype_of(port: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(port.get_element_type().to_dtype())
    return dtype


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
