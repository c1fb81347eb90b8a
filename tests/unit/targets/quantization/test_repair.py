"""Which layers go back to float, on a made-up runtime."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scripted_search import FAIR, GOOD, POOR, FakeQuantizer, Model, Way, names, run

from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.limit import Limit
from modelwright.targets.quantization.goal import Level
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.kept import LayerTimes
from modelwright.targets.quantization.quantizer import Trial
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.quantization.sensitivity import Layer, list_worst


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


@pytest.mark.parametrize("fault", ["run", "nan"])
def test_a_layer_that_breaks_the_model_goes_back(judge: Judge, fault: str) -> None:
    quantizer = FakeQuantizer([[Way("w")]], dict.fromkeys("abcdefgh", GOOD / 10), faults={"f": fault})
    found = run(quantizer, judge)
    assert (found.kept, found.ended_by) == (("f",), "goal")


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
