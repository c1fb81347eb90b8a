"""Files of models, with and without weights beside them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import make_model, random_array
from onnx import helper, numpy_helper

from modelwright.core.errors import BadInputError
from modelwright.targets.graphs import files
from modelwright.targets.graphs.files import copy_model, find_external_files, load_model, save_model


def test_large_models_keep_their_weights_apart_and_are_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PROTOBUF_LIMIT_BYTES", 1000)
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 200)})
    before = model.SerializeToString()
    save_model(model, tmp_path / "model.onnx")
    assert model.SerializeToString() == before
    assert find_external_files(tmp_path / "model.onnx") == ["model.onnx.data"]
    loaded = onnx.load(str(tmp_path / "model.onnx"))
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), random_array(4, 200))


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4000))
    (tmp_path / "model").mkdir()
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 200)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "model" / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadInputError, match=r"\.\./secret"):
        find_external_files(tmp_path / "model" / "model.onnx")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(BadInputError, match=r"broken\.onnx"):
        load_model(tmp_path / "broken.onnx")


def spread_weights(path: Path, locations: list[str]) -> Path:
    """Saves a model whose tensors lie in files of their own."""
    weights = {f"w{index}": random_array(4, 4) for index in range(len(locations))}
    nodes = [
        helper.make_node("MatMul", ["x" if not index else f"h{index - 1}", f"w{index}"], [f"h{index}"])
        for index in range(len(locations))
    ]
    nodes.append(helper.make_node("Identity", [f"h{len(locations) - 1}"], ["y"]))
    model = make_model(nodes, weights)
    for tensor, location in zip(model.graph.initializer, locations, strict=True):
        file = path.parent / location
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_do_not_lie_where_an_artifact_has_files_of_its_own(tmp_path: Path) -> None:
    locations = ["reference.npz", "./Artifact.json", "sub/artifact.json", "weights-reference.npz", "plain.bin"]
    path = spread_weights(tmp_path / "model.onnx", locations)
    folder = tmp_path / "artifact"
    folder.mkdir()
    assert copy_model(path, folder, "model.onnx") == "model.onnx"
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert names == {
        "model.onnx", "weights--reference.npz", "weights--Artifact.json", "sub/artifact.json", "weights-reference.npz",
        "plain.bin",
    }  # fmt: skip
    ours, theirs = (onnx.load(str(file)).graph.initializer for file in (folder / "model.onnx", path))
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(our), numpy_helper.to_array(their))


def test_a_folder_of_weights_with_a_name_of_ours_gets_another(tmp_path: Path) -> None:
    path = spread_weights(tmp_path / "model.onnx", ["artifact.json/a", "artifact.json/b"])
    folder = tmp_path / "artifact"
    folder.mkdir()
    copy_model(path, folder, "model.onnx")
    assert sorted(file.name for file in folder.iterdir()) == ["model.onnx", "weights-artifact.json"]
    assert find_external_files(folder / "model.onnx") == ["weights-artifact.json/a", "weights-artifact.json/b"]
