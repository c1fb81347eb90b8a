"""Training through rounding: what was trained is what runs, and few bits lose less than by rounding afterwards."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compression_runs import call_here, run
from refusing import refused

torch = pytest.importorskip("torch")
pytest.importorskip("torchao")

from modelwright.compression import compressing  # noqa: E402
from modelwright.core.onnx.quantized import OWN_SCALES  # noqa: E402
from modelwright.core.records.artifact import Artifact  # noqa: E402
from modelwright.core.saved_program import find_code  # noqa: E402
from modelwright.exporters import export  # noqa: E402
from modelwright.harness.building import build_targets  # noqa: E402
from modelwright.targets.contract import RunSettings  # noqa: E402
from modelwright.targets.table import get_target  # noqa: E402

NET = """
import numpy
import torch
from torch import nn

class Net(nn.Module):
    '''Finds which of four patterns an image shows.'''

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Dropout(0.1))
        self.last = nn.Linear(8 * 16, 4)

    def forward(self, image):
        return self.last(nn.functional.max_pool2d(self.second(self.first(image)), 2).flatten(1))

def create():
    '''The network, trained in FP32.'''
    torch.manual_seed(0)
    net = Net()
    with numpy.load(__file__.replace("net.py", "train.npz")) as arrays:
        image, labels = (torch.from_numpy(arrays[name]) for name in ("image", "labels"))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(6):
        for start in range(0, len(image), 32):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(image[start : start + 32]), labels[start : start + 32])
            loss.backward()
            optimizer.step()
    return net.eval(), image[:2]

def nothing_to_quantize():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(64))

        def forward(self, image):
            return (image.flatten(1) * self.scale)[:, :4]

    return Scale(), torch.zeros(2, 1, 8, 8)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compressing, "run_in_child", call_here)
    (tmp_path / "net.py").write_text(NET)
    generator = np.random.default_rng(0)
    patterns = generator.standard_normal((4, 1, 8, 8))
    for name, count in (("train", 512), ("test", 512)):
        labels = generator.integers(0, 4, count)
        image = patterns[labels] + 2.0 * generator.standard_normal((count, 1, 8, 8))
        np.savez(tmp_path / f"{name}.npz", image=image.astype(np.float32), labels=labels)
    return tmp_path


@pytest.mark.slow
def test_training_saves_what_rounding_to_few_bits_loses(place: Path) -> None:
    rounded = run(place, "qat", bits="w2a4", epochs=0, out="rounded").record
    trained = run(place, "qat", bits="w2a4", epochs=4, lr=3e-3, out="trained").record
    assert rounded.quality_before.points_lost(rounded.quality_after) > 2
    assert trained.quality_after.value > rounded.quality_after.value + 0.015
    assert trained.after.weights_bytes < 0.45 * trained.before.weights_bytes
    assert trained.after.parameters == trained.before.parameters
    assert any("weights have 2 bits and are kept in 8" in note for note in trained.stages[0].notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "dtype", "most"),
    [
        ({"bits": "w8a8"}, onnx.TensorProto.UINT8, 127),
        ({"bits": "w4a8", "symmetric": True}, onnx.TensorProto.INT8, 7),
        ({"bits": "w3a4"}, onnx.TensorProto.UINT8, 3),
    ],
)
def test_the_program_holds_what_was_trained_as_operators_of_its_own(
    place: Path, options: dict[str, Any], dtype: int, most: int
) -> None:
    made = run(place, "qat", epochs=1, **options)
    assert find_code(made.folder / "model.pt2") == []
    state = torch.export.load(made.folder / "model.pt2").state_dict
    weights = [value for value in state.values() if value.dtype == torch.int8]
    assert sum(weight.numel() for weight in weights) == 8 * 9 + 8 * 72 + 4 * 128
    assert max(int(weight.abs().max()) for weight in weights) == most
    exported = export(made.folder, place / "model.onnx")
    model = onnx.load(exported.model_path)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["QuantizeLinear"] >= 3
    assert operators["Conv"] == 2
    zeros = {
        node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"
    }  # fmt: skip
    points = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in zeros
    }
    assert {onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for value in points.values()} == {dtype}
    if options.get("symmetric"):
        assert not any(value.any() for value in points.values())


