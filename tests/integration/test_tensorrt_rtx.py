"""The real parser and builder of TensorRT for RTX, which compile ahead of time on a machine without a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelwright.core.errors import BuildFailedError, ToolchainMissingError, UsageError
from modelwright.core.process.child import Child, run_in_child
from modelwright.harness.building import build_targets

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed", exc_type=ImportError)

NAMES = ("tensorrt-rtx-fp32", "tensorrt-rtx-fp16", "tensorrt-rtx-int8")
STEPS = str(Path(__file__).parent)

Step = Callable[..., Any]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of a child that finds `tensorrt_steps` and no NVIDIA driver."""
    return {"PYTHONPATH": ":".join(filter(None, (STEPS, os.environ.get("PYTHONPATH")))), "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def step(environment: dict[str, str]) -> Iterator[Step]:
    """Calls a function of `tensorrt_steps` in a child process."""
    with Child("using TensorRT for RTX", environment=environment) as child:
        yield lambda function, **params: child.call(f"tensorrt_steps:{function}", params)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rtx")
    return {
        "model": models.make_cnn(folder / "cnn.onnx"),
        "samples": models.make_samples(folder / "samples.npz", x=(3, 12, 12)),
        "out": folder / "artifacts",
    }


@pytest.fixture(scope="module")
def built(step: Step, workplace: dict[str, Path]) -> dict[str, Any]:
    """Manifests of the three precisions, for a card that is not here."""
    result = step(
        "build_artifacts",
        model=str(workplace["model"]),
        samples=str(workplace["samples"]),
        out=str(workplace["out"]),
        targets=list(NAMES),
        profile="rtx-4090",
        shapes=["x=1x3x12x12:4x3x12x12:8x3x12x12"],
    )
    assert result["absent"] == {}
    return result["manifests"]


@pytest.mark.parametrize("name", NAMES)
def test_engines_are_built_ahead_of_time_for_a_profile(name: str, built: dict[str, Any]) -> None:
    manifest = built[name]
    gpu = manifest["requires"]["gpu"]
    assert (gpu["flavour"], gpu["name"]) == ("tensorrt-rtx", "NVIDIA GeForce RTX 4090")
    assert gpu["runs_on"] == ["8.9"]
    assert gpu["memory_bytes"] > 0
    engine = manifest["recipe"]["engine"]
    assert manifest["requires"]["packages"] == {"tensorrt-rtx": f"=={engine['version']}"}
    assert engine["compute_capabilities"] == ["8.9"]
    assert engine["tf32"] is False
    assert engine["optimization_profile"] is True
    assert engine["timing_cache"] is None
    assert manifest["size_bytes"] > 10_000


@pytest.mark.parametrize(("name", "precision"), [(name, name.rpartition("-")[2]) for name in NAMES])
def test_the_builders_own_table_of_layers_proves_the_precision(
    name: str, precision: str, built: dict[str, Any]
) -> None:
    proof = built[name]["recipe"]["precision_proof"]
    assert proof["source"].startswith("table of layers that TensorRT for RTX 1.")
    assert proof["nodes"][precision] >= 2
    assert sum(proof["nodes"].values()) == 3, "conv1, depthwise and head"
    if precision == "fp32":
        assert set(proof["layers"]) == {"fp32"}
    else:
        assert proof["work"][precision] > 0.99, "the head multiplies 80 of 166,000 times"
    assert proof["widened_nodes"] == []


@pytest.mark.slow
def test_an_engine_that_hardly_runs_in_int8_is_told(tmp_path: Path) -> None:
    """TensorRT for RTX has no INT8 kernel for ConvTranspose, where this network multiplies most."""
    rng = np.random.default_rng(0)
    path = models.save(
        tmp_path / "decoder.onnx",
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], "conv"),
            helper.make_node("ConvTranspose", ["a", "w2"], ["y"], "grow", strides=[2, 2]),
        ],
        [("x", TensorProto.FLOAT, ["batch", 16, 6, 6])],
        [("y", TensorProto.FLOAT, ["batch", 16, 12, 12])],
        {
            "w1": rng.standard_normal((16, 16, 1, 1)).astype(np.float32),
            "w2": rng.standard_normal((16, 16, 2, 2)).astype(np.float32),
        },
    )
    built = build_targets(
        str(path),
        samples=models.make_samples(tmp_path / "samples.npz", labelled=False, x=(16, 6, 6)),
        out=tmp_path / "out",
        profile="rtx-4090",
        targets=["tensorrt-rtx-int8"],
    )
    manifest = built.artifacts["tensorrt-rtx-int8"].manifest
    assert manifest.recipe["precision_proof"]["work"] == {"fp16": 0.8, "int8": 0.2}
    assert manifest.recipe["float_layers"] == [
        {"layer": "grow", "reason": "the runtime has no INT8 kernel for ConvTranspose"}
    ]
    assert any(note.startswith("only 20% of the multiplications run in INT8, 80% in FP16") for note in manifest.notes)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_arithmetic_is_proved_by_onnx_runtime(name: str, built: dict[str, Any]) -> None:
    proof = built[name]["proof"]
    assert proof["emulated"].startswith("onnxruntime")
    assert proof["fidelity"]["cosine"] > 0.999
    assert proof["fidelity"]["agreement"] >= 0.99


