"""The ONNX Runtime recipes on small real models: numbers against FP32, and which kernels really run."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.records.machine import Machine
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings, Session, Target
from modelwright.targets.graphs import files
from modelwright.targets.graphs.classify import GraphKind
from modelwright.targets.graphs.files import load_model
from modelwright.targets.graphs.run import open_session, session_options
from modelwright.targets.ort import recipes as ort_recipes
from modelwright.targets.ort import session as ort_session
from modelwright.targets.ort import target as ort
from modelwright.targets.ort.exact import AS_WRITTEN, write_exactly
from modelwright.targets.quantization import onnx_quantizer, prepare
from modelwright.targets.quantization import statistics as smoothing
from modelwright.targets.quantization.formats import choose_scheme

RNG = np.random.default_rng(0)
# The formats that give right numbers on any CPU: 7-bit weights cannot saturate.
MACHINE = Machine(name="plain", architecture="x86_64", instruction_sets=frozenset({"avx2"}), cores=2)

ARM = Machine(name="arm", architecture="aarch64", instruction_sets=frozenset({"asimd"}), cores=4)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Gives every test the same numbers, whichever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


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


@pytest.mark.parametrize("external", [False, True])
def test_fp32_gives_the_same_bits(tmp_path: Path, external: bool) -> None:
    bench = Bench(tmp_path, make_cnn(), external=external)
    result = bench.build(ort.OrtFp32())
    source = ort_session.OrtSession(bench.path, bench.signature, RunSettings())
    with bench.load(ort.OrtFp32(), result) as session:
        for feeds in bench.samples("evaluation").feeds(3):
            np.testing.assert_array_equal(session.run(feeds)["y"], source.run(feeds)["y"])
            bound = session.bind(feeds)()
            assert isinstance(bound, list)
            np.testing.assert_array_equal(bound[0], source.run(feeds)["y"])
    assert bench.profile(ort.OrtFp32(), result).main_precision() == "fp32"
    assert (tmp_path / "ort-fp32" / "weights.bin").exists() == external


@pytest.mark.parametrize(("opset", "external"), [(17, False), (17, True), (11, False), (7, False)])
def test_a_cnn_runs_in_integers_from_end_to_end(tmp_path: Path, opset: int, external: bool) -> None:
    bench = Bench(tmp_path, make_cnn(opset), external=external)
    # Of random weights some layers lose more than a regression may; a vector as a whole shall follow.
    roles = {"y": OutputRole(name="y", role="embedding", why="a test", axis=1)}
    result = bench.build(ort.OrtInt8(), roles=roles)
    assert result.recipe["search"]["float_layers"] == []
    with bench.load(ort.OrtInt8(), result) as session:
        assert bench.cosine(session) > 0.998
    seen = bench.profile(ort.OrtInt8(), result)
    assert seen.main_precision() == "int8"
    assert count_computing(seen, "fp32") == 0, "a Conv or Gemm was not fused"
    counted = count_operators(seen)
    assert (counted["QLinearConv"], counted["QLinearAdd"], counted["QGemm"]) == (3, 1, 1)
    assert "Relu" not in counted


@pytest.mark.parametrize("make", [make_cnn, make_attention])
def test_the_formats_for_arm_are_right_on_this_machine_too(tmp_path: Path, make: Any) -> None:
    bench = Bench(tmp_path, make())
    result = bench.build(ort.OrtInt8(), machine=ARM)
    assert result.recipe["formats"]["activations"].startswith("int8")
    with bench.load(ort.OrtInt8(), result) as session:
        assert bench.cosine(session) > 0.995
    assert count_computing(bench.profile(ort.OrtInt8(), result), "int8") > 0


def test_an_opset_that_does_not_convert_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise BuildFailedError("no adapter")

    monkeypatch.setattr(prepare, "raise_opset", refuse)
    bench = Bench(tmp_path, make_cnn(11))
    result = bench.build(ort.OrtInt8())
    assert "no adapter" in result.recipe["opset_note"]
    with bench.load(ort.OrtInt8(), result) as session:
        assert bench.cosine(session) > 0.998
    assert count_operators(bench.profile(ort.OrtInt8(), result))["QLinearConv"] == 3


@pytest.mark.parametrize("target", [ort.OrtInt8(), ort.OrtInt8Dynamic()])
def test_smoothing_saves_a_transformer_with_an_outlier_channel(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_attention()
    for name in ("plain", "smoothed"):
        (tmp_path / name).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(onnx_quantizer, "_ALPHAS", (None,))
        plain = Bench(tmp_path / "plain", model).build(target).recipe["search"]["candidates"]
    bench = Bench(tmp_path / "smoothed", model)
    result = bench.build(target)
    found = result.recipe["search"]
    assert found["chosen"]["alpha"] is not None
    assert found["figures"]["error"] < plain[0]["error"] / 2
    with bench.load(target, result) as session:
        assert bench.cosine(session) > 0.995  # with 7-bit weights
    seen = bench.profile(target, result)
    assert count_computing(seen, "fp32") == 2, "only the products of two activations stay in float"


@pytest.mark.parametrize(
    ("quantizer", "operator"), [("StaticQuantizer", "QuantizeLinear"), ("DynamicQuantizer", "DynamicQuantizeLinear")]
)
def test_the_vendors_own_call_is_the_last_candidate(tmp_path: Path, quantizer: str, operator: str) -> None:
    bench = Bench(tmp_path, make_cnn())
    model, _ = prepare.prepare_model(bench.request(tmp_path))
    made = getattr(ort_recipes, quantizer)(bench.request(tmp_path), model, "cnn", choose_scheme(MACHINE, static=True))
    last = made.candidates()[-1]
    assert [candidate.name for candidate in last] == ["no smoothing, ranges ONNX Runtime's own"]
    built = made.build(last[0], ())
    assert operator in {node.op_type for node in built.graph.node}
    spared = made.build(last[0], [node.name for node in model.graph.node])
    assert operator not in {node.op_type for node in spared.graph.node}
    expected = [outputs["y"] for outputs in made.run(model, bench.tuning.feeds())]
    for outputs, answer in zip(made.run(built, bench.tuning.feeds()), expected, strict=True):
        assert 0 < float(np.abs(outputs["y"] - answer).max()) < 0.2 * float(np.abs(answer).max())


@pytest.mark.parametrize(("make", "kind"), [(make_cnn, "cnn"), (make_attention, "transformer")])
def test_rounded_weights_come_after_the_nearest_and_their_work_is_counted_once(
    tmp_path: Path, make: Callable[[], Any], kind: GraphKind
) -> None:
    bench = Bench(tmp_path, make())
    request = bench.request(tmp_path)
    model, _ = prepare.prepare_model(request)
    scheme = choose_scheme(ARM, static=True)
    quantizer = ort_recipes.StaticQuantizer(request, model, kind, scheme)
    tried = [candidate for group in quantizer.candidates() for candidate in group]
    assert not tried[0].rounded
    rounded = next(candidate for candidate in tried if candidate.rounded)
    assert {each.rounded for each in quantizer.candidates()[0]} == ({False} if kind == "transformer" else {False, True})
    assert quantizer.effort(tried[0]) == 1.0
    assert quantizer.effort(rounded) > 2.0
    quantizer.build(rounded, ())
    assert quantizer.effort(replace(rounded, ranges="percentile-99.999")) == 1.0


def test_narrow_convolutions_over_pairs_give_the_same_bits_and_move_nothing_about(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[2, 2, 2, 2]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "shortcut"),
        helper.make_node("Conv", ["a", "w3"], ["c3"], "conv3", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["y"], "flatten"),
    ]
    constants = {
        "w1": random_weights(8, 4, 3, 3),
        "w2": random_weights(8, 8, 5, 5),
        "b2": np.linspace(-1, 1, 8, dtype=np.float32),
        "w3": random_weights(16, 8, 3, 3),
    }
    bench = Bench(tmp_path, make_model(nodes, constants, ("n", 4, 16, 16), ("n", 16)))
    request = bench.request(tmp_path)
    model, _ = prepare.prepare_model(request)
    # 7-bit weights are summed exactly by every kernel.
    quantizer = ort_recipes.StaticQuantizer(request, model, "cnn", choose_scheme(MACHINE, static=True))
    built = quantizer.build(quantizer.candidates()[0][0], ())
    assert quantizer.finish(built) is built, "no machine that this was measured on"
    machine = Machine(name="dots", architecture="x86_64", instruction_sets=frozenset({"avx512_vnni"}), cores=2)
    quantizer = ort_recipes.StaticQuantizer(replace(request, machine=machine), model, "cnn", quantizer._scheme)
    finished = quantizer.finish(built)
    assert sum(node.op_type == "Reshape" for node in finished.graph.node) == 4
    expected, found = (list(quantizer.run(each, bench.tuning.feeds())) for each in (built, finished))
    for before, after in zip(expected, found, strict=True):
        np.testing.assert_array_equal(before["y"], after["y"])
    kinds = []
    for number, each in enumerate((built, finished)):
        options = session_options(RunSettings())
        options.optimized_model_filepath = str(tmp_path / f"optimized{number}.onnx")
        onnxruntime.InferenceSession(each.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds.append(Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node))
    assert kinds[1]["QLinearConv"] == kinds[0]["QLinearConv"] == 3
    assert kinds[1]["Transpose"] == kinds[0]["Transpose"], "those around the reshapes cancel out"


@pytest.mark.parametrize("target", [ort.OrtInt8(), ort.OrtInt8Dynamic()])
def test_a_gelu_that_the_runtime_does_not_recognize_runs_as_one(tmp_path: Path, target: Target) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "up"),
        helper.make_node("Div", ["m", "root"], ["s"], "scale"),
        helper.make_node("Erf", ["s"], ["e"], "erf"),
        helper.make_node("Add", ["e", "one"], ["t"], "sum"),
        helper.make_node("Mul", ["half", "t"], ["h"], "halve"),
        helper.make_node("Mul", ["m", "h"], ["g"], "gelu"),
        helper.make_node("MatMul", ["g", "v"], ["y"], "down"),
    ]
    constants = {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
    weights = {"w": random_weights(32, 64), "v": random_weights(64, 32)}
    bench = Bench(tmp_path, make_model(nodes, constants | weights, ("n", 8, 32), ("n", 8, 32)))
    float_types = count_operators(bench.profile(ort.OrtFp32(), bench.build(ort.OrtFp32())))
    assert float_types["Erf"] == 1, "a runtime that fuses it needs no help"
    result = bench.build(target)
    seen = count_operators(bench.profile(target, result))
    assert (seen["Gelu"], seen["Erf"]) == (1, 0)
    with bench.load(target, result) as session:
        assert bench.cosine(session) > 0.995


@pytest.mark.parametrize("target", [ort.OrtInt8(), ort.OrtInt8Dynamic()])
def test_a_residual_and_its_normalization_are_two_operators(tmp_path: Path, target: Target) -> None:
    model = make_model(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"], "dense"),
            helper.make_node("Add", ["m", "x"], ["r"], "residual"),
            helper.make_node("LayerNormalization", ["r", "g", "b"], ["n"], "norm"),
            helper.make_node("MatMul", ["n", "v"], ["s"], "scores"),
            helper.make_node("Softmax", ["s"], ["y"], "softmax"),
        ],
        {
            "w": random_weights(32, 32),
            "g": np.ones(32, np.float32),
            "b": np.zeros(32, np.float32),
            "v": random_weights(32, 32),
        },
        ("n", 8, 32),
        ("n", 8, 32),
    )
    bench = Bench(tmp_path, model)
    seen = count_operators(bench.profile(target, bench.build(target)))
    assert seen["Sum"] == seen["LayerNormalization"] == 1
    assert "SkipLayerNormalization" in count_operators(bench.profile(ort.OrtFp32(), bench.build(ort.OrtFp32())))


def test_how_the_pool_waits_is_left_to_the_vendor(tmp_path: Path) -> None:
    """Without spinning, as all others do by default, the baseline is slower above one thread, and nothing says so."""
    bench = Bench(tmp_path, make_cnn())
    options = session_options(RunSettings(threads=2))
    with pytest.raises(RuntimeError, match="allow_spinning"):
        options.get_session_config_entry("session.intra_op.allow_spinning")
    for threads, spins in ((1, False), (2, True)):
        session = ort_session.OrtSession(bench.path, bench.signature, RunSettings(threads=threads))
        assert session.describe_execution()["spinning"] is spins


def test_lstm_is_quantized_dynamically_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_lstm())
    for target, operator in ((ort.OrtInt8(), "LSTM"), (ort.OrtInt8Dynamic(), "DynamicQuantizeLSTM")):
        result = bench.build(target)
        with bench.load(target, result) as session:
            assert bench.cosine(session) > 0.995
        assert operator in count_operators(bench.profile(target, result))
        assert any("recurrent" in note for note in result.notes) == (operator == "LSTM")


def test_the_worst_layer_goes_back_to_float(tmp_path: Path) -> None:
    """A layer whose input has one huge value and whose weights ignore it cannot live in 8 bits; the other can."""
    first = random_weights(64, 64)
    first[0] = 0
    nodes = [
        helper.make_node("Mul", ["x", "spread"], ["wide"], "spread_mul"),
        helper.make_node("MatMul", ["wide", "w0"], ["h"], "fragile"),
        *(
            helper.make_node("MatMul", ["h" if n == 1 else f"h{n}", f"w{n}"], [f"h{n + 1}"], f"fine{n}")
            for n in range(1, 8)
        ),
        helper.make_node("Relu", ["h8"], ["y"], "relu"),
    ]
    spread = np.ones(64, np.float32)
    spread[0] = 3000
    constants = {"spread": spread, "w0": first, **{f"w{n}": rotate(64) for n in range(1, 8)}}
    bench = Bench(tmp_path, make_model(nodes, constants, ("n", 64), ("n", 64)))
    result = bench.build(ort.OrtInt8())
    assert [entry["layer"] for entry in result.recipe["search"]["float_layers"]] == ["fragile"]
    with bench.load(ort.OrtInt8(), result) as session:
        assert bench.cosine(session) > 0.99
    profile = bench.profile(ort.OrtInt8(), result)
    assert count_computing(profile, "fp32") == 1
    (kept,) = [found for found in profile.operators if found.kind == "compute" and found.precision == "fp32"]
    assert kept.nodes == ("fragile",)


def test_large_models_take_the_same_numbers_through_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("memory", "files")]
    outputs = []
    for folder in folders:
        folder.mkdir()
        if folder.name == "files":
            monkeypatch.setattr(files, "_PROTOBUF_LIMIT_BYTES", 500)
            monkeypatch.setattr(prepare, "EXTERNAL_BYTES", 500)
            (folder / "samples.npz").write_bytes((folders[0] / "samples.npz").read_bytes())
        bench = Bench(folder, onnx.load(str(folders[0] / "source.onnx")) if outputs else make_cnn(), external=True)
        (folder / "samples.npz").write_bytes((folders[0] / "samples.npz").read_bytes())
        bench.calibration, bench.tuning = bench.samples("calibration"), bench.samples("tuning")
        result = bench.build(ort.OrtInt8())
        with bench.load(ort.OrtInt8(), result) as session:
            outputs.append(np.concatenate([session.run(feeds)["y"] for feeds in bench.samples("evaluation").feeds()]))
    assert (folders[1] / "ort-int8" / "model.onnx.data").is_file()
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


def make_masked_rows() -> Any:
    """Rows that begin with less than -0.5 become NaN: a softmax over nothing but -inf, as of masked attention."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], "fc1"),
        helper.make_node("Slice", ["x", "zero", "one", "one"], ["flag"]),
        helper.make_node("Greater", ["flag", "low"], ["shown"]),
        helper.make_node("Where", ["shown", "h", "ninf"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"]),
        helper.make_node("Gemm", ["p", "v"], ["y"], "fc2"),
    ]
    constants = {
        "w": rotate(16),
        "v": rotate(16),
        "low": np.array([-0.5], np.float32),
        "ninf": np.array([-np.inf], np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
    }
    return make_model(nodes, constants, ("n", 16), ("n", 16))


def test_what_is_nan_is_left_out_of_calibration_and_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_masked_rows())
    seen = smoothing.collect_statistics(load_model(bench.path), ["p"], bench.calibration.feeds, tmp_path)["p"]
    assert seen.left_out > 0
    assert seen.left_out % 16 == 0
    assert 0.0 < seen.high <= 1.0
    assert seen.counts.sum() + seen.left_out == bench.calibration.count * 16
    result = bench.build(ort.OrtInt8())
    assert "calibration left out values that are NaN or infinite, of p" in result.notes


def test_streaming_holds_one_group_of_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, make_cnn())
    model = load_model(bench.path)
    names = ["x", "r1", "r2", "a"]
    whole = smoothing.collect_statistics(model, names, bench.calibration.feeds, tmp_path)
    sizes: list[int] = []
    opened = open_session

    def count_outputs(watched: Any, scratch: Path) -> Any:
        sizes.append(len(watched.graph.output) - 1)
        return opened(watched, scratch)

    monkeypatch.setattr(smoothing, "open_session", count_outputs)
    monkeypatch.setattr(smoothing, "GROUP_BYTES", 16 * 12 * 12 * 4)  # one feature map
    apart = smoothing.collect_statistics(model, names, bench.calibration.feeds, tmp_path)
    assert sizes == [3, 1, 1, 1] * 2, "sizes first, then a group at a time, for each of the two passes"
    assert len(model.graph.output) == 1
    for name in names:
        assert (apart[name].low, apart[name].high) == (whole[name].low, whole[name].high)
        np.testing.assert_array_equal(apart[name].counts, whole[name].counts)


