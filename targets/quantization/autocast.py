"""FP16 graphs by NVIDIA ModelOpt AutoCast: which nodes may be cast is decided on the user's calibration samples.

AutoCast's own reference run keeps every activation of every sample in memory and needs a package more; it takes a rule
for nodes instead (`custom_rule`), so the largest values are streamed here and its limits are applied to them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError, ToolchainMissingError
from modelwright.core.onnx.facts import INITIALIZERS_APART_IR, find_inputs, find_opset
from modelwright.core.onnx.walk import iterate_graphs
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.graphs.dtypes import infer_tensor_types
from modelwright.targets.graphs.files import is_large, load_model, save_model
from modelwright.targets.graphs.rewrite import normalize_graph
from modelwright.targets.graphs.run import open_session
from modelwright.targets.readiness import require_import

DATA_LIMIT = 512.0
"""Largest activation of a node in FP16: AutoCast's default. From there on one unit in the last place is 0.5."""
MEASURED_SAMPLES = 64
LOWEST_OPSET = 13
"""AutoCast raises older models to it."""
_SENSITIVE_OPERATORS = (
    "Exp", "Log", "Pow", "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
    "ReduceMean", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare", "CumSum",
    "Resize", "Range", "RandomNormalLike", "RandomUniformLike", "NonMaxSuppression", "TopK", "Celu", "Upsample",
    "QuantizeLinear", "DequantizeLinear", "LSTM", "GRU", "RNN", "If", "Loop", "Scan",
)  # fmt: skip
"""Kept in FP32 where AutoCast's classification fails and every other operator is cast without asking."""
_LOG_CHARACTERS = 2000
_FLOAT = 1
"""`onnx.TensorProto.FLOAT`."""
_LOGGERS = ("modelopt.onnx", "modelopt.onnx.autocast")


@dataclass(frozen=True, kw_only=True)
class CastResult:
    """What AutoCast made.

    Attributes:
        model: The graph in mixed precision, inputs and outputs as they were.
        recipe: For the manifest: which method, limits, samples.
        notes: For the user.
        maxima: Tensor of the float model -> its largest absolute value on the samples.
    """

    model: Any
    recipe: dict[str, Any]
    notes: list[str]
    maxima: Mapping[str, float]


def cast_to_half(
    path: Path, samples: SampleSet | None, scratch: Path, target_name: str, *, opset: int = LOWEST_OPSET
) -> CastResult:
    """Casts an FP32 model to FP16 wherever its values allow it.

    Args:
        path: The FP32 model; its external data lies beside it.
        samples: Real inputs that show how large the activations get; None: only the weights' sizes decide.
        scratch: For intermediate files.
        target_name: For messages.
        opset: The lowest opset of the result.

    Raises:
        BuildFailedError: AutoCast fails in all its ways, or what it makes is no valid ONNX.
        ToolchainMissingError: ModelOpt is absent or broken.
    """
    source = _modernize(path, scratch)
    maxima, notes = _measure_maxima(source, samples, scratch)
    recipe: dict[str, Any] = {
        "method": "NVIDIA ModelOpt AutoCast",
        "data_limit": DATA_LIMIT if maxima else None,
        "measured_samples": 0 if samples is None else min(samples.count, MEASURED_SAMPLES),
        "measured_tensors": len(maxima),
    }
    failures: list[str] = []
    for method in (_classify, _classify_by_types_only, _block_operators):
        with _captured_logs() as log:
            try:
                model = method(source, maxima, max(opset, LOWEST_OPSET))
                _forget_shapes(model)
                _require_valid(model, scratch)
            except Exception as error:  # AutoCast raises bare exceptions, the checker C++ ones
                logged = log.getvalue()[-_LOG_CHARACTERS:]
                failures.append(f"{_METHODS[method.__name__]}: {type(error).__name__}: {error}\n{logged}")
                continue
        if failures:
            recipe["fallback"] = _METHODS[method.__name__]
            notes.append(f"AutoCast failed at first and was run {_METHODS[method.__name__]}")
            recipe["failed_attempts"] = [text.splitlines()[0] for text in failures]
        if method is _block_operators:
            recipe.update(data_limit=None, blocked_operators=list(_SENSITIVE_OPERATORS))
        return CastResult(model=model, recipe=recipe, notes=notes, maxima=maxima)
    raise BuildFailedError(
        f"{target_name}: NVIDIA ModelOpt AutoCast cannot cast this model to FP16: {failures[0].splitlines()[0]}",
        hint="take the FP32 target of this runtime, or export the model again with a newer opset",
        detail="\n".join(failures),
    )


