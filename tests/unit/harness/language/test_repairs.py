"""A recipe that keeps to a limit is asked for less where the judging text shows more: what it makes is told here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.language_artifact import Estimate
from modelwright.harness.language import building
from modelwright.harness.language.limits import LossError


@dataclass(frozen=True)
class Manifest:
    """What of a manifest the loop reads."""

    files: dict[str, str]
    notes: tuple[str, ...] = ("a note",)
    proof: Any = None
    proof_reason: str | None = "not yet judged"


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Any, list[float | None]]]:
    """Returns a function that builds by a recipe: what is allowed on tuning texts -> what the judging text shows."""

    def build(lose: Callable[[float], float], allowed: float | None, *, uses_limit: bool = True) -> Any:
        asked: list[float | None] = []
        folder = Path(tempfile.mkdtemp(dir=tmp_path))

        def build_once(_target: Any, _bench: Any, limit: float, staging: Path, *_: Any) -> Manifest:
            assert not list(staging.iterdir()), "what failed is gone"
            (staging / "model.onnx").write_text("x")
            (staging / "folder").mkdir()
            asked.append(limit)
            return Manifest(files={"model.onnx": f"{lose(limit or 0):.6f}"})

        def prove(_target: Any, manifest: Manifest, *_: Any) -> Any:
            value = float(manifest.files["model.onnx"])
            return SimpleNamespace(increase=Estimate(value=value, ci95=None), max_increase=allowed, value=value)

        def find_loss(name: str, proof: Any, *, is_float: bool) -> LossError | None:
            over = allowed is not None and proof.value > allowed
            return LossError(f"{proof.value:.3f}", proof, 7, hint="") if over else None

        monkeypatch.setattr(building, "_build_once", build_once)
        monkeypatch.setattr(building, "prove", prove)
        monkeypatch.setattr(building, "find_loss", find_loss)
        monkeypatch.setattr(building, "replace", lambda manifest, **fields: Manifest(manifest.files, fields["notes"]))
        monkeypatch.setattr(building, "require_unchanged", lambda *_: None)
        target: Any = SimpleNamespace(record=SimpleNamespace(name="few", uses_limit=uses_limit, is_float=False))
        bench: Any = SimpleNamespace(limit=allowed)
        try:
            found: Any = building._build_within(target, bench, folder, "key", lambda line: None)
        except BaseException as error:  # the caller looks at which
            found = error
        return found, asked

    return build


def test_what_loses_more_on_the_judging_text_is_built_anew_for_less_and_the_manifest_tells(attempt: Any) -> None:
    found, asked = attempt(lambda limit: 1.5 * limit, 0.08)
    assert asked == [0.08, pytest.approx(0.08 / 1.5)]
    assert found.notes == ("a note", "+12 % on the judging text: built anew for 5.33% on tuning texts")


def test_what_keeps_the_limit_or_has_none_is_built_once(attempt: Any) -> None:
    assert attempt(lambda limit: limit / 2, 0.08)[1] == [0.08]
    assert attempt(lambda _: 0.3, None)[1] == [None]


def test_it_ends_after_two_repairs_with_the_last_figures(attempt: Any) -> None:
    found, asked = attempt(lambda limit: 0.1 + limit, 0.08)
    assert isinstance(found, LossError)
    assert len(asked) == 3
    assert found.message == f"{0.1 + asked[-1]:.3f}"


def test_nothing_is_built_anew_that_comes_out_the_same_or_whose_recipe_knows_no_limit(attempt: Any) -> None:
    found, asked = attempt(lambda _: 0.1, 0.08)
    assert (isinstance(found, LossError), len(asked)) == (True, 2)
    found, asked = attempt(lambda _: 0.1, 0.08, uses_limit=False)
    assert (isinstance(found, LossError), len(asked)) == (True, 1)
    found, asked = attempt(lambda _: 0.1, 0.0)
    assert (isinstance(found, LossError), len(asked)) == (True, 1)


def test_a_recipe_that_cannot_keep_less_leaves_the_first_failure(attempt: Any) -> None:
    def lose(limit: float) -> float:
        if limit < 0.08:
            raise BuildFailedError("no way of packing keeps perplexity")
        return 0.1

    found, asked = attempt(lose, 0.08)
    assert isinstance(found, LossError)
    assert len(asked) == 2
