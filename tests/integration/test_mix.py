"""Mixed precision on small networks whose numbers are known, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from modelwright.cli.mix import mix as command
from modelwright.core.errors import BadInputError, LimitNotMetError
from modelwright.core.records.plan import read_plan
from modelwright.harness.mixing.calibration import Rounding, calibrate
from modelwright.harness.mixing.grids import choose_scales, round_rows
from modelwright.harness.mixing.mixing import mix
from modelwright.harness.mixing.network import Network, open_network
from modelwright.harness.mixing.scores import score_by_sensitivity
from modelwright.harness.mixing.sensitivity import measure_sensitivity
from modelwright.harness.mixing.settings import Settings
from modelwright.harness.mixing.simulate import simulate
from modelwright.harness.mixing.wording import list_sentences, list_table
from modelwright.harness.mixing.work import count_work
from modelwright.targets.graphs.run import open_session

BITS = (8, 6, 4)
FIRST = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -7.0]], np.float32)
SECOND = np.array([[0.5, -1.0], [2.0, 7.0], [-3.5, 0.0]], np.float32)


def save(
    path: Path, nodes: Sequence[Any], constants: dict[str, np.ndarray], *, opset: int = 17, size: int | str = 2,
    kind: int = TensorProto.FLOAT,
) -> Path:  # fmt: skip
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def two_layers(path: Path, *, opset: int = 17) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    return save(path, nodes, {"w1": FIRST, "w2": SECOND}, opset=opset)


def make_feeds(count: int = 12, size: int = 2, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((1, size)).astype(np.float32)} for _ in range(count)]


def open_here(path: Path, feeds: list[dict[str, np.ndarray]], scratch: Path) -> tuple[Network, Rounding]:
    network = open_network(path, feeds[0], scratch)
    seen = calibrate(network, lambda: iter(feeds), scratch)
    return network, Rounding(network=network, seen=seen, per_channel=True)


def fake(values: np.ndarray, rounding: Rounding, layer: int, bits: int) -> np.ndarray:
    """Returns an activation as this layer reads it."""
    known = rounding.network.layers[layer]
    grid = rounding.grid(known, known.activations[0], bits)
    low, high = grid.ends
    return np.clip(np.rint(values / np.float32(grid.scale)), low, high).astype(np.float32) * np.float32(grid.scale)


def fake_weight(weight: np.ndarray, bits: int) -> np.ndarray:
    """Returns [inputs, outputs], each column on its own grid."""
    return round_rows(weight.T.copy(), choose_scales(weight.T.copy(), bits, "mse"), bits).T


# Known answers.


def test_two_layers_by_hand(tmp_path: Path) -> None:
    feeds = make_feeds()
    network, rounding = open_here(two_layers(tmp_path / "net.onnx"), feeds, tmp_path)
    assert [(layer.output, layer.weight, layer.channel_axis) for layer in network.layers] == [
        ("h", "w1", 1),
        ("y", "w2", 1),
    ]

    works = count_work(network, feeds, tmp_path)
    assert [(work.macs, work.weights, work.activations) for work in works] == [(6, 6, 2 + 3), (6, 6, 3 + 2)]

    found = measure_sensitivity(rounding, BITS, feeds, ["y"], tmp_path)
    x = np.concatenate([feed["x"] for feed in feeds])
    h = x @ FIRST
    for bits in BITS:
        first = fake(x, rounding, 0, bits) @ fake_weight(FIRST, bits)
        second = fake(np.maximum(h, 0), rounding, 1, bits) @ fake_weight(SECOND, bits)
        assert found["h"].errors[bits] == pytest.approx(np.linalg.norm(first - h), rel=1e-4)
        assert found["y"].errors[bits] == pytest.approx(np.linalg.norm(second - np.maximum(h, 0) @ SECOND), rel=1e-4)
    assert found["h"].norm == pytest.approx(np.linalg.norm(h), rel=1e-5)
    # The first layer's error alone, as it reaches the answers.
    exact = np.maximum(h, 0) @ SECOND
    alone = np.maximum(fake(x, rounding, 0, 4) @ fake_weight(FIRST, 4), 0) @ SECOND
    assert found["h"].answer_error(4) == pytest.approx(np.linalg.norm(alone - exact) / np.linalg.norm(exact), rel=1e-4)

    session = open_session(simulate(rounding, {"h": 4, "y": 6}), tmp_path)
    for feed in feeds:
        middle = np.maximum(fake(feed["x"], rounding, 0, 4) @ fake_weight(FIRST, 4), 0)
        wanted = fake(middle, rounding, 1, 6) @ fake_weight(SECOND, 6)
        assert np.allclose(session.run(["y"], feed)[0], wanted, rtol=1e-5, atol=1e-5)


def test_a_layer_in_float_is_left_as_it_is(tmp_path: Path) -> None:
    feeds = make_feeds()
    path = two_layers(tmp_path / "net.onnx")
    _, rounding = open_here(path, feeds, tmp_path)
    exact = open_session(onnx.load(path), tmp_path).run(["y"], feeds[0])[0]
    same = open_session(simulate(rounding, {"h": None}), tmp_path).run(["y"], feeds[0])[0]
    assert np.array_equal(exact, same)


@pytest.mark.parametrize("opset", [9, 11, 13, 21])
def test_opsets_give_the_same_numbers(tmp_path: Path, opset: int) -> None:
    feeds = make_feeds()
    answers = []
    for number in (17, opset):
        _, rounding = open_here(two_layers(tmp_path / f"{number}.onnx", opset=number), feeds, tmp_path)
        answers.append(open_session(simulate(rounding, {"h": 4, "y": 4}), tmp_path).run(["y"], feeds[0])[0])
    assert np.array_equal(*answers)


# What may fool it.


def test_an_error_that_nobody_reads_gets_the_fewest_bits(tmp_path: Path) -> None:
    """The loud layer errs most, by far, and its answer counts a millionth: S falls for it, the program does not."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["loud"], "loud"),
        helper.make_node("Mul", ["loud", "tiny"], ["whisper"]),
        helper.make_node("MatMul", ["x", "w2"], ["quiet"], "quiet"),
        helper.make_node("Add", ["whisper", "quiet"], ["y"]),
    ]
    rng = np.random.default_rng(3)
    constants = {
        "w1": rng.standard_normal((8, 4)).astype(np.float32) * 1000,
        "w2": rng.standard_normal((8, 4)).astype(np.float32),
        "tiny": np.float32(1e-9),
    }
    feeds = make_feeds(16, 8)
    _, rounding = open_here(save(tmp_path / "net.onnx", nodes, constants, size=8), feeds, tmp_path)
    found = measure_sensitivity(rounding, BITS, feeds, ["y"], tmp_path)
    scores = score_by_sensitivity(found, BITS)
    assert scores.order["loud"] > 100 * scores.order["quiet"]
    assert scores.costs["loud"][4] < 1e-6 * scores.costs["quiet"][8]


