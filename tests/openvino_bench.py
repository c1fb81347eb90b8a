"""A model for OpenVINO with FP32's own answers and samples, and what is built from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import models
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from modelwright.core.outputs.tasks.roles import OutputRole, Role
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings, Target

PLAIN = Machine(name="plain", architecture="x86_64", instruction_sets=frozenset({"avx2"}), cores=2)
VNNI = Machine(name="vnni", architecture="x86_64", instruction_sets=frozenset({"avx512_vnni"}), cores=2)
DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64", "tensor(bool)": "bool"}


@dataclass
class Workplace:
    """A model, FP32's own answers, and samples in their parts."""

    folder: Path
    model: Path
    machine: Machine = VNNI

    def __post_init__(self) -> None:
        self.fp32 = onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"])
        specs = [
            tuple(TensorSpec(name=port.name, dtype=DTYPES[port.type], shape=tuple(port.shape)) for port in ports)
            for ports in (self.fp32.get_inputs(), self.fp32.get_outputs())
        ]
        self.signature = Signature(inputs=specs[0], outputs=specs[1])
        self.samples = self.folder / "samples.npz"

    def answer(self, feeds) -> dict[str, np.ndarray]:
        return dict(zip([port.name for port in self.signature.outputs], self.fp32.run(None, dict(feeds)), strict=True))

    def feeds(self, part="evaluation"):
        return list(open_samples(SampleRef(path=self.samples, part=part), self.signature).feeds())

    def build(self, target: Target, *, samples: bool = False, role: Role | None = None) -> BuildResult:
        """Builds; `role` is the meaning of all outputs, where the samples are not to say it."""

        def open_part(part):
            return open_samples(SampleRef(path=self.samples, part=part), self.signature) if samples else None

        self.lines: list[str] = []
        return target.build(
            BuildRequest(
                model_path=self.model,
                signature=self.signature,
                directory=self.folder,
                machine=self.machine,
                calibration=open_part("calibration"),
                tuning=open_part("tuning"),
                roles={
                    port.name: OutputRole(name=port.name, role=role, why="a test", axis=1)
                    for port in self.signature.outputs
                    if role is not None
                },
                reference=[self.answer(feeds) for feeds in self.feeds("tuning")] if samples else None,
                scratch=self.folder,
                shared=self.folder,
                progress=self.lines.append,
            )
        )

    def load(self, target: Target, result: BuildResult):
        return target.load(self.folder, result.model_file, result.recipe, self.signature, RunSettings(threads=1))


def make_outlier_cnn(path: Path) -> Path:
    """Six convolutions; one channel between the fourth and the fifth is 600 times as large as the others.

    The function is the one of a tame network, as the fifth divides that channel by 600 again; but 8 bits for all
    channels of the fifth's input leave nothing of the others.
    """
    rng = np.random.default_rng(0)
    constants, nodes, last = {}, [], "x"
    for index, channels in enumerate([1, 8, 8, 8, 8, 8]):
        weight = rng.standard_normal((8, channels, 3, 3)) / np.sqrt(channels * 9)
        if index == 3:
            weight[0] *= 600
        if index == 4:
            weight[:, 0] /= 600
        constants[f"w{index}"] = weight.astype(np.float32)
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], name=f"conv{index}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
        last = f"r{index}"
    constants["head"] = rng.standard_normal((8, 10)).astype(np.float32)
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["y"], name="head"))
    inputs = [("x", TensorProto.FLOAT, ["batch", 1, 16, 16])]
    return models.save(path, nodes, inputs, [("y", TensorProto.FLOAT, ["batch", 10])], constants)
