from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError
from modelwright.harness.language.text_files import Entry, read_entries


def _write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def _read_line(tmp_path: Path, value: object) -> Entry:
    (entry,) = read_entries(_write(tmp_path, "one.jsonl", json.dumps(value) + "\n\n"))
    return entry


def test_prompts_conversations_and_texts(tmp_path: Path) -> None:
    lines = [
        {"prompt": "Say it."},
        {"prompt": "2+2?", "answer": "4"},
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"text": "Once."},
        "plain prompt",
    ]
    entries = read_entries(_write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert [entry.prompt for entry in entries] == ["Say it.", "2+2?", None, None, "plain prompt"]
    assert entries[1].answer == "4"
    assert entries[2].messages == ({"role": "user", "content": "Hi"},)
    assert entries[3].text == "Once."
    assert [entry.is_prompt for entry in entries] == [True, True, True, False, True]
    assert entries[3].where.endswith("a.jsonl: line 4")


@pytest.mark.parametrize(
    "value",
    [
        {"question": "Q", "choices": ["red", "blue"], "answer": 1},
        {"query": "Q", "choices": ["red", "blue"], "gold": 1},
        {"question": "Q", "choices": ["red", "blue"], "answer": "B"},
        {"question": "Q", "choices": ["red", "blue"], "answer": "blue"},
        {"question": "Q", "choices": ["red", "blue"], "label": "1"},
        {"question": "Q", "choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answerKey": "2"},
    ],
)
def test_questions_as_task_files_spell_them(tmp_path: Path, value: object) -> None:
    entry = _read_line(tmp_path, value)
    assert (entry.prompt, entry.choices, entry.label) == ("Q", ("red", "blue"), 1)
    assert not entry.is_prompt


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"prompt": "  "}, "holds no text"),
        ({"x": 1}, "its keys are x"),
        ([1], "expected an object"),
        ({"messages": [{"role": "user"}]}, "role and content"),
        ({"messages": []}, "role and content"),
        ({"prompt": "cut \ud83d here"}, r"half of a character, '\\ud83d'"),
        ({"question": "Q", "choices": ["a"], "answer": 0}, "two choices"),
        ({"question": "Q", "choices": ["a", "b"], "answer": 2}, "the number of the right choice"),
        ({"question": "Q", "choices": ["a", "b"]}, "the number of the right choice"),
        ({"question": "Q", "choices": ["a", "b"], "answer": True}, "the number of the right choice"),
    ],
)
def test_what_says_nothing_is_refused_with_its_line(tmp_path: Path, value: object, told: str) -> None:
    with pytest.raises(BadInputError, match=told) as caught:
        _read_line(tmp_path, value)
    assert "line 1" in caught.value.message


def test_what_is_no_json_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="line 2: not JSON"):
        read_entries(_write(tmp_path, "a.jsonl", '{"prompt": "x"}\n{"prompt": '))


def test_texts_are_parted_by_blank_lines_or_stand_one_a_line(tmp_path: Path) -> None:
    parted = read_entries(_write(tmp_path, "a.txt", "One\ntwo.\r\n\r\nThree.\n\n\n"))
    assert [entry.text for entry in parted] == ["One\ntwo.", "Three."]
    assert [entry.text for entry in read_entries(_write(tmp_path, "b.txt", "One\ntwo.\n"))] == ["One", "two."]


def test_a_table_has_the_names_as_its_header(tmp_path: Path) -> None:
    entries = read_entries(_write(tmp_path, "a.csv", 'prompt,answer\n"Hi, you",yes\nBye,\n'))
    assert [(entry.prompt, entry.answer) for entry in entries] == [("Hi, you", "yes"), ("Bye", None)]


def test_a_cell_of_a_table_may_be_long(tmp_path: Path) -> None:
    (entry,) = read_entries(_write(tmp_path, "a.csv", f'text\n"{"long " * 40_000}"\n'))
    assert entry.text is not None
    assert len(entry.text) == 200_000


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"\.jsonl, \.csv, \.txt"):
        read_entries(_write(tmp_path, "samples.npz", "x"))
    with pytest.raises(BadInputError, match="no such file"):
        read_entries(tmp_path / "none.txt")
    with pytest.raises(BadInputError, match="holds no text"):
        read_entries(_write(tmp_path, "empty.txt", "\n \n"))
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(BadInputError, match="not UTF-8"):
        read_entries(tmp_path / "latin.txt")
