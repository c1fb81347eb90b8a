"""A folder holds one search: what another one differs in is said as soon as it is known, and nothing is lost by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError
from modelwright.harness.tuning.claim import CLAIM, Claim
from modelwright.harness.tuning.study import JOURNAL
from modelwright.harness.tuning.writing import RESULT


def begin(folder: Path, *, with_trials: bool = True) -> None:
    claim = Claim(folder, overwrite=False)
    claim.settle(goal="latency", targets="ort-fp32, ort-int8", max_drop="")
    claim.settle(model="sha256 aa")
    if with_trials:
        (folder / JOURNAL).write_text("")


def test_the_same_search_goes_on(tmp_path: Path) -> None:
    begin(tmp_path)
    begin(tmp_path)
    assert json.loads((tmp_path / CLAIM).read_text())["facts"] == {
        "goal": "latency", "targets": "ort-fp32, ort-int8", "max drop": "", "model": "sha256 aa",
    }  # fmt: skip


def test_all_that_differs_is_named_and_what_was_written_stays(tmp_path: Path) -> None:
    begin(tmp_path)
    before = (tmp_path / CLAIM).read_bytes()
    claim = Claim(tmp_path, overwrite=False)
    with pytest.raises(BadInputError) as caught:
        claim.settle(goal="energy", targets="ort-fp32, ort-int8", max_drop="0.5")
    assert caught.value.message == (
        f"{tmp_path} holds another search: goal latency then and energy now; max drop not given then and 0.5 now"
    )
    assert "--overwrite" in (caught.value.hint or "")
    assert (tmp_path / CLAIM).read_bytes() == before
    again = Claim(tmp_path, overwrite=False)
    again.settle(goal="latency", targets="ort-fp32, ort-int8", max_drop="")
    with pytest.raises(BadInputError, match="model sha256 aa then and sha256 bb now"):
        again.settle(model="sha256 bb")
    assert (tmp_path / CLAIM).read_bytes() == before

    anew = Claim(tmp_path, overwrite=True)
    anew.settle(goal="energy", targets="ort-fp32", max_drop="0.5")
    assert not (tmp_path / JOURNAL).exists()
    assert json.loads((tmp_path / CLAIM).read_text())["facts"]["goal"] == "energy"


def test_long_facts_that_differ_in_their_middle_differ(tmp_path: Path) -> None:
    targets = [f"runtime-{number}" for number in range(40)]
    Claim(tmp_path, overwrite=False).settle(targets=", ".join(targets))
    (tmp_path / RESULT).write_text("{}")
    targets[20] = "runtime-x"
    with pytest.raises(BadInputError, match="holds another search: targets runtime-0"):
        Claim(tmp_path, overwrite=False).settle(targets=", ".join(targets))


def test_what_was_interrupted_before_its_first_trial_binds_nothing(tmp_path: Path) -> None:
    begin(tmp_path, with_trials=False)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "model").mkdir()
    Claim(tmp_path, overwrite=False).settle(goal="throughput", targets="tflite-fp32", max_drop="1")


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"something else than a search: results\.json"):
        Claim(tmp_path, overwrite=False)
    Claim(tmp_path, overwrite=True).settle(goal="latency")
    assert (tmp_path / "results.json").is_file()


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 2, "facts": {}}', '{"schema": 1, "facts": 3}'])
def test_a_damaged_record_is_told_with_its_name_and_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / CLAIM).write_text(text)
    with pytest.raises(BadInputError, match=r"search\.json"):
        Claim(tmp_path, overwrite=False)
    Claim(tmp_path, overwrite=True).settle(goal="latency")
    begin(tmp_path)
