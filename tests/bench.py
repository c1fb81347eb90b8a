"""A bench for tests of refusals: a folder with a small model and samples, and builds from them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.records.machine import Machine
from modelwright.core.records.shapes import ShapeRange
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.exporters import export
from modelwright.harness.building import Built, build_targets
from modelwright.targets.contract import BuildRequest

RNG = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT
MACHINE = Machine(name="vnni", architecture="x86_64", instruction_sets=frozenset({"avx512_vnni"}), cores=2)


class Bench:
    """A folder with a model and samples, and builds from them."""

    def __init__(self, folder: Path, *, count: int = 24, **shapes: tuple[int, ...]) -> None:
        self.folder, self.out, self.model = folder, folder / "out", folder / "model.onnx"
        self.samples = models.make_samples(folder / "samples.npz", count=count, labelled=False, **shapes)

    def save(self, nodes: list[Any], constants: dict[str, Any], width: int = 8, **changes: Any) -> None:
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", FLOAT, ["batch", width])],
            [helper.make_tensor_value_info("y", FLOAT, ["batch", *changes.pop("result", [width])])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        opset = changes.pop("opset", 17)
        opsets = [helper.make_opsetid("", opset), *changes.pop("opsets", [])]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), self.model)

    def build(self, target: str, **changes: Any) -> Built:
        built = build_targets(
            changes.pop("source", self.model),
            samples=changes.pop("samples", self.samples),
            out=changes.pop("out", self.out),
            targets=[target],
            **changes,
        )
        assert target in built.artifacts
        return built

    def request(self, *, calibration: bool = False, source: str | Path | None = None) -> BuildRequest:
        """Returns what a target is asked to build, from the model of the bench unless another source is given."""
        exported = export(source or self.model, self.folder / "exported" / "model.onnx", overwrite=True)
        part = open_samples(SampleRef(path=self.samples, part="calibration"), exported.signature)
        for name in ("built", "scratch"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        return BuildRequest(
            model_path=exported.model_path,
            program_path=exported.program_path,
            signature=exported.signature,
            directory=self.folder / "built",
            machine=MACHINE,
            calibration=part if calibration else None,
            tuning=None,
            reference=None,
            scratch=self.folder / "scratch",
            shared=self.folder,
            progress=lambda _line: None,
            shapes={
                spec.name: ShapeRange(minimum=(1, 8), optimum=(1, 8), maximum=(1, 8))
                for spec in exported.signature.inputs
            },
        )


def make_weight(*shape: int) -> Any:
    return (RNG.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


MATMUL = [helper.make_node("MatMul", ["x", "w"], ["y"], "layer")]
"""One layer from x to y."""
