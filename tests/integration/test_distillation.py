"""A student that learns from a teacher: it does better than alone, and what does not fit is refused."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compression_runs import call_here, run
from refusing import refused

torch = pytest.importorskip("torch")

from modelwright.compression import Settings, compressing  # noqa: E402
from modelwright.compression.distil import _find_channels  # noqa: E402
from modelwright.compression.network import Network  # noqa: E402
from modelwright.compression.objective import make_objective  # noqa: E402
from modelwright.compression.teacher import Teacher  # noqa: E402
from modelwright.exporters.torch.source import load_program  # noqa: E402

NETS = """
import torch
from torch import nn

class Sums(nn.Module):
    '''Knows the answer: the class is the largest of three sums.'''

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 3, bias=False)
        with torch.no_grad():
            self.last.weight.copy_(8 * torch.eye(3).repeat(1, 2))

    def forward(self, x):
        return self.last(x)

class Small(nn.Module):
    def __init__(self, inputs=6, outputs=3):
        super().__init__()
        self.hidden = nn.Linear(inputs, 24)
        self.last = nn.Linear(24, outputs)

    def forward(self, x):
        return self.last(torch.relu(self.hidden(x)))

class Renamed(Small):
    def forward(self, y):
        return super().forward(y)

def teacher():
    return Sums(), torch.zeros(2, 6)

def student():
    return Small(), torch.zeros(2, 6)

def more_classes():
    return Small(outputs=4), torch.zeros(2, 6)

def renamed():
    return Renamed(), torch.zeros(2, 6)

def wider():
    return Small(inputs=7), torch.zeros(2, 7)
"""

STUDENT = """
def other():
    return Small(), torch.zeros(2, 6)
"""
LOSS = """
def lose(outputs, batch):
    return cross_entropy(outputs, batch["labels"])
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Few samples to learn from, of which a third have a wrong label; all that judge are right."""
    monkeypatch.setattr(compressing, "run_in_child", call_here)
    (tmp_path / "net.py").write_text(NETS)
    generator = np.random.default_rng(0)
    for name, count, wrong in (("train", 320, 1 / 3), ("test", 512, 0.0)):
        x = generator.standard_normal((count, 6)).astype(np.float32)
        labels = (x[:, :3] + x[:, 3:]).argmax(1)
        mistaken = generator.random(count) < wrong
        labels[mistaken] = generator.integers(0, 3, mistaken.sum())
        np.savez(tmp_path / f"{name}.npz", x=x, labels=labels)
    return tmp_path


def distil(place: Path, student: str = "student", **options: Any) -> Any:
    method = f"distil:{place / 'net.py'}:{student}"
    return run(place, method, function="teacher", **{"epochs": 30, "lr": 1e-2, "batch": 16, **options})


@pytest.mark.slow
def test_a_student_does_better_with_its_teacher_than_alone(place: Path) -> None:
    for seed in range(2):
        alone, taught = (
            distil(place, alpha=alpha, seed=seed, out=f"{alpha}-{seed}").record.quality_after.value
            for alpha in (1.0, 0.1)
        )
        assert taught > alone + 0.02, seed
    record = compressing.load_compressed(place / "0.1-0")
    assert record.quality_before.value == 1.0
    assert record.after.parameters == 6 * 24 + 24 + 24 * 3 + 3
    assert record.stages[0].parameters["temperature"] == "4"


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_an_output_of_one_value_beside_the_classes_is_held_against_the_teachers_value(shape: tuple[int, ...]) -> None:
    module = torch.nn.Identity()
    network = Network(name="net", module=module, examples={"x": torch.zeros(5, 3)}, positional=1)
    teacher = Teacher(network, has_classes=True, settings=Settings(alpha=0.0, temperature=1.0))
    objective = make_objective("cross-entropy", {"labels": np.zeros(5, int)})
    batch = {"labels": torch.zeros(5, dtype=torch.long)}
    logits, values = torch.tensor([[0.0, 1.0, 2.0]] * 5), torch.ones(shape)
    wanted = [logits, values + 2]
    assert float(teacher.blend((logits, values), wanted, batch, objective)) == pytest.approx(4.0)
    even = torch.zeros(5, 3)
    share = torch.softmax(logits[0], 0)
    apart = float((share * (share.log() + np.log(3))).sum())  # from a third for each class
    assert float(teacher.blend((even, values), wanted, batch, objective)) == pytest.approx(4.0 + apart)


def test_features_are_matched_and_the_map_between_them_is_no_part_of_the_student(place: Path) -> None:
    made = distil(place, match=("last=hidden",), epochs=3)
    state = load_program(place / "out" / "model.pt2", None, trust=False).program.state_dict
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "hidden.weight": (24, 6), "hidden.bias": (24,), "last.weight": (3, 24), "last.bias": (3,)
    }  # fmt: skip
    losses = [epoch.loss for epoch in made.record.stages[0].epochs[1:]]
    assert losses[-1] < losses[0]
    plain = distil(place, epochs=3, out="plain")
    assert made.record.files["weights.safetensors"] != plain.record.files["weights.safetensors"]


@pytest.mark.slow
def test_code_decides_the_result_that_of_a_student_and_what_files_of_the_users_import(place: Path) -> None:
    (place / "widths.py").write_text("WIDTH = 24\n")
    (place / "other.py").write_text("import widths\nfrom net import Small, torch\n" + STUDENT)
    (place / "learn.py").write_text("import widths\nfrom torch.nn.functional import cross_entropy\n" + LOSS)
    student, loss = f"distil:{place / 'other.py'}:other", f"{place / 'learn.py'}:lose"
    for out, method, options in (("student", student, {}), ("loss", "prune:magnitude:0.5", {"loss": loss})):
        again = functools.partial(_run_afresh, place, method, function="teacher", out=out, epochs=1, **options)
        (place / "widths.py").write_text("WIDTH = 24\n")
        again()
        assert again().reused
        (place / "widths.py").write_text("WIDTH = 25\n")
        refused(again, "holds the result of another source")


def _run_afresh(place: Path, *methods: str, **options: Any) -> Any:
    """Runs as in a process of its own: modules of the folder that an earlier run imported are forgotten."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(place)):
            del sys.modules[name]
    return run(place, *methods, **options)


