"""Which candidate the search takes, on a made-up runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripted_search import FAIR, GOOD, POOR, SIGNATURE, BusyClock, FakeQuantizer, Model, Way, names, run

from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import Feeds
from modelwright.targets.quantization.budget import LEAST, MOST, count_evaluations, count_repairs
from modelwright.targets.quantization.goal import Level
from modelwright.targets.quantization.judge import Judge, Outputs
from modelwright.targets.quantization.quantizer import Trial


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


def test_a_faster_group_is_taken_where_a_slower_one_is_no_closer(judge: Judge) -> None:
    """Nine tenths of the error is no other one, on so few samples; a half is."""
    found = run(FakeQuantizer([[Way("fast", FAIR)], [Way("slow", FAIR * 0.9)], [Way("accurate", POOR)]]), judge)
    assert found.candidate.name == "fast"
    assert run(FakeQuantizer([[Way("fast", FAIR)], [Way("slow", FAIR / 2)]]), judge).candidate.name == "slow"
    layers = {"head": POOR, "body": 0.0}
    groups = [[Way("fast", GOOD)], [Way("slow", GOOD / 1.2)]]
    repaired = run(FakeQuantizer(groups, layers, {"head": 0.1, "body": 0.9}), judge)
    assert (repaired.candidate.name, repaired.kept) == ("fast", ("head",))


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


def test_what_makes_the_model_of_another_is_not_judged_again(judge: Judge) -> None:
    class Telling(FakeQuantizer):
        judged = 0

        def identify(self, model: Model) -> str | None:
            return str(model.error)

        def run(self, model: Model, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
            self.judged += 1
            return super().run(model, feeds)

        def choose(self, usable: Sequence[Trial[Way]]) -> Trial[Way]:
            assert [trial.candidate.name for trial in usable] == ["b", "c"], "what is the same is no rival"
            return usable[1]

    poor = [Way("a", POOR), Way("twin", POOR)]
    quantizer = Telling([poor, [Way("b", GOOD), Way("b's twin", GOOD), Way("c", 0.0015)]])
    found = run(quantizer, judge)
    assert quantizer.judged == 3
    assert [trial.same_as for trial in found.trials] == [None, "a", None, "b", None]
    assert found.trials[1].figures == found.trials[0].figures
    assert found.candidate.name == "c"


def test_what_repeats_another_is_not_even_built(judge: Judge) -> None:
    class Knowing(FakeQuantizer):
        def repeats(self, candidate: Way) -> bool:
            return candidate.name == "again"

    quantizer = Knowing([[Way("a", FAIR)], [Way("again", GOOD)], [Way("other", FAIR * 2)]])
    assert names(run(quantizer, judge)) == ["a", "other"]
    assert ("again", ()) not in quantizer.made