def test_errors_name_the_cause_and_a_cure(tmp_path: Path) -> None:
    conv = make_model(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        {"w": random_weights(4, 3, 1, 1)},
        ("n", 3, 4, 4),
        ("n", 4, 4, 4),
    )
    (tmp_path / "conv").mkdir()
    with pytest.raises(BuildFailedError) as caught:
        Bench(tmp_path / "conv", conv).build(ort.OrtInt8Dynamic())
    assert "ort-int8" in str(caught.value.hint)
    custom = make_model([helper.make_node("Frobnicate", ["x"], ["y"], "frob", domain="my.ops")], {}, ("n", 4), ("n", 4))
    custom.opset_import.append(helper.make_opsetid("my.ops", 1))
    (tmp_path / "custom").mkdir()
    with pytest.raises(BuildFailedError, match="Frobnicate"):
        Bench(tmp_path / "custom", custom).build(ort.OrtInt8())


def test_calibration_on_nothing_but_nan_names_the_node(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"], "power"),
        helper.make_node("Neg", ["e"], ["below"], "minus"),
        helper.make_node("Log", ["below"], ["l"], "logarithm"),
        helper.make_node("MatMul", ["l", "w"], ["y"], "fc"),
    ]
    bench = Bench(tmp_path, make_model(nodes, {"w": random_weights(4, 4)}, ("n", 4), ("n", 4)))
    with pytest.raises(BuildFailedError, match=r"nothing but NaN or infinity in l, made by node logarithm \(Log\)"):
        bench.build(ort.OrtInt8())


