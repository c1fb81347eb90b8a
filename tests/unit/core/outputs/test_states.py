"""States are found where names and shapes say so, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import UsageError
from modelwright.core.outputs.states import State, choose_states, explain_misfit, find_states, parse_states
from modelwright.core.records.signature import Signature, TensorSpec

SHAPE = (1, 1, 8)


def spec(name: str, shape: Any = SHAPE, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def signature(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Signature:
    return Signature(inputs=(spec("frame", (1, 16)), *inputs), outputs=(spec("score", (1, 2)), *outputs))


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("state", "stateN"),
        ("state", "state_n"),
        ("h", "hn"),
        ("h0", "hn"),
        ("h_0", "h_n"),
        ("h_in", "h_out"),
        ("hin", "hout"),
        ("r1i", "r1o"),
        ("lstm.state_in.0", "lstm.state_out.0"),
        ("mem", "mem_next"),
        ("hidden", "new_hidden"),
        ("inputState", "outputState"),
        ("prev_cache", "next_cache"),
        ("past", "present"),
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.0.key", "present_key_values.0.key"),
        ("past_1", "present_1"),
        ("audio_cache_in", "audio_cache_out"),
        ("conv1_in", "conv1_out"),
    ],
)
def test_names_of_states(name: str, output: str) -> None:
    assert find_states(signature([spec(name)], [spec(output)])).states == (State(output=output, input=name),)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("x", "y"),
        ("x", "xn"),
        ("xin", "xout"),
        ("input", "output"),
        ("audio_in", "audio_out"),
        ("image", "image_out"),
        ("sample", "out_sample"),
        ("noisy", "noisy_out"),
        ("hidden_states", "hidden_states_out"),
        ("h", "c_out"),
        ("h", "h"),
        ("past_key_values.0.key", "present.1.key"),
        ("past_key_values.0.key", "present.0.value"),
        ("state", "statement"),
    ],
)
def test_other_names_are_no_states(name: str, output: str) -> None:
    assert find_states(signature([spec(name)], [spec(output)])).states == ()


def test_what_leaves_no_input_to_drive_it_is_no_step() -> None:
    alone = Signature(inputs=(spec("mem_in"),), outputs=(spec("mem_out"),))
    assert find_states(alone).states == ()
    assert choose_states(parse_states(["mem_out=mem_in"]), alone).states == (State(output="mem_out", input="mem_in"),)


def test_two_outputs_for_an_input_are_not_guessed() -> None:
    assert find_states(signature([spec("h")], [spec("hn"), spec("h_out")])).states == ()


def test_open_dimensions_fit_and_others_are_named() -> None:
    open_shape = signature([spec("state", (2, "batch", 8))], [spec("stateN", ("a", "batch", "b"))])
    assert find_states(open_shape).states == (State(output="stateN", input="state"),)
    other = find_states(signature([spec("state", (2, 1, 8))], [spec("stateN", (1, 1, 8))]))
    assert other.states == ()
    assert "stateN float32 [1, 1, 8]" in other.unfit[0]
    assert "state float32 [2, 1, 8]" in other.unfit[0]
    kind = find_states(signature([spec("state")], [spec("stateN", dtype="float64")]))
    assert kind.states == ()
    assert "float64" in kind.unfit[0]
    assert find_states(signature([spec("crop_in", (1, 2))], [spec("crop_out", (1, 3))])).unfit == ()


def test_given_states_go_before_found_ones() -> None:
    model = signature([spec("h"), spec("c")], [spec("hn"), spec("cn"), spec("other")])
    assert choose_states(parse_states(["other=h"]), model).states == (
        State(output="other", input="h"),
        State(output="cn", input="c"),
    )
    assert choose_states(parse_states(["none"]), model).states == ()
    assert choose_states(parse_states(["none", "hn=h"]), model).states == (State(output="hn", input="h"),)


@pytest.mark.parametrize(
    ("texts", "message", "hint"),
    [
        (["h"], "'h' is no pair", "OUTPUT=INPUT"),
        (["=h"], "no pair", "stateN=state"),
        (["hm=h"], "the model has no output 'hm'", "outputs: score, hn, small; inputs: frame, h"),
        (["hn=state"], "the model has no input 'state'", "inputs: frame, h"),
        (["h=hn"], "the model has no output 'h'", "the output comes first: --state hn=h"),
        (["hn=h", "score=h"], "input h is fed by hn and by score", "an input takes one output"),
        (["small=h"], "small float32 [1, 1, 4], and the input is h float32 [1, 1, 8]", "shape and type"),
    ],
)
def test_wrong_pairs_are_refused(texts: list[str], message: str, hint: str) -> None:
    model = signature([spec("h")], [spec("hn"), spec("small", (1, 1, 4))])
    with pytest.raises(UsageError) as caught:
        choose_states(parse_states(texts), model)
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)


def test_a_cache_that_grows_does_not_fit() -> None:
    state = State(output="present", input="past")
    feeds = {"past": np.zeros((1, 4, 8), np.float32)}
    assert explain_misfit(state, feeds, {"present": np.zeros((1, 4, 8), np.float32)}) is None
    assert "[1, 5, 8]" in str(explain_misfit(state, feeds, {"present": np.zeros((1, 5, 8), np.float32)}))