def test_engines_for_every_card_from_ampere_on(step: Step, workplace: dict[str, Path], tmp_path: Path) -> None:
    result = step(
        "build_engine",
        target="tensorrt-rtx-fp32",
        model=str(workplace["model"]),
        folder=str(tmp_path),
        options={"hardware-compatible": "ampere-plus", "tf32": True, "optimization-level": 0},
    )
    assert result["requires"]["gpu"]["runs_on"] == ["8.0", "8.6", "8.9", "12.0", "12.1"]
    assert result["recipe"]["engine"]["tf32"] is True
    assert "FP32 layers may compute in TF32, as asked for" in result["notes"]


def test_an_option_that_leaves_the_gpu_out(step: Step, tmp_path: Path) -> None:
    # Of no product: for those in FP32 it has no kernels on a Turing.
    shape = ["batch", 4]
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = models.save(
        tmp_path / "relu.onnx", nodes, [("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, shape)], {}
    )

    def build(**options: str) -> Any:
        return step(
            "build_engine",
            target="tensorrt-rtx-fp32",
            model=str(model),
            folder=str(tmp_path),
            capability="7.5",
            options=options,
        )

    wanted = r"8\.0, 8\.6, 8\.9, 12\.0 or 12\.1, and GPU of 7\.5 has 7\.5"
    with pytest.raises(UsageError, match=wanted) as caught:
        build(**{"hardware-compatible": "ampere-plus"})
    assert caught.value.hint == "leave the option out"
    assert build()["requires"]["gpu"]["runs_on"] == ["7.5"]


def test_static_networks_get_no_optimization_profile(step: Step, tmp_path: Path) -> None:
    model = models.save(
        tmp_path / "static.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, [2, 8])],
        [("y", TensorProto.FLOAT, [2, 8])],
        {"w": np.eye(8, dtype=np.float32)},
    )
    result = step("build_engine", target="tensorrt-rtx-fp32", model=str(model), folder=str(tmp_path / "out"))
    assert result["recipe"]["engine"]["optimization_profile"] is False
    # The node has no name: TensorRT's own name for it is known.
    assert result["recipe"]["precision_proof"]["nodes"] == {"fp32": 1}


def test_operators_of_another_domain_are_named(step: Step, tmp_path: Path) -> None:
    model = models.make_foreign_operator(tmp_path / "spell.onnx")
    with pytest.raises(BuildFailedError) as caught:
        step("build_engine", target="tensorrt-rtx-fp32", model=str(model), folder=str(tmp_path / "out"))
    assert caught.value.message == (
        "TensorRT for RTX cannot read the model: node spell (Sorcery): Plugin not found, are the plugin name, version, "
        "and namespace correct?"
    )
    assert "INVALID_NODE" in str(caught.value.detail)
    assert "by other operators" in str(caught.value.hint)


def test_all_operators_that_the_parser_lacks_are_named(step: Step, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="fine"),
        helper.make_node("Bernoulli", ["a"], ["b"], name="first"),
        helper.make_node("Multinomial", ["b"], ["c"], name="second", sample_size=3, dtype=TensorProto.INT32),
    ]
    model = models.save(
        tmp_path / "random.onnx",
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("c", TensorProto.INT32, ["batch", 3])],
        {},
    )
    with pytest.raises(BuildFailedError) as caught:
        step("build_engine", target="tensorrt-rtx-fp32", model=str(model), folder=str(tmp_path / "out"))
    assert "node first (Bernoulli): TensorRT does not have this operator" in caught.value.message
    assert [line.split(":")[0] for line in str(caught.value.detail).splitlines()] == [
        "node first (Bernoulli)",
        "node second (Multinomial)",
    ]


