"""Files of texts: labels by name and number, pairs; and what is refused is taken when it is mended as told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusing import refused

from modelwright.core.errors import BadInputError
from modelwright.core.records.texts import TextInputs, TextTask
from modelwright.core.samples.materialize import materialize_samples
from modelwright.core.samples.source import add_preprocessing
from modelwright.core.samples.texts.labelled import LabelledText, read_labelled


def _model(task: TextTask = "classification") -> TextInputs:
    return TextInputs(
        task=task, inputs=("input_ids", "attention_mask"), classes=("no", "yes", "7"), vocabulary=9, most_tokens=8
    )


def _read(path: Path, content: str | bytes, task: TextTask = "classification") -> list[LabelledText]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_labelled(path, _model(task))


def _lines(*values: Any) -> str:
    return "\n".join(map(json.dumps, values))


def test_labels_stand_by_name_or_by_number_and_a_name_goes_first(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": label} for label in ("yes", 1, "1", "7", 0)]
    assert [each.label for each in _read(tmp_path / "t.jsonl", _lines(*rows))] == [1, 1, 1, 2, 0]
    found = _read(tmp_path / "t.csv", 'text,label\n"a, b",yes\nc,no\n')
    assert [(each.text, each.label) for each in found] == [("a, b", 1), ("c", 0)]


def test_pairs_and_plain_lines(tmp_path: Path) -> None:
    pairs = _read(tmp_path / "t.jsonl", _lines({"sentence1": "a", "sentence2": "b"}, {"text": "c", "text_pair": "d"}))
    assert [(each.text, each.pair) for each in pairs] == [("a", "b"), ("c", "d")]
    plain = _read(tmp_path / "t.txt", "one \r\n\n two\n")
    assert [(each.text, each.where[-6:]) for each in plain] == [("one", "line 1"), ("two", "line 3")]


def test_numbers_are_labels_of_a_model_that_gives_one_and_others_read_none(tmp_path: Path) -> None:
    content = _lines({"text": "a", "label": "0.5"}, {"text": "b", "label": 2})
    assert [each.label for each in _read(tmp_path / "t.jsonl", content, "regression")] == [0.5, 2.0]
    assert [each.label for each in _read(tmp_path / "t.jsonl", content, "embedding")] == [None, None]


def test_words_have_tags_by_name_or_number_under_any_usual_name(tmp_path: Path) -> None:
    for name in ("ner_tags", "tags", "pos_tags", "labels"):
        rows = _lines({"id": 1, "tokens": ["a", "b", ""], name: ["yes", 0, -100]}, {"tokens": ["c"], name: ["2"]})
        found = _read(tmp_path / "t.jsonl", rows, "token classification")
        assert [(each.text, each.labels) for each in found] == [(("a", "b", ""), (1, 0, -100)), (("c",), (2,))]
    plain = _read(tmp_path / "t.jsonl", _lines({"text": "a b", "ner_tags": [1, 1]}), "token classification")
    assert (plain[0].text, plain[0].labels) == ("a b", None)


def test_several_classes_hold_by_name_number_or_as_in_training(tmp_path: Path) -> None:
    kinds = (["7", "yes"], [2, 1], [0, 1, 1], [0.0, 1.0, 1.0], "yes", [], [False, False, True])
    rows = _lines(*({"text": "a", "labels": labels} for labels in kinds))
    found = [each.labels for each in _read(tmp_path / "t.jsonl", rows, "multi-label classification")]
    assert found == [(0, 1, 1)] * 4 + [(0, 1, 0), (0, 0, 0), (0, 0, 1)]
    model = TextInputs(
        task="multi-label classification", inputs=("input_ids",), classes=("a", "b"), vocabulary=9, most_tokens=8
    )
    (tmp_path / "t.jsonl").write_text(_lines({"text": "x", "labels": [0, 1]}))
    assert "names of the classes" in refused(lambda: read_labelled(tmp_path / "t.jsonl", model), "0 and 1 for each")
    (tmp_path / "t.jsonl").write_text(_lines({"text": "x", "labels": ["b"]}, {"text": "x", "labels": [1.0, 0.0]}))
    assert [each.labels for each in read_labelled(tmp_path / "t.jsonl", model)] == [(0, 1), (1, 0)]


GOOD = _lines({"text": "a", "label": "yes"})


@pytest.mark.parametrize(
    ("wrong", "told", "hint", "mended"),
    [
        ({"body": "a"}, "holds no text; what it holds is called: body", "call the text `text`", {"text": "a"}),
        ({"text": "a", "label": "maybe"}, "the label 'maybe' is none of", "no, yes, 7", {"text": "a", "label": "no"}),
        ({"text": "a", "label": 3}, "the label 3 is none of", "or its number", {"text": "a", "label": 2}),
        ({"text": "a", "label": True}, "the label True is none of", "or its number", {"text": "a", "label": 1}),
        (
            {"text": "a \ud83d"},
            r"holds half of a character, '\\ud83d'",
            "cut texts between characters",
            {"text": "a \U0001f600", "label": "yes"},
        ),
        ([1], "expected an object, found a list", '{"text": "...", "label": "..."}', {"text": "...", "label": "yes"}),
    ],
)
def test_an_entry_is_mended_as_told(tmp_path: Path, wrong: Any, told: str, hint: str, mended: Any) -> None:
    assert hint in refused(lambda: _read(tmp_path / "t.jsonl", _lines(wrong)), told)
    assert len(_read(tmp_path / "t.jsonl", _lines(mended))) == 1


@pytest.mark.parametrize(
    ("wrong", "told", "hint", "mended"),
    [
        ({"tokens": "a b"}, "tokens: expected a list of words", '"ner_tags": [', {"tokens": ["a", "b"]}),
        ({"tokens": []}, "tokens: expected a list of words", '"ner_tags": [', {"tokens": ["a"]}),
        (
            {"tokens": ["a"], "tags": [1, 1]}, "tags: expected 1 tags, one a token, found 2", "for each token",
            {"tokens": ["a"], "tags": [1]},
        ),
        (
            {"tokens": ["a"], "ner_tags": [1], "pos_tags": [1]}, "ner_tags and pos_tags: which", "leave the one",
            {"tokens": ["a"], "ner_tags": [1]},
        ),
        (
            {"tokens": ["a"], "tags": ["who"]}, "the label 'who' is none of", "no, yes, 7",
            {"tokens": ["a"], "tags": ["no"]},
        ),
    ],
)  # fmt: skip
def test_words_and_their_tags_are_mended_as_told(tmp_path: Path, wrong: Any, told: str, hint: str, mended: Any) -> None:
    def read(row: Any) -> list[LabelledText]:
        return _read(tmp_path / "t.jsonl", _lines(row), "token classification")

    assert hint in refused(lambda: read(wrong), told)
    assert len(read(mended)) == 1


def test_a_class_that_holds_is_named_once(tmp_path: Path) -> None:
    def read(*labels: Any) -> list[LabelledText]:
        return _read(tmp_path / "t.jsonl", _lines({"text": "a", "labels": labels}), "multi-label classification")

    assert "once" in refused(lambda: read("yes", 1), "name a class twice")
    assert read("yes")[0].labels == (0, 1, 0)


@pytest.mark.parametrize(
    ("wrong", "told", "mended"),
    [
        ({"text": "a", "sentence": "b"}, "text and sentence: which of them", {"text": "a"}),
        ({"text": "a", "hypothesis": "b"}, "text and hypothesis: which of them", {"text": "a", "text_pair": "b"}),
        ({"premise": "a", "question": "b"}, "premise and question: which of them", {"text": "a", "text_pair": "b"}),
    ],
)
def test_which_of_several_columns_is_the_text_is_not_guessed(
    tmp_path: Path, wrong: Any, told: str, mended: Any
) -> None:
    assert "call the one that it reads `text`" in refused(lambda: _read(tmp_path / "t.jsonl", _lines(wrong)), told)
    assert _read(tmp_path / "t.jsonl", _lines(mended))


def test_pairs_of_known_data_sets_are_read_in_their_order(tmp_path: Path) -> None:
    for first, second in (("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence")):
        found = _read(tmp_path / "t.csv", f"idx,{second},label,{first}\n0,b,yes,a\n")
        assert [(each.text, each.pair, each.label) for each in found] == [("a", "b", 1)]
    for name in ("sentence", "question", "premise"):
        assert _read(tmp_path / "t.csv", f"idx,{name}\n0,a\n")[0].pair is None


def test_a_label_that_is_no_number_is_one_or_none(tmp_path: Path) -> None:
    for wrong in ("high", "nan", True, "1e999"):
        content = _lines({"text": "a", "label": wrong})
        hint = refused(lambda told=content: _read(tmp_path / "t.jsonl", told, "regression"), "is no number")
        assert "or no labels" in hint
    assert _read(tmp_path / "t.jsonl", _lines({"text": "a"}), "regression")[0].label is None


def test_all_texts_have_labels_or_none_has(tmp_path: Path) -> None:
    some = _lines({"text": "a", "label": 1}, {"text": "b"})
    assert "or none" in refused(lambda: _read(tmp_path / "t.jsonl", some), "line 2 has no label")
    assert len(_read(tmp_path / "t.jsonl", _lines({"text": "a"}, {"text": "b"}))) == 2


@pytest.mark.parametrize(
    ("name", "content", "told", "hint", "mended"),
    [
        ("t.jsonl", "\n\n", "holds no text", "write lines such as", GOOD),
        ("t.jsonl", '{"text": ', "line 1: not JSON", "one object a line", GOOD),
        ("t.csv", 'text\n"a', "is not a .csv", "quote texts", 'text\n"a"'),
        ("t.txt", b"\xff\xfe", "is not UTF-8 text .byte 0.", "save it as UTF-8", "\u00ff"),
    ],
)
def test_a_file_is_written_as_told(
    tmp_path: Path, name: str, content: str | bytes, told: str, hint: str, mended: str
) -> None:
    assert hint in refused(lambda: _read(tmp_path / name, content), told)
    assert _read(tmp_path / name, mended)


def test_a_file_is_there_and_of_a_kind_that_is_read_and_not_too_large(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a")
    for path, told in (
        (tmp_path / "no.txt", "no such file"),
        (tmp_path / ("n" * 300 + ".txt"), "cannot be read"),
        (tmp_path / "t.md", "is no file of texts, which is .jsonl, .csv, .txt"),
    ):
        assert refused(lambda where=path: read_labelled(where, _model()), told)
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(65 * 2**20)
    assert "give a part" in refused(lambda: read_labelled(tmp_path / "large.txt", _model()), "has 68 MB")
    assert read_labelled(tmp_path / "t.txt", _model())


def test_texts_need_a_source_that_reads_them_or_are_given_as_arrays(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a")
    hint = refused(
        lambda: materialize_samples(str(tmp_path / "t.txt"), None, tmp_path / "made"), "does not say how they become"
    )
    assert "numpy.savez" in hint
    np.savez(tmp_path / "t.npz", input_ids=np.zeros((2, 4), np.int64))
    assert materialize_samples(str(tmp_path / "t.npz"), None, tmp_path / "made") == tmp_path / "t.npz"


def test_a_length_is_for_texts() -> None:
    assert "leave it out" in refused(lambda: add_preprocessing(["x.npz", None], None, None, 8), "--max-length is for")
    made = add_preprocessing(["x.csv", "y.npz", None], None, None, 8)
    assert [each and each.max_length for each in made] == [8, None, None]


def test_refusals_say_where(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="row 3: the label 'x'"):
        _read(tmp_path / "t.csv", "text,label\na,yes\nb,x\n")
