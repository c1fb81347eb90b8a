"""A metric of the user's: what it gets, and what is refused because nothing can be limited by it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.outputs import user_metric
from modelwright.core.outputs.limit import Metric
from modelwright.core.outputs.output_files import write_outputs
from modelwright.core.outputs.user_metric import compute, find_metric, stage_targets, try_on_fp32
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples

COUNT = 20
Tried = tuple[float, str | None]
ACCURACY = """
import numpy as np

def score(outputs, targets):
    return np.mean(np.concatenate(outputs["y"]).argmax(axis=1) == targets["labels"])
"""


class Bench:
    """20 labelled samples of four classes, and FP32's answers, of which 16 are right."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labels = np.arange(COUNT) % 4
        boxes = np.arange(COUNT * 2, dtype=np.float32).reshape(COUNT, 2)
        words = np.array([f"word{index}" for index in range(COUNT)])
        np.savez(
            folder / "s.npz",
            x=np.zeros((COUNT, 3), np.float32),
            labels=self.labels,
            target_boxes=boxes,
            target_words=words,
        )
        spec = TensorSpec(name="x", dtype="float32", shape=("batch", 3))
        samples = open_samples(
            SampleRef(path=folder / "s.npz", part="evaluation"), Signature(inputs=(spec,), outputs=())
        )
        self.rows = samples.rows
        self.right = self.labels[self.rows]
        self.answer(self.right, wrong=2)
        stage_targets(samples, folder / "fp32")

    def answer(self, chosen: np.ndarray, *, wrong: int, name: str = "fp32") -> Path:
        given = chosen.copy()
        given[:wrong] = (given[:wrong] + 1) % 4
        rows = np.eye(4, dtype=np.float32)[given]
        write_outputs([{"y": row[None]} for row in rows], ("y",), self.folder / name)
        return self.folder / name

    def find(self, text: str, function: str = "score") -> Metric:
        path = self.folder / "metric.py"
        path.write_text(text)
        return find_metric(f"{path}:{function}")

    def attempt(self, text: str) -> Tried:
        return try_on_fp32(self.find(text), self.folder / "fp32", self.folder / "fp32")

    def compute(self, text: str, answers: Path, parts: int = 0) -> list[float]:
        return compute(self.find(text), answers, self.folder / "fp32", parts)


def run_here(function: str, params: dict[str, Any], **_bounds: Any) -> Any:
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(**params)


@pytest.fixture
def child(tmp_path: Path) -> Bench:
    """Asks metrics as they are asked: in processes of their own."""
    return Bench(tmp_path)


