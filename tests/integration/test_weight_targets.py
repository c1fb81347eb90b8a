"""Weights of 8 and 4 bits through the real toolchains: small files, what they lose, and what is spared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import BuildFailedError, ModelwrightError
from modelwright.harness.building import Built, build_targets

pytest.importorskip("nncf")
COUNT, WORDS, ROWS, WIDTH, CLASSES = 320, 12, 2000, 64, 10


def make_reader(path: Path, outlier: float = 0.0) -> Path:
    """A classifier of word lists: a table, two layers, the mean over words. An outlier ruins blocks of `contract`."""
    generator = np.random.default_rng(5)
    arrays = {
        "table": generator.normal(0, 1, (CLASSES, WIDTH))[np.arange(ROWS) % CLASSES]
        + generator.normal(0, 0.5, (ROWS, WIDTH)),
        "first": generator.normal(0, 0.15, (WIDTH, 256)),
        "second": generator.normal(0, 0.15, (256, WIDTH)),
    }
    ids = make_word_lists()
    means = (np.maximum(arrays["table"][ids] @ arrays["first"], 0) @ arrays["second"]).mean(axis=1)
    centres = np.array([means[number::CLASSES].mean(axis=0) for number in range(CLASSES)])
    arrays["head"] = (centres - centres.mean(axis=0)).T
    # Nothing ever reaches the units of these rows, one in each block: only rounding can make their weights count.
    arrays["second"][::32] = outlier
    arrays["first"][:, ::32] = 0.0
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"], "lookup"),
        helper.make_node("MatMul", ["words", "first"], ["wide"], "expand"),
        helper.make_node("Relu", ["wide"], ["active"], "relu"),
        helper.make_node("MatMul", ["active", "second"], ["narrow"], "contract"),
        helper.make_node("ReduceMean", ["narrow"], ["mean"], "mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "reader",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", WORDS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def make_word_lists() -> npt.NDArray[np.int64]:
    """int64 [COUNT, WORDS]: nine tenths of each list's words are of its class, which is their number modulo 10."""
    generator = np.random.default_rng(6)
    ids = generator.integers(0, ROWS, (COUNT, WORDS))
    topics = np.arange(COUNT)[:, None] % CLASSES
    return np.where(generator.random(ids.shape) < 0.9, ids // CLASSES * CLASSES + topics, ids)


def make_ids(path: Path) -> Path:
    np.savez(path, ids=make_word_lists())
    return path


def build(folder: Path, model: Path, *targets: str) -> Built:
    made = build_targets(model, samples=make_ids(folder / "ids.npz"), out=folder / "out", targets=list(targets))
    assert not made.absent, [absent.error.message for absent in made.absent]
    return made


@pytest.mark.slow
def test_files_are_a_fraction_and_answers_stay(tmp_path: Path) -> None:
    names = (
        "ort-int8-weights",
        "ort-int4-weights",
        "openvino-int8-weights",
        "openvino-int4-weights",
        "tflite-int4-weights",
    )
    made = build(tmp_path, make_reader(tmp_path / "model.onnx"), "ort-fp32", *names)
    sizes = {name: artifact.manifest.size_bytes for name, artifact in made.artifacts.items()}
    for name in names:
        proof = made.artifacts[name].manifest.proof
        assert proof is not None
        assert proof.fidelity.agreement is not None
        assert proof.fidelity.agreement >= 0.9
        # The table, three quarters of the weights, has 8 bits in all of them.
        assert sizes[name] < 0.36 * sizes["ort-fp32"], (name, sizes)
    assert sizes["ort-int4-weights"] < sizes["ort-int8-weights"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "contract", "lookup"),
    [("ort-int4-weights", "contract", "lookup"), ("tflite-int4-weights", "contract_product", "words")],
)
def test_a_matrix_that_four_bits_ruin_has_eight(target: str, contract: str, lookup: str, tmp_path: Path) -> None:
    """The outlier takes the range of its block: all others in it round to nothing in 4 bits, and to enough in 8."""
    made = build(tmp_path, make_reader(tmp_path / "model.onnx", outlier=8.0), target)
    manifest = made.artifacts[target].manifest
    kept = [entry["layer"] for entry in manifest.recipe["search"]["float_layers"]]
    assert contract in kept
    assert lookup not in kept
    assert any("in 8 bits" in note for note in manifest.notes), manifest.notes
    assert manifest.proof is not None
    assert manifest.proof.fidelity.agreement is not None
    assert manifest.proof.fidelity.agreement >= 0.95


@pytest.mark.slow
def test_a_model_without_large_weights_is_taken_as_it_is(tmp_path: Path) -> None:
    """What cannot be compressed is refused by both runtimes, and their float targets take it, as the hint says."""
    graph = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["y"], "wave")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.random.default_rng(0).normal(0, 1, (64, 8)).astype(np.float32))
    names = ["ort-fp32", "openvino-fp32", "openvino-int8-weights", "ort-int4-weights"]
    made = build_targets(path, samples=samples, out=tmp_path / "out", targets=names)
    errors: dict[str, ModelwrightError] = {absent.target: absent.error for absent in made.absent}
    assert isinstance(errors["openvino-int8-weights"], BuildFailedError)
    assert "no weights of a matrix" in errors["openvino-int8-weights"].message
    assert "has nothing to quantize: the model has no MatMul" in errors["ort-int4-weights"].message
    assert str(errors["openvino-int8-weights"].hint).startswith("openvino-fp32")
    assert str(errors["ort-int4-weights"].hint).startswith("ort-fp32")
    assert set(made.artifacts) == {"ort-fp32", "openvino-fp32"}
