"""Several models in one comparison: what they are called, and what keeps them from being compared."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelwright.core.errors import BadInputError, BuildFailedError, UsageError
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.harness.building import Built
from modelwright.harness.results.assemble import Absent
from modelwright.harness.variants import (
    Prepared,
    in_name_of,
    join_built,
    name_subjects,
    name_variants,
    require_alike,
)


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["net.onnx"], [None]),
        (["teacher.onnx", "nets/student.py:create", Path("small.pt2")], ["teacher", "student", "small"]),
        (["nets.py:teacher", "nets.py:student"], ["teacher", "student"]),
        (["a/model.onnx", "b/model.onnx"], ["model", "model-2"]),
        (["a b/net #1.onnx", "naïve.onnx"], ["net__1", "naïve"]),
        (["a/net.onnx", "b/net.onnx", "net-2.onnx"], ["net", "net-2", "net-2-2"]),
        (["net-2.onnx", "a/net.onnx", "b/net.onnx"], ["net-2", "net", "net-3"]),
    ],
)
def test_models_are_named_by_their_paths_and_each_is_unique(sources: list[Any], names: list[str | None]) -> None:
    assert name_variants(sources) == names


def test_a_folder_is_named_by_its_whole_name_wherever_it_is_seen_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("prune-0.3", "prune-0.5"):
        (tmp_path / name / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "prune-0.5" / "inner")
    assert name_variants(["../../prune-0.3", ".."]) == ["prune-0.3", "prune-0.5"]
    assert [subject.place for subject in name_subjects(["net.onnx", ".."])] == [Path(), Path("variants/prune-0.5")]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([], "no model was given"),
        (["a.onnx", "./a.onnx"], r"\./a.onnx is given twice"),
        (["n.py:f", "./n.py:f"], "is given twice"),
    ],
)
def test_no_model_and_one_that_is_given_twice_are_refused(sources: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        name_variants(sources)


def make_model(inputs: dict[str, tuple[Any, ...]], outputs: dict[str, tuple[Any, ...]], dtype: str = "float32") -> Any:
    def list_specs(shapes: dict[str, tuple[Any, ...]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=name, dtype=dtype, shape=shape) for name, shape in shapes.items())

    return SimpleNamespace(signature=Signature(inputs=list_specs(inputs), outputs=list_specs(outputs)))


def prepare(model: Any) -> Any:
    return Prepared(name="teacher", folder=Path(), export=SimpleNamespace(model=model), evidence=None)  # type: ignore[arg-type]


FIRST = prepare(make_model({"x": ("batch", 3, 8, 8)}, {"y": ("batch", 10)}))


def test_what_a_dimension_that_varies_is_called_does_not_matter() -> None:
    require_alike(FIRST, make_model({"x": ("n", 3, 8, 8)}, {"y": ("n", 10)}))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            make_model({"image": ("batch", 3, 8, 8)}, {"y": ("batch", 10)}),
            r"inputs are others: x is float32 \['any', 3, 8, 8\] there and none here; image is none there and float32",
        ),
        (
            make_model({"x": ("batch", 3, 9, 8)}, {"y": ("batch", 10)}),
            r"inputs are others: x is .*8, 8\] there and .*9, 8\] here",
        ),
        (make_model({"x": (1, 3, 8, 8)}, {"y": (1, 10)}), r"'any', 3, 8, 8\] there and float32 \[1, 3, 8, 8\]"),
        (
            make_model({"x": ("batch", 3, 8, 8)}, {"y": ("batch", 9)}),
            r"outputs are others: y is .*10\] there and .*9",
        ),
        (make_model({"x": ("batch", 3, 8, 8)}, {"y": ("batch", 10)}, "float64"), "float32 .* there and float64"),
    ],
)
def test_what_differs_is_named(other: Any, words: str) -> None:
    with pytest.raises(BadInputError, match=words) as caught:
        require_alike(FIRST, other)
    assert caught.value.message.startswith("it cannot be compared with teacher, whose ")


def test_an_error_is_said_to_be_of_its_model() -> None:
    with pytest.raises(BadInputError) as caught, in_name_of("student"):
        raise BadInputError("no such file")
    assert caught.value.message == "student: no such file"
    with pytest.raises(BadInputError) as caught, in_name_of(None):
        raise BadInputError("no such file")
    assert caught.value.message == "no such file"


def test_rows_are_named_by_model_and_target() -> None:
    error = BuildFailedError("no")
    artifact: Any = object()
    part = Built(artifacts={"ort-fp32": artifact}, reused={"ort-fp32": True})
    part.absent.append(Absent(target="ort-int8", status="failed", error=error))
    joined = join_built({"teacher": part, "student": part})
    assert list(joined.artifacts) == list(joined.reused) == ["teacher/ort-fp32", "student/ort-fp32"]
    assert [(each.name, each.target) for each in joined.absent] == [
        ("teacher/ort-int8", "ort-int8"),
        ("student/ort-int8", "ort-int8"),
    ]
    (alone,) = join_built({None: part}).artifacts
    assert alone == "ort-fp32"
