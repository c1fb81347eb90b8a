"""PyTorch programs lowered, loaded and run on the CPU: numbers against the modules that they were captured from."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn  # noqa: E402

from modelwright.core.errors import BuildFailedError, MeasurementInvalidError, ToolchainMissingError  # noqa: E402
from modelwright.core.records.machine import Machine  # noqa: E402
from modelwright.core.records.signature import Signature, TensorSpec  # noqa: E402
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings  # noqa: E402
from modelwright.targets.pytorch import target as pytorch  # noqa: E402
from modelwright.targets.pytorch.program import move_program  # noqa: E402

MACHINE = Machine(name="box", architecture="x86_64", instruction_sets=frozenset({"avx512_bf16"}), cores=2)
FLOATS = {"fp16": (pytorch.TorchFp16, "float16", 2e-3), "bf16": (pytorch.TorchBf16, "bfloat16", 2e-2)}


class Residual(nn.Module):
    """Convolutions, batch norms, additions in place: what a ResNet is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(16)])
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(16, 5)
        for norm in self.norms:
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 1.5)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.norms[0](self.stem(x)))
        y = self.norms[1](self.body(x))
        y += x
        return self.head(self.relu(y).mean((2, 3)))


class Encoder(nn.Module):
    """Attention with an additive mask and a pooling that divides by a count: what FP16 breaks if cast blindly."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 32), nn.Embedding(12, 32)
        self.norm, self.mix, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 4)

    def forward(self, ids: Any, mask: Any) -> Any:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        q, k, v = self.mix(self.norm(x)).chunk(3, dim=-1)
        scores = q @ k.transpose(-1, -2) / 32**0.5
        scores = scores + (1.0 - mask[:, None, :].to(torch.float32)) * torch.finfo(torch.float32).min
        weights = mask[..., None].float()
        x = x + scores.softmax(-1) @ v
        pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return self.out(nn.functional.normalize(pooled))


class Fused(nn.Module):
    """The same attention in one operator, with a float mask."""

    def forward(self, x: Any, mask: Any) -> Any:
        bias = (1.0 - mask[:, None, :]) * torch.finfo(torch.float32).min
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=bias)


class Recurrent(nn.Module):
    """An LSTM of two layers and directions; its initial state is made in the graph, as float32 zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 16, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(x)[0][:, -1])


class Writer(nn.Module):
    """Writes through a view: the written part must be seen in the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        y = self.first(x)
        part = y[:, :4]
        part += 10.0
        return self.second(y)


class Tied(nn.Module):
    """One weight for embedding and projection: it stays in float32, for the embedding reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Any) -> Any:
        return self.head(self.words(ids))


class Structured(nn.Module):
    """Nested inputs, a constant among them, and outputs in a dict, one of them an input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, parts: Any, *, scale: float = 2.0) -> Any:
        return {"same": parts[1], "twice": self.linear(parts[0]) * scale}


class Placed(nn.Module):
    """Names a device in every way that a graph has: by position, by keyword, and by a constant that lies there."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.offsets = nn.Linear(8, 8), torch.arange(8.0)

    def forward(self, x: Any) -> Any:
        y = self.linear(x.to("cpu", torch.float32) + self.offsets) + torch.ones(8, device=x.device)
        return y + torch.tensor([2.0]) * torch.zeros_like(y, device="cpu")


class Adder(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.sum(-1) + 1.0


@dataclass(frozen=True, kw_only=True)
class Case:
    module: nn.Module
    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...] = ("y",)
    call: Callable[[dict[str, Any]], Any] | None = None