def test_a_weight_that_two_layers_share_may_have_other_bits_in_each(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("Gemm", ["h", "w"], ["y"], "second", transB=1),
    ]
    weight = np.random.default_rng(4).standard_normal((3, 3)).astype(np.float32)
    feeds = make_feeds(12, 3)
    network, rounding = open_here(save(tmp_path / "net.onnx", nodes, {"w": weight}, size=3), feeds, tmp_path)
    assert [layer.channel_axis for layer in network.layers] == [1, 0]
    session = open_session(simulate(rounding, {"h": 4, "y": 8}), tmp_path)
    middle = fake(feeds[0]["x"], rounding, 0, 4) @ fake_weight(weight, 4)
    wanted = fake(middle, rounding, 1, 8) @ fake_weight(weight.T.copy(), 8)
    assert np.allclose(session.run(["y"], feeds[0])[0], wanted, rtol=1e-5, atol=1e-5)


def test_dead_channels_and_inputs_stay_numbers(tmp_path: Path) -> None:
    weight = FIRST.copy()
    weight[:, 1] = 0.0
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("Mul", ["h", "zero"], ["z"]),
        helper.make_node("MatMul", ["z", "v"], ["d"], "dead"),
        helper.make_node("MatMul", ["h", "v"], ["e"], "alive"),
        helper.make_node("Add", ["d", "e"], ["y"]),
    ]
    feeds = make_feeds()
    path = save(tmp_path / "net.onnx", nodes, {"w": weight, "v": SECOND, "zero": np.float32(0)})
    _, rounding = open_here(path, feeds, tmp_path)
    found = measure_sensitivity(rounding, BITS, feeds, ["y"], tmp_path)
    assert found["d"].errors == {8: 0.0, 6: 0.0, 4: 0.0}
    assert found["d"].gain == 0.0
    assert np.isfinite(
        open_session(simulate(rounding, dict.fromkeys("hde", 4)), tmp_path).run(["y"], feeds[0])[0]
    ).all()