@pytest.fixture
def bench(child: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Asks them at once, in this process."""
    monkeypatch.setattr(user_metric, "run_in_child", run_here)
    return child


def test_it_gets_all_answers_and_what_they_are_held_against(child: Bench) -> None:
    count = len(child.right)
    assert child.attempt(ACCURACY) == ((count - 2) / count, None)
    worse = child.answer(child.right, wrong=5, name="int8")
    assert child.compute(ACCURACY, worse) == [(count - 5) / count]
    whole, *parts = child.compute(ACCURACY, worse, 2)
    assert whole == (count - 5) / count
    assert parts == [0.0, 1.0], "the first of two halves holds the five wrong ones"


def test_rows_names_and_the_place_of_a_sample_in_its_file(bench: Bench) -> None:
    told = bench.compute(
        """
def score(outputs, targets):
    assert sorted(targets) == ["index", "labels", "target_boxes", "target_words"], sorted(targets)
    assert all(array.shape == (1, 4) for array in outputs["y"])
    for place, box, word in zip(targets["index"], targets["target_boxes"], targets["target_words"]):
        assert box.tolist() == [2 * place, 2 * place + 1]
        assert word == f"word{place}"
    return sum(int(place) for place in targets["index"])
""",
        bench.folder / "fp32",
    )
    assert told == [float(bench.rows.sum())]


def test_what_says_of_itself_that_less_is_better(bench: Bench) -> None:
    error_rate = ACCURACY.replace("==", "!=")
    with pytest.raises(BadInputError, match="wrong answers are the better ones") as caught:
        bench.attempt(error_rate)
    assert caught.value.hint is not None
    line = caught.value.hint.removeprefix("write ").partition(" below")[0]
    assert bench.attempt(f"{error_rate}\n{line}\n") == (2 / len(bench.right), None)
    with pytest.raises(BadInputError, match="wrong answers are the better ones"):
        bench.attempt(f"{ACCURACY}\nscore.higher_is_better = False\n")


def test_percent_is_no_share_unless_it_says_so(bench: Bench) -> None:
    percent = ACCURACY.replace("return ", "return 100 * ")
    with pytest.raises(BadInputError, match="a share from 0 to 1 is expected") as caught:
        bench.attempt(percent)
    assert caught.value.hint is not None
    line = caught.value.hint.removeprefix("write ").partition(" below")[0]
    metric = bench.find(f"{percent}\n{line}\n")
    assert metric.points_lost(80.0, 79.0) == 1.0
    assert bench.find(ACCURACY).points_lost(0.8, 0.79) == pytest.approx(1.0)


def test_what_it_changes_no_later_call_sees(bench: Bench) -> None:
    vandal = ACCURACY.replace("    return", '    outputs["y"][0][:] = 7\n    targets["labels"][:1] = 9\n    return')
    vandal = vandal.replace("    outputs", "    value = 0\n    outputs")
    before = [path.read_bytes() for path in sorted((bench.folder / "fp32").iterdir())]
    first = bench.attempt(vandal)
    assert first == bench.attempt(vandal)
    assert [path.read_bytes() for path in sorted((bench.folder / "fp32").iterdir())] == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def score(outputs, targets):\n    return 0.5\n", "gives 0.5 whatever the answers are"),
        (
            "import numpy as np\ndef score(outputs, targets):\n    return np.random.random() / 2\n",
            "when asked again about the same answers",
        ),
        (
            ACCURACY.replace("def", "seen = []\ndef")
            .replace("return np.mean(", "seen.extend(")
            .replace('["labels"])', '["labels"])\n    return np.mean(seen)'),
            "when asked again about the same answers",
        ),
        ("def score(outputs, targets):\n    return float('nan')\n", "returned nan"),
        ("def score(outputs, targets):\n    return -float('inf')\n", "returned -inf"),
        ("def score(outputs, targets):\n    return None\n", "returned NoneType, not a number"),
        ("def score(outputs, targets):\n    return outputs['z']\n", "failed: KeyError: 'z'"),
        ("def score(outputs, targets):\n    raise SystemExit(0)\n", "failed: SystemExit"),
        ("def score(outputs):\n    return 0.5\n", "cannot be called with two arguments"),
        ("score = 3\n", "is int, not a function"),
        (f"{ACCURACY}\nscore.points_per_unit = 0\n", "not a number above 0"),
        (f"{ACCURACY}\nscore.points_per_unit = True\n", "not a number above 0"),
        (f"{ACCURACY}\nscore.higher_is_better = 'no'\n", "not True or False"),
    ],
)
def test_what_limits_nothing_is_refused(bench: Bench, text: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        bench.attempt(text)


def test_what_does_not_see_which_sample_an_answer_belongs_to_is_said_so(bench: Bench) -> None:
    value, doubt = bench.attempt(
        'import numpy as np\ndef score(outputs, targets):\n    return float(np.mean([y.max() for y in outputs["y"]]))\n'
    )
    assert value == 1.0
    assert doubt is not None
    assert "whether an answer belongs to its sample" in doubt


def test_one_that_crashes_costs_its_child(child: Bench) -> None:
    with pytest.raises(BadInputError, match=r"the metric metric\.py:score crashed"):
        child.compute("import os\ndef score(outputs, targets):\n    os._exit(0)\n", child.folder / "fp32")


def test_one_that_does_not_end_is_stopped(child: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = child.find("def score(outputs, targets):\n    while True: pass\n")
    monkeypatch.setattr(user_metric, "TIMEOUT_S", 1.0)
    with pytest.raises(BadInputError, match="did not answer within 1 s"):
        compute(metric, child.folder / "fp32", child.folder / "fp32")


def test_one_that_was_changed_meanwhile_is_refused(bench: Bench) -> None:
    metric = bench.find(ACCURACY)
    metric.path.write_text(ACCURACY.replace("==", "!="))
    with pytest.raises(BadInputError, match="was changed while it was in use"):
        compute(metric, bench.folder / "fp32", bench.folder / "fp32")


@pytest.mark.parametrize("make", [lambda path: f"{path}:other", lambda path: str(path), lambda path: "nowhere.py:f"])
def test_a_function_that_is_not_there(bench: Bench, make: Callable[[Path], str]) -> None:
    path = bench.find(ACCURACY).path
    with pytest.raises(BadInputError):
        find_metric(make(path))
