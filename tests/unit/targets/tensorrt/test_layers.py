"""Listings of engine layers, as TensorRT wrote them."""

from __future__ import annotations

import json

from modelwright.targets.tensorrt.layers import (
    Layer,
    count_precisions,
    find_node_precisions,
    parse_inspector,
    parse_log,
)

# Shortened from what TensorRT for RTX 1.7.1 logged for a quantized network.
TABLE = """Layers:
Name: __mye662_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: \nName: __myl_MulMinMaxRounCast_myl0_1, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [-1,3,12,12], Strides: [432,144,12,1], StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: c, Dimensions: [-1,4,12,12], Strides: [576,1,48,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: __myl_MulMinMaxRounCast_0x3ea9, StreamId: 0, Metadata: [ONNX Layer: x_QuantizeLinear][ONNX Layer: conv1]
Name: conv1_myl0_2, LayerType: correlation, Inputs: [ { Name: c, Dimensions: [-1,4,12,12], Strides: [576,1,48,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [ { Name: w, Dimensions: [16,4,3,3], Strides: [36,1,12,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }, { Name: s, Dimensions: [1,16,1,1], Strides: [16,1,16,16], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], Outputs: [ { Name: k, Dimensions: [-1,16,12,12], Strides: [2304,1,192,16], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: conv1][ONNX Layer: w1_DequantizeLinear]
Name: head_myl0_6, LayerType: gemm, Inputs: [ { Name: p, Dimensions: [-1,16], Strides: [16,1], StrideOrder: [1,0], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [ { Name: w3, Dimensions: [16,6], Strides: [6,1], StrideOrder: [1,0], Datatype: Half, Format: (Linear) Row major linear format }], Outputs: [ { Name: y, Dimensions: [-1,6], Strides: [6,1], StrideOrder: [1,0], Datatype: Float, Format: (Linear) Row major linear format }], TacticName: , StreamId: 0, Metadata: [ONNX Layer: head]

I/O Tensors:
 Name: x, IOMode: Input, DataType: Float, Dimensions: [-1,3,12,12], Location: Device, IsShapeInferenceIO: false
 Name: y, IOMode: Output, DataType: Float, Dimensions: [-1,5], Location: Device, IsShapeInferenceIO: false
"""  # noqa: E501 - the vendor's lines


def test_table_of_the_builders_log() -> None:
    layers = parse_log(["Engine generation completed.", TABLE, "Peak memory usage"])
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("__mye662_0_myl0_0", "shape_call"),
        ("__myl_MulMinMaxRounCast_myl0_1", "kgen"),
        ("conv1_myl0_2", "correlation"),
        ("head_myl0_6", "gemm"),
    ]
    conv = layers[2]
    assert conv.reads == ("int8", "fp32")
    assert conv.writes == ("fp16",)
    assert conv.nodes == ("conv1", "w1_DequantizeLinear")
    assert [layer.precision for layer in layers] == [None, "fp32", "int8", "fp16"]
    assert count_precisions(layers) == {"fp32": 1, "int8": 1, "fp16": 1}


def test_log_without_a_table_lists_nothing() -> None:
    assert parse_log(["Building", "Layer count: 3"]) == []


def test_nodes_take_the_type_of_the_kernel_that_multiplies() -> None:
    layers = parse_log([TABLE])
    assert find_node_precisions(layers, {"conv1", "head", "elsewhere"}) == {"conv1": "int8", "head": "fp16"}


def test_a_generated_kernel_that_reads_int8_does_not_make_a_float_layer_int8() -> None:
    dequantizing = Layer(name="a", kind="kgen", reads=("int8",), writes=("fp32",), nodes=("conv",))
    multiplying = Layer(name="b", kind="correlation", reads=("fp32",), writes=("fp32",), nodes=("conv",))
    assert find_node_precisions([dequantizing, multiplying], {"conv"}) == {"conv": "fp32"}
    assert find_node_precisions([dequantizing], {"conv"}) == {"conv": "int8"}


def test_inspector_of_tensorrt_10_and_11() -> None:
    ten = {
        "Layers": [
            {
                "Name": "conv",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
                "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}],
                "Weights": {"Type": "Half", "Count": 432},
                "Metadata": "[ONNX Layer: conv]",
            },
            {
                "Name": "copy",
                "LayerType": "Reformat",
                "Inputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}],
                "Outputs": [],
            },
            "a layer without details",
        ],
        "Bindings": ["x", "y"],
    }
    eleven = {
        "Layers": [
            {
                "Name": "conv",
                "LayerType": "gemm",
                "Inputs": [{"Name": "x", "Datatype": "Int8", "Format": "Row major linear"}],
                "Outputs": [{"Name": "y", "Datatype": "BFloat16", "Format": "Row major linear"}],
                "Metadata": "[ONNX Layer: conv]",
            }
        ],
        "I/O Tensors": [],
    }
    old, copy = parse_inspector(json.dumps(ten))
    assert (old.reads, old.writes, old.nodes, old.precision) == (("fp16",), ("fp32",), ("conv",), "fp16")
    assert copy.precision is None
    (new,) = parse_inspector(json.dumps(eleven))
    assert (new.reads, new.writes, new.precision) == (("int8",), ("bf16",), "int8")


def test_inspector_that_tells_nothing() -> None:
    assert parse_inspector("") == []
    assert parse_inspector('{"Layers": ["conv1", "conv2"]}') == []


def test_indices_and_images_are_no_precision() -> None:
    listed = {
        "Layers": [{"Name": "g", "LayerType": "Gather", "Inputs": [{"Datatype": "Int64"}, {"Datatype": "UInt8"}]}]
    }
    (layer,) = parse_inspector(json.dumps(listed))
    assert layer.precision is None
