"""Scales that keep the order of attention's scores: known answers, what they mend, and that they do no harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from onnx import TensorProto, helper
from planned_models import make_attention

from modelwright.harness.mixing.attention import find_attention
from modelwright.harness.mixing.calibration import Rounding, calibrate
from modelwright.harness.mixing.network import Network, open_network
from modelwright.harness.mixing.nuclear import find_nuclear_norm, measure_nuclear_norms
from modelwright.harness.mixing.ranking import HeldJudge, Ranked, correlate, is_closer, measure_hinge, rank_grids
from modelwright.harness.mixing.scores import SCORERS
from modelwright.harness.mixing.sensitivity import Sensitivity

TOKENS, WIDTH, BITS = 12, 8, 4


def make_network(folder: Path, *, reaches: float, masked: bool = False) -> Path:
    """Attention whose queries have one large channel that keys do not look at; its context counts `reaches` times."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 1, (WIDTH, WIDTH)).astype(np.float32) for name in ("wq", "wk", "wv", "wo")}
    weights["wq"][:, 0] *= 12.0
    weights["wk"][:, 0] = 0.0
    mask = np.where(np.tril(np.ones((TOKENS, TOKENS))) > 0, 0.0, -1e9).astype(np.float32)
    node = helper.make_node
    nodes = [
        *(node("MatMul", ["x", f"w{name}"], [name], f"to_{name}") for name in "qkv"),
        node("Transpose", ["k"], ["kt"], "turned", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], "scores"),
        node("Div", ["scores", "root"], ["scaled"], "scaled"),
        *([node("Add", ["scaled", "mask"], ["seen"], "masked")] if masked else []),
        node("Softmax", ["seen" if masked else "scaled"], ["map"], "map", axis=-1),
        node("MatMul", ["map", "v"], ["context"], "context"),
        node("Mul", ["context", "reach"], ["reached"], "reached"),
        node("MatMul", ["x", "wo"], ["own"], "own"),
        node("Add", ["own", "reached"], ["y"], "sum"),
    ]
    constants = {**weights, "root": np.float32(4.0), "reach": np.float32(reaches), **({"mask": mask} if masked else {})}
    shape = ["n", TOKENS, WIDTH]
    return models.save(
        folder / "net.onnx", nodes, [("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, shape)], constants
    )


def draw(count: int, seed: int = 1) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, (1, TOKENS, WIDTH)).astype(np.float32)} for _ in range(count)]


def prepare(path: Path, feeds: Sequence[dict[str, Any]]) -> Rounding:
    network = open_network(path, feeds[0], path.parent)
    seen = calibrate(network, lambda limit=None: iter(feeds[:limit]), path.parent)
    return Rounding(network=network, seen=seen, per_channel=True)


def rank(path: Path) -> tuple[Rounding, Ranked]:
    feeds = draw(48)
    rounding = prepare(path, feeds)
    return rounding, rank_grids(rounding, (BITS,), feeds, ["y"], path.parent)


def test_the_loss_of_an_order_that_turns() -> None:
    exact = np.array([[0.6, 0.3, 0.1]], np.float32)
    assert measure_hinge(exact, exact) == 0.0
    turned = np.array([[0.3, 0.6, 0.1]], np.float32)
    spread = float(np.std([0.6, 0.3, 0.1]))
    assert measure_hinge(exact, turned) == pytest.approx((0.2 * spread + 0.3) / 3 / spread, rel=1e-5)
    closer = np.array([[0.6, 0.59, 0.1]], np.float32)
    assert measure_hinge(exact, closer) == pytest.approx((0.2 * spread - 0.01) / 3 / spread, rel=1e-4)


def test_pairs_that_are_closer_than_the_margin_are_asked_for_no_more() -> None:
    close = np.array([[0.501, 0.499, 0.0]], np.float32)
    assert measure_hinge(close, close) == pytest.approx(0.0, abs=1e-7)


def test_equal_scores_and_hidden_ones_have_no_order() -> None:
    assert measure_hinge(np.array([[0.5, 0.5]], np.float32), np.array([[0.9, 0.1]], np.float32)) == 0.0


def test_a_gain_that_chance_could_make_is_none() -> None:
    before = np.full(20, 1.0)
    assert is_closer(before - 0.1, before)
    assert not is_closer(before - 0.005, before), "too little to be worth it"
    assert not is_closer(before - np.tile([1.0, -0.7], 10), before), "as likely chance"
    assert not is_closer(before, before)
    assert not is_closer(np.array([0.1]), np.array([1.0])), "one sample says nothing of chance"