def make_case(name: str) -> Case:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    mask = (np.arange(12) < np.array([[3], [12], [1], [7]])).astype(np.int64)
    cases: dict[str, Callable[[], Case]] = {
        "residual": lambda: Case(module=Residual(), inputs={"x": floats(4, 3, 16, 16)}),
        "encoder": lambda: Case(
            module=Encoder(), inputs={"ids": rng.integers(0, 50, (4, 12)), "mask": mask * [[1], [1], [1], [0]]}
        ),
        "fused": lambda: Case(module=Fused(), inputs={"x": floats(4, 12, 8), "mask": mask.astype(np.float32)}),
        "recurrent": lambda: Case(module=Recurrent(), inputs={"x": floats(4, 9, 6)}),
        "writer": lambda: Case(module=Writer(), inputs={"x": floats(4, 8)}),
        "tied": lambda: Case(module=Tied(), inputs={"ids": rng.integers(0, 20, (4, 5))}),
        "structured": lambda: Case(
            module=Structured(),
            inputs={"parts_0": floats(4, 4), "parts_1": floats(4, 2)},
            outputs=("same", "twice"),
            call=lambda feeds: ((), {"parts": [feeds["parts_0"], feeds["parts_1"]], "scale": 2.0}),
        ),
        "placed": lambda: Case(module=Placed(), inputs={"x": floats(4, 8)}),
        "adder": lambda: Case(module=Adder(), inputs={"x": floats(4, 8)}),
    }
    return cases[name]()


@dataclass(frozen=True, kw_only=True)
class Saved:
    case: Case
    path: Path
    signature: Signature

    def expect(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
        args, kwargs = self.case.call(tensors) if self.case.call else (tuple(tensors.values()), {})
        with torch.no_grad():
            outputs = torch.utils._pytree.tree_leaves(self.case.module(*args, **kwargs))
        return {name: value.numpy().copy() for name, value in zip(self.case.outputs, outputs, strict=True)}


def save(name: str, folder: Path) -> Saved:
    """Saves a program as the exporter does."""
    case = make_case(name)
    case.module.eval().requires_grad_(False)
    tensors = {key: torch.from_numpy(value) for key, value in case.inputs.items()}
    args, kwargs = case.call(tensors) if case.call else (tuple(tensors.values()), {})
    batch = torch.export.Dim("batch", min=1)
    tree = torch.utils._pytree
    shapes = tree.tree_map(lambda value: {0: batch} if isinstance(value, torch.Tensor) else None, (args, kwargs))
    with warnings.catch_warnings(action="ignore"):  # such as torch's own LSTM gives while it is captured
        program = torch.export.export(case.module, args, kwargs, dynamic_shapes=shapes[0] or shapes[1], strict=False)
    places = dict(zip(case.inputs, range(len(case.inputs)), strict=True))
    call = {"inputs": places, "outputs": {key: place for place, key in enumerate(case.outputs)}}
    path = folder / f"{name}.program.pt2"
    torch.export.save(program, str(path), extra_files={"modelwright-call.json": json.dumps(call)})
    inputs = tuple(
        TensorSpec(name=key, dtype=str(value.dtype), shape=("batch", *value.shape[1:]))
        for key, value in case.inputs.items()
    )
    outputs = tuple(TensorSpec(name=key, dtype="float32", shape=None) for key in case.outputs)
    return Saved(case=case, path=path, signature=Signature(inputs=inputs, outputs=outputs))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    folder = tmp_path_factory.mktemp("programs")
    made: dict[str, Saved] = {}

    def find(name: str) -> Saved:
        if name not in made:
            made[name] = save(name, folder)
        return made[name]

    return find


def build(target: Any, saved: Saved, folder: Path) -> BuildResult:
    folder.mkdir(exist_ok=True)
    request = BuildRequest(
        model_path=folder / "unused.onnx", signature=saved.signature, directory=folder, machine=MACHINE,
        calibration=None, tuning=None, reference=None, scratch=folder, shared=folder, progress=lambda _: None,
        program_path=saved.path,
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):
        return target().build(request)


def load(target: Any, saved: Saved, folder: Path, built: BuildResult, **settings: Any) -> Any:
    return target().load(folder, built.model_file, built.recipe, saved.signature, RunSettings(**settings))


def pick(inputs: dict[str, np.ndarray], rows: list[int]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value[rows]) for name, value in inputs.items()}


