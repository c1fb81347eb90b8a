"""Files of models, with and without weights beside them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import make_model, random_array
from onnx import helper, numpy_helper

from modelwright.core.errors import BadInputError
from modelwright.targets.graphs import files
from modelwright.targets.graphs.files import find_external_files, load_model, save_model


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