def test_dynamic_without_samples_says_that_nothing_was_checked(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_cnn())
    result = bench.build(ort.OrtInt8Dynamic(), calibration=None, tuning=None)
    assert any("unchecked" in note for note in result.notes)
    assert result.recipe["search"]["candidates"] == []


def make_loud_products(*, dynamic: bool) -> Any:
    """A quantized matrix product whose sums of two saturate 16 bits, in the operator that each recipe writes.

    Of [255, 0, 255, 255] with weights of 127 and one of -127: without dot products, 2 * 255 * 127 becomes 32767.
    """
    weight = np.full((4, 2), 127, np.int8)
    weight[3, 1] = -127
    constants = {"w_q": weight, "w_s": np.ones(2, np.float32), "w_z": np.zeros(2, np.int8)}
    if dynamic:
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["x_q", "x_s", "x_z"]),
            helper.make_node("MatMulInteger", ["x_q", "w_q", "x_z", "w_z"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["floats"], to=1),
            helper.make_node("Mul", ["floats", "x_s"], ["y"]),
        ]
    else:
        constants |= {"x_s": np.float32(1), "x_z": np.uint8(0), "b": np.array([1, 2], np.float32)}
        names = ["x_q", "w_q", "x_s", "w_s", "x_z", "w_z", "b"]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_s", "x_z"], ["x_q"]),
            helper.make_node("MatMulIntegerToFloat", names, ["y"], domain="com.microsoft"),
        ]
    model = make_model(nodes, constants, ("n", 4), ("n", 2))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize("dynamic", [False, True])