@pytest.mark.parametrize("name", ["residual", "encoder", "fused", "recurrent", "writer", "structured"])
def test_fp32_gives_the_modules_numbers_at_every_batch(
    programs: Callable[[str], Saved], tmp_path: Path, name: str
) -> None:
    saved = programs(name)
    built = build(pytorch.TorchFp32, saved, tmp_path / "a")
    with load(pytorch.TorchFp32, saved, tmp_path / "a", built) as session:
        for rows in ([0], [3, 1, 2], [2, 2, 1, 0]):
            feeds = pick(saved.case.inputs, rows)
            outputs, expected = session.run(feeds), saved.expect(feeds)
            assert list(outputs) == list(expected)
            for key, value in expected.items():
                np.testing.assert_allclose(outputs[key], value, rtol=1e-5, atol=1e-5)
    assert built.recipe["method"] == "as captured"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["residual", "encoder", "fused", "recurrent", "writer"])
def test_low_precision_computes_in_it_and_follows_fp32(
    programs: Callable[[str], Saved], tmp_path: Path, name: str, precision: str
) -> None:
    saved, (target, dtype, tolerance) = programs(name), FLOATS[precision]
    built = build(target, saved, tmp_path / "a")
    assert set(built.recipe["compute_operators"]) == {dtype}
    with load(target, saved, tmp_path / "a", built) as session:
        for rows in ([1], [0, 1, 2, 3]):
            feeds = pick(saved.case.inputs, rows)
            (output,), (expected,) = session.run(feeds).values(), saved.expect(feeds).values()
            assert output.dtype == np.float32
            np.testing.assert_allclose(output, expected, atol=tolerance * np.abs(expected).max())
        executed = session.describe_execution()
    assert executed["precision"] == precision
    assert set(executed["compute_operators"]) == {dtype}
    if name == "recurrent":
        assert set(executed["weight_bytes"]) == {dtype}, "the artifact is as small as its precision says"