def test_versions_of_what_trains_decide_the_result(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distil(place, epochs=0)
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99" if name == "torch-pruning" else version(name))
    refused(lambda: distil(place, epochs=0), "or versions of torch")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99" if name == "numpy" else version(name))
    assert distil(place, epochs=0).reused, "which computes nothing that is trained"


@pytest.mark.parametrize(
    ("teacher", "student", "is_convolution", "axis"),
    [
        ([8, 16, 50], [8, 4, 50], True, 1),
        ([8, 16, 50], [8, 4, 50], False, 1),
        ([8, 50, 16], [8, 50, 4], False, 2),
        ([8, 16, 16], [8, 16, 16], True, 1),
        ([8, 16, 16], [8, 16, 16], False, 2),
        ([8, 16, 7, 7], [8, 4, 7, 7], False, 1),
        ([8, 7, 7, 16], [8, 7, 7, 4], False, 3),
        ([8, 16], [8, 4], False, 1),
        ([8, 16, 50], [8, 4, 25], True, None),
        ([8, 16, 50], [8, 16], True, None),
    ],
)
def test_the_channels_are_where_features_may_differ(
    teacher: list[int], student: list[int], is_convolution: bool, axis: int | None
) -> None:
    assert _find_channels(teacher, student, is_convolution=is_convolution) == axis


@pytest.mark.parametrize(
    ("student", "words", "told"),
    [
        ("more_classes", r"answers \[\[2, 4\]\] where the teacher answers \[\[2, 3\]\]", "outputs of the teacher"),
        ("renamed", "takes y, and the teacher x", "same names"),
        ("wider", "fails on the teacher's inputs", r"x [2, 6]"),
    ],
)
def test_a_student_that_is_not_alike_is_refused(place: Path, student: str, words: str, told: str) -> None:
    assert told in refused(lambda: distil(place, student), words)
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("pair", "words", "told"), [("absent=hidden", "has no layer absent", "last"), ("last=absent", "absent", "hidden")]
)
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(
    place: Path, pair: str, words: str, told: str
) -> None:
    assert told in refused(lambda: distil(place, match=(pair,)), words)
