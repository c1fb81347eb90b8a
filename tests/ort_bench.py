"""Small models for recipes, and a bench that builds, runs and profiles them in ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelwright.core.records.machine import Machine
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings, Session, Target
from modelwright.targets.ort import session as ort_session

RNG = np.random.default_rng(0)
# The formats that give right numbers on any CPU: 7-bit weights cannot saturate.
MACHINE = Machine(name="plain", architecture="x86_64", instruction_sets=frozenset({"avx2"}), cores=2)

ARM = Machine(name="arm", architecture="aarch64", instruction_sets=frozenset({"asimd"}), cores=4)


def random_weights(*shape: int) -> Any:
    fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return (RNG.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def make_model(
    nodes: list[Any], constants: dict[str, Any], shape: tuple[Any, ...], result: tuple[Any, ...], opset: int = 17
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, result)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset > 8 else 3)


def rotate(size: int) -> Any:
    """A random rotation: unlike a random matrix it lets no sample's signal shrink under the noise."""
    return np.linalg.qr(RNG.standard_normal((size, size)))[0].astype(np.float32)


def make_cnn(opset: int = 17) -> Any:
    """A residual block with batch norm, Relu6-like clipping left out so that every opset can spell it."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "g", "o", "m", "v"], ["n1"], "norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=16),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "project"),
        helper.make_node("Add", ["c3", "r1"], ["a"], "shortcut"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], "head", transB=1),
    ]
    constants = {
        "w1": random_weights(16, 3, 3, 3),
        "g": np.linspace(0.5, 1.5, 16, dtype=np.float32),
        "o": random_weights(16, 1)[:, 0] * 0.1,
        "m": np.zeros(16, np.float32),
        "v": np.ones(16, np.float32),
        "w2": random_weights(16, 1, 3, 3),
        "w3": random_weights(16, 16, 1, 1),
        "w4": random_weights(16, 10).T.copy(),
        "b4": np.linspace(-1, 1, 10, dtype=np.float32),
    }
    model = make_model(nodes, constants, ("n", 3, 12, 12), ("n", 10), opset)
    if opset < 9:  # files of that age list every initializer among the inputs
        model.graph.input.extend(helper.make_tensor_value_info(k, 1, v.shape) for k, v in constants.items())
    return model


def make_attention() -> Any:
    """One attention layer whose input has a channel sixty times larger than the others."""
    norm = np.ones(32, np.float32)
    norm[5] = 60
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "z"], ["n"], "norm"),
        *(helper.make_node("MatMul", ["n", f"w{name}"], [name], name) for name in ("q", "k", "v")),
        helper.make_node("Transpose", ["k"], ["kt"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["p"], "softmax"),
        helper.make_node("MatMul", ["p", "v"], ["c"], "mix"),
        helper.make_node("MatMul", ["c", "wo"], ["o"], "out"),
        helper.make_node("Add", ["o", "n"], ["y"], "sum"),
    ]
    constants = {f"w{name}": random_weights(32, 32) for name in ("q", "k", "v", "o")}
    for name in ("wq", "wk", "wv"):
        constants[name][5] *= 0.02
    constants["wo"] *= 30
    return make_model(nodes, {**constants, "g": norm, "z": norm * 0}, ("n", 8, 32), ("n", 8, 32))


def make_lstm() -> Any:
    hidden = 24
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["all", "last"], "lstm", hidden_size=hidden),
        helper.make_node("Squeeze", ["last", "first"], ["h"], "squeeze"),
        helper.make_node("Gemm", ["h", "wf"], ["y"], "head"),
    ]
    constants = {
        "w": random_weights(1, 4 * hidden, 8),
        "r": random_weights(1, 4 * hidden, hidden),
        "wf": random_weights(hidden, 5),
        "first": np.array([0]),
    }
    return make_model(nodes, constants, (10, "n", 8), ("n", 5))


def count_operators(profile: OperatorProfile) -> Counter[str]:
    """Operators that ran, by type."""
    return Counter({entry.type: entry.count for entry in profile.types})


def count_computing(profile: OperatorProfile, precision: str) -> int:
    """Operators that multiply in a precision."""
    return sum(entry.count for entry in profile.types if (entry.kind, entry.precision) == ("compute", precision))


class Bench:
    """Builds a model for a target and keeps what is needed to judge it."""

    def __init__(self, folder: Path, model: Any, count: int = 40, *, external: bool = False) -> None:
        self.folder = folder
        self.path = folder / "source.onnx"
        onnx.save(model, str(self.path), save_as_external_data=external, location="weights.bin", size_threshold=0)
        value, result = model.graph.input[0], model.graph.output[0]
        shape = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        sample = tuple(1 if isinstance(d, str) else d for d in shape)
        self.signature = Signature(
            inputs=(TensorSpec(name="x", dtype="float32", shape=shape),),
            outputs=(
                TensorSpec(
                    name="y",
                    dtype="float32",
                    shape=tuple(d.dim_param or d.dim_value for d in result.type.tensor_type.shape.dim),
                ),
            ),
        )
        # Images differ as a whole: after pooling, noise alone leaves next to nothing that INT8 could follow.
        level = 5 * RNG.standard_normal((count, *(1 for _ in sample))) if len(sample) == 4 else 0.0
        values = RNG.standard_normal((count, *sample)) + level
        np.savez(folder / "samples.npz", x=values.astype(np.float32))
        self.calibration, self.tuning = self.samples("calibration"), self.samples("tuning")
        self.lines: list[str] = []

    def samples(self, part: Any) -> SampleSet:
        return open_samples(SampleRef(path=self.folder / "samples.npz", part=part), self.signature)

    def build(self, target: Target, **changes: Any) -> BuildResult:
        out, scratch = self.folder / target.record.name, self.folder / "scratch"
        out.mkdir()
        scratch.mkdir(exist_ok=True)
        return target.build(replace(self.request(out, scratch), **changes))

    def request(self, out: Path, scratch: Path | None = None) -> BuildRequest:
        return BuildRequest(
            model_path=self.path,
            signature=self.signature,
            directory=out,
            machine=MACHINE,
            calibration=self.calibration,
            tuning=self.tuning,
            reference=None,
            scratch=scratch or out,
            progress=self.lines.append,
            shared=self.folder,
        )

    @contextmanager
    def load(self, target: Target, result: BuildResult) -> Iterator[Session]:
        folder = self.folder / target.record.name
        with target.load(folder, result.model_file, result.recipe, self.signature, RunSettings()) as session:
            yield session

    def profile(self, target: Target, result: BuildResult) -> OperatorProfile:
        folder, settings = self.folder / target.record.name, RunSettings(profiled=True)
        with target.load(folder, result.model_file, result.recipe, self.signature, settings) as session:
            profile = session.profile_operators(next(iter(self.samples("evaluation").feeds(1))))
        assert profile is not None
        return profile

    def cosine(self, session: Session) -> float:
        source = ort_session.OrtSession(self.path, self.signature, RunSettings())
        pairs = [(source.run(x)["y"].ravel(), session.run(x)["y"].ravel()) for x in self.samples("evaluation").feeds()]
        return float(np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]))