def test_sums_that_would_saturate_are_exact_without_integer_kernels(tmp_path: Path, dynamic: bool) -> None:
    exact = write_exactly(make_loud_products(dynamic=dynamic))
    session = open_session(exact, tmp_path, entries=AS_WRITTEN)
    x = np.array([[255, 0, 255, 255]], np.float32)
    bias = [0, 0] if dynamic else [1, 2]
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], [[3 * 255 * 127 + bias[0], 255 * 127 + bias[1]]])
    assert not {node.op_type for node in exact.graph.node} & {"MatMulInteger", "MatMulIntegerToFloat"}


@pytest.mark.parametrize("target", [ort.OrtInt8(), ort.OrtInt8Dynamic()])
def test_a_host_that_saturates_judges_what_the_machine_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    judged: list[Any] = []
    monkeypatch.setattr(ort_recipes, "write_exactly", lambda model: judged.append(write_exactly(model)) or judged[-1])
    bench = Bench(tmp_path, make_attention())
    here = bench.build(target, machine=ARM, host=MACHINE)
    assert judged, "candidates were run without integer kernels"
    assert here.emulation is not None
    with bench.load(target, here) as session:
        emulated = open_session(onnx.load(here.emulation), tmp_path, entries=AS_WRITTEN)
        for feeds in bench.samples("evaluation").feeds(4):
            # This host's own kernels are exact, by dot products: the same numbers but for float sums.
            found, expected = session.run(feeds)["y"], emulated.run(None, dict(feeds))[0]
            np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())


