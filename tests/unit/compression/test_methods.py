"""What a method of compression is called, and what is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.compression.methods import FORMS, parse_methods
from modelwright.compression.settings import Settings, check_settings, parse_budget
from modelwright.core.errors import UsageError


def test_methods_are_read_in_their_order() -> None:
    methods = parse_methods(["prune:magnitude:0.3", "prune:2:4"])
    assert [(method.kind, method.ratio) for method in methods] == [("prune:magnitude", 0.3), ("prune:2:4", 0.0)]


def test_every_form_that_is_shown_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE.py").write_text("def STUDENT(): ...\n")
    for kind, form in FORMS.items():
        (method,) = parse_methods([form])
        assert method.kind == kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prune:magnitude:1", "1 is no ratio"),
        ("prune:magnitude:0", "0 is no ratio"),
        ("prune:magnitude:-0.1", "-0.1 is no ratio"),
        ("prune:magnitude:nan", "nan is no ratio"),
        ("prune:magnitude:half", "half is no ratio"),
        ("prune:magnitude", "nothing is no ratio"),
        ("prune:2:4:0.5", "takes nothing after it"),
        ("prune:2:45", "is no method"),
        ("prune", "is no method"),
    ],
)
def test_what_is_no_method_is_refused_with_one_that_is(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_methods([text])
    assert caught.value.hint
    assert any(form in caught.value.hint for form in FORMS.values())


def test_what_changes_shapes_comes_before_what_makes_zeros() -> None:
    with pytest.raises(UsageError, match="would be trained away") as caught:
        parse_methods(["prune:magnitude:0.3", "prune:structured:0.5"])
    first, then = str(caught.value.hint).removeprefix("first ").split(", then ")
    assert [method.kind for method in parse_methods([first, then])] == ["prune:structured", "prune:magnitude"]


def test_no_method_is_refused() -> None:
    with pytest.raises(UsageError, match="no method is named"):
        parse_methods([])


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0), (None, None)])
def test_budgets(text: str | None, seconds: float | None) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["10", "m", "0s", "900h", "1e9s", "-5m", ""])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no span of time"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(loss="hinge"), "hinge is no loss"),
        (Settings(batch=0), "--batch 0"),
        (Settings(lr=0.0), "--lr 0"),
        (Settings(match=("layer",)), "--match layer is no pair"),
        (Settings(max_drop=1.0), "--max-drop needs data that judges"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Settings, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        check_settings(settings, is_judged=False)
    assert caught.value.hint


def test_a_limit_is_taken_where_other_data_judge() -> None:
    check_settings(Settings(max_drop=1.0), is_judged=True)
