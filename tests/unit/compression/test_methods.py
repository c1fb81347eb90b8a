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


@pytest.mark.parametrize(
    ("texts", "hint", "mended"),
    [
        (["qat", "prune:2:4"], "put qat last: prune:2:4 qat", ["prune:2:4", "qat"]),
        (["qat", "qat"], "name qat once", ["qat"]),
    ],
)
def test_qat_comes_last_and_once(texts: list[str], hint: str, mended: list[str]) -> None:
    with pytest.raises(UsageError, match="would not be those that run") as caught:
        parse_methods(texts)
    assert caught.value.hint == hint
    assert [method.text for method in parse_methods(mended)] == mended


def test_no_method_is_refused() -> None:
    with pytest.raises(UsageError, match="no method is named") as caught:
        parse_methods([])
    assert "prune:2:4" in str(caught.value.hint)
    assert parse_methods(["prune:2:4"])


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0), (None, None)])
def test_budgets(text: str | None, seconds: float | None) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["10", "m", "0s", "900h", "1e9s", "-5m", ""])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no span of time") as caught:
        parse_budget(text)
    assert "give 90s" in str(caught.value.hint)
    assert parse_budget("90s") == 90


@pytest.mark.parametrize(
    ("settings", "words", "mended"),
    [
        (Settings(loss="hinge"), "hinge is no loss", Settings(loss="mse")),
        (Settings(batch=0), "--batch 0", Settings(batch=64)),
        (Settings(lr=0.0), "--lr 0", Settings(lr=1e-3)),
        (Settings(bits="w1a8"), "--bits w1a8 are no widths", Settings(bits="w4a8")),
        (Settings(match=("layer",)), "--match layer is no pair", Settings(match=("layer=layer",))),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Settings, words: str, mended: Settings) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        check_settings(settings, is_judged=False)
    assert caught.value.hint
    check_settings(mended, is_judged=False)


def test_a_limit_is_taken_where_other_data_judge() -> None:
    with pytest.raises(UsageError, match="--max-drop needs data that judges") as caught:
        check_settings(Settings(max_drop=1.0), is_judged=False)
    assert caught.value.hint == "add --eval"
    check_settings(Settings(max_drop=1.0), is_judged=True)
