"""What a proof on this host is worth for another machine."""

from __future__ import annotations

import pytest

from modelwright.core.onnx.quantized import OWN_SCALES
from modelwright.core.records.machine import Machine
from modelwright.targets.table import get_target, target_names


def make_machine(architecture: str, *features: str) -> Machine:
    return Machine(name="m", architecture=architecture, instruction_sets=frozenset(features), cores=4)


VNNI = make_machine("x86_64", "avx2", "avx512_vnni")
AMX = make_machine("x86_64", "avx2", "avx512_vnni", "amx_int8")
AVX2 = make_machine("x86_64", "avx2")
PI_4 = make_machine("aarch64", "asimd")
PI_5 = make_machine("aarch64", "asimd", "asimddp")
QUANTIZED = ("ort-int8", "ort-int8-dynamic", "openvino-int8", "tflite-int8", "tflite-int8-dynamic")


@pytest.mark.parametrize(("machine", "exactly"), [(VNNI, True), (AMX, True), (AVX2, False), (PI_4, True), (PI_5, True)])
def test_which_cpus_sum_8_bit_products_exactly(machine: Machine, exactly: bool) -> None:
    assert machine.sums_exactly is exactly


@pytest.mark.parametrize("name", target_names())
def test_float_arithmetic_and_that_of_such_a_machine_need_no_word(name: str) -> None:
    target = get_target(name)
    assert target.compare_arithmetic(AMX, VNNI, {}) is None
    assert target.compare_arithmetic(PI_4, PI_5, {}) is None
    if target.record.is_float:
        assert target.compare_arithmetic(PI_4, AVX2, {}) is None


@pytest.mark.parametrize(
    ("name", "machine", "host", "alike", "word"),
    [
        ("ort-int8", PI_4, VNNI, True, "exactly"),
        ("ort-int8", PI_4, AVX2, False, "saturates"),
        ("ort-int8", VNNI, AVX2, False, "saturates"),
        ("ort-int8", AVX2, VNNI, True, "7-bit"),
        ("ort-int8-dynamic", VNNI, PI_5, True, "exactly"),
        ("openvino-int8", PI_5, VNNI, False, "aarch64"),
        ("tflite-int8", PI_4, VNNI, True, "TFLite"),
        ("tflite-int8-dynamic", PI_4, AVX2, True, "TFLite"),
    ],
)
def test_integer_arithmetic_of_another_machine(
    name: str, machine: Machine, host: Machine, alike: bool, word: str
) -> None:
    said = get_target(name).compare_arithmetic(machine, host, {})
    assert said is not None
    assert (said.alike, word in said.why) == (alike, True)


def test_openvino_halves_weights_where_sums_could_saturate() -> None:
    assert get_target("openvino-int8").compare_arithmetic(AVX2, VNNI, {}) is None


@pytest.mark.parametrize("name", ["ort-int8", "ort-int8-dynamic", "openvino-int8"])
def test_a_sources_own_weights_are_not_halved(name: str) -> None:
    """Of 8 bits, they saturate the sums of a CPU without dot products, which a host with them does not."""
    target, own = get_target(name), {"method": OWN_SCALES}
    said = target.compare_arithmetic(AVX2, VNNI, own)
    assert said is not None
    assert not said.alike
    assert target.compare_arithmetic(AMX, VNNI, own) is None
    assert target.compare_arithmetic(AVX2, AVX2, own) is None
