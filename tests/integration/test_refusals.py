"""What targets refuse, provoked on small models; then what the hint says is done, and it helps. See `refusals/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from bench import FLOAT, MACHINE, MATMUL, RNG, Bench, make_weight
from onnx import TensorProto, helper
from refusing import refused

from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import RunSettings
from modelwright.targets.table import get_target


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """With one layer of 8 x 8."""
    made = Bench(tmp_path, x=(8,))
    made.save(MATMUL, {"w": make_weight(8, 8)})
    return made


def test_one_sample_is_too_few_to_calibrate(bench: Bench) -> None:
    one = models.make_samples(bench.folder / "one.npz", count=1, labelled=False, x=(8,))
    hint = refused(lambda: bench.build("ort-int8", samples=one), "needs samples to calibrate on")
    assert "give more" in hint
    bench.build("ort-int8")


@pytest.mark.slow
def test_what_was_built_from_something_else_needs_overwrite_or_another_out(bench: Bench) -> None:
    bench.build("ort-int8")
    np.savez(bench.samples, x=RNG.standard_normal((24, 8)).astype(np.float32))
    hint = refused(lambda: bench.build("ort-int8"), "exists and")
    assert "choose another --out, or add --overwrite" in hint
    bench.build("ort-int8", out=bench.folder / "other")
    bench.build("ort-int8", overwrite=True)


def test_samples_that_calibrate_do_not_judge(bench: Bench) -> None:
    copy = bench.folder / "copy.npz"
    with np.load(bench.samples) as arrays:
        np.savez(copy, x=arrays["x"][::-1])
    for evaluation, words in ((bench.samples, "both to calibrate and to judge"), (copy, "what calibrates would judge")):
        hint = refused(lambda given=evaluation: bench.build("ort-int8", evaluation=given), words)
        assert "leave out --eval" in hint
    bench.build("ort-int8")


def test_fp32_without_numbers_is_told_where_to_look(bench: Bench) -> None:
    bench.save([helper.make_node("Log", ["x"], ["l"]), helper.make_node("MatMul", ["l", "w"], ["y"])],
               {"w": make_weight(8, 8)})  # fmt: skip
    np.savez(bench.samples, x=-np.ones((24, 8), np.float32) * np.linspace(1, 2, 24, dtype=np.float32)[:, None])
    hint = refused(lambda: bench.build("ort-fp32"), "no finite number")
    assert "the logarithm of zero" in hint
    np.savez(bench.samples, x=np.abs(RNG.standard_normal((24, 8))).astype(np.float32) + 1)
    bench.build("ort-fp32", overwrite=True)


def test_a_file_in_the_place_of_an_artifact_is_moved_away(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "ort-fp32").write_text("mine")
    hint = refused(lambda: bench.build("ort-fp32", overwrite=True), "a file, not the folder of an artifact")
    assert "move it away" in hint
    (bench.out / "ort-fp32").rename(bench.folder / "moved")
    bench.build("ort-fp32")


def test_a_file_of_the_users_in_an_artifact_is_moved_away(bench: Bench) -> None:
    bench.build("ort-fp32")
    mine = bench.out / "ort-fp32" / "notes.txt"
    mine.write_text("mine")
    bench.save(MATMUL, {"w": make_weight(8, 8)})
    hint = refused(lambda: bench.build("ort-fp32", overwrite=True), r"no build made notes\.txt in it")
    assert "move that away" in hint
    mine.rename(bench.folder / "notes.txt")
    bench.build("ort-fp32", overwrite=True)


def test_a_model_that_loses_too_much_ships_in_float(bench: Bench) -> None:
    """One huge column in the activations: 8 bits leave nothing of the others."""
    weight = np.eye(8, dtype=np.float32)
    weight[:, 1:] *= 0.5
    nodes = [helper.make_node("Mul", ["x", "s"], ["m"]), helper.make_node("MatMul", ["m", "w"], ["p"], "layer"),
             helper.make_node("Mul", ["p", "i"], ["y"])]  # fmt: skip
    scale = np.array([1e6, *[1.0] * 7], np.float32)
    bench.save(nodes, {"w": weight, "s": scale, "i": 1 / scale})
    hint = refused(lambda: bench.build("ort-int8-dynamic"), "do not follow FP32|no way of quantizing")
    assert "float targets" in hint
    bench.build("ort-fp32")


@pytest.mark.slow
def test_an_operator_that_openvino_lacks_runs_in_onnx_runtime(bench: Bench) -> None:
    pytest.importorskip("openvino")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "square"], ["q"]),
        helper.make_node("Det", ["q"], ["d"], "determinant"),
        helper.make_node("Unsqueeze", ["d", "one"], ["y"]),
    ]
    bench.save(nodes, {"w": make_weight(8, 9), "square": np.array([-1, 3, 3]), "one": np.array([1])}, result=[1])
    hint = refused(lambda: bench.build("openvino-fp32"), r"no conversion for Det \(node determinant\)")
    assert "the ort-* targets run this model; or replace the operator" in hint
    bench.build("ort-fp32")
    bench.save(MATMUL, {"w": make_weight(8, 8)})
    bench.build("openvino-fp32", overwrite=True)


@pytest.mark.slow
def test_an_operator_that_tflite_lacks_runs_elsewhere(bench: Bench) -> None:
    if not get_target("tflite-fp32").check_build(MACHINE).ok:
        pytest.skip("TFLite is not installed")
    packed = RNG.integers(0, 256, (8, 1, 16)).astype(np.uint8)
    four_bits = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], "packed", domain="com.microsoft", K=32, N=8, bits=4, block_size=32
    )
    np.savez(bench.samples, x=RNG.standard_normal((24, 32)).astype(np.float32))
    constants = {"w": packed, "s": np.full(8, 0.02, np.float32)}
    bench.save([four_bits], constants, 32, result=[8], opsets=[helper.make_opsetid("com.microsoft", 1)])
    hint = refused(lambda: bench.build("tflite-fp32"), r"cannot express operator MatMulNBits \(node packed\)")
    assert "another runtime" in hint
    assert "without that operator" in hint
    bench.build("ort-fp32")
    bench.save(MATMUL, {"w": make_weight(32, 8)}, 32, result=[8])
    bench.build("tflite-fp32", overwrite=True)


def test_integers_beyond_32_bits_run_in_another_runtime(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    bench = Bench(tmp_path, x=(8,))
    nodes = [helper.make_node("Div", ["x", "large"], ["d"]), helper.make_node("Cast", ["d"], ["y"], to=FLOAT)]
    shape = ["batch", 8]
    models.save(
        bench.model, nodes, [("x", TensorProto.INT64, shape)], [("y", FLOAT, shape)], {"large": np.array(2**33)}
    )
    np.savez(bench.samples, x=RNG.integers(2**33, 2**40, (24, 8)))
    hint = refused(lambda: bench.build("openvino-fp32"), "integers beyond 32 bits")
    assert "another runtime" in hint
    bench.build("ort-fp32")


@pytest.mark.parametrize("name", ["ort-int8", "tflite-int8"])
def test_calibration_needs_samples(bench: Bench, name: str) -> None:
    target = get_target(name)
    if not target.check_build(MACHINE).ok:
        pytest.skip(f"{name} cannot be built here")
    hint = refused(lambda: target.build(bench.request(calibration=False)), "needs calibration samples")
    assert "--samples" in hint
    assert target.build(bench.request(calibration=True)).model_file


def test_weights_in_half_are_exported_in_float32(bench: Bench) -> None:
    def save(kind: int, dtype: Any) -> None:
        nodes = [
            helper.make_node("Cast", ["x"], ["c"], to=kind),
            helper.make_node("MatMul", ["c", "w"], ["m"], "layer"),
            helper.make_node("Cast", ["m"], ["y"], to=FLOAT),
        ]
        bench.save(nodes, {"w": make_weight(8, 8).astype(dtype)})

    save(TensorProto.FLOAT16, np.float16)
    hint = refused(lambda: bench.build("ort-int8"), "its weights are float16")
    assert hint == "export it in float32"
    save(FLOAT, np.float32)
    bench.build("ort-int8", overwrite=True)


@pytest.mark.slow
def test_a_quantized_model_is_given_in_float(bench: Bench) -> None:
    quantized = [helper.make_node("DequantizeLinear", ["i", "s"], ["w"], "weights"), *MATMUL]
    weight = make_weight(8, 8)
    bench.save(quantized, {"i": np.rint(weight * 100).astype(np.int8), "s": np.float32(0.01)})
    hint = refused(lambda: bench.build("ort-int8"), "quantized already")
    assert "ort-fp32 ships it as it is" in hint
    bench.build("ort-fp32")
    bench.save(MATMUL, {"w": weight})
    bench.build("ort-int8", overwrite=True)


CONVOLUTION = (
    [
        helper.make_node("Reshape", ["x", "image"], ["i"]),
        helper.make_node("Conv", ["i", "w"], ["c"], "conv"),
        helper.make_node("Flatten", ["c"], ["y"]),
    ],
    {"w": make_weight(8, 2, 1, 1), "image": np.array([-1, 2, 2, 2])},
)
RECURRENT = (
    [
        helper.make_node("Reshape", ["x", "steps"], ["s"]),
        helper.make_node("LSTM", ["s", "w", "r"], ["all", "last"], "lstm", hidden_size=8),
        helper.make_node("Squeeze", ["last", "zero"], ["y"]),
    ],
    {
        "w": make_weight(1, 32, 2),
        "r": make_weight(1, 32, 8),
        "steps": np.array([4, -1, 2]),
        "zero": np.array([0]),
    },
)


@pytest.mark.parametrize(
    ("refusing", "told", "model", "width"),
    [("ort-int8-dynamic", "ort-int8", CONVOLUTION, 32), ("ort-int8", "ort-int8-dynamic", RECURRENT, 8)],
)
def test_the_other_int8_is_told_where_it_finds_layers(
    bench: Bench, refusing: str, told: str, model: tuple[list[Any], dict[str, Any]], width: int
) -> None:
    bench.save(*model, result=[width])
    hint = refused(lambda: bench.build(refusing), "nothing to quantize")
    assert f"{told} quantizes layers of this model" in hint
    bench.build(told)


def test_an_operator_that_onnx_runtime_lacks_is_left_out(tmp_path: Path) -> None:
    from modelwright.targets.graphs.run import open_file

    path = models.make_foreign_operator(tmp_path / "m.onnx")
    hint = refused(lambda: open_file(path, RunSettings(), BuildFailedError), "operator com.example:Sorcery")
    assert "without this operator" in hint
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    shape = ["batch", 4]
    open_file(
        models.save(path, nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], {}), RunSettings(), BuildFailedError
    )


@pytest.mark.slow
def test_torch_targets_take_the_source_of_an_onnx_model(bench: Bench) -> None:
    pytest.importorskip("torch")
    hint = refused(lambda: bench.build("torch-fp32"), "cannot be built: it runs the PyTorch program")
    assert "give the file.py:factory" in hint
    (bench.folder / "net.py").write_text("import torch\ndef make():\n    return torch.nn.Linear(8, 8)\n")
    np.savez(bench.samples, input=RNG.standard_normal((24, 8)).astype(np.float32))
    bench.build("torch-fp32", source=f"{bench.folder / 'net.py'}:make", out=bench.folder / "other")


@pytest.mark.slow
def test_a_module_without_a_product_stays_in_fp32(bench: Bench) -> None:
    pytest.importorskip("torch")
    (bench.folder / "net.py").write_text("import torch\ndef make():\n    return torch.nn.ReLU()\n")
    np.savez(bench.samples, input=RNG.standard_normal((24, 8)).astype(np.float32))
    source = f"{bench.folder / 'net.py'}:make"
    hint = refused(lambda: bench.build("torch-bf16", source=source), "no operator that computes in")
    assert hint == "use torch-fp32"
    bench.build("torch-fp32", source=source)


def test_an_old_opset_that_does_not_convert_is_exported_again(bench: Bench) -> None:
    """Opset 9 took away what `spatial=0` means."""
    weight, one = make_weight(8, 8), np.ones(8, np.float32)
    norm = helper.make_node("BatchNormalization", ["x", "s", "s", "z", "s"], ["n"], spatial=0)
    layer = helper.make_node("MatMul", ["n", "w"], ["y"], "layer")
    bench.save([norm, layer], {"w": weight, "s": one, "z": one * 0}, opset=7)
    hint = refused(lambda: bench.build("ort-int8"), "quantization needs opset 10; the model has 7")
    assert hint == "export it again at opset 13 or later"
    bench.save(MATMUL, {"w": weight}, opset=13)
    bench.build("ort-int8", overwrite=True)


def test_calibration_takes_samples_with_numbers(bench: Bench) -> None:
    from modelwright.targets.quantization.statistics import collect_statistics

    bench.save(
        [helper.make_node("Log", ["x"], ["l"], "log"), helper.make_node("MatMul", ["l", "w"], ["y"])],
        {"w": make_weight(8, 8)},
    )
    model, rows = onnx.load(bench.model), np.ones((1, 8), np.float32)
    hint = refused(
        lambda: collect_statistics(model, ["l"], lambda: iter([{"x": -rows}]), bench.folder), "nothing but NaN"
    )
    assert "--samples on which the FP32 model computes numbers" in hint
    assert "l" in collect_statistics(model, ["l"], lambda: iter([{"x": 2 * rows}]), bench.folder)


def test_samples_of_several_sizes_are_padded_or_given_one_size_at_a_time(bench: Bench) -> None:
    """And what is built of them takes all sizes that the model takes."""
    nodes = [
        helper.make_node("Mul", ["x", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["mask", "axis"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["y"]),
    ]
    inputs = [(name, FLOAT, ["batch", "length"]) for name in ("x", "mask")]
    models.save(bench.model, nodes, inputs, [("y", FLOAT, ["batch", 1])], {"axis": np.array([1])})
    made = "{'x': np.sin(np.arange(start, start + length)), 'mask': np.ones(length)}"
    padded = "{name: np.pad(array, (0, 7 - length)) for name, array in sample.items()}"

    def build(out: str, sizes: str, kept: str) -> Any:
        lines = [
            "import numpy as np",
            "def load():",
            "    for start in range(24):",
            f"        length = {sizes}",
            f"        sample = {made}",
            f"        yield {{name: array.astype('float32') for name, array in {kept}.items()}}",
        ]
        (bench.folder / "load.py").write_text("\n".join(lines))
        samples = f"{bench.folder / 'load.py'}:load"
        return bench.build("ort-fp32", samples=samples, out=bench.folder / out).artifacts["ort-fp32"]

    hint = refused(lambda: build("several", "3 + start % 5", "sample"), r"of sample 1 is float32 \[4\], of sample 0")
    assert "pad or resize them" in hint
    assert "or yield those of one size: what the model leaves open stays so where the runtime can" in hint
    for artifact in (build("padded", "3 + start % 5", padded), build("one", "4", "sample")):
        manifest = artifact.manifest
        loaded = get_target("ort-fp32").load(
            artifact.directory, manifest.model_file, manifest.recipe, manifest.signature, RunSettings()
        )
        with loaded as session:
            for length in (2, 9):
                row = np.sin(np.arange(length, dtype=np.float32))[None]
                (found,) = session.run({"x": row, "mask": np.ones_like(row)})["y"]
                np.testing.assert_allclose(found, row.mean(), rtol=1e-5)