def test_weights_that_nodes_make_of_constants_are_weights(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["stored"], ["w"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w"], ["y"], "only"),
    ]
    feeds = make_feeds()
    network, rounding = open_here(save(tmp_path / "net.onnx", nodes, {"stored": FIRST.T.copy()}), feeds, tmp_path)
    assert [(layer.weight, layer.operand) for layer in network.layers] == [("stored", "w")]
    found = open_session(simulate(rounding, {"y": 4}), tmp_path).run(["y"], feeds[0])[0]
    assert np.allclose(found, fake(feeds[0]["x"], rounding, 0, 4) @ fake_weight(FIRST, 4), atol=1e-5)


def test_a_transposed_convolution_has_its_channels_group_by_group(tmp_path: Path) -> None:
    weight = np.random.default_rng(5).standard_normal((4, 3, 1, 1)).astype(np.float32)  # 2 groups of 2 -> 3
    weight[2:] *= 100
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["image"]),
        helper.make_node("ConvTranspose", ["image", "w"], ["y"], "up", group=2),
    ]
    feeds = make_feeds(12, 4)
    constants = {"w": weight, "shape": np.array([0, 4, 1, 1])}
    network, rounding = open_here(save(tmp_path / "net.onnx", nodes, constants, size=4), feeds, tmp_path)
    layer = network.layers[0]
    rows = layer.to_rows(weight, per_channel=True)
    assert rows.shape == (6, 2)
    assert np.array_equal(layer.from_rows(rows, weight.shape), weight)
    assert np.array_equal(rows[0], weight[:2, 0, 0, 0])
    assert np.array_equal(rows[3], weight[2:, 0, 0, 0])
    assert float(np.abs(rounding.weight(layer, 4)[:2] - weight[:2]).max()) < 0.5  # not on the grid of the other group


def test_work_of_shapes_that_vary_is_a_mean(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"], "only"),
    ]
    rng = np.random.default_rng(7)
    feeds = [{"x": rng.standard_normal((1, size)).astype(np.float32)} for size in (2, 6, 2, 6)]
    path = save(tmp_path / "net.onnx", nodes, {"w": FIRST, "shape": np.array([-1, 2])}, size="n")
    network, rounding = open_here(path, feeds, tmp_path)
    work = count_work(network, feeds, tmp_path)[0]  # 1 or 3 rows of 2 become 3 numbers each
    assert (work.macs, work.weights, work.activations) == (2 * 6, 6, 2 * (2 + 3))
    assert measure_sensitivity(rounding, BITS, feeds, ["y"], tmp_path)["y"].errors[4] > 0


def test_a_network_that_gives_class_numbers_is_judged_by_its_layers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "w2"], ["s"], "second"),
        helper.make_node("ArgMax", ["s"], ["y"], axis=1, keepdims=0),
    ]
    feeds = make_feeds()
    _, rounding = open_here(
        save(tmp_path / "net.onnx", nodes, {"w1": FIRST, "w2": SECOND}, kind=TensorProto.INT64), feeds, tmp_path
    )
    found = measure_sensitivity(rounding, BITS, feeds, ["y"], tmp_path)
    for layer in found.values():
        for bits in BITS:
            assert layer.answer_error(bits) == pytest.approx(layer.errors[bits] / layer.norm)
            assert layer.errors[bits] > 0


# The whole of it.


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rng = np.random.default_rng(6)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in ((16, 24), (24, 5))]
    path = save(tmp_path / "net.onnx", nodes, {"w1": weights[0], "w2": weights[1]}, size=16)
    x = rng.standard_normal((120, 16)).astype(np.float32)
    scores = np.maximum(x @ weights[0], 0) @ weights[1]
    np.savez(tmp_path / "samples.npz", x=x, labels=scores.argmax(axis=1))
    assert path.exists()
    return tmp_path


