"""FP32 `.tflite` to FP16, dynamic-range INT8 and static INT8 by ai-edge-quantizer (AEQ)."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..recipes import Rule
from ..session import fit_input
from .samples import Samples
from .tables import find_shared_lookups, share_tables

Array = npt.NDArray[Any]
Ranges = dict[str, dict[str, Array]]
"""Tensor -> its smallest and largest values, `min` and `max`; empty for one that has none."""

_EXTREME = 1e8
"""A value beyond this stands for minus infinity (masks, padding): no 8-bit scale holds it next to real values."""


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
    details = {detail["name"]: detail for detail in Interpreter(model_content=data).get_input_details()}
    for number, feeds in enumerate(samples.feeds(), start=1):
        feed = {tensor_names[name]: fit_input(array, details[tensor_names[name]]) for name, array in feeds.items()}
        with _silence():
            collector.calibrate({signature: [feed]}, recipe)
        if number % 32 == 0:
            progress(f"calibrated on {number} of {samples.count} samples")
    ranges: Ranges = collector.get_model_qsvs()
    return ranges


def save_ranges(path: Path, ranges: Ranges) -> None:
    """Keeps ranges between steps: calibration takes longer than all that follows."""
    path.write_text(json.dumps(ranges, default=np.ndarray.tolist), encoding="utf-8")


def load_ranges(path: Path) -> Ranges:
    """Reads what `save_ranges` wrote."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: {end: np.array(values, np.float32) for end, values in limits.items()} for name, limits in stored.items()
    }


def make_file(
    data: bytes, rules: Iterable[Rule], dynamic_scopes: Iterable[str], float_scopes: Iterable[str], ranges: Ranges
) -> bytes:
    """Returns the quantized file; raises whatever AEQ raises.

    Args:
        data: The FP32 file.
        rules: For all operators of a kind.
        dynamic_scopes: Patterns of FULLY_CONNECTED and CONV_2D operators that are to take their scales while running.
        float_scopes: Patterns of operators that are to stay in float.
        ranges: Of the activations; none for precisions that need none.
    """
    quantizer = _load_quantizer()
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    work = quantizer.Quantizer(data)
    rules = list(rules)
    for rule in rules:
        for operator in rule.operators:
            _add_rule(work, rule, qtyping.TFLOperationName(operator))
    for scope in dynamic_scopes:
        for operator in (qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.CONV_2D):
            work.add_dynamic_config(scope, operator, 8)
    for scope in float_scopes:
        work.update_quantization_recipe(
            scope, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    # Float inputs and outputs: the caller should not have to know the scales.
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        work.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    # What matrices are rounded with, `share_tables` reads rows of, once the lookup is in float.
    for scope in [*_find_extreme(data, ranges), *(find_shared_lookups(data) if _rounds_rows(rules) else ())]:
        work.update_quantization_recipe(
            scope, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    with _silence():
        result = work.quantize(ranges or None, enable_progress_bar=False, enable_progress_report=False)
    return share_tables(bytes(result.quantized_model))


def _add_rule(work: Any, rule: Rule, operator: Any) -> None:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    shared = "TENSORWISE" if rule.tensorwise else "CHANNELWISE" if rule.block is None else f"BLOCKWISE_{rule.block}"
    granularity = qtyping.QuantGranularity(shared)
    if rule.mode == "static":
        work.add_static_config(rule.scope, operator, 8, rule.bits, granularity)
    elif rule.mode == "dynamic":
        work.add_dynamic_config(rule.scope, operator, rule.bits, granularity)
    elif rule.mode == "weights":
        work.add_weight_only_config(rule.scope, operator, rule.bits, granularity)
    else:
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
        )
        work.update_quantization_recipe(rule.scope, operator, config, AlgorithmName.FLOAT_CASTING)


def _rounds_rows(rules: Iterable[Rule]) -> bool:
    """Whether matrices get 8 bits and a scale a row, as a lookup can read them."""
    found = [rule for rule in rules if not {"FULLY_CONNECTED", "*"}.isdisjoint(rule.operators)]
    return bool(found) and (found[-1].bits, found[-1].block, found[-1].tensorwise) == (8, None, False)


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
