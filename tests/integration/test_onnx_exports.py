"""Exports of foreign ONNX files: passed through as they are, or refused for what is wrong with them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.records.exported import load_exported
from modelwright.exporters import export
from modelwright.exporters.exporting import find_or_export


def test_onnx_is_passed_through_unchanged(tmp_path: Path) -> None:
    source = models.make_cnn(tmp_path / "cnn.onnx")
    exported = export(source, tmp_path / "out" / "m.onnx")
    assert exported.model_path.read_bytes() == source.read_bytes()
    assert exported.signature.inputs[0].describe() == "x float32 [batch, 3, 12, 12]"
    assert exported.comparison is None
    assert exported.comparison_reason
    assert find_or_export(source, tmp_path / "out" / "m.onnx").reused
    with pytest.raises(BadInputError, match="exists"):
        export(models.make_cnn(tmp_path / "cnn2.onnx"), tmp_path / "out" / "m.onnx")
    export(source, tmp_path / "out" / "m.onnx", overwrite=True)
    before = source.read_bytes()
    in_place = export(source, source)
    assert (source.read_bytes(), in_place.sha256) == (before, exported.sha256)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cnn.export.json", "cnn.onnx", "cnn2.onnx", "out"]


def save_external(folder: Path, location: str = "weights.bin") -> Path:
    folder.mkdir()
    model = onnx.load(models.make_cnn(folder / "m.onnx"))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    if location != "weights.bin":
        graph = onnx.load(folder / "m.onnx", load_external_data=False)
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "m.onnx").write_bytes(graph.SerializeToString())
    return folder / "m.onnx"


def test_external_data_stay_external(tmp_path: Path) -> None:
    source = save_external(tmp_path / "in")
    exported = export(source, tmp_path / "out" / "net.onnx")
    assert set(exported.files) == {"net.onnx", "weights.bin"}
    onnx.load(exported.model_path)  # refuses data files with several hard links
    with ReferenceModel(exported.model_path) as model:
        assert model.run({"x": np.ones((2, 3, 12, 12), np.float32)})["y"].shape == (2, 5)
    moved = export(source, tmp_path / "elsewhere" / "other.onnx")
    assert moved.sha256 == exported.sha256
    # Replaced by a model without data files: the old ones go.
    export(models.make_cnn(tmp_path / "c.onnx"), exported.model_path, overwrite=True)
    names = ["net.export.json", "net.made-from.json", "net.onnx"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    (tmp_path / "elsewhere" / "weights.bin").write_bytes(b"changed")
    with pytest.raises(BadInputError, match="was changed"):
        load_exported(moved.model_path)


def test_hostile_external_data(tmp_path: Path) -> None:
    for number, location in enumerate(("../secret.bin", "/etc/passwd", "a/../../x", "")):
        with pytest.raises(BadInputError, match="outside the model's folder"):
            export(save_external(tmp_path / str(number), location), tmp_path / "o.onnx")
    missing = save_external(tmp_path / "missing")
    (missing.parent / "weights.bin").unlink()
    with pytest.raises(BadInputError, match=r"weights\.bin, which is missing"):
        export(missing, tmp_path / "o.onnx")
    short = save_external(tmp_path / "short")
    os.truncate(short.parent / "weights.bin", 100)
    with pytest.raises(BadInputError, match="cut off"):
        export(short, tmp_path / "o.onnx")
    linked = save_external(tmp_path / "linked")
    (linked.parent / "weights.bin").rename(tmp_path / "away.bin")
    (linked.parent / "weights.bin").symlink_to("../away.bin")
    with pytest.raises(BadInputError, match="link that leaves"):
        export(linked, tmp_path / "o.onnx")
    assert not (tmp_path / "o.onnx").exists()


def test_truncated_models_are_refused_at_every_length(tmp_path: Path) -> None:
    whole = models.make_cnn(tmp_path / "m.onnx").read_bytes()
    for length in (2, 40, len(whole) // 2, len(whole) - 1):
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[:length])
        with pytest.raises(BadInputError):
            export(path, tmp_path / "o.onnx")
        assert not (tmp_path / "o.onnx").exists()


def test_newer_opset_unknown_operator_and_bad_graph(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="opset 99"):
        export(models.make_cnn(tmp_path / "new.onnx", opset=99), tmp_path / "o.onnx")
    with pytest.raises(BadInputError, match=r"com\.example:Sorcery") as caught:
        export(models.make_foreign_operator(tmp_path / "foreign.onnx"), tmp_path / "o.onnx")
    assert "custom operators" in (caught.value.hint or "")
    nodes = [helper.make_node("Relu", ["absent"], ["y"], name="broken")]
    x, y = ("x", TensorProto.FLOAT, ["batch", 4]), ("y", TensorProto.FLOAT, ["batch", 4])
    with pytest.raises(BadInputError, match="cannot load it"):
        export(models.save(tmp_path / "bad.onnx", nodes, [x], [y], {}), tmp_path / "o.onnx")


def test_old_model_with_weights_among_the_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="head")]
    inputs = [("x", TensorProto.FLOAT, [None, 4]), ("w", TensorProto.FLOAT, [4, 3]), ("b", TensorProto.FLOAT, [3])]
    constants = {"w": np.ones((4, 3), np.float32), "b": np.zeros(3, np.float32)}
    outputs = [("y", TensorProto.FLOAT, [None, 3])]
    source = models.save(tmp_path / "old.onnx", nodes, inputs, outputs, constants, opset=8, ir_version=3)
    exported = export(source, tmp_path / "m.onnx")
    assert [spec.describe() for spec in exported.signature.inputs] == ["x float32 [batch, 4]"]
    assert [spec.describe() for spec in exported.signature.outputs] == ["y float32 [batch, 3]"]
    assert (exported.num_parameters, exported.opset) == (15, 8)
    assert not exported.notes
    newer = models.save(tmp_path / "newer.onnx", nodes, inputs, outputs, constants, opset=17, ir_version=8)
    bytes_before = newer.read_bytes()
    (note,) = export(newer, tmp_path / "n.onnx").notes
    assert "2 weights listed as inputs too (w, b)" in note
    assert [value.name for value in onnx.load(tmp_path / "n.onnx").graph.input] == ["x"]
    # In its place a model is the user's, and stays so.
    (note,) = export(newer, newer).notes
    assert "2 weights are inputs too" in note
    assert newer.read_bytes() == bytes_before


def test_what_the_newest_onnx_saves_is_lowered_and_the_source_stays_its_own(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=1)],
        "g",
        [value],
        [helper.make_tensor_value_info("y", 1, ["batch", 4])],
    )
    source = tmp_path / "newest.onnx"
    onnx.save(helper.make_model(graph), source)  # with the versions of the onnx that is installed
    exported = export(source, tmp_path / "m.onnx")
    assert exported.source.files == {"newest.onnx": hashlib.sha256(source.read_bytes()).hexdigest()}
    with ReferenceModel(exported.model_path) as model:
        assert list(model.run({"x": np.ones((2, 4), np.float32)})) == ["y"]


def test_sloppy_but_sound_model_passes_with_a_note(tmp_path: Path) -> None:
    source = models.make_cnn(tmp_path / "m.onnx")
    model = onnx.load(source)
    model.graph.node[0].attribute.append(helper.make_attribute("unheard_of", 1))
    model.graph.name = ""
    source.write_bytes(model.SerializeToString())
    try:
        exported = export(source, tmp_path / "o.onnx")
    except BadInputError as error:
        assert "unheard_of" in f"{error.message} {error.detail}"  # noqa: PT017 - either way it must be named
    else:
        assert any("checker complains" in note for note in exported.notes)


@pytest.mark.parametrize(
    ("dtype", "shape", "text"),
    [
        (TensorProto.STRING, ["n", 4], "input x is string"),
        (TensorProto.BFLOAT16, ["n", 4], "input x is bfloat16"),
        (TensorProto.FLOAT, None, "not even a rank"),
    ],
)
def test_inputs_that_cannot_be_fed(tmp_path: Path, dtype: int, shape: list | None, text: str) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    source = models.save(tmp_path / "m.onnx", nodes, [("x", dtype, shape)], [("y", dtype, shape)], {})
    with pytest.raises(BadInputError, match=text):
        export(source, tmp_path / "o.onnx")


def test_sequence_output_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("SequenceConstruct", ["x"], ["s"])
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(BadInputError, match="output s is sequence"):
        export(tmp_path / "m.onnx", tmp_path / "o.onnx")