def test_a_model_that_only_tensorrt_refuses_is_a_row_with_its_reason(step: Step, tmp_path: Path) -> None:
    """Through the whole command: ONNX and ONNX Runtime take NonZero, the parser does not."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"], name="find"),
        helper.make_node("Cast", ["places"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats"], ["sum"], name="sum", keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"], name="add"),
    ]
    model = models.save(
        tmp_path / "nonzero.onnx",
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("y", TensorProto.FLOAT, ["batch", 4])],
        {},
    )
    samples = models.make_samples(tmp_path / "samples.npz", labelled=False, x=(4,))

    def build(target: str, profile: str) -> Any:
        paths = {"model": str(model), "samples": str(samples), "out": str(tmp_path / "out")}
        return step("build_artifacts", **paths, targets=[target], profile=profile)

    wanted = r"TensorRT for RTX cannot read the model: node find \(NonZero\)"
    with pytest.raises(BuildFailedError, match=wanted) as caught:
        build("tensorrt-rtx-fp32", "rtx-4090")
    assert "or use a target of another runtime" in str(caught.value.hint)
    assert not (tmp_path / "out" / "tensorrt-rtx-fp32").exists()
    assert build("ort-fp32", "host")["manifests"]


def test_capabilities_that_it_does_not_build_for(step: Step, workplace: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match=r"does not build for compute capability 9\.0") as caught:
        step(
            "build_engine",
            target="tensorrt-rtx-fp32",
            model=str(workplace["model"]),
            folder=str(tmp_path),
            capability="9.0",
        )
    assert caught.value.hint == "it builds for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"
    for told in ("8.0", "8.6", "8.9", "12.0", "12.1"):  # 7.5 has no kernel for this network in FP32
        model, folder = str(workplace["model"]), str(tmp_path / told)
        assert step("build_engine", target="tensorrt-rtx-fp32", model=model, folder=folder, capability=told)
    with pytest.raises(ToolchainMissingError, match=r"does not build for compute capability 9\.0 \(NVIDIA H200\)"):
        step(
            "build_artifacts",
            model=str(workplace["model"]),
            samples=str(workplace["samples"]),
            out=str(tmp_path / "out"),
            targets=["tensorrt-rtx-fp32"],
            profile="nvidia-h200",
        )


def test_a_range_that_it_does_not_take_is_given_smaller(step: Step, workplace: dict[str, Path], tmp_path: Path) -> None:
    """Sizes beyond 32 bits, which `--shapes` itself does not let through."""

    def build(**shapes: Any) -> Any:
        model, folder = str(workplace["model"]), str(tmp_path / "out")
        return step("build_engine", target="tensorrt-rtx-fp32", model=model, folder=folder, **shapes)

    sizes = {"minimum": [1, 3, 12, 12], "optimum": [2, 3, 12, 12], "maximum": [2**31, 3, 12, 12]}
    with pytest.raises(
        BuildFailedError, match=r"does not take the range .*:2147483648x3x12x12 of the input x"
    ) as caught:
        build(ranges={"x": sizes})
    assert caught.value.hint == "give another: --shapes 'x=MIN:OPT:MAX'"
    assert "max is inconsistent" in str(caught.value.detail)
    assert build(shapes=["x=1x3x12x12:2x3x12x12:4x3x12x12"])


def test_an_input_in_float64_is_given_as_the_hint_says(step: Step, tmp_path: Path) -> None:
    def build(kind: int) -> Any:
        nodes = [helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT), helper.make_node("Relu", ["c"], ["y"])]
        shape = ["batch", 4]
        model = models.save(tmp_path / "m.onnx", nodes, [("x", kind, shape)], [("y", TensorProto.FLOAT, shape)], {})
        return step("build_engine", target="tensorrt-rtx-fp32", model=str(model), folder=str(tmp_path / "out"))

    with pytest.raises(BuildFailedError, match=r"input x would be float32 in the engine; .* says float64") as caught:
        build(TensorProto.DOUBLE)
    assert str(caught.value.hint).startswith("export the model with inputs and outputs that TensorRT takes: float32,")
    for told in ("FLOAT", "INT32", "INT64", "INT8", "UINT8", "BOOL"):
        assert build(TensorProto.DataType.Value(told))


def test_a_network_of_integers_has_no_fp16(step: Step, tmp_path: Path) -> None:
    shape = ["batch", 4]
    ports = [("x", TensorProto.INT32, shape)], [("y", TensorProto.INT32, shape)]
    models.save(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "x"], ["y"], name="add")], *ports, {})
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.arange(32, dtype=np.int32).reshape(8, 4))

    def build(target: str) -> Any:
        paths = {"model": str(tmp_path / "m.onnx"), "samples": str(samples), "folder": str(tmp_path / target)}
        return step("build_engine", target=target, **paths)

    with pytest.raises(BuildFailedError, match="FP16 of a network without a floating-point operator") as caught:
        build("tensorrt-rtx-fp16")
    assert caught.value.hint == "take the FP32 target"
    assert build("tensorrt-rtx-fp32")


def test_what_an_old_card_cannot_compute(step: Step, workplace: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="this compute capability cannot do it") as caught:
        step(
            "build_engine",
            target="tensorrt-rtx-fp32",
            model=str(_make_quantized_head(workplace["model"], tmp_path / "quantized.onnx")),
            folder=str(tmp_path / "out"),
            capability="7.5",
        )
    assert "Turing (SM75)" in str(caught.value.detail)


def _make_quantized_head(path: Path, quantized: Path) -> Path:
    """Puts an INT8 pair before the last layer, which makes of it a kernel that Turing lacks."""
    model = onnx.load(path)
    head = model.graph.node[-1]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == head.input[1])
    values = onnx.numpy_helper.to_array(weight)
    scale = np.abs(values).max(axis=0) / 127
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array(0.05, np.float32), "step"),
            onnx.numpy_helper.from_array(np.array(0, np.int8), "zero"),
            models.constant("scales", scale.astype(np.float32)),
            models.constant("zeros", np.zeros(len(scale), np.int8)),
            models.constant("whole", np.round(values / scale).astype(np.int8)),
        ]
    )
    source = head.input[0]
    head.input[0], head.input[1] = "activations", "weights"
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            *nodes[:-1],
            helper.make_node("QuantizeLinear", [source, "step", "zero"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["activations"], name="dq"),
            helper.make_node("DequantizeLinear", ["whole", "scales", "zeros"], ["weights"], name="dqw", axis=1),
            head,
        ]
    )
    onnx.save(model, quantized)
    return quantized


def test_too_small_a_workspace(step: Step, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype(np.float32)
    model = models.save(
        tmp_path / "large.onnx",
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        [("x", TensorProto.FLOAT, ["batch", 64, 56, 56])],
        [("y", TensorProto.FLOAT, ["batch", 64, 56, 56])],
        {"w": weight},
    )

    def build(**options: int) -> Any:
        folder = str(tmp_path / "out")
        return step("build_engine", target="tensorrt-rtx-fp32", model=str(model), folder=folder, options=options)

    with pytest.raises(BuildFailedError, match="no kernel fits the workspace limit") as caught:
        build(**{"workspace-mb": 1})
    assert caught.value.hint == "raise it, --option workspace-mb=N, or leave it to TensorRT"
    assert build(**{"workspace-mb": 512})
    assert build()


def test_loading_without_cuda_is_one_clear_error(
    built: dict[str, Any], workplace: dict[str, Path], environment: dict[str, str]
) -> None:
    """In a real child, with the vendor's real runtime: no crash, whether there is a driver or not."""
    with pytest.raises(ToolchainMissingError) as caught:
        run_in_child(
            "tensorrt_steps:load",
            {"folder": str(workplace["out"] / "tensorrt-rtx-fp32")},
            purpose="loading",
            environment=environment,
        )
    assert caught.value.message.startswith("CUDA cannot be used: ")
    assert caught.value.hint