def explain_single(cast: CastResult, names: Sequence[str]) -> list[dict[str, str]]:
    """Says why nodes stayed in FP32: `[{"node": ..., "reason": ...}]`."""
    nodes = {node.name: node for node in cast.model.graph.node}
    made = {node.output[0]: node for node in cast.model.graph.node if node.op_type == "Cast"}
    weights = {tensor.name for tensor in cast.model.graph.initializer if tensor.data_type == _FLOAT}
    told = []
    for name in names:
        node = nodes.get(name)
        reason = "AutoCast leaves it: its operator, its place in a subgraph, or what it reads"
        if node is not None:
            read = [made[tensor].input[0] if tensor in made else tensor for tensor in node.input]
            largest = max((cast.maxima.get(tensor, 0.0) for tensor in (*read, *node.output)), default=0.0)
            if largest > DATA_LIMIT:
                reason = f"values up to {largest:.3g} on the samples"
            elif weights.intersection(node.input):
                reason = "AutoCast leaves it: a weight beyond float16, or no float16 form of the operator"
        told.append({"node": name, "reason": reason})
    return told


def _modernize(path: Path, scratch: Path) -> Path:
    """Returns the model in a form that AutoCast takes: constants are no inputs, functions are written out."""
    model = load_model(path, weights=False)
    listed = model.ir_version < INITIALIZERS_APART_IR and len(find_inputs(model.graph)) < len(model.graph.input)
    if not listed and not model.functions:
        return path
    model = load_model(path)
    if model.functions:
        model = require_import("onnx.inliner", "onnx").inline_local_functions(model)
    normalize_graph(model)
    source = scratch / "modernized.onnx"
    save_model(model, source)
    return source


def _forget_shapes(model: Any) -> None:
    """Drops the shapes of inner tensors, types stay.

    AutoCast's own inference calls every size that it does not know `unk`: ONNX Runtime takes sizes of one name for
    equal and lets tensors share memory that do not fit.
    """
    for value in (value for graph in iterate_graphs(model) for value in graph.value_info):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _measure_maxima(path: Path, samples: SampleSet | None, scratch: Path) -> tuple[dict[str, float], list[str]]:
    """Returns float tensor of the main graph -> its largest absolute value on the samples; and notes."""
    if samples is None or samples.count == 0:
        return {}, ["no samples: AutoCast could look at the weights only, not at how large activations get"]
    model = load_model(path)
    types = infer_tensor_types(model)
    names = [value.name for value in find_inputs(model.graph)]
    names += [name for node in model.graph.node if node.op_type != "Constant" for name in node.output if name]
    names = [name for name in names if types.get(name) == "float32"]
    return _reduce_in_graph(model, names, samples, scratch), []


