"""What of building an engine can be seen without the vendor's module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from stand_in import tensorrt as stand_in

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.shapes import ShapeRange
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.tensorrt import engine
from modelwright.targets.tensorrt.engine import EngineSettings
from modelwright.targets.tensorrt.flavours import CLASSIC, RTX
from modelwright.targets.tensorrt.refusals import Refusal, VendorLog


def tensor(name: str, kind: str, *, decides_shapes: bool = False) -> Any:
    return SimpleNamespace(name=name, dtype=SimpleNamespace(name=kind), shape=(-1, 4), is_shape_tensor=decides_shapes)


def network(inputs: list[Any], outputs: list[Any]) -> Any:
    return SimpleNamespace(
        num_inputs=len(inputs),
        num_outputs=len(outputs),
        get_input=lambda index: inputs[index],
        get_output=lambda index: outputs[index],
    )


SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 4)),),
)


def test_strong_typing_is_asked_for_where_there_is_a_choice() -> None:
    assert engine._network_flags(stand_in) == 1
    # A later version may drop the flag, which TensorRT 11 ignores.
    assert engine._network_flags(SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace())) == 0


def test_settings_for_the_recipe() -> None:
    shapes = {"x": ShapeRange(minimum=(1, 4), optimum=(2, 4), maximum=(8, 4))}
    settings = EngineSettings(compute_capabilities=("8.9",), shapes=shapes, workspace_mb=64)
    assert settings.to_dict() == {
        "compute_capabilities": ["8.9"],
        "shapes": {"x": {"minimum": [1, 4], "optimum": [2, 4], "maximum": [8, 4]}},
        "workspace_mb": 64,
        "optimization_level": 3,
        "tf32": False,
        "version_compatible": False,
        "hardware_compatible": "none",
    }


def test_tf32_is_cleared_unless_it_is_asked_for() -> None:
    for wanted in (False, True):
        config = stand_in.IBuilderConfig(None)
        assert config.get_flag(stand_in.BuilderFlag.TF32), "on by default, as in the vendor's"
        settings = EngineSettings(compute_capabilities=(), shapes={}, tf32=wanted, hardware_compatible="ampere-plus")
        engine._configure(stand_in, config, settings, Refusal(CLASSIC, VendorLog()))
        assert config.get_flag(stand_in.BuilderFlag.TF32) is wanted
        assert config.hardware_compatibility_level == stand_in.HardwareCompatibilityLevel.AMPERE_PLUS


def test_ports_of_the_signature_pass() -> None:
    engine._require_ports(CLASSIC, network([tensor("x", "FLOAT")], [tensor("y", "FLOAT")]), SIGNATURE)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([tensor("x", "HALF")], [tensor("y", "FLOAT")], "the input x would be float16 in the engine; .* says float32"),
        ([tensor("x", "FLOAT")], [tensor("y", "BF16")], "the output y would be BF16 in the engine"),
        ([tensor("x", "FLOAT")], [], "the output y would be missing in the engine"),
        (
            [tensor("x", "FLOAT"), tensor("z", "INT64")],
            [tensor("y", "FLOAT")],
            "the input z would be int64 in the engine; the model's signature says there is none",
        ),
        (
            [tensor("x", "FLOAT", decides_shapes=True)],
            [tensor("y", "FLOAT")],
            "the values of the input x decide shapes inside the network",
        ),
    ],
)
def test_ports_that_a_session_could_not_feed(inputs: list[Any], outputs: list[Any], message: str) -> None:
    with pytest.raises(BuildFailedError, match=message):
        engine._require_ports(RTX, network(inputs, outputs), SIGNATURE)


def test_a_range_that_the_vendor_refuses_names_the_input() -> None:
    class _Profile:
        def set_shape(self, *_: Any) -> None:
            raise ValueError("profile dimensions are inconsistent")

    builder = SimpleNamespace(create_optimization_profile=_Profile)
    shapes = {"x": ShapeRange(minimum=(1, 4), optimum=(2, 4), maximum=(8, 4))}
    with pytest.raises(BuildFailedError, match="does not take the range 1x4:2x4:8x4 of the input x") as caught:
        engine._add_profile(builder, None, network([tensor("x", "FLOAT")], []), shapes, Refusal(CLASSIC, VendorLog()))
    assert caught.value.detail == "profile dimensions are inconsistent"


def test_layers_are_read_from_the_log_where_the_inspector_lists_names_only() -> None:
    inspector = SimpleNamespace(get_engine_information=lambda _format: '{"Layers": ["conv"], "Bindings": []}')
    loaded = SimpleNamespace(create_engine_inspector=lambda: inspector)
    trt = SimpleNamespace(
        __version__="10.13.0.35",
        Runtime=lambda _logger: SimpleNamespace(deserialize_cuda_engine=lambda _plan: loaded),
        LayerInformationFormat=SimpleNamespace(JSON=1),
    )
    log = VendorLog()
    log.take(
        "VERBOSE",
        "Layers:\nName: conv, LayerType: gemm, Inputs: [ { Name: x, Datatype: Half }], Outputs: [], "
        "Metadata: [ONNX Layer: conv]",
    )
    layers, source = engine._list_layers(trt, CLASSIC, b"", None, log, runs_own_code=False)
    assert [(layer.nodes, layer.precision) for layer in layers] == [(("conv",), "fp16")]
    assert source == "table of layers that TensorRT 10.13.0.35 logged while building"
