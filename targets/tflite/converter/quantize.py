"""FP32 `.tflite` to FP16, dynamic-range INT8 and static INT8 by ai-edge-quantizer, tried out before it is chosen.

How much of a graph to quantize differs from model to model. Convolutional networks are fastest when everything is
8 bit; in transformers the elementwise operators around softmax and layer normalization lose accuracy and gain no time,
while their matrix products gain all of it. So each precision has a few candidates, and the tuning samples decide: of
those that follow FP32, the fastest.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .samples import Samples

Array = npt.NDArray[Any]
Ranges = dict[str, dict[str, Array]]

_MATRIX = ("FULLY_CONNECTED", "CONV_2D", "CONV_2D_TRANSPOSE")
_WEIGHTED = (*_MATRIX, "DEPTHWISE_CONV_2D")
_CONVOLUTIONAL = (
    *_WEIGHTED, "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "HARD_SWISH", "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL",
    "PAD", "RELU", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SPLIT", "STRIDED_SLICE",
    "TRANSPOSE",
)  # fmt: skip
_EXTREME = 1e8
"""A value beyond this stands for minus infinity (masks, padding): no 8-bit scale holds it next to real values."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How some operators are quantized.

    Attributes:
        mode: `static` (weights and activations, calibrated), `dynamic` (weights; activations while running),
            `weights` (8 bits in the file, float arithmetic) or `half` (the same with 16-bit floats).
        operators: AEQ operator names; `*` is everything that AEQ can quantize.
        tensorwise: Whether the weights of one operator share a scale.
    """

    mode: str
    operators: tuple[str, ...]
    tensorwise: bool = False


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to reach a precision; a later rule overrides an earlier one.

    Attributes:
        name: For the manifest.
        rules: For all operators of a kind.
        dynamic_scopes: Patterns of FULLY_CONNECTED operators that are to take their scales while running.
        float_scopes: Patterns of operators that are to stay in float.
    """

    name: str
    rules: tuple[Rule, ...]
    dynamic_scopes: tuple[str, ...] = ()
    float_scopes: tuple[str, ...] = ()

    @property
    def needs_tables(self) -> bool:
        """Whether it quantizes lookup tables in particular."""
        return any(rule.mode == "static" and rule.operators == ("GATHER",) for rule in self.rules)


def _static(name: str, *operators: str) -> Candidate:
    return Candidate(name=name, rules=(Rule(mode="static", operators=operators),))


CANDIDATES: dict[str, tuple[Candidate, ...]] = {
    "fp16": (Candidate(name="weights", rules=(Rule(mode="half", operators=_WEIGHTED),)),),
    # The dynamic kernels of depthwise convolutions ran at a quarter of FP32's speed, and those of small convolutions
    # are slower than float too: their weights are stored in 8 bits and widened once, at loading.
    "int8-dynamic": (
        Candidate(
            name="matrix-products-and-tables",
            rules=(
                Rule(mode="dynamic", operators=_MATRIX),
                Rule(mode="weights", operators=("DEPTHWISE_CONV_2D",)),
                Rule(mode="static", operators=("GATHER",)),
            ),
        ),
        Candidate(
            name="matrix-products",
            rules=(Rule(mode="dynamic", operators=_MATRIX), Rule(mode="weights", operators=("DEPTHWISE_CONV_2D",))),
        ),
        Candidate(
            name="fully-connected",
            rules=(
                Rule(mode="dynamic", operators=("FULLY_CONNECTED",)),
                Rule(mode="weights", operators=("CONV_2D", "CONV_2D_TRANSPOSE", "DEPTHWISE_CONV_2D")),
            ),
        ),
    ),
    "int8": (
        Candidate(
            name="everything",
            rules=(
                Rule(mode="static", operators=("*",)),
                # Per-channel scales of BATCH_MATMUL gave a cosine of -0.77.
                Rule(mode="static", operators=("BATCH_MATMUL",), tensorwise=True),
            ),
        ),
        _static("convolutional", *_CONVOLUTIONAL),
        _static("weighted-and-tables", *_WEIGHTED, "GATHER"),
        _static("weighted", *_WEIGHTED),
    ),
}


SIGNAL_TO_NOISE_DB = (20.0, 24.0, 26.0, 28.0, 30.0, 32.0, 36.0)
"""Tried in turn when every candidate of static INT8 loses FP32: below it, an operator does not get a fixed scale."""


def make_mixed(limit_db: float, ranked: Sequence[tuple[float, str, str]], *, tables: bool) -> Candidate:
    """Returns static INT8 of the weighted operators, except those whose input a fixed scale cannot hold.

    Args:
        limit_db: Operators below this signal-to-noise ratio are excepted.
        ranked: From `rank_by_noise`.
        tables: Whether lookup tables (embeddings) become 8 bit too.
    """
    noisy = [(operator, scope) for ratio, operator, scope in ranked if ratio < limit_db]
    return Candidate(
        name=f"weighted{'-and-tables' if tables else ''}-mixed-{limit_db:.0f}db",
        rules=(Rule(mode="static", operators=(*_WEIGHTED, "GATHER") if tables else _WEIGHTED),),
        dynamic_scopes=tuple(scope for operator, scope in noisy if operator == "FULLY_CONNECTED"),
        float_scopes=tuple(scope for operator, scope in noisy if operator != "FULLY_CONNECTED"),
    )


