"""Recurrent state: outputs that a model is fed with in its next step, found by name and shape or said by the user.

A silero VAD gives `stateN` for `state`, a streaming GRU `h_out` for `h_in`, a decoder with a cache of fixed size
`present.0.key` for `past_key_values.0.key`. The rules are narrow: what is fed back by mistake would be judged wrongly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import UsageError, suggest
from modelwright.core.records.codec import Record
from modelwright.core.records.signature import Signature, TensorSpec

NO_STATES = "none"
"""What the user says where the rules find states that are none."""

_IN_MARKS = frozenset({"in", "input", "prev", "previous", "old", "past", "init", "initial"})
_OUT_MARKS = frozenset({"out", "output", "next", "new", "n", "present", "updated"})
_STATE_WORDS = frozenset(
    {"state", "states", "hidden", "cell", "h", "c", "hn", "cn", "cache", "past", "present", "mem", "memory", "lstm"}
    | {"gru", "rnn", "kv", "carry", "buffer"}
)
_SIGNAL_WORDS = frozenset(
    {"x", "y", "z", "image", "images", "img", "audio", "wav", "waveform", "signal", "frame", "frames", "video", "data"}
    | {"pixel", "pixels", "sample", "samples", "latent", "latents", "noise", "noisy", "text", "token", "tokens", "ids"}
    | {"mel", "spec", "spectrogram", "feature", "features", "feat", "mask", "depth", "points", "src", "tgt", "embeds"}
)
"""What such names carry is the signal itself: a denoiser's `audio_out` is no state for its `audio_in`."""
_ENDINGS = (("0", "n"), ("in", "out"), ("i", "o"))
"""Ends of one word: `h0` and `hn`, `hin` and `hout`, `r1i` and `r1o`."""


class State(Record):
    """An output that is an input of the next step.

    Attributes:
        output: Its name.
        input: The name of the input that it feeds.
    """

    output: str
    input: str

    def describe(self) -> str:
        """Returns for instance `stateN -> state`."""
        return f"{self.output} -> {self.input}"


@dataclass(frozen=True, kw_only=True)
class StateChoice:
    """What the user said about states.

    Attributes:
        given: Pairs by name; each replaces what would be found for its input.
        finds: Whether the rules look for others.
    """

    given: tuple[State, ...] = ()
    finds: bool = True


@dataclass(frozen=True, kw_only=True)
class FoundStates:
    """A model's states, and those that have a name like one but do not fit.

    Attributes:
        states: In the order of the inputs.
        unfit: Sentences.
    """

    states: tuple[State, ...] = ()
    unfit: tuple[str, ...] = ()


def parse_states(texts: Sequence[str]) -> StateChoice:
    """Reads `--state OUT=IN`; `none` finds no states but those that are given.

    Raises:
        UsageError: Not a pair of names.
    """
    given = []
    for text in texts:
        if text == NO_STATES:
            continue
        output, separator, name = text.partition("=")
        if not separator or not output or not name:
            raise UsageError(
                f"--state: {text!r} is no pair of an output and an input",
                hint="write --state OUTPUT=INPUT, such as stateN=state; --state none finds no states",
            )
        given.append(State(output=output, input=name))
    return StateChoice(given=tuple(given), finds=NO_STATES not in texts)


def choose_states(choice: StateChoice, signature: Signature) -> FoundStates:
    """Returns the states of a model: those that the user gave, and those found for other inputs.

    Raises:
        UsageError: A name is none of the model's, an input is fed twice, or the two differ in shape or type.
    """
    inputs = {spec.name: spec for spec in signature.inputs}
    outputs = {spec.name: spec for spec in signature.outputs}
    given: dict[str, State] = {}
    for state in choice.given:
        _require_names(state, inputs, outputs)
        if state.input in given:
            raise UsageError(
                f"--state: input {state.input} is fed by {given[state.input].output} and by {state.output}",
                hint="an input takes one output",
            )
        fault = _explain_unfit(outputs[state.output], inputs[state.input])
        if fault is not None:
            raise UsageError(
                f"--state {state.output}={state.input}: {fault}",
                hint="a state has the shape and type of the input that it feeds",
            )
        given[state.input] = state
    found = find_states(signature) if choice.finds else FoundStates()
    taken = {state.output for state in given.values()}
    states = given | {
        state.input: state for state in found.states if state.input not in given and state.output not in taken
    }
    return FoundStates(
        states=tuple(states[name] for name in inputs if name in states), unfit=() if given else found.unfit
    )