def test_a_sample_of_nothing_but_padding_stays_finite(programs: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = programs("fused")
    built = build(pytorch.TorchFp16, saved, tmp_path / "a")
    feeds = pick(saved.case.inputs, [0]) | {"mask": np.zeros((1, 12), np.float32)}
    with load(pytorch.TorchFp16, saved, tmp_path / "a", built) as session:
        assert np.isfinite(session.run(feeds)["y"]).all()


def test_a_tied_weight_stays_as_its_other_reader_needs_it(programs: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = programs("tied")
    built = build(pytorch.TorchFp16, saved, tmp_path / "a")
    assert built.recipe["weight_bytes"] == {"float32": 20 * 8 * 4}
    assert built.recipe["compute_operators"] == {"float16": 1}
    with load(pytorch.TorchFp16, saved, tmp_path / "a", built) as session:
        (output,) = session.run(saved.case.inputs).values()
    (expected,) = saved.expect(saved.case.inputs).values()
    np.testing.assert_allclose(output, expected, atol=2e-3 * np.abs(expected).max())


def test_nothing_to_compute_in_the_precision_is_an_error(programs: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = programs("adder")
    with pytest.raises(BuildFailedError, match=r"torch-bf16 was asked for, but the model has no operator") as caught:
        build(pytorch.TorchBf16, saved, tmp_path / "a")
    assert caught.value.hint == "use torch-fp32"
    assert not (tmp_path / "a" / pytorch.MODEL_FILE).exists()
    assert build(pytorch.TorchFp32, saved, tmp_path / "a").recipe["compute_operators"] == {}


def test_outputs_are_the_callers_own(programs: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = programs("structured")
    built = build(pytorch.TorchFp32, saved, tmp_path / "a")
    feeds = {name: value.copy() for name, value in saved.case.inputs.items()}
    for value in feeds.values():
        value.setflags(write=False)
    with load(pytorch.TorchFp32, saved, tmp_path / "a", built) as session:
        outputs = session.run(feeds)
        outputs["same"][:] = 7.0
        np.testing.assert_array_equal(session.run(feeds)["same"], saved.case.inputs["parts_1"])


def test_the_saved_program_holds_neither_inputs_nor_paths(programs: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = programs("residual")
    build(pytorch.TorchFp16, saved, tmp_path / "a")
    again = tmp_path / "b"
    build(pytorch.TorchFp16, saved, again)
    content = (tmp_path / "a" / pytorch.MODEL_FILE).read_bytes()
    assert content == (again / pytorch.MODEL_FILE).read_bytes()
    assert str(Path(__file__).parent).encode() not in content
    assert torch.export.load(again / pytorch.MODEL_FILE).example_inputs is None


@pytest.mark.parametrize("name", ["encoder", "recurrent", "placed"])
def test_a_moved_program_leaves_nothing_on_the_cpu(programs: Callable[[str], Saved], tmp_path: Path, name: str) -> None:
    """On torch's device without memory, which refuses tensors of another device as a GPU does."""
    saved = programs(name)
    built = build(pytorch.TorchFp16, saved, tmp_path)
    tensors = [torch.from_numpy(saved.case.inputs[spec.name]).to("meta") for spec in saved.signature.inputs]
    program = torch.export.load(str(tmp_path / built.model_file))
    with pytest.raises(RuntimeError):
        program.module(check_guards=False)(*tensors)
    moved = move_program(torch, program, "meta")
    outputs = moved.module(check_guards=False)(*tensors)
    assert [output.device.type for output in outputs] == ["meta"] * len(saved.case.outputs)
    for node in moved.graph.nodes:
        leaves = torch.utils._pytree.tree_leaves((node.args, node.kwargs))
        assert "cpu" not in [str(leaf) for leaf in leaves], node


def test_settings_in_force_are_read_back(programs: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = programs("writer")
    built = build(pytorch.TorchFp32, saved, tmp_path / "a")
    with load(pytorch.TorchFp32, saved, tmp_path / "a", built, threads=2) as session:
        assert session.describe_execution()["precision"] is None, "nothing has run"
        call = session.bind(saved.case.inputs)
        call()
        executed = session.describe_execution()
        assert session.bind_computation(saved.case.inputs) is None
    assert (executed["precision"], executed["threads"], executed["device"]) == ("fp32", 2, "cpu")
    assert executed["compute_operators"] == {"float32": 2}
    assert executed["execution"] == "eager"
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.is_inference_mode_enabled(), "the mode ends with the session"


def test_damaged_program_and_absent_cuda_are_explained(programs: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = programs("writer")
    built = build(pytorch.TorchFp32, saved, tmp_path / "a")
    if torch.version.cuda is None:
        with (
            pytest.raises(ToolchainMissingError, match="was built without CUDA"),
            load(pytorch.TorchFp32, saved, tmp_path / "a", built, device="cuda"),
        ):
            pass
    path = tmp_path / "a" / pytorch.MODEL_FILE
    path.write_bytes(path.read_bytes()[:500])
    with (
        pytest.raises(MeasurementInvalidError, match=r"cannot load program\.pt2: it is damaged"),
        load(pytorch.TorchFp32, saved, tmp_path / "a", built),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("target", [pytorch.TorchCompileFp32, pytorch.TorchCompileBf16])
def test_compiled_program_runs_at_every_batch_and_tells_of_its_compilation(
    programs: Callable[[str], Saved], tmp_path: Path, target: Any
) -> None:
    readiness = pytorch.check_compiler()
    if not readiness.ok:
        pytest.skip(str(readiness.reason))
    # A Python function that runs while the program is compiled, as an audit hook does, is no program.
    sys.addaudithook(lambda event, arguments: None)
    saved = programs("writer")
    built = build(target, saved, tmp_path / "a")
    tolerance = 1e-5 if target is pytorch.TorchCompileFp32 else 2e-2
    with load(target, saved, tmp_path / "a", built) as session:
        for rows in ([0], [0, 1, 2, 3], [2, 3]):
            feeds = pick(saved.case.inputs, rows)
            (output,), (expected,) = session.run(feeds).values(), saved.expect(feeds).values()
            np.testing.assert_allclose(output, expected, atol=tolerance * np.abs(expected).max())
        executed = session.describe_execution()
    assert executed["execution"] == "torch.compile"
    # One graph for the batch of 1, compiled at load, and one for all others.
    compiler = executed["compiler"]
    assert (compiler["graphs"], compiler["graph_breaks"], compiler["recompilations"]) == (2, 0, 1)