def run(place: Path, **settings: Any) -> Any:
    return mix(
        place / "net.onnx", samples=place / "samples.npz", out=place / "out",
        overwrite=settings.pop("overwrite", False), settings=Settings(bits=settings.pop("bits", BITS), **settings),
    )  # fmt: skip


def test_a_mix_gives_a_plan_a_table_and_plots(place: Path) -> None:
    found = run(place)
    out = place / "out"
    rows = {(row.name, row.granularity): row for row in found.rows}
    assert rows["FP32", None].quality.value == 1.0
    assert found.samples == {"calibration": 45, "tuning": 15, "evaluation": 60}
    for granularity in ("tensor", "channel"):
        spent = [rows[name, granularity].energy_j for name in ("8 bits", "6 bits", "4 bits")]
        assert spent == sorted(spent, reverse=True)
        assert rows["mixed <= E(6)", granularity].energy_j <= spent[1] * (1 + 1e-9)
    macs, moved = 16 * 24 + 24 * 5, 16 * 24 + 24 * 5 + 16 + 24 + 24 + 5
    assert rows["FP32", None].energy_j == pytest.approx((macs * 4.6 + moved * 640) * 1e-12)
    assert rows["4 bits", "channel"].energy_j == pytest.approx((macs * 0.23 / 4 + moved * 80) * 1e-12)
    assert rows["4 bits", "channel"].weight_bytes == (16 * 24 + 24 * 5) / 2

    plan = read_plan(out / "plan.json")
    assert {layer.output: layer.weight_bits for layer in plan.layers} == found.chosen.bits
    assert plan.onnx_sha256 == found.onnx_sha256
    assert json.loads((out / "mix.json").read_text())["rows"][0]["name"] == "FP32"
    assert len((out / "mix.csv").read_text().splitlines()) == 1 + len(found.rows)
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "pareto.svg").read_text()
    assert max(map(len, list_table(found))) <= 80
    assert any("estimate" in line for line in list_sentences(found))
    assert sum(line.startswith("*") for line in list_table(found)) == 1


@pytest.mark.slow
def test_the_cheapest_within_a_drop_is_no_dearer_than_all_bits(place: Path) -> None:
    found = run(place, max_drop=20.0)
    most = next(row for row in found.rows if row.name == "8 bits" and row.granularity == "channel")
    assert found.chosen.energy_j < most.energy_j
    assert found.rows[0].quality.value - found.chosen.quality.value <= 0.2


@pytest.mark.slow
def test_a_drop_that_is_not_kept_gives_no_plan(place: Path) -> None:
    run(place)
    with pytest.raises(LimitNotMetError, match="--max-drop"):
        run(place, max_drop=0.0, bits=(3, 2))
    assert run(place, max_drop=99.0, bits=(3, 2)).chosen.name == "mixed, --max-drop"  # as the hint says


@pytest.mark.slow
def test_an_error_that_is_not_kept_says_what_would_be(place: Path) -> None:
    run(place)
    with pytest.raises(LimitNotMetError, match="estimated error") as refused:
        run(place, max_error=1e-6)
    assert not (place / "out" / "plan.json").exists(), "an earlier one keeps another limit"
    assert refused.value.hint is not None
    least = float(refused.value.hint.partition("--max-error ")[2].partition(";")[0])
    assert run(place, max_error=least).chosen.answer_error <= least


@pytest.mark.slow
def test_a_mix_on_noise_says_so(place: Path) -> None:
    found = mix(place / "net.onnx", samples="random:16", out=place / "out", settings=Settings(bits=(8, 4)))
    assert any("noise" in note for note in found.notes)
    assert not any("noise" in note for note in run(place, bits=(8, 4)).notes)


@pytest.mark.slow
def test_labels_that_fp32_gets_wrong_are_not_counted_and_that_is_said(place: Path) -> None:
    assert not any("labels" in note for note in run(place, bits=(8, 4)).notes)
    arrays = dict(np.load(place / "samples.npz"))
    np.savez(place / "samples.npz", x=arrays["x"], labels=(arrays["labels"] + 1) % 5)
    found = run(place, bits=(8, 4))
    assert any(note.startswith("FP32 gets none of 60 labels right") for note in found.notes)
    assert found.rows[0].quality.measure == "agreement"