def test_correlation_of_known_values() -> None:
    values = np.array([1.0, 2.0, 3.0], np.float32)
    assert correlate(values, 2 * values + 1) == pytest.approx(1.0)
    assert correlate(values, -values) == pytest.approx(-1.0)
    assert correlate(values, np.ones(3, np.float32)) == 0.0


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_found_by_its_form(tmp_path: Path, masked: bool) -> None:
    network = open_network(make_network(tmp_path, reaches=1.0, masked=masked), draw(1)[0], tmp_path)
    (found,) = find_attention(network)
    assert (found.scores.output, found.map) == ("scores", "map")
    assert found.scaled == ("seen" if masked else "scaled")
    assert found.context is not None
    assert found.context.output == "context"


def test_attention_among_convolutions_and_none_without() -> None:
    assert find_attention(Network(model=helper.make_model(helper.make_graph([], "g", [], [])), layers=())) == []


def test_attention_behind_a_reshape(tmp_path: Path) -> None:
    image = {"x": np.zeros((1, 3, 16, 16), np.float32)}
    (found,) = find_attention(open_network(make_attention(tmp_path / "net.onnx"), image, tmp_path))
    assert (found.scores.output, found.map, found.context and found.context.output) == ("s", "a", "av")


@pytest.mark.parametrize("masked", [False, True])
def test_scales_that_keep_the_order_mend_what_least_error_loses(tmp_path: Path, masked: bool) -> None:
    rounding, ranked = rank(make_network(tmp_path, reaches=3.0, masked=masked))
    assert (ranked.tried, ranked.kept) == (1, 1)
    assert {key[0] for key in ranked.grids} <= {"scores", "context"}
    queries = ranked.grids["scores", "q", BITS]
    (layer,) = [each for each in rounding.network.layers if each.output == "scores"]
    assert queries.scale < 0.8 * rounding.grid(layer, "q", BITS).scale, "the large channel is cut off"
    judge = HeldJudge(rounding, draw(40, seed=7), ["y"], tmp_path)
    assert judge.measure(ranked.grids, BITS).mean() < 0.9 * judge.measure({}, BITS).mean()


def test_what_does_not_help_on_samples_held_aside_is_not_taken(tmp_path: Path) -> None:
    rounding, ranked = rank(make_network(tmp_path, reaches=0.0))
    assert (ranked.tried, ranked.kept, ranked.grids) == (1, 0, {})
    assert "in 0 of 1 cases" in ranked.describe()
    del rounding


def test_without_attention_or_samples_to_hold_aside_nothing_is_ranked(tmp_path: Path) -> None:
    feeds = draw(2)
    rounding = prepare(make_network(tmp_path, reaches=1.0), feeds)
    ranked = rank_grids(rounding, (BITS,), feeds, ["y"], tmp_path)
    assert (ranked.tried, ranked.grids) == (0, {})
    assert ranked.describe().startswith("no attention was found")


def test_nuclear_norms_of_known_matrices(tmp_path: Path) -> None:
    assert find_nuclear_norm(np.eye(5, dtype=np.float32)) == pytest.approx(5.0)
    assert find_nuclear_norm(np.ones((3, 12), np.float32)) == pytest.approx(6.0), "of one direction only"
    assert find_nuclear_norm(np.stack([np.eye(3), 2 * np.eye(3)]).astype(np.float32)) == pytest.approx(9.0)
    features = np.zeros((1, 2, 2, 2), np.float32)
    features[0, 0, 0, 0] = features[0, 1, 1, 1] = 3.0
    assert find_nuclear_norm(features, channels_first=True) == pytest.approx(6.0)
    feeds = draw(3)
    network = open_network(make_network(tmp_path, reaches=1.0), feeds[0], tmp_path)
    norms = measure_nuclear_norms(network, feeds, tmp_path)
    assert norms.keys() == {layer.output for layer in network.layers}
    assert 1.0 < norms["scores"] <= TOKENS, "of the attention map, whose rows sum to 1"


def test_the_nuclear_norm_weighs_the_errors() -> None:
    def make(errors: tuple[float, float], norm: float, gain: float) -> Sensitivity:
        return Sensitivity(errors=dict(zip((8, 4), errors, strict=True)), norm=1.0, gain=gain, nuclear_norm=norm)

    scores = SCORERS["nuclear"]({"a": make((0.1, 1.0), 2.0, 0.1), "b": make((0.2, 2.0), 1.0, 0.2)}, (8, 4))
    assert scores.order == {"a": 2.0, "b": 4.0}
    reached = 0.1**2 + 0.4**2
    assert scores.costs["a"][4] + scores.costs["b"][4] == pytest.approx(reached)
    assert scores.costs["b"][4] == pytest.approx(reached * 4 / 6)
    assert scores.costs["a"][8] == pytest.approx(reached * 0.02 / 6)
    silent = SCORERS["nuclear"]({"a": replace(make((0.0, 0.0), 2.0, 0.0))}, (8, 4))
    assert silent.costs == {"a": {8: 0.0, 4: 0.0}}