def read_table_ranges(data: bytes) -> Ranges:
    """Returns the ranges of what is read from lookup tables (embeddings): known without any sample."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    ranges: Ranges = {}
    for graph in model.subgraphs:
        for op in graph.operators:
            table = graph.tensors[op.inputs[0]] if len(op.inputs) else None
            if table is None or flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) != "GATHER":
                continue
            content = model.buffers[table.buffer].data
            if content is not None and flatbuffer_utils.type_to_name(table.type) == "FLOAT32":
                values = np.frombuffer(content, dtype=np.float32)
                result = graph.tensors[op.outputs[0]].name.decode()
                ranges[result] = {"min": np.array([values.min()]), "max": np.array([values.max()])}
    return ranges


def _load_quantizer() -> Any:
    # AEQ imports scipy for one routine of GPTQ, which is not used here; scipy would double the environment.
    for name in ("scipy", "scipy.linalg"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from ai_edge_quantizer import quantizer

    return quantizer


def collect_ranges(
    data: bytes, tensor_names: Mapping[str, str], samples: Samples, progress: Callable[[str], None]
) -> Ranges:
    """Returns every tensor's smallest and largest value over the samples, one sample in memory at a time.

    Args:
        data: The FP32 file.
        tensor_names: ONNX input name -> the file's input name.
        samples: To calibrate on.
        progress: Takes a line now and then.
    """
    _load_quantizer()
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator, qtyping, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8, 8)
    with _silence():
        collector = calibrator.Calibrator(
            data,
            num_threads=1,
            mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
            # The default is a moving average, whose ranges cut off most of what the samples reach.
            qsv_update_func=qsv_utils.min_max_update,
        )
        signature = next(iter(collector.get_signature_list()))
    dtypes = {detail["name"]: detail["dtype"] for detail in Interpreter(model_content=data).get_input_details()}
    for number, feeds in enumerate(samples.feeds(), start=1):
        feed = {tensor_names[name]: array for name, array in feeds.items()}
        feed = {name: array.astype(dtypes[name], copy=False) for name, array in feed.items()}
        with _silence():
            collector.calibrate({signature: [feed]}, recipe)
        if number % 32 == 0:
            progress(f"calibrated on {number} of {samples.count} samples")
    ranges: Ranges = collector.get_model_qsvs()
    return ranges


def make_candidate(data: bytes, candidate: Candidate, ranges: Ranges | None) -> bytes:
    """Returns the quantized file; raises whatever AEQ raises."""
    quantizer = _load_quantizer()
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    work = quantizer.Quantizer(data)
    for rule in candidate.rules:
        for operator in rule.operators:
            _add_rule(work, rule, qtyping.TFLOperationName(operator))
    for scope in candidate.dynamic_scopes:
        work.add_dynamic_config(scope, qtyping.TFLOperationName.FULLY_CONNECTED, 8)
    for scope in candidate.float_scopes:
        work.update_quantization_recipe(
            scope, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    # Float inputs and outputs: the caller should not have to know the scales.
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        work.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for scope in _find_extreme(data, ranges or {}):
        work.update_quantization_recipe(
            scope, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    with _silence():
        result = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _add_rule(work: Any, rule: Rule, operator: Any) -> None:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    granularity = qtyping.QuantGranularity.TENSORWISE if rule.tensorwise else qtyping.QuantGranularity.CHANNELWISE
    if rule.mode == "static":
        work.add_static_config(".*", operator, 8, 8, granularity)
    elif rule.mode == "dynamic":
        work.add_dynamic_config(".*", operator, 8, granularity)
    elif rule.mode == "weights":
        work.add_weight_only_config(".*", operator, 8, granularity)
    else:
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
        )
        work.update_quantization_recipe(".*", operator, config, AlgorithmName.FLOAT_CASTING)


def _find_extreme(data: bytes, ranges: Ranges) -> list[str]:
    """Returns patterns for the operators that read or write a tensor with an extreme range."""
    from ai_edge_litert.tools import flatbuffer_utils

    extreme = {
        name
        for name, values in ranges.items()
        if values and max(abs(float(np.min(values["min"]))), abs(float(np.max(values["max"])))) > _EXTREME
    }
    if not extreme:
        return []
    graph = flatbuffer_utils.read_model_from_bytearray(bytearray(data)).subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    return [
        f"^{re.escape(names[op.outputs[0]])}(;|$)"
        for op in graph.operators
        if extreme.intersection(names[index] for index in (*op.inputs, *op.outputs) if index >= 0)
    ]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps AEQ's progress bars and reports off the converter's own output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