@pytest.mark.slow
def test_zeros_of_pruning_stay_zeros_of_integers(place: Path) -> None:
    made = run(place, "prune:magnitude:0.6", "qat", epochs=1)
    weights = [
        value for value in torch.export.load(made.folder / "model.pt2").state_dict.values() if value.dtype == torch.int8
    ]
    zeros, total = sum(int((weight == 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)
    assert zeros >= round(0.6 * total)
    assert made.record.after.zero_share == pytest.approx(0.6, abs=1 / total)


def test_a_network_without_layers_to_quantize_is_refused(place: Path) -> None:
    assert "leave qat away" in refused(
        lambda: run(place, "qat", function="nothing_to_quantize"), "no convolution or linear"
    )
    assert not (place / "out").exists()


@pytest.mark.slow
def test_a_trained_network_is_built_and_follows(place: Path) -> None:
    made = run(place, "qat", epochs=2)
    built = build_targets(
        str(made.folder), targets=("ort-fp32", "openvino-fp32"), samples=str(place / "test.npz"), out=place / "built"
    )
    assert set(built.artifacts) == {"ort-fp32", "openvino-fp32"}


@pytest.mark.slow
def test_int8_of_each_runtime_runs_the_scales_that_were_trained(place: Path) -> None:
    made = run(place, "qat", epochs=2)
    program = torch.export.load(made.folder / "model.pt2")
    rounding = torch.ops.quantized_decomposed.quantize_per_tensor.default
    scales = sorted(node.args[1] for node in program.graph.nodes if node.target is rounding)
    targets = ("ort-int8", "openvino-int8", "tflite-int8")
    built = build_targets(str(made.folder), targets=targets, samples=str(place / "test.npz"), out=place / "built")
    assert set(built.artifacts) == {"ort-int8", "openvino-int8"}
    with np.load(place / "test.npz") as arrays:
        feeds, labels = {"image": arrays["image"]}, arrays["labels"]
    for name, artifact in built.artifacts.items():
        recipe = artifact.manifest.recipe
        assert (recipe["method"], recipe["activations"]) == (OWN_SCALES, len(scales))
        answers, precisions = run_profiled(artifact, feeds)
        assert "int8" in precisions, name
        accuracy = float((answers.argmax(1) == labels).mean())
        assert accuracy == pytest.approx(made.record.quality_after.value, abs=0.006), name  # 3 of 512 at an edge
    model = onnx.load(built.artifacts["ort-int8"].directory / built.artifacts["ort-int8"].manifest.model_file)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept = sorted(float(constants[node.input[1]]) for node in model.graph.node if node.op_type == "QuantizeLinear")
    assert kept == pytest.approx(scales, rel=1e-6)
    (absent,) = built.absent
    assert (absent.target, absent.status) == ("tflite-int8", "failed")
    assert "would quantize a second time" in absent.error.message
    assert "ort-*" in (absent.error.hint or "")


def run_profiled(artifact: Artifact, feeds: dict[str, Any]) -> tuple[np.ndarray, set[str]]:
    """Returns the answers of an artifact, and the precisions of the operators that do its products."""
    manifest = artifact.manifest
    with get_target(manifest.target).load(
        artifact.directory, manifest.model_file, manifest.recipe, manifest.signature,
        RunSettings(threads=1, profiled=True),
    ) as session:  # fmt: skip
        (answers,) = session.run(feeds).values()
        profile = session.profile_operators(feeds)
    assert profile is not None
    return answers, {each.precision for each in profile.operators if re.search("Conv|Gemm|MatMul|FullyC", each.type)}
