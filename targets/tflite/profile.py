"""What each operator took in LiteRT, as its profiler tells: those of the file, and XNNPACK's own with their types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.records.operators import Kind, OperatorProfile, Remedy
from modelwright.targets.profiling import TimedOperator, make_profile, run_inferences, typical
from modelwright.targets.readiness import package_versions
from modelwright.targets.tflite.litert import Event, LitertModel

if TYPE_CHECKING:
    from modelwright.targets.tflite.session import TfliteRunner

_DEFAULT, _OF_FILE, _OF_DELEGATE = 1, 1 << 1, 1 << 3
"""Of `LiteRtProfilerEventType`: no operator, one that the interpreter ran, and one that a delegate did."""
_COMPUTE = re.compile(
    r"Convolution|Deconvolution|Fully Connected|Batch Matrix Multiply|"
    r"CONV_2D|CONV_3D|TRANSPOSE_CONV|FULLY_CONNECTED|BATCH_MATMUL|LSTM|RNN"
)
_RUN_AS: Mapping[str, tuple[str, ...]] = {
    "CONV_2D": ("Convolution", "Fully Connected"),
    "DEPTHWISE_CONV_2D": ("Convolution",),
    "TRANSPOSE_CONV": ("Deconvolution",),
    "FULLY_CONNECTED": ("Fully Connected",),
    "BATCH_MATMUL": ("Batch Matrix Multiply",),
}
"""The file's operators that multiply matrices -> XNNPACK's words for them."""
_CONVERSION = re.compile(r"Convert|Transpose|QUANTIZE|CAST|TRANSPOSE$")
_TYPES = re.compile(r"\((?P<layout>[^,)]*),? ?(?P<types>[^)]*)\)")
_INTEGER = frozenset({"QS8", "QU8", "QD8", "QP8", "QDU8", "QC8"})
"""XNNPACK's words for tensors of 8 bits; `QC8W` are weights alone, which a float may be multiplied with."""
_FLOATS: Mapping[str, str] = {"F32": "fp32", "F16": "fp16", "PF32": "fp32", "BF16": "bf16"}
_NAMES: Mapping[str, str] = {"MULTIPLY": "MUL", "SUBTRACT": "SUB", "DIVIDE": "DIV", "STATICRESHAPE": "RESHAPE"}
"""Of XNNPACK's operators that tell no type -> the file's word for them."""
_DTYPES: Mapping[Any, str] = {
    np.dtype(np.float32): "fp32",
    np.dtype(np.float16): "fp16",
    np.dtype(np.int8): "int8",
    np.dtype(np.uint8): "int8",
}
REMEDIES: Mapping[str, Remedy] = {
    name: Remedy(
        type=name,
        reason="is not quantized by ai-edge-quantizer",
        change=f"replace {name} by Relu, which costs nothing after a convolution, before training",
    )
    for name in ("ELU", "Leaky ReLU", "PReLU")
}


@dataclass(frozen=True, kw_only=True)
class FileOperator:
    """An operator of the file.

    Attributes:
        index: Its place.
        type: `CONV_2D`, ...
        dtype: Of its first input; None where it has none.
        name: Of the tensor that it gives.
    """

    index: int
    type: str
    dtype: Any
    name: str = ""


def list_operators(runner: TfliteRunner) -> list[FileOperator]:
    """Returns a loaded file's operators in their order."""
    return [
        FileOperator(index=index, type=kind, dtype=dtype, name=name)
        for index, kind, dtype, name in runner.list_operators()
    ]


def profile_file(
    path: Path, threads: int, tensors: Mapping[str, Any], operators: Sequence[FileOperator], *, is_float: bool
) -> OperatorProfile:
    """Compiles a file with LiteRT's profiler on and runs a few inferences.

    Args:
        path: The `.tflite` file.
        threads: Of one inference.
        tensors: Name of the file's input -> its value, in its type.
        operators: Of the file.
        is_float: Whether the artifact is a float one: then nothing stays out of integers that should be there.

    Raises:
        MeasurementInvalidError: This runtime has no profiler, cannot run the file so, or has a clock too coarse for it.
    """
    with LitertModel(path.read_bytes(), threads) as model:
        model.set_inputs(tensors)
        told: list[list[Event]] = []
        run_inferences(model.run, lambda: told.append(model.read_events()))
    runs = [[event for event in events if event.event_type in (_OF_FILE, _OF_DELEGATE)] for events in told]
    # The inference itself: what LiteRT does around it, the interpreter that is timed does not.
    walls_us = [event.elapsed_us for events in told for event in events if _is_inference(event)]
    if not runs[0] or len({len(run) for run in runs}) > 1:
        raise MeasurementInvalidError("LiteRT's profiler told of no operators, or of others in each inference")
    require_resolution(runs)
    version = package_versions("ai-edge-litert").get("ai-edge-litert", "")
    return make_profile(
        f"profiler of ai-edge-litert {version}",
        read_runs(runs, operators),
        walls_us,
        {} if is_float else REMEDIES,
    )


