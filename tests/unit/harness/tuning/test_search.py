"""A search on scripted times: it finds, stops, goes on, keeps everything, and believes no wrong answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripted_machine import Machine, make_search, make_space

from modelwright.core.errors import BadInputError, MeasurementInvalidError
from modelwright.harness.tuning.record import Configuration
from modelwright.harness.tuning.search import PATIENCE, SECOND_CHANCES
from modelwright.harness.tuning.study import JOURNAL

pytest.importorskip("optuna", reason="the search is Optuna's")


def take(how: Configuration) -> float:
    """Artifact b takes half; on two threads without spinning it is best, level low is a trap."""
    time = {"a": 2.0, "b": 1.0}[how.artifact]
    time *= 0.8 if how.threads == 2 else 1.0
    time *= 0.85 if how.options.get("spin") is False else 1.0
    return time * {"low": 1.4, "middle": 1.05}.get(how.options.get("level"), 1.0)


def test_it_finds_what_is_best_and_stops_when_nothing_can_win(tmp_path: Path) -> None:
    search = make_search(tmp_path, Machine(take))
    reason = search.run()
    best = search.incumbents[-1].configuration
    assert (best.artifact, best.threads, best.options.get("spin")) == ("b", 2, False)
    assert best.options.get("level") is None
    assert "no trial can win any more" in reason or "everything that can be tried" in reason
    assert len(search.study.trials) < make_space().size + 1
    since = len(search.study.trials) - 1 - search.incumbents[-1].number
    assert since >= PATIENCE or "everything" in reason
    keys = [trial.configuration.key for trial in search.study.trials]
    assert len(keys) - len(set(keys)) <= SECOND_CHANCES, "nothing is tried twice but what stayed in doubt"
    # Scores add up along the incumbents: a at 2.0 against b at 0.68.
    assert search.incumbents[-1].score == pytest.approx(1.0788, abs=0.05)


def test_what_stays_in_doubt_gets_a_second_longer_trial(tmp_path: Path) -> None:
    """1.5 % are within the noise of a trial's rounds, and not of three times as many."""
    space = make_space("a")
    small = type(space)(settings={"a": space.settings["a"][1:2]}, runtimes={"a": "rt"}, loads=((1, 1),))
    machine = Machine(lambda how: 0.97 if how.options.get("level") == "low" else 1.0, noise=0.06, process_noise=0.0)
    search = make_search(tmp_path, machine, space=small)
    assert search.run() == "everything that can be tried was tried"
    doubtful = [trial for trial in search.study.trials if trial.outcome == "undecided"]
    assert doubtful
    again = [trial for trial in search.study.trials if trial.configuration.key == doubtful[0].configuration.key]
    assert len(again) == 2
    assert again[1].rounds > again[0].rounds
    assert len(make_search(tmp_path, machine, space=small).study.trials) == len(search.study.trials)


def test_a_space_that_is_tried_through_ends_it(tmp_path: Path) -> None:
    space = make_space("a")
    flat = Machine(lambda how: 1.0, noise=0.001, process_noise=0.0)
    small = type(space)(settings={"a": space.settings["a"][:2]}, runtimes={"a": "rt"}, loads=((1, 1),))
    search = make_search(tmp_path, flat, space=small)
    assert search.run() == "everything that can be tried was tried"
    assert len(search.study.trials) == small.size == 3


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    first = make_search(tmp_path, Machine(take), budget="4")
    assert first.run() == "the budget of 4 is spent"
    before = [trial.configuration.key for trial in first.study.trials]
    again = make_search(tmp_path, Machine(take, seed=1), budget="9")
    assert [trial.configuration.key for trial in again.study.trials] == before
    assert again.spent_s == first.spent_s
    assert again.run() == "the budget of 9 is spent"
    assert len(again.study.trials) == 9
    assert make_search(tmp_path, Machine(take), budget="9").run() == "the budget of 9 is spent"


def test_an_interrupted_trial_is_made_again(tmp_path: Path) -> None:
    machine = Machine(take)
    search = make_search(tmp_path, machine)
    calls = iter(range(1, 99))

    def interrupt(how: Configuration) -> str | None:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return None

    machine.fails = interrupt
    with pytest.raises(KeyboardInterrupt):
        search.run()
    kept = len(search.study.trials)
    assert kept >= 1
    again = make_search(tmp_path, Machine(take), budget=str(kept + 3))
    assert len(again.study.trials) == kept
    again.run()
    assert [trial.number for trial in again.study.trials] == list(range(kept + 3))