def test_the_vendors_runtime_on_a_driver_that_is_too_old(
    built: dict[str, Any], workplace: dict[str, Path], environment: dict[str, str], tmp_path: Path
) -> None:
    """The fake driver lacks most of what the real runtime calls, as an old one does."""
    from fake_driver.build import build_fake_driver

    old = {"LD_LIBRARY_PATH": str(build_fake_driver(tmp_path)), "FAKE_CUDA_CC": "8.9"}
    environment = {**environment, **old, "CUDA_VISIBLE_DEVICES": "0"}
    with pytest.raises(ToolchainMissingError, match="the NVIDIA driver is absent or too old") as caught:
        run_in_child(
            "tensorrt_steps:load",
            {"folder": str(workplace["out"] / "tensorrt-rtx-fp32")},
            purpose="loading",
            environment=environment,
        )
    assert "update the NVIDIA driver" in str(caught.value.hint)


@pytest.mark.slow
def test_a_transformer_from_pytorch_with_a_dynamic_batch(tmp_path: Path) -> None:
    """Its FP16 graph is one that an optimizer of ONNX Runtime 1.31 crashes on, which the build must not use."""
    pytest.importorskip("torch", reason="needs PyTorch")
    rng = np.random.default_rng(0)
    mask = np.ones((64, 16), np.int64)
    mask[::2, 10:] = 0
    np.savez(tmp_path / "texts.npz", ids=rng.integers(0, 200, (64, 16)), mask=mask)
    built = build_targets(
        f"{Path(models.__file__).with_name('torch_encoder.py')}:create",
        samples=tmp_path / "texts.npz",
        out=tmp_path / "out",
        profile="rtx-4090",
        targets=NAMES[1:],
    )
    assert not built.absent, [absent.error.message for absent in built.absent]
    for name, layers in (("tensorrt-rtx-fp16", "fp16"), ("tensorrt-rtx-int8", "int8")):
        manifest = built.artifacts[name].manifest
        assert manifest.proof is not None
        assert manifest.proof.emulated
        assert manifest.proof.fidelity.cosine > 0.999
        assert manifest.recipe["precision_proof"]["nodes"][layers] > 0
