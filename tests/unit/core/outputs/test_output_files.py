"""Outputs on disk: what was written comes back by sample."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
from onnx import TensorProto, helper

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.output_files import read_reference, write_outputs
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples

pytest.importorskip("onnxruntime")


def write_reference(model: Path, samples: SampleSet, folder: Path) -> None:
    with ReferenceModel(model) as reference:
        write_outputs(map(reference.run, samples.feeds()), reference.output_names, folder)


def float_input(name: str, *shape: int | str) -> Signature:
    return Signature(inputs=(TensorSpec(name=name, dtype="float32", shape=shape),), outputs=())


def test_outputs_come_back_by_sample(tmp_path: Path) -> None:
    model = models.make_cnn(tmp_path / "m.onnx")
    path = models.make_samples(tmp_path / "s.npz", count=9, labelled=False, x=(3, 12, 12))
    samples = open_samples(SampleRef(path=path), float_input("x", "batch", 3, 12, 12))
    write_reference(model, samples, tmp_path / "ref")
    outputs = read_reference(tmp_path / "ref")
    assert (len(outputs), len(outputs[2:5])) == (9, 3)
    with ReferenceModel(model) as reference:
        for expected, feeds in zip(outputs, samples.feeds(), strict=True):
            np.testing.assert_array_equal(expected["y"], reference.run(feeds)["y"])
    with pytest.raises(IndexError):
        outputs[9]
    (tmp_path / "ref" / "y.npy").write_bytes(b"damaged")
    with pytest.raises(BadInputError):
        read_reference(tmp_path / "ref")
    with pytest.raises(BadInputError, match="no such file"):
        read_reference(tmp_path / "absent")


def test_outputs_of_varying_shape_and_odd_names(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["where/../it is"]), helper.make_node("Neg", ["x"], ["minus"])]
    model = models.save(
        tmp_path / "m.onnx",
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("where/../it is", TensorProto.INT64, [2, None]), ("minus", TensorProto.FLOAT, ["batch", 4])],
        {},
    )
    rows = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], np.float32)
    np.savez(tmp_path / "s.npz", x=rows)
    samples = open_samples(SampleRef(path=tmp_path / "s.npz"), float_input("x", "batch", 4))
    write_reference(model, samples, tmp_path / "ref")
    outputs = read_reference(tmp_path / "ref")
    assert [item["where/../it is"].shape for item in outputs] == [(2, 1), (2, 1), (2, 3), (2, 0)]
    np.testing.assert_array_equal(outputs[1]["where/../it is"], [[0], [1]])
    np.testing.assert_array_equal(outputs[-1]["minus"], -rows[3:])