@pytest.mark.slow
def test_the_command_prints_the_table_or_json(place: Path) -> None:
    files = [str(place / "net.onnx"), "-s", str(place / "samples.npz"), "-o", str(place / "out")]
    told = CliRunner().invoke(command, [*files, "--bits", "8,4"])
    assert told.exit_code == 0
    assert "* mixed <= E(8,4)" in told.stdout
    assert "estimates" in told.stdout
    as_json = json.loads(CliRunner().invoke(command, [*files, "--bits", "8,4", "--json"]).stdout)
    assert [row["name"] for row in as_json["rows"] if row["chosen"]] == ["mixed <= E(8,4)"]
    assert as_json["technology"]["node"] == "45 nm"


@pytest.mark.slow
def test_ranges_hold_for_all_rows_and_are_told(place: Path) -> None:
    found = {ranges: run(place, bits=(8, 4), ranges=ranges) for ranges in ("mse", "minmax")}
    table = csv.DictReader((place / "out" / "mix.csv").read_text().splitlines())
    assert {(row["name"] == "FP32", row["ranges"]) for row in table} == {(True, ""), (False, "minmax")}
    assert any("at the largest value seen" in line for line in list_sentences(found["minmax"]))
    for narrow, wide in zip(found["mse"].layers, found["minmax"].layers, strict=True):
        assert narrow.errors["4"] != wide.errors["4"]


# What is refused.


@pytest.mark.slow
def test_a_mix_of_another_model_is_replaced_only_where_that_is_said(place: Path) -> None:
    run(place, bits=(8, 4))
    kept = {path.name: path.read_bytes() for path in (place / "out").iterdir() if path.is_file()}
    two = [helper.make_node("MatMul", ["x", "w"], ["y"], "other")]
    save(place / "net.onnx", two, {"w": np.ones((16, 5), np.float32)}, size=16)
    with pytest.raises(BadInputError, match="holds the mix of another model") as refused:
        run(place, bits=(8, 4))
    assert {path.name: path.read_bytes() for path in (place / "out").iterdir() if path.is_file()} == kept
    assert "--overwrite" in (refused.value.hint or "")
    assert [layer.node for layer in run(place, bits=(8, 4), overwrite=True).layers] == ["other"]


@pytest.mark.slow
def test_a_model_that_cannot_be_mixed_leaves_nothing_of_the_one_that_it_replaced(place: Path) -> None:
    run(place, bits=(8, 4))
    save(place / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, size=16)
    with pytest.raises(BadInputError, match=r"net\.onnx has no layer"):
        run(place, bits=(8, 4), overwrite=True)
    assert [path.name for path in (place / "out").iterdir()] == ["model"]


def test_a_model_without_layers_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], {})
    with pytest.raises(BadInputError, match="no layer to choose bits for"):
        open_network(path, make_feeds(1)[0], tmp_path)
    open_network(two_layers(path), make_feeds(1)[0], tmp_path)


def test_a_model_that_is_quantized_already_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, {"w": FIRST, "s": np.float32(0.1)})
    with pytest.raises(BadInputError, match="quantized already"):
        open_network(path, make_feeds(1)[0], tmp_path)
    open_network(two_layers(path), make_feeds(1)[0], tmp_path)


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    broken = FIRST.copy()
    broken[0, 0] = np.nan
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "only")]
    path = save(tmp_path / "net.onnx", nodes, {"w": broken})
    with pytest.raises(BadInputError, match="w, a weight of only"):
        open_network(path, make_feeds(1)[0], tmp_path)


@pytest.mark.slow
def test_too_few_samples_are_refused_and_a_few_more_are_not(place: Path) -> None:
    arrays = dict(np.load(place / "samples.npz"))
    np.savez(place / "samples.npz", **{name: values[:1] for name, values in arrays.items()})
    with pytest.raises(BadInputError, match="too few samples") as refused:
        run(place)
    assert "8 samples" in (refused.value.hint or "")
    np.savez(place / "samples.npz", **{name: values[:3] for name, values in arrays.items()})
    with pytest.raises(BadInputError, match="too few samples for --max-drop"):
        run(place, max_drop=50.0)
    np.savez(place / "samples.npz", **{name: values[:8] for name, values in arrays.items()})
    assert run(place, max_drop=99.0).samples == {"calibration": 3, "tuning": 1, "evaluation": 4}