def test_a_host_that_sums_exactly_runs_the_artifact_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_cnn())
    roles = {"y": OutputRole(name="y", role="embedding", why="a test", axis=1)}
    assert bench.build(ort.OrtInt8(), machine=ARM, host=ARM, roles=roles).emulation is None


def test_an_lstm_has_no_form_without_integer_kernels() -> None:
    node = helper.make_node("DynamicQuantizeLSTM", ["x"], ["y"], domain="com.microsoft")
    assert write_exactly(make_model([node], {}, (1, 1, 1), (1, 1, 1))) is None


@pytest.mark.parametrize(("machine", "tried"), [(ARM, [False] + [True] * 4), (MACHINE, [False] * 4)])
def test_weights_are_rounded_for_what_they_make_of_samples_where_they_have_8_bits(
    tmp_path: Path, machine: Machine, tried: list[bool]
) -> None:
    bench = Bench(tmp_path, make_cnn())
    roles = {"y": OutputRole(name="y", role="embedding", why="a test", axis=1)}
    result = bench.build(ort.OrtInt8(), machine=machine, roles=roles)
    candidates = result.recipe["search"]["candidates"]
    assert [each["rounded"] for each in candidates[: len(tried)]] == tried
    if machine is ARM:
        distances = {each["rounded"]: each["distance"] for each in candidates if each["ranges"] == "minmax"}
        assert distances[True] < distances[False]
        assert result.recipe["search"]["chosen"]["rounded"]