def _reduce_in_graph(model: Any, names: Sequence[str], samples: SampleSet, scratch: Path) -> dict[str, float]:
    """Measures by a ReduceMax behind each tensor, which is added to the model: no activation outlives its readers."""
    if not names:
        return {}
    onnx = require_import("onnx", "onnx")
    make, graph = onnx.helper.make_node, model.graph
    outputs = [f"measured_{number}" for number in range(len(names))]
    for name, output in zip(names, outputs, strict=True):
        graph.node.append(make("Abs", [name], [f"{output}_abs"]))
        # The zero behind the values makes sense of a tensor without any.
        graph.node.append(make("Reshape", [f"{output}_abs", "measured_shape"], [f"{output}_flat"]))
        graph.node.append(make("Concat", [f"{output}_flat", "measured_zero"], [f"{output}_all"], axis=0))
        graph.node.append(make("ReduceMax", [f"{output}_all"], [output], keepdims=0))
        graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    for name, values in (("measured_shape", np.array([-1], np.int64)), ("measured_zero", np.zeros(1, np.float32))):
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    session = open_session(model, scratch)
    largest = np.zeros(len(names))
    for feeds in samples.feeds(MEASURED_SAMPLES):
        seen = np.array(session.run(outputs, feeds), np.float64)
        largest = np.maximum(largest, np.where(np.isnan(seen), np.inf, seen))
    return dict(zip(names, largest.tolist(), strict=True))


def _classify(path: Path, maxima: Mapping[str, float], opset: int, *, types_only: bool = False) -> Any:
    autocast = _require_modelopt("modelopt.onnx.autocast")
    return autocast.convert_to_mixed_precision(
        str(path),
        low_precision_type="fp16",
        keep_io_types=True,
        data_max=None,  # its own reference run; the rule below stands for it
        custom_rule=_make_rule(maxima) if maxima else None,
        opset=max(opset, find_opset(load_model(path, weights=False))),
        use_standalone_type_inference=types_only,
    )


def _classify_by_types_only(path: Path, maxima: Mapping[str, float], opset: int) -> Any:
    return _classify(path, maxima, opset, types_only=True)


def _block_operators(path: Path, _maxima: Mapping[str, float], opset: int) -> Any:
    convert = _require_modelopt("modelopt.onnx.autocast.convert")
    model = load_model(path)
    normalize_graph(model)
    return convert.convert_to_f16(
        model,
        keep_io_types=True,
        op_block_list=list(_SENSITIVE_OPERATORS),
        opset=max(opset, find_opset(model)),
    )


_METHODS = {
    "_classify": "with its classification of nodes",
    "_classify_by_types_only": "with its own type inference",
    "_block_operators": "with a list of operators that stay in FP32",
}


def _make_rule(maxima: Mapping[str, float]) -> Any:
    """Returns AutoCast's rule for ranges, fed with what was measured: True keeps a node in FP32."""
    classifier = _require_modelopt("modelopt.onnx.autocast.nodeclassifier")

    def check(_rule: Any, node: Any) -> bool:
        return any(maxima.get(name, 0.0) > DATA_LIMIT for name in (*node.input, *node.output))

    return type("MeasuredRange", (classifier.NodeRuleBase,), {"_check_inner": check})()


def _require_modelopt(module: str) -> Any:
    try:
        return require_import(module, "tensorrt")
    except ToolchainMissingError as error:
        raise ToolchainMissingError(
            "NVIDIA ModelOpt is not installed, or not with what its AutoCast needs",
            # Its own extra [onnx] brings the CUDA builds of ONNX Runtime and CuPy.
            hint="pip install --no-deps nvidia-modelopt && "
            "pip install torch onnxscript onnx-graphsurgeon onnxslim lief sympy tqdm packaging",
            detail=error.detail or error.message,
        ) from error


def _require_valid(model: Any, scratch: Path) -> None:
    onnx = require_import("onnx", "onnx")
    if not is_large(model):
        onnx.checker.check_model(model, full_check=False)
    open_session(model, scratch)


@contextlib.contextmanager
def _captured_logs() -> Iterator[io.StringIO]:
    """Takes what ModelOpt logs and prints, which otherwise lands on standard output."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    before: list[tuple[logging.Logger, list[logging.Handler], bool]] = []
    with contextlib.redirect_stdout(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _require_modelopt("modelopt.onnx.autocast")
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            before.append((logger, list(logger.handlers), logger.propagate))
            logger.handlers, logger.propagate = [handler], False
        try:
            yield log
        finally:
            for logger, _handlers, propagate in before:
                # The vendor's handlers hold the stream that was standard output when they were made.
                logger.handlers, logger.propagate = [], propagate
