"""LiteRT's events as operators, with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from modelwright.core.errors import MeasurementInvalidError
from modelwright.targets.tflite.litert import Event
from modelwright.targets.tflite.profile import (
    REMEDIES,
    FileOperator,
    classify,
    name_events,
    read_runs,
    require_resolution,
)

OF_FILE, OF_DELEGATE = 2, 8
FILE = [
    FileOperator(index=0, type="FULLY_CONNECTED", dtype=np.int8),
    FileOperator(index=1, type="PRELU", dtype=np.float32),
    FileOperator(index=2, type="ADD", dtype=np.float32),
    FileOperator(index=3, type="ADD", dtype=np.int8),
    FileOperator(index=4, type="MUL", dtype=np.int8),
    FileOperator(index=5, type="GATHER", dtype=np.int32),
    FileOperator(index=6, type="FILL", dtype=None),
]


@pytest.mark.parametrize(
    ("tag", "answer"),
    [
        ("Convolution (NHWC, F32) IGEMM", ("compute", "fp32")),
        ("Convolution (NHWC, QC8) IGEMM", ("compute", "int8")),
        ("Fully Connected (NC, QS8, QC8W) GEMM", ("compute", "int8")),
        ("Fully Connected (NC, QDU8, F32, QC8W) GEMM", ("compute", "int8")),
        ("Fully Connected (NC, F32, QC8W) GEMM", ("compute", "fp32")),
        ("Batch Matrix Multiply (NC, F16) GEMM", ("compute", "fp16")),
        ("Max Pooling (NHWC, F32)", ("other", "fp32")),
        ("Softmax (NC, QU8)", ("other", "int8")),
        ("Convert (NC)", ("conversion", None)),
        ("Transpose (ND, X32)", ("conversion", None)),
        ("Copy (NC, X8)", ("other", None)),
        ("PReLU (ND)", ("other", "fp32")),
        ("Multiply (ND)", ("other", "int8")),
        ("Add (ND)", ("other", None)),
        ("Minimum (ND)", ("other", None)),
    ],
)
def test_what_xnnpack_does(tag: str, answer: tuple[str, str | None]) -> None:
    """`PReLU (ND)` tells no type: the file's operators do, where they are all of one."""
    assert classify(Event(tag=tag, event_type=OF_DELEGATE, operator=0, elapsed_us=1), FILE) == answer


@pytest.mark.parametrize(
    ("tag", "operator", "answer"),
    [
        ("FULLY_CONNECTED", 0, ("compute", "int8")),
        ("ADD", 2, ("other", "fp32")),
        ("ADD", 3, ("other", "int8")),
        ("GATHER", 5, ("other", None)),
        ("FILL", 6, ("other", None)),
        ("QUANTIZE", 0, ("conversion", None)),
        ("DEQUANTIZE", 0, ("conversion", None)),
        ("TRANSPOSE", 0, ("conversion", None)),
        ("TRANSPOSE_CONV", 0, ("compute", "int8")),
    ],
)
def test_what_the_interpreter_does(tag: str, operator: int, answer: tuple[str, str | None]) -> None:
    assert classify(Event(tag=tag, event_type=OF_FILE, operator=operator, elapsed_us=1), FILE) == answer


def test_operators_of_one_name_are_told_apart_by_their_place() -> None:
    runs = [
        [
            Event(tag="Convolution (NHWC, QC8) IGEMM", event_type=OF_DELEGATE, operator=place, elapsed_us=us)
            for place, us in enumerate(times)
        ]
        for times in ((5, 7), (6, 8))
    ]
    found = read_runs(runs, FILE)
    assert [(one.type, list(one.times_us)) for one in found] == [("Convolution", [5, 6]), ("Convolution", [7, 8])]
    assert len({one.name for one in found}) == 2


def tell_times(*runs: list[int]) -> list[list[Event]]:
    return [[Event(tag="ADD", event_type=OF_FILE, operator=2, elapsed_us=us) for us in times] for times in runs]


def test_times_that_the_clock_cuts_off_are_refused() -> None:
    """Of seven operators one took a microsecond in 13 inferences of 50: it was "100 % of the time"."""
    quiet, seen = [0] * 7, [1, *[0] * 6]
    with pytest.raises(MeasurementInvalidError, match=r"of 7 operators it tells 0\.26 us together .* hide up to 7 us"):
        require_resolution(tell_times(*[quiet] * 37, *[seen] * 13))
    with pytest.raises(MeasurementInvalidError, match="tells 0 us together"):
        require_resolution(tell_times(quiet, quiet))
    with pytest.raises(MeasurementInvalidError, match="tells 6 us together"):
        require_resolution(tell_times([6, *[0] * 6]))
    require_resolution(tell_times([7, *[0] * 6], [1] * 7))


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (["Convolution (NHWC, QC8) DWConv", "Convert (NC)", "Fully Connected (NC, QS8) GEMM"], {0: "depth", 2: "head"}),
        (["DEPTHWISE_CONV_2D", "FULLY_CONNECTED"], {0: "depth", 1: "head"}),
        (["Fully Connected (NC, QS8) GEMM", "Convolution (NHWC, QC8) DWConv"], {}),
        (["Convolution (NHWC, QC8) DWConv"], {}),
        (["Convolution (NHWC, QC8) DWConv", "Fully Connected (NC, QS8) GEMM", "Fully Connected (NC, QS8) GEMM"], {}),
    ],
)
def test_operators_have_the_names_of_the_file_that_they_run_in_order(tags: list[str], names: dict[int, str]) -> None:
    """An order that does not fit, or another number, names nothing."""
    file = [
        FileOperator(index=0, type="DEPTHWISE_CONV_2D", dtype=np.int8, name="depth"),
        FileOperator(index=1, type="ADD", dtype=np.int8, name="sum"),
        FileOperator(index=2, type="FULLY_CONNECTED", dtype=np.int8, name="head"),
    ]
    events = [Event(tag=tag, event_type=OF_DELEGATE, operator=0, elapsed_us=1) for tag in tags]
    assert name_events(events, file) == names


def test_remedies_have_the_types_that_run() -> None:
    assert REMEDIES["PReLU"].change == "replace PReLU by Relu, which costs nothing after a convolution, before training"