def test_faster_with_other_answers_does_not_win(tmp_path: Path) -> None:
    search = make_search(
        tmp_path, Machine(take), check=lambda how: "other answers" if how.threads == 2 else None, budget="12"
    )
    search.run()
    assert all(trial.configuration.threads == 1 for trial in search.incumbents)
    refused = [trial for trial in search.study.trials if trial.outcome == "refused"]
    assert refused
    assert all(trial.reason == "other answers" and trial.score is None for trial in refused)


def test_a_check_that_fails_costs_its_trial_only(tmp_path: Path) -> None:
    def check(how: Configuration) -> str | None:
        raise MeasurementInvalidError("it crashed on the packed samples")

    search = make_search(tmp_path, Machine(take), check=check, budget="4")
    search.run()
    assert len(search.study.trials) == 4
    assert [trial.reason for trial in search.study.trials if trial.outcome == "refused"]
    assert len(search.incumbents) == 1


def test_where_the_first_artifact_does_not_run_the_next_one_is_the_start(tmp_path: Path) -> None:
    machine = Machine(take)
    machine.fails = lambda how: "no kernel" if how.artifact == "a" else None
    search = make_search(tmp_path, machine, budget="5")
    search.run()
    assert [trial.outcome for trial in search.study.trials[:2]] == ["failed", "start"]
    assert search.incumbents[0].configuration.artifact == "b"
    machine.fails = lambda how: "no kernel"
    (tmp_path / "none").mkdir()
    nothing_runs = make_search(tmp_path / "none", machine)
    with pytest.raises(MeasurementInvalidError, match="b, 1 thread does not run: no kernel"):
        nothing_runs.run()


def test_another_search_in_the_folder_is_refused(tmp_path: Path) -> None:
    make_search(tmp_path, Machine(take), budget="2").run()
    with pytest.raises(BadInputError, match="holds a search of other artifacts") as caught:
        make_search(tmp_path, Machine(take), key="x" * 64)
    assert "--overwrite" in (caught.value.hint or "")


def change_record(line: str, **changes: object) -> str:
    values = json.loads(line)
    if "modelwright" not in values.get("user_attr", {}):
        return line
    values["user_attr"]["modelwright"] |= changes
    return json.dumps(values)


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: ["no json", *lines],
        lambda lines: [lines[0].replace('"op_code":0', '"op_code":99'), *lines[1:]],
        lambda lines: [lines[0], *lines[2:]],  # without the key
        lambda lines: [change_record(line, score=1e400) for line in lines],
        lambda lines: [change_record(line, gain={"ratio": -1}) for line in lines],
        lambda lines: [change_record(line, number=7) for line in lines],
        lambda lines: [change_record(line, surprise=1) for line in lines],
        lambda lines: ["[]"],
        lambda lines: ['{"op_code": 4}'],
    ],
)
def test_a_damaged_journal_is_told_as_such(tmp_path: Path, damage) -> None:
    make_search(tmp_path, Machine(take), budget="3").run()
    path = tmp_path / JOURNAL
    path.write_text("\n".join(damage(path.read_text().splitlines())) + "\n")
    with pytest.raises(BadInputError, match="is damaged, or no search") as caught:
        make_search(tmp_path, Machine(take))
    assert "--overwrite" in (caught.value.hint or "")


def test_a_line_that_was_cut_off_at_the_end_costs_nothing_else(tmp_path: Path) -> None:
    make_search(tmp_path, Machine(take), budget="3").run()
    path = tmp_path / JOURNAL
    text = path.read_text()
    path.write_text(text + text.splitlines()[-1][:20])
    assert len(make_search(tmp_path, Machine(take)).study.trials) == 3


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_journal_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (tmp_path / "elsewhere").write_text("")
        (tmp_path / JOURNAL).symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / JOURNAL).mkdir()
    with pytest.raises(BadInputError, match="is no journal of a search"):
        make_search(tmp_path, Machine(take))


@pytest.mark.parametrize("cut", [1, 5, 60, 200])
def test_a_journal_that_was_cut_off_loses_its_last_step_alone(tmp_path: Path, cut: int) -> None:
    """A kill or a full disk ends a line anywhere; Optuna wrote the next one behind it, and all trials were lost."""
    first = make_search(tmp_path, Machine(take), budget="6")
    first.run()
    journal = tmp_path / JOURNAL
    written = journal.read_bytes()
    journal.write_bytes(written[:-cut])
    again = make_search(tmp_path, Machine(take), budget="8")
    kept = [trial.configuration.key for trial in again.study.trials]
    assert len(kept) >= len(first.study.trials) - 1
    assert kept == [trial.configuration.key for trial in first.study.trials][: len(kept)]
    again.run()
    assert len(make_search(tmp_path, Machine(take)).study.trials) == len(again.study.trials) >= 8