def find_states(signature: Signature) -> FoundStates:
    """Finds outputs whose names say that they are an input of the next step, and whose shape and type fit it."""
    named = [
        (output, spec)
        for spec in signature.inputs
        for output in signature.outputs
        if _is_next(_split(output.name), _split(spec.name))
    ]
    fitting = [(output, spec) for output, spec in named if _explain_unfit(output, spec) is None]
    counts_in = Counter(spec.name for _, spec in fitting)
    counts_out = Counter(output.name for output, _ in fitting)
    states = tuple(
        State(output=output.name, input=spec.name)
        for output, spec in fitting
        if counts_in[spec.name] == counts_out[output.name] == 1
    )
    if len(states) == len(signature.inputs):
        states = ()  # nothing drives it: whatever it is, it is no step of a stream
    fed = {spec.name for _, spec in fitting}
    unfit = [
        f"output {output.name} has the name of the next {spec.name}, but {_explain_unfit(output, spec)}"
        for output, spec in named
        if spec.name not in fed and _STATE_WORDS & {*_split(spec.name)}
    ]
    return FoundStates(states=states, unfit=tuple(unfit))


def explain_misfit(
    state: State, feeds: Mapping[str, npt.NDArray[np.generic]], outputs: Mapping[str, npt.NDArray[np.generic]]
) -> str | None:
    """Returns why an output cannot be fed back as it really is, such as a cache that grows; None where it can."""
    value, fed = np.asarray(outputs[state.output]), feeds[state.input]
    if value.shape == fed.shape and value.dtype == fed.dtype:
        return None
    return (
        f"output {state.output} comes out as {value.dtype} {list(value.shape)}, "
        f"and input {state.input} is {fed.dtype} {list(fed.shape)}"
    )


def _require_names(state: State, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
    for kind, name, known in (("output", state.output, outputs), ("input", state.input, inputs)):
        if name in known:
            continue
        hint = f"outputs: {', '.join(outputs)}; inputs: {', '.join(inputs)}"
        if state.output in inputs and state.input in outputs:
            hint = f"the output comes first: --state {state.input}={state.output}"
        elif close := suggest(name, known):
            hint = f"{close} {hint}"
        raise UsageError(f"--state {state.output}={state.input}: the model has no {kind} {name!r}", hint=hint)


def _explain_unfit(output: TensorSpec, spec: TensorSpec) -> str | None:
    """Returns why two cannot be of one shape and type by their signature; dimensions that are open are left open."""
    fault = f"it is {output.describe()}, and the input is {spec.describe()}"
    if output.dtype != spec.dtype:
        return fault
    if output.shape is None or spec.shape is None:
        return None
    if len(output.shape) != len(spec.shape):
        return fault
    sizes = zip(output.shape, spec.shape, strict=True)
    return fault if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes) else None


def _split(name: str) -> tuple[str, ...]:
    """Returns the words of a name: `past_key_values.0.key` and `stateN` become `past 0 key` and `state n`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = [word for word in re.split(r"[^a-z0-9]+", snake) if word]
    if words[:3] == ["past", "key", "values"]:
        words = ["past", *words[3:]]
    if words[:3] == ["present", "key", "values"]:
        words = ["present", *words[3:]]
    return tuple(words)


def _is_next(output: tuple[str, ...], name: tuple[str, ...]) -> bool:
    """Whether an output's words say that it is an input's next value."""
    if name[-2:] == ("hidden", "states"):
        return False  # of a transformer's block: what flows through it
    rest_out, rest_in = _drop(output, _OUT_MARKS), _drop(name, _IN_MARKS)
    if rest_out == rest_in and len(rest_out) < len(output):
        return _may_be_state(rest_in) or ("present" in output and "past" in name)
    if output[:-1] != name[:-1] or not name:
        return False
    last_out, last_in = output[-1], name[-1]
    if last_in in _STATE_WORDS and last_out == last_in + "n":
        return True
    for before, after in _ENDINGS:
        stem = last_in.removesuffix(before)
        if stem != last_in and last_out == stem + after:
            named = (*name[:-1], stem) if stem else name[:-1]
            return _may_be_state(named) and (before != "i" or stem[-1:].isdigit())
    return False


def _may_be_state(words: tuple[str, ...]) -> bool:
    return bool(words) and (bool(_STATE_WORDS & {*words}) or not _SIGNAL_WORDS & {*words})


def _drop(words: tuple[str, ...], marks: frozenset[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in marks)
