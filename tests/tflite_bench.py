"""Small models for TFLite, and a bench that builds them and compares with ONNX Runtime by value."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings, Session
from modelwright.targets.tflite.environment import ensure_environment
from modelwright.targets.tflite.target import TfliteFp16, TfliteFp32, TfliteInt8, TfliteInt8Dynamic

REQUIRED = os.environ.get("CI") == "true"
MACHINE = Machine(name="host", architecture="x86_64", instruction_sets=frozenset(), cores=2)
TARGETS = {"fp32": TfliteFp32(), "fp16": TfliteFp16(), "int8": TfliteInt8(), "int8-dynamic": TfliteInt8Dynamic()}
LOSSES = {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.25, "int8-dynamic": 0.25}
"""Largest rms of one inference's error over the rms of the output. A wrong layout, row or factor makes it 0.5 to 2; the
INT8 recipes take the fastest candidate with a mean cosine of 0.99, which is a mean error of 0.14."""
FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64
COUNT = 64
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def toolchain() -> None:
    try:
        ensure_environment(lambda line: None)
        import ai_edge_litert  # noqa: F401
        import onnxruntime  # noqa: F401
    except (ToolchainMissingError, ModuleNotFoundError) as error:
        if REQUIRED:
            pytest.fail(f"CI must have what TFLite needs: {error}")
        pytest.skip(str(error))


def weights(*shape: int) -> Any:
    fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return (RNG.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), outputs.split(), f"{op_type}_{outputs.split()[0]}", **attributes)


Tensors = dict[str, tuple[int, Sequence[int | str]]]


class Bench:
    """A model, samples for it, and ONNX Runtime's answers to them."""

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[onnx.NodeProto],
        inputs: Tensors,
        outputs: Tensors,
        constants: dict[str, Any],
        opset: int = 17,
        *,
        sizes: Sequence[int] = (),
    ) -> None:
        import onnxruntime

        self.folder = folder
        self.results: dict[str, BuildResult] = {}
        ends = [
            [helper.make_tensor_value_info(name, *kind) for name, kind in part.items()] for part in (inputs, outputs)
        ]
        graph = helper.make_graph(
            nodes, "g", *ends, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.save(model, folder / "model.onnx")
        self.signature = Signature(inputs=_specs(inputs), outputs=_specs(outputs))
        arrays = {}
        for name, (dtype, shape) in inputs.items():
            open_sizes = iter(sizes)
            known = [next(open_sizes) if axis and isinstance(size, str) else size for axis, size in enumerate(shape)]
            size = (COUNT, *known[1:]) if isinstance(shape[0], str) else (COUNT, *known)
            values = RNG.integers(0, 10, size) if dtype == INT64 else RNG.uniform(-1, 1, size).astype(np.float32)
            arrays[name] = values
        np.savez(folder / "samples.npz", **arrays)
        self.source = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        answers = [self.answer(feeds) for feeds in self.samples("evaluation").feeds()]
        self.scales = {name: rms(np.stack([answer[name] for answer in answers])) for name in outputs}

    def samples(self, part: Any) -> SampleSet:
        return open_samples(SampleRef(path=self.folder / "samples.npz", part=part), self.signature)

    def answer(self, feeds: Any) -> dict[str, Any]:
        names = [spec.name for spec in self.signature.outputs]
        return dict(zip(names, self.source.run(names, dict(feeds)), strict=True))

    def build(self, precision: str) -> BuildResult:
        """Builds a precision once; later calls return the same result."""
        if precision in self.results:
            return self.results[precision]
        for name in ("out", "scratch", "shared"):
            (self.folder / name).mkdir(exist_ok=True)
        tuning = self.samples("tuning")
        for name in ("out", "scratch"):
            (self.folder / name / precision).mkdir(exist_ok=True)
        request = BuildRequest(
            model_path=self.folder / "model.onnx",
            signature=self.signature,
            directory=self.folder / "out" / precision,
            machine=MACHINE,
            calibration=self.samples("calibration"),
            tuning=tuning,
            reference=[self.answer(feeds) for feeds in tuning.feeds()],
            scratch=self.folder / "scratch" / precision,
            shared=self.folder / "shared",
            progress=lambda line: None,
        )
        self.results[precision] = TARGETS[precision].build(request)
        return self.results[precision]

    @contextmanager
    def load(self, precision: str, result: BuildResult) -> Iterator[Session]:
        folder = self.folder / "out" / precision
        with TARGETS[precision].load(
            folder, result.model_file, result.recipe, self.signature, RunSettings()
        ) as session:
            yield session

    def prove(self, session: Session, loss: float, feeds: Any) -> None:
        """Compares every output of one inference with ONNX Runtime's: dtype, shape and values."""
        expected, actual = self.answer(feeds), session.run(feeds)
        assert list(actual) == list(expected)
        for name, value in expected.items():
            assert (actual[name].dtype, actual[name].shape) == (value.dtype, value.shape), name
            if value.dtype.kind == "i":
                np.testing.assert_array_equal(actual[name], value)
            else:
                assert rms(actual[name] - value) <= loss * self.scales[name], name

    def prove_all(self, session: Session, loss: float) -> None:
        feeds = list(self.samples("evaluation").feeds(8))
        for one in feeds:
            self.prove(session, loss, one)
        before = session.run(feeds[0])
        for name, value in session.run(feeds[0]).items():
            np.testing.assert_array_equal(value, before[name], err_msg="it kept something between two runs")

    def prove_batch(self, session: Session, loss: float) -> None:
        samples = self.samples("evaluation")
        for batch in (4, 2, 1):
            self.prove(session, loss, samples.batch(range(batch)))


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _specs(tensors: Tensors) -> tuple[TensorSpec, ...]:
    dtypes = {FLOAT: "float32", INT64: "int64"}
    return tuple(
        TensorSpec(name=name, dtype=dtypes[dtype], shape=tuple(shape)) for name, (dtype, shape) in tensors.items()
    )
