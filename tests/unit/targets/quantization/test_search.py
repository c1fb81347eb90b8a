"""The search on a made-up runtime: every layer adds an error of known energy while it is quantized."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.limit import Limit
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import BuildRequest, Feeds
from modelwright.targets.quantization.budget import LEAST, MOST, count_evaluations, count_repairs
from modelwright.targets.quantization.goal import Level
from modelwright.targets.quantization.judge import Judge, Outputs
from modelwright.targets.quantization.kept import LayerTimes
from modelwright.targets.quantization.quantizer import Quantizer, Trial
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.quantization.search import Found, search
from modelwright.targets.quantization.sensitivity import Layer, list_worst

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 2)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 2)),),
)
GOOD, FAIR, POOR = 0.001, 0.05, 0.5
"""Energies of an error (of FP32's 1) that make a candidate good, fair and poor: noise of 0.1 %, 5 % and 50 %."""


@dataclass(frozen=True)
class Way:
    name: str
    error: float = 0.0


@dataclass
class Model:
    """The energy of the error that it answers with, or another fault."""

    error: float
    faults: set[str] = field(default_factory=set)


@dataclass
class FakeQuantizer(Quantizer[Way, Model]):
    """Adds up errors: the candidate's own, and that of each quantized layer.

    Attributes:
        groups: Candidates.
        layers: Layer -> error while it is quantized.
        shares: Layer -> share of the work; equal ones where none are given.
        faults: Candidate or layer -> `build` or `run` (raises there) or `nan`.
        made: What was built: candidate's name, layers in float.
    """

    groups: Sequence[Sequence[Way]]
    layers: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] | None = None
    faults: Mapping[str, str] = field(default_factory=dict)
    made: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def candidates(self) -> Sequence[Sequence[Way]]:
        return self.groups

    def build(self, candidate: Way, kept: Collection[str]) -> Model:
        self.made.append((candidate.name, tuple(kept)))
        quantized = [name for name in self.layers if name not in kept]
        faults = {self.faults[name] for name in (candidate.name, *quantized) if name in self.faults}
        if "build" in faults:
            raise BuildFailedError(f"{candidate.name} does not build", hint="another one")
        return Model(max(0.0, candidate.error + sum(self.layers[name] for name in quantized)), faults)

    def run(self, model: Model, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        for inputs in feeds:
            if "run" in model.faults:
                raise BuildFailedError("it does not run", hint="another runtime")
            x = inputs["x"]
            # At right angles to FP32's answer, which is the input: energies then add up and give the cosine.
            answer = x + np.sqrt(model.error) * np.stack([-x[:, 1], x[:, 0]], axis=1)
            yield {"y": answer * np.nan if "nan" in model.faults else answer}

    def works(self, model: Model) -> Mapping[str, LayerWork]:
        shares = self.shares or dict.fromkeys(self.layers, 1 / max(len(self.layers), 1))
        return {name: LayerWork(products=share * 1e9) for name, share in shares.items()}


class BusyClock:
    """Jumps by another time at every look, as on a machine that does something else too."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        self.step_s *= 1.5
        return self.now_s


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    rows = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=rows)
    samples = open_samples(SampleRef(path=tmp_path / "s.npz", part="all"), SIGNATURE)
    reference = [{"y": feeds["x"]} for feeds in samples.feeds()]
    roles = {"y": OutputRole(name="y", role="regression", why="two numbers", axis=1)}
    return Judge(samples=samples, part="tuning", reference=reference, roles=roles)


def run(quantizer: Quantizer[Way, Model], judge: Judge | None, **changes: Any) -> Found[Way, Model]:
    return search(quantizer, judge, lambda line: None, **changes)


def names(found: Found[Way, Model]) -> list[str]:
    return [trial.candidate.name for trial in found.trials]


def test_the_first_group_with_a_good_one_ends_the_search_and_its_best_is_taken(judge: Judge) -> None:
    groups = [[Way("a", FAIR)], [Way("b", GOOD), Way("c", GOOD / 2), Way("d", POOR)], [Way("e", 0.0)]]
    found = run(FakeQuantizer(groups), judge)
    assert names(found) == ["a", "b", "c", "d"]
    assert (found.candidate.name, found.kept, found.ended_by) == ("c", (), "goal")
    assert found.figures is not None
    assert found.figures.kept == pytest.approx(1 - GOOD / 2, rel=0.3), "R squared of the worst of two channels"
    assert found.notes() == []


def test_of_equals_the_first_is_taken(judge: Judge) -> None:
    for error in (GOOD, FAIR, POOR):
        found = run(FakeQuantizer([[Way("a", error), Way("b", error)], [Way("c", error)]]), judge)
        assert found.candidate.name == "a"


def test_a_runtime_may_choose_among_those_of_a_group_that_are_as_good_as_its_best(judge: Judge) -> None:
    class Choosy(FakeQuantizer):
        def choose(self, good: Sequence[Trial[Way]]) -> Trial[Way]:
            assert [trial.candidate.name for trial in good] == ["a", "c", "hair"]
            return good[0]

    found = run(Choosy([[Way("a", GOOD), Way("b", FAIR), Way("c", 0.0015), Way("hair", 0.0019)]]), judge)
    assert found.candidate.name == "a"
    assert found.model.error == GOOD


def test_where_speeds_differ_every_good_one_may_be_taken(judge: Judge) -> None:
    class Choosy(FakeQuantizer):
        equally_fast = False

        def choose(self, usable: Sequence[Trial[Way]]) -> Trial[Way]:
            assert [trial.candidate.name for trial in usable] == ["a", "c"]
            return usable[0]

    assert run(Choosy([[Way("a", GOOD), Way("b", FAIR), Way("c", GOOD / 50)]]), judge).candidate.name == "a"


def test_a_runtime_may_choose_among_fair_ones_too(judge: Judge) -> None:
    class Choosy(FakeQuantizer):
        def choose(self, usable: Sequence[Trial[Way]]) -> Trial[Way]:
            assert [trial.candidate.name for trial in usable] == ["b", "c"]
            return usable[0]

    found = run(Choosy([[Way("a", FAIR * 2)], [Way("b", FAIR * 1.01), Way("c", FAIR)], [Way("d", POOR)]]), judge)
    assert (found.candidate.name, found.ended_by) == ("b", "candidates")


def test_a_lucky_candidate_does_not_beat_a_closer_one_of_an_earlier_group(tmp_path: Path) -> None:
    """Of 40 samples 6 are of class 1, two of them barely: which of them flip is chance, the noise is not."""
    rows = np.random.default_rng(0).standard_normal((40, 1)) * 0.2 + 1.5
    rows[:6] = [[-1.5], [-1.4], [-1.6], [-1.5], [-0.05], [-0.04]]
    np.savez(tmp_path / "s.npz", x=np.concatenate([rows, -rows], axis=1).astype(np.float32))
    samples = open_samples(SampleRef(path=tmp_path / "s.npz", part="all"), SIGNATURE)
    reference = [{"y": feeds["x"]} for feeds in samples.feeds()]
    roles = {"y": OutputRole(name="y", role="classes", why="two classes", axis=1)}
    judge = Judge(samples=samples, part="tuning", reference=reference, roles=roles)

    class Flipping(FakeQuantizer):
        def run(self, model: Model, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
            for inputs in feeds:
                x = inputs["x"]
                yield {"y": np.where(np.abs(x) < 0.1, -x, x) if model.error == 0.0 else x * 1.08}

    found = run(Flipping([[Way("close", 0.0)], [Way("lucky", 1.0)]]), judge)
    assert [trial.figures.level for trial in found.trials] == [Level.FAIR, Level.GOOD]
    assert found.candidate.name == "close"
    assert found.ended_by == "candidates"


def test_a_fair_candidate_gets_layers_back_only_where_few_make_it_good(judge: Judge) -> None:
    layers = dict.fromkeys("abcdefghij", GOOD / 100)
    shares = {**dict.fromkeys("abdefgij", 0.124), "c": 0.003, "h": 0.003}
    found = run(FakeQuantizer([[Way("w")]], {**layers, "c": FAIR / 2, "h": FAIR / 2}, shares), judge)
    assert (set(found.kept), found.ended_by) == ({"c", "h"}, "goal")
    assert "2 layers left in float" in found.notes()[0]
    spread = run(FakeQuantizer([[Way("w")]], dict.fromkeys("abcdefghij", FAIR / 10)), judge)
    assert (spread.kept, spread.ended_by) == ((), "candidates")
    assert "less closely than wanted" in spread.notes()[0]


@pytest.mark.parametrize(("energy", "most"), [(0.03, 0.002), (0.06, 0.0127), (0.12, 0.062)])
def test_what_good_may_cost_goes_with_what_a_fair_one_misses(judge: Judge, energy: float, most: float) -> None:
    """Noise of 3, 6 and 12 % is of severity 1.14, 1.36 and 1.79: a tenth of the square of what is beyond 1."""
    layers = {"head": energy, "body": GOOD / 100}
    for share, kept in ((most * 0.7, ("head",)), (most * 1.3, ())):
        found = run(FakeQuantizer([[Way("w")]], layers, {"head": share, "body": 1 - share}), judge)
        assert found.trials[0].figures.level is Level.FAIR
        assert found.kept == kept, found.trials[0].figures.severity
        limited = replace(judge, limit=Limit(max_drop=1.0, by="kept", evaluated=40))
        found = run(FakeQuantizer([[Way("w")]], layers, {"head": share, "body": 1 - share}), limited)
        assert found.kept == ("head",), "a limit goes before speed"


def test_a_faster_group_is_taken_where_a_slower_one_is_no_closer(judge: Judge) -> None:
    """Nine tenths of the error is no other one, on so few samples; a half is."""
    found = run(FakeQuantizer([[Way("fast", FAIR)], [Way("slow", FAIR * 0.9)], [Way("accurate", POOR)]]), judge)
    assert found.candidate.name == "fast"
    assert run(FakeQuantizer([[Way("fast", FAIR)], [Way("slow", FAIR / 2)]]), judge).candidate.name == "slow"
    layers = {"head": POOR, "body": 0.0}
    groups = [[Way("fast", GOOD)], [Way("slow", GOOD / 1.2)]]
    repaired = run(FakeQuantizer(groups, layers, {"head": 0.1, "body": 0.9}), judge)
    assert (repaired.candidate.name, repaired.kept) == ("fast", ("head",))


def test_a_poor_one_gets_as_many_as_make_it_fair_up_to_half_the_work(judge: Judge) -> None:
    layers = {**dict.fromkeys("abcdef", GOOD / 10), "g": POOR, "h": POOR, "i": POOR, "j": POOR}
    found = run(FakeQuantizer([[Way("w")]], layers), judge)
    assert set(found.kept) == set("ghij")
    assert found.figures is not None
    assert found.figures.level is Level.GOOD
    lost = run(FakeQuantizer([[Way("w")]], dict.fromkeys("abcdefghij", POOR)), judge)
    assert (lost.kept, lost.ended_by) == ((), "candidates")
    assert "compare its accuracy before shipping it" in lost.notes()[0]


def test_a_poor_one_that_loses_half_its_error_is_worth_it(judge: Judge) -> None:
    layers = {**dict.fromkeys("abcdefghi", POOR), "j": POOR * 50}
    found = run(FakeQuantizer([[Way("w")]], layers), judge)
    assert found.kept == ("j", "a"), "the worst, and what a fifth of the work has room for"
    assert len(found.notes()) == 2


def test_where_half_the_work_does_not_save_a_model_the_layer_that_harms_it_goes_whatever_it_costs(judge: Judge) -> None:
    """As the matrix behind a spectrum, nearly all of the work: what is cheap went instead, and saved nothing."""
    layers = {"mel": POOR * 2, "cheap": GOOD / 50, "last": GOOD / 50}
    shares = {"mel": 0.98, "cheap": 0.01, "last": 0.01}
    found = run(FakeQuantizer([[Way("w")]], layers, shares), judge)
    assert found.kept == ("mel",)
    assert found.figures is not None
    assert found.figures.level is Level.GOOD
    limited = replace(judge, limit=Limit(max_drop=1.0, by="kept", evaluated=40))
    assert run(FakeQuantizer([[Way("w")]], layers, {"mel": 0.98, "cheap": 0.01, "last": 0.01}), limited).kept == (
        "mel",
    )


def test_the_fewest_layers_that_suffice_are_kept(judge: Judge) -> None:
    layers = {f"l{number}": (FAIR / 6 if number in (7, 20, 31) else 0.0) for number in range(40)}
    quantizer = FakeQuantizer([[Way("w")]], layers, {name: 0.001 if error else 0.1 for name, error in layers.items()})
    found = run(quantizer, judge)
    # 40 layers are ranked in 32 groups of one or two; of the three that harm, two have to go.
    assert {name for name in found.kept if layers[name]} < {"l7", "l20", "l31"}
    assert len([name for name in found.kept if layers[name]]) == 2
    tries = [kept for _, kept in quantizer.made[1:]]
    assert len(tries) <= 32 + 3, "one a group, then all that harm and two halvings"


def test_work_decides_between_layers_that_harm_alike(judge: Judge) -> None:
    layers = {"dear": GOOD * 7, "cheap": GOOD * 7, "rest": 0.0}  # 1 % together is what is good
    found = run(FakeQuantizer([[Way("w")]], layers, {"dear": 1e-4, "cheap": 5e-5, "rest": 1.0}), judge)
    assert found.kept == ("cheap",)


def test_layers_beyond_the_share_are_passed_over() -> None:
    layers = [Layer(name=name, share=share, gain=1.0) for name, share in (("a", 0.1), ("b", 0.3), ("c", 0.1))]
    assert list_worst(layers, 0.2) == [("a",), ("a", "c")]
    assert list_worst(layers, 0.05) == []


def test_the_noise_of_a_layer_tells_it_from_its_neighbours(judge: Judge) -> None:
    """40 layers are tried in 16 groups: which of a group harms says the noise at the layers."""

    class Knowing(FakeQuantizer):
        def estimate_noise(self, candidate: Way, model: Model) -> Mapping[str, float]:
            return {name: error + 1e-6 for name, error in self.layers.items()}

    layers = {f"l{number}": (POOR if number in (7, 31) else 0.0) for number in range(40)}
    assert set(run(Knowing([[Way("w")]], layers), judge).kept) == {"l7", "l31"}
    blind = run(FakeQuantizer([[Way("w")]], layers), judge)
    assert {"l7", "l31"} <= set(blind.kept)
    assert len(blind.kept) > 2


def test_noise_that_does_no_harm_is_left_alone(judge: Judge) -> None:
    class Loud(FakeQuantizer):
        def estimate_noise(self, candidate: Way, model: Model) -> Mapping[str, float]:
            return {name: 1.0 if name == "a" else 0.01 for name in self.layers}

    quantizer = Loud([[Way("w")]], {**dict.fromkeys("abcdefghi", 0.0), "j": POOR})
    assert run(quantizer, judge).kept == ("j",), "what a group does to the outputs decides before noise does"


def test_noise_against_answers_that_are_no_numbers_is_not_known(judge: Judge) -> None:
    """FP32 makes NaN of some samples: the layer is found by its group, and the manifest holds what JSON can."""

    class Undefined(FakeQuantizer):
        def estimate_noise(self, candidate: Way, model: Model) -> Mapping[str, float]:
            return {"a": 0.01, "j": math.nan}

    found = run(Undefined([[Way("w")]], {**dict.fromkeys("abcdefghi", 0.0), "j": POOR}), judge)
    assert found.kept == ("j",)
    assert [layer["noise"] for layer in found.describe()["float_layers"]] == [None]


def test_a_cheaper_model_may_rank_layers(judge: Judge) -> None:
    class Bypassing(FakeQuantizer):
        def build_for_ranking(self, candidate: Way, model: Model, quantized: Collection[str]) -> Model:
            return Model(sum(self.layers[name] for name in quantized))

    quantizer = Bypassing([[Way("w")]], {**dict.fromkeys("abcdefghi", 0.0), "j": POOR})
    assert run(quantizer, judge).kept == ("j",)
    assert quantizer.made == [("w", ()), ("w", ("j",))]


def test_a_runtime_is_told_what_is_asked_for_next(judge: Judge) -> None:
    told: list[tuple[str, ...]] = []

    class Batching(FakeQuantizer):
        def foresee(self, candidate: Way, choices: Iterable[tuple[str, ...]]) -> None:
            told.extend(choices)

    quantizer = Batching([[Way("w")]], {"a": 0.0, "b": 0.0, "c": POOR})
    run(quantizer, judge)
    assert told == [("a", "b", "c"), ("b", "c"), ("a", "c"), ("a", "b")], "none is quantized, then one after the other"
    assert [kept for _, kept in quantizer.made[1:5]] == told


def test_layers_go_back_in_the_candidate_that_the_runtime_names(judge: Judge) -> None:
    class Based(FakeQuantizer):
        def base(self, best: Way, *, as_fast: bool) -> Way:
            return self.groups[0][1]

    quantizer = Based([[Way("best", -0.01), Way("base")]], {**dict.fromkeys("abcdefghi", 0.0), "j": POOR})
    found = run(quantizer, judge)
    assert (found.candidate.name, found.kept) == ("base", ("j",))
    assert names(found) == ["best", "base", "base"]


def test_of_several_that_a_repair_makes_good_the_runtime_takes_the_one_that_is_as_fast_as_can_be(judge: Judge) -> None:
    class Choosy(FakeQuantizer):
        def choose(self, usable: Sequence[Trial[Way]]) -> Trial[Way]:
            return next(trial for trial in usable if trial.candidate.name == "fast")

    class Uneven(Choosy):
        equally_fast = False

    layers = {**dict.fromkeys("abcdefghi", 0.0), "j": POOR}
    group = [Way("fast", GOOD), Way("close", GOOD / 50)]
    found = run(Uneven([group], layers), judge)
    assert (found.candidate.name, found.kept) == ("fast", ("j",))
    assert run(Choosy([group], layers), judge).candidate.name == "close", "where all are as fast"
    bad = run(Uneven([[Way("fast", POOR), Way("close", GOOD / 50)]], layers), judge)
    assert bad.candidate.name == "close", "nothing that is not good is taken for its speed"


def test_another_way_to_run_is_looked_at_where_a_candidate_is_not_good(judge: Judge) -> None:
    class TwoWays(FakeQuantizer):
        def other_ways(self, model: Model) -> Iterable[Model]:
            return [Model(GOOD)]

    found = run(TwoWays([[Way("a", POOR), Way("b", GOOD)]]), judge)
    assert names(found) == ["a", "b"]
    assert (found.candidate.name, found.model.error) == ("a", GOOD)
    broken = run(TwoWays([[Way("a", POOR)]], faults={"a": "run"}), judge)
    assert broken.model.error == GOOD, "the way that runs is taken"


@pytest.mark.parametrize("fault", ["build", "run", "nan"])
def test_a_candidate_that_fails_is_told_and_passed_over(judge: Judge, fault: str) -> None:
    found = run(FakeQuantizer([[Way("a")], [Way("b", GOOD)]], faults={"a": fault}), judge)
    assert (found.candidate.name, found.ended_by) == ("b", "goal")
    told = found.describe()["candidates"][0]
    assert (told["name"], told["level"]) == ("a", "broken")
    assert told["fault"]
    assert found.notes() == [f"1 of 2 ways of quantizing that were tried failed: {told['fault']} (a)"]


def test_trials_that_fail_alike_are_told_together(judge: Judge) -> None:
    class Refusing(FakeQuantizer):
        def build(self, candidate: Way, kept: Collection[str]) -> Model:
            if candidate.error == POOR:
                raise BuildFailedError(f"it cannot make net.onnx ({candidate.name}): no bias", hint="another")
            return super().build(candidate, kept)

    found = run(Refusing([[Way("a", POOR), Way("b", POOR), Way("c", GOOD)]]), judge)
    assert found.notes() == [
        "2 of 3 ways of quantizing that were tried failed: it cannot make net.onnx: no bias (a; b)"
    ]


@pytest.mark.parametrize(
    ("fault", "words"), [("build", "a does not build"), ("run", "it does not run"), ("nan", "no way of .* NaN")]
)
def test_nothing_that_works_is_an_error_with_its_first_reason(judge: Judge, fault: str, words: str) -> None:
    quantizer = FakeQuantizer([[Way("a"), Way("b")], [Way("c")]], {"l": 0.0}, faults=dict.fromkeys("abc", fault))
    with pytest.raises(BuildFailedError, match=words) as caught:
        run(quantizer, judge)
    assert caught.value.hint


@pytest.mark.parametrize("where", ["build", "run", "costs", "again"])
def test_what_works_outlives_whatever_a_later_step_raises(judge: Judge, where: str) -> None:
    """A vendor's own errors, as they come: NNCF raises ValidationError, OpenVINO RuntimeError, both Exceptions."""

    class Fragile(FakeQuantizer):
        def build(self, candidate: Way, kept: Collection[str]) -> Model:
            again = ("fair", ()) in self.made
            if (where == "build" and candidate.name == "late") or (
                where == "again" and candidate.name == "fair" and again
            ):
                raise RuntimeError("Check 'false' failed")
            return super().build(candidate, kept)

        def run(self, model: Model, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
            if where == "run" and self.made[-1][0] == "late":
                raise KeyError("port")
            return super().run(model, feeds)

        def costs(self, model: Model) -> Mapping[str, float]:
            if where == "costs":
                raise RuntimeError("to_shape was called on a dynamic shape.")
            return super().costs(model)

        def choose(self, usable: Sequence[Trial[Way]]) -> Trial[Way]:
            return usable[0]

    groups = [[Way("fair", FAIR), Way("closer", FAIR / 1.001)], [Way("late", POOR)]]
    found = run(Fragile(groups, {"l": 0.0, "m": 0.0}), judge)
    assert found.candidate.name in {"fair", "closer"}
    assert found.figures is not None
    assert found.figures.level is Level.FAIR


def test_an_error_nobody_expected_is_told_where_nothing_works(judge: Judge) -> None:
    class Broken(FakeQuantizer):
        def build(self, candidate: Way, kept: Collection[str]) -> Model:
            raise RuntimeError("Check 'false' failed")

    with pytest.raises(BuildFailedError, match="RuntimeError: Check 'false' failed") as caught:
        run(Broken([[Way("a")]]), judge)
    assert "Traceback" in (caught.value.detail or "")


@pytest.mark.parametrize("fault", ["run", "nan"])
def test_a_layer_that_breaks_the_model_goes_back(judge: Judge, fault: str) -> None:
    quantizer = FakeQuantizer([[Way("w")]], dict.fromkeys("abcdefgh", GOOD / 10), faults={"f": fault})
    found = run(quantizer, judge)
    assert (found.kept, found.ended_by) == (("f",), "goal")


def test_without_samples_the_usual_one_is_taken_unchecked() -> None:
    quantizer = FakeQuantizer([[Way("a"), Way("b")]])
    found = run(quantizer, None)
    assert quantizer.made == [("a", ())]
    described = found.describe()
    assert (described["judged_on"], described["figures"], described["candidates"]) == (None, None, [])
    assert "unchecked" in found.notes()[0]


def test_candidates_are_tried_as_long_as_evaluations_are_left_but_a_first_one_always(judge: Judge) -> None:
    class Slow(FakeQuantizer):
        def effort(self, candidate: Way) -> float:
            return {"dear": 100.0, "a": 2.0}.get(candidate.name, 1.0)

    judge = replace(judge, work=4e12 / 10 / 40)
    assert count_evaluations(judge) == 10
    found = run(Slow([[Way("dear", POOR)], [Way("b", GOOD)]]), judge)
    assert (names(found), found.ended_by) == (["dear"], "budget")
    groups = [[Way("a", POOR)], [Way("dear", GOOD)], *([Way(f"c{number}", POOR)] for number in range(40))]
    found = run(Slow(groups), judge)
    assert "dear" not in names(found)
    assert len(names(found)) == 9
    assert found.ended_by == "budget"


def test_of_a_small_model_so_many_candidates_are_tried_at_most(judge: Judge) -> None:
    found = run(FakeQuantizer([[Way(f"c{number}", POOR) for number in range(MOST + 5)]]), judge)
    assert (len(names(found)), found.ended_by) == (MOST, "budget")


def test_a_busy_machine_tries_what_an_idle_one_tries(judge: Judge) -> None:
    layers = {**dict.fromkeys("abcdefghij", 0.0), "b": POOR, "i": FAIR / 2}
    groups = [[Way("x", POOR), Way("w", -0.01)], [Way("v", POOR)]]
    tried = []
    for step_s in (0.0, 3600.0):
        quantizer = FakeQuantizer(groups, layers)
        found = run(quantizer, judge, clock=BusyClock(step_s))
        assert any(trial.seconds > 1000 for trial in found.trials) is (step_s > 0), "the record says how long it took"
        tried.append((quantizer.made, found.kept, found.ended_by, [trial.figures for trial in found.trials]))
    assert tried[0] == tried[1]


def test_a_model_that_works_more_is_evaluated_less(judge: Judge) -> None:
    assert count_evaluations(judge) > MOST
    resnet = replace(judge, work=4.1e9, model_bytes=102_000_000)
    assert count_evaluations(resnet) == 18
    assert count_evaluations(replace(judge, work=1e12, model_bytes=10**10)) == LEAST
    assert [count_repairs(judge, layers) for layers in (1, 8, 54, 500)] == [3, 6, 8, 11]
    assert count_repairs(replace(judge, work=1e12), 500) == LEAST


def test_one_layer_is_not_taken_for_a_quantized_model(judge: Judge) -> None:
    found = run(FakeQuantizer([[Way("w")]], {"only": POOR}), judge)
    assert found.kept == ()


def test_where_nothing_is_saved_all_layers_but_one_may_go_back(judge: Judge) -> None:
    """A net of three tiny layers is over before it begins: float costs it nothing, so a fair one becomes good."""

    class Tiny(FakeQuantizer):
        def works(self, model: Model) -> Mapping[str, LayerWork]:
            return {name: LayerWork(products=4096) for name in self.layers}

        def build(self, candidate: Way, kept: Collection[str]) -> Model:
            if len(kept) == len(self.layers):
                raise BuildFailedError("nothing can be quantized", hint="a float target")
            return super().build(candidate, kept)

    found = run(Tiny([[Way("w")]], {"a": FAIR / 2, "b": FAIR / 2, "c": GOOD / 2}), judge)
    assert (set(found.kept), found.ended_by) == ({"a", "b"}, "goal")


def test_layers_in_float_are_told_with_what_they_cost(judge: Judge) -> None:
    class Timed(FakeQuantizer):
        def estimate_noise(self, candidate: Way, model: Model) -> Mapping[str, float]:
            return {"j": 0.5}

        def time_layers(self, model: Model) -> LayerTimes:
            whole = model.error >= POOR
            return LayerTimes(
                source="a profile", times_us={"j": 2.0 if whole else 5.0, "a": 1.0}, total_us=10.0 if whole else 17.0
            )

    layers = {**dict.fromkeys("abcdefghi", 0.0), "j": POOR}
    found = run(Timed([[Way("w")]], layers), judge)
    described = found.describe()
    assert described["float_layers"] == [
        {
            "layer": "j",
            "reason": "sensitivity analysis",
            "work_share": 0.1,
            "noise": 0.5,
            "float_us": 5.0,
            "quantized_us": 2.0,
            "cost_us": 3.0,
        }
    ]
    assert (described["float_layers_timed_by"], described["float_layers_cost_us"]) == ("a profile", 7.0)
    assert found.notes() == [
        "1 layer left in float, because quantizing it loses too much: j (+3 us); "
        "an inference takes +7 us for it, by the a profile on the build host"
    ]
    (note,) = run(FakeQuantizer([[Way("w")]], layers), judge).notes()
    assert note.endswith("too much: j; 10.0% of the work, an estimate of the time that float costs")


def test_a_profiler_that_fails_costs_nothing_else(judge: Judge) -> None:
    class Torn(FakeQuantizer):
        def time_layers(self, model: Model) -> LayerTimes:
            raise RuntimeError("no profile")

    found = run(Torn([[Way("w")]], {**dict.fromkeys("abcdefghi", 0.0), "j": POOR}), judge)
    assert (found.kept, found.ended_by) == (("j",), "goal")
    assert found.describe()["float_layers"][0]["cost_us"] is None


def test_a_limit_may_put_more_back_than_half_of_the_work(judge: Judge) -> None:
    """All but one layer, where the user asks for it; without a limit what is fair is left as it is."""
    layers = dict.fromkeys("abcdefghij", FAIR / 8)  # each is 0.6 %: two of them are beyond 1 %
    assert run(FakeQuantizer([[Way("w")]], layers), judge).kept == ()
    limited = replace(judge, limit=Limit(max_drop=1.0, by="kept", evaluated=40))
    found = run(FakeQuantizer([[Way("w")]], layers), limited)
    assert (len(found.kept), found.ended_by) == (9, "goal")
    hopeless = dict.fromkeys("abcdefghij", POOR)
    assert run(FakeQuantizer([[Way("w")]], hopeless), limited).figures.level < Level.FAIR


def test_five_hundred_layers_take_some_thirty_builds_and_two_runs_agree(judge: Judge) -> None:
    rng = np.random.default_rng(5)
    layers = {f"l{number}": float(error) for number, error in enumerate(rng.exponential(FAIR / 5000, 500))}
    layers |= {"l17": FAIR, "l333": POOR}
    found = []
    for _ in range(2):
        quantizer = FakeQuantizer([[Way("w"), Way("v", GOOD)]], layers)
        found.append(run(quantizer, judge))
        assert len(quantizer.made) <= 2 + (1 + 18) + 9
    assert found[0].kept == found[1].kept
    assert {"l17", "l333"} < set(found[0].kept)
    assert len(found[0].kept) <= 0.2 * 500


def make_request(tmp_path: Path, tuning: str | None, calibration: str | None) -> BuildRequest:
    import onnx
    from onnx import helper

    value, result = (helper.make_tensor_value_info(name, 1, ["n", 2]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "g", [value], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")

    def open_part(part: Any) -> Any:
        return None if part is None else open_samples(SampleRef(path=tmp_path / "s.npz", part=part), SIGNATURE)

    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32))
    return BuildRequest(
        model_path=tmp_path / "m.onnx",
        signature=SIGNATURE,
        directory=tmp_path,
        machine=Machine(name="box", architecture="x86_64", instruction_sets=frozenset(), cores=2),
        calibration=open_part(calibration),
        tuning=open_part(tuning),
        reference=None,
        scratch=tmp_path,
        shared=tmp_path,
        progress=lambda line: None,
    )


@pytest.mark.parametrize(("tuning", "part", "count"), [("tuning", "tuning", 5), (None, "calibration", 15)])
def test_the_judge_asks_fp32_itself_where_nobody_did(tmp_path: Path, tuning: str | None, part: str, count: int) -> None:
    pytest.importorskip("onnxruntime")
    judge = Judge.of_request(make_request(tmp_path, tuning, "calibration"))
    assert judge is not None
    assert judge.to_dict() == {"part": part, "samples": count}
    figures = judge.judge(lambda feeds: ({"y": inputs["x"] ** 2} for inputs in feeds))
    assert figures.error == pytest.approx(0.0, abs=1e-12)
    assert figures.samples == count


def test_without_samples_there_is_no_judge(tmp_path: Path) -> None:
    assert Judge.of_request(make_request(tmp_path, None, None)) is None