def require_resolution(runs: Sequence[Sequence[Event]]) -> None:
    """Refuses times below what the profiler's clock hides, which cuts each operator off to whole microseconds.

    Args:
        runs: The operators of each inference.

    Raises:
        MeasurementInvalidError: Operators may have taken as long again as what is told of them.
    """
    told_us = typical([sum(event.elapsed_us for event in run) for run in runs])
    hidden_us = len(runs[0])
    if told_us < hidden_us:
        raise MeasurementInvalidError(
            f"LiteRT's profiler cuts each operator off to whole microseconds: of {hidden_us} operators it tells "
            f"{told_us:.2g} us together and may hide up to {hidden_us} us, so what it tells of each means nothing; "
            "the latency of the whole inference is measured without it"
        )


def read_runs(runs: Sequence[Sequence[Event]], operators: Sequence[FileOperator]) -> list[TimedOperator]:
    """Returns the operators of inferences that all consist of the same ones, in the same order."""
    timed = []
    names = name_events(runs[0], operators)
    for place, event in enumerate(runs[0]):
        kind, precision = classify(event, operators)
        timed.append(
            TimedOperator(
                name=f"{event.tag} #{place}",
                type=event.tag.partition(" (")[0],
                kind=kind,
                precision=precision,
                nodes=(names[place],) if place in names else (),
                times_us=[run[place].elapsed_us for run in runs],
            )
        )
    return timed


def name_events(events: Sequence[Event], operators: Sequence[FileOperator]) -> dict[int, str]:
    """Returns place of an event -> name of the file's operator with weights that it stands for.

    XNNPACK tells no names, but it runs what multiplies matrices in the file's order, and as many: where that does not
    hold, or some are of other kinds, nothing is named.
    """
    places = [place for place, event in enumerate(events) if _COMPUTE.search(event.tag)]
    multiplying = [one for one in operators if one.type in _RUN_AS]
    pairs = list(zip(places, multiplying, strict=False))
    fits = all(events[place].tag.partition(" (")[0] in (one.type, *_RUN_AS[one.type]) for place, one in pairs)
    if len(places) != len(multiplying) or not fits:
        return {}
    return {place: one.name for place, one in pairs}


def classify(event: Event, operators: Sequence[FileOperator]) -> tuple[Kind, str | None]:
    """Returns what an operator does, and the precision that it executes in.

    Args:
        event: Of the profiler; `Convolution (NHWC, QC8) IGEMM` of XNNPACK, `FULLY_CONNECTED` of the file.
        operators: Of the file.
    """
    if _CONVERSION.search(event.tag):
        return "conversion", None
    kind: Kind = "compute" if _COMPUTE.search(event.tag) else "other"
    if event.event_type == _OF_FILE:
        return kind, _agree(one.dtype for one in operators if one.index == event.operator)
    match = _TYPES.search(event.tag)
    words = [] if match is None else [word.strip() for word in match["types"].split(",")]
    if _INTEGER.intersection(words):
        return kind, "int8"
    named = next((_FLOATS[word] for word in words if word in _FLOATS), None)
    if named is not None or words != [""]:
        return kind, named
    name = re.sub(r"\W", "", event.tag.partition(" (")[0]).upper()
    return kind, _agree(one.dtype for one in operators if one.type == _NAMES.get(name, name))


def _agree(dtypes: Iterable[Any]) -> str | None:
    """Returns the precision of dtypes that are all the same; None where they are not, or where there are none."""
    found = {None if dtype is None else _DTYPES.get(np.dtype(dtype)) for dtype in dtypes}
    return found.pop() if len(found) == 1 else None


def _is_inference(event: Event) -> bool:
    return event.event_type == _DEFAULT and event.tag == "Invoke"
