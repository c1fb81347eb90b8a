from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError
from modelwright.harness.language.task_files import Asked, read_task

pytest.importorskip("yaml")
QUESTIONS = [
    {"q": "Grass is", "options": ["green", "blue"], "right": 0, "letter": "A", "topic": "colours"},
    {"q": "The sky is", "options": ["green", "blue"], "right": 1, "letter": "B", "topic": "colours"},
]
TASK = """
task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: questions.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: options
doc_to_target: right
metric_list:
  - metric: acc
"""


def write(folder: Path, text: str) -> Path:
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    path = folder / "colours.yaml"
    path.write_text(text)
    return path


def read(folder: Path, *changes: tuple[str, str]) -> tuple[Asked, ...]:
    text = TASK
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return read_task(write(folder, text)).questions


def test_a_task_with_a_file_of_ones_own(tmp_path: Path) -> None:
    task = read_task(write(tmp_path, TASK))
    assert task.name == "colours"
    assert [(each.context, each.choices, each.label, each.delimiter) for each in task.questions] == [
        ("Grass is", ("green", "blue"), 0, " "),
        ("The sky is", ("green", "blue"), 1, " "),
    ]
    assert task.questions[1].where.endswith("questions.jsonl: line 2")


def test_aliases_that_multiply_are_counted_before_they_are_written_out(tmp_path: Path) -> None:
    parts = ["&a [x, x, x, x, x, x, x, x, x, x]"]
    parts += [f"&{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefg")]
    for chain in (f"metadata: [{', '.join(parts)}]\n", "metadata: &m [*m]\n"):
        with pytest.raises(BadInputError, match=r"its aliases \(\*\) make more than 100,000 values"):
            read_task(write(tmp_path, chain + TASK))
    few = TASK.replace("doc_to_choice: options", "doc_to_choice: *names") + "metadata: &n [1]\n"
    named = few.replace("task: colours", "task: colours\ntag: &names [green, blue]")
    assert read_task(write(tmp_path, named)).questions[0].choices == ("green", "blue")


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, TASK.replace("questions.jsonl", "pipe.jsonl"))
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(BadInputError, match="is no file"):
        read_task(path)


def test_other_separators_of_lines_stand_within_texts(tmp_path: Path) -> None:
    path = write(tmp_path, TASK)
    document = {**QUESTIONS[0], "q": "Grass\u2028is\x85"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    assert read_task(path).questions[0].context == "Grass\u2028is\x85"


@pytest.mark.parametrize(
    "change",
    [
        ("doc_to_choice: options", 'doc_to_choice: "{{options}}"'),
        ("doc_to_choice: options", 'doc_to_choice: ["green", "blue"]'),
        ("doc_to_choice: options", "doc_to_choice: {a: green, b: blue}"),
        ("doc_to_target: right", 'doc_to_target: "{{right}}"'),
        ("doc_to_target: right", 'doc_to_target: "{{options[right]}}"'),
        ("doc_to_target: right", "doc_to_target: \"{{['A', 'B'].index(letter)}}\""),
        ('doc_to_text: "{{q}}"', "doc_to_text: q"),
        ("test_split: test", "validation_split: test"),
    ],
)
def test_ways_to_say_the_same(tmp_path: Path, change: tuple[str, str]) -> None:
    assert [(each.context, each.label) for each in read(tmp_path, change)] == [("Grass is", 0), ("The sky is", 1)]


def test_what_stands_before_and_between(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        ("test_split: test", 'test_split: test\ndescription: "On {{topic}}.\\n\\n"\ntarget_delimiter: ""'),
        ('"{{q}}"', '"Q: {{q|upper}}\\nA:"'),
    )
    assert (found[0].context, found[0].delimiter) == ("On colours.\n\nQ: GRASS IS\nA:", "")


def test_tables_and_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('q,right\n"Grass, here, is",0\n')
    change = ("questions.jsonl", "table.csv"), ("dataset_path: json", "dataset_path: csv")
    (only,) = read(tmp_path, *change, ("doc_to_choice: options", 'doc_to_choice: ["green", "blue"]'))
    assert (only.context, only.label) == ("Grass, here, is", 0)
    (tmp_path / "list.json").write_text(json.dumps(QUESTIONS))
    assert len(read(tmp_path, ("questions.jsonl", "list.json"))) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("multiple_choice", "generate_until", "output_type: generate_until: only multiple_choice"),
        ("test_split: test", "test_split: test\nnum_fewshot: 5", "num_fewshot: 5: examples are not drawn"),
        ("test_split: test", "test_split: test\nprocess_docs: !function x.y", "cannot be read as a task"),
        ("test_split: test", "test_split: test\ngen_prefix: 'A:'", "gen_prefix: not read here"),
        ("test_split: test", "test_split: dev", "has no split 'dev', it has test"),
        ("dataset_path: json", "dataset_path: allenai/arc", "dataset_path: allenai/arc: only files of one's own"),
        ("dataset_path: json", "dataset_path: [json]", "dataset_path: expected a text, found a list"),
        ("task: colours", "task: [a, b]", "task: expected a text, found a list"),
        ("questions.jsonl", "absent.jsonl", "absent.jsonl cannot be read: No such file"),
        ("doc_to_target: right", "doc_to_target: letter", "line 1: doc_to_target gives 'A', which is neither"),
        ("doc_to_choice: options", "doc_to_choice: q", "doc_to_choice gives 'Grass is', expected a list"),
        ('"{{q}}"', '"{{absent}}"', "line 1: doc_to_text cannot be filled in: 'absent' is undefined"),
        ('"{{q}}"', '"{{right}}"', "doc_to_text gives '0', a number"),
        ('"{{q}}"', '"{{q.__class__.__mro__}}"', "doc_to_text cannot be filled in"),
        ("output_type: multiple_choice", "", "is no task: expected keys such as output_type"),
        ("doc_to_target: right", "", "doc_to_target: missing"),
    ],
)
def test_what_would_be_scored_otherwise_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, (old, new))
    assert message in caught.value.message
    assert caught.value.hint
