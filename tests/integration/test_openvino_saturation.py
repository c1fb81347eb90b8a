"""8-bit weights on CPUs with and without dot products: what oneDNN's kernels sum, and what is built for which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from openvino_bench import PLAIN, VNNI, Workplace, make_outlier_cnn

from modelwright.core.records.machine import Machine
from modelwright.profiles import detect_host
from modelwright.targets.openvino.target import OpenvinoInt8

pytest.importorskip("openvino")

SATURATING = """
import json
import numpy as np
import openvino
from openvino import opset13 as op
from modelwright.targets.openvino.quantize import widen_weights

answers = []
for limit in (127, 63):
    x = op.parameter([1, 64], np.float32, name="x")
    stored = op.constant(np.full((64, 16), limit, np.int8))
    weight = op.multiply(op.convert(stored, np.float32), op.constant(np.float32(1)))
    rounded = op.fake_quantize(x, *(op.constant(np.float32(end)) for end in (0, 255, 0, 255)), 256)
    model = openvino.Model([op.matmul(rounded, weight, False, False)], [x], "m")
    for each in (model, widen_weights(openvino, model)):
        compiled = openvino.compile_model(each, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        answers.append(float(compiled({"x": np.full((1, 64), 255, np.float32)})[0][0, 0]))
print(json.dumps(answers))
"""


@pytest.mark.parametrize(("limit", "sums_127"), [("AVX2", 32 * 32767), ("DEFAULT", 64 * 255 * 127)])
def test_without_dot_products_8_bit_weights_saturate_and_neither_halved_nor_widened_ones_do(
    limit: str, sums_127: float
) -> None:
    """oneDNN runs the kernels of an older CPU where its variable says so: 64 products of 255 and the largest weight."""
    ran = subprocess.run(
        [sys.executable, "-c", SATURATING],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": limit},
        capture_output=True,
        text=True,
        check=True,
    )
    if limit == "DEFAULT" and not detect_host().machine().sums_exactly:
        pytest.skip("this CPU has no 8-bit dot product")
    assert json.loads(ran.stdout) == [sums_127, 64 * 255 * 127, 64 * 255 * 63, 64 * 255 * 63]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "needed"),
    [(VNNI, ["amx_int8", "avx512_vnni", "avx_vnni", "avx_vnni_int8"]), (PLAIN, None)],
)
def test_8_bit_weights_ask_for_dot_products(tmp_path: Path, machine: Machine, needed: list[str] | None) -> None:
    place = Workplace(tmp_path, make_outlier_cnn(tmp_path / "m.onnx"), machine)
    rng = np.random.default_rng(0)
    np.savez(place.samples, x=rng.standard_normal((40, 1, 16, 16)).astype(np.float32))
    result = place.build(OpenvinoInt8(), samples=True, role="embedding")
    assert result.requires.get("any_instruction_set") == needed
    assert result.recipe["overflow_fix"] == ("disable" if needed else "enable")
