"""Text files of users: prompts, conversations, plain text and questions, as `.jsonl`, `.csv` or `.txt`.

    {"prompt": "...", "answer": "..."}                     what is generated from; an answer is text to judge on
    {"messages": [{"role": "user", "content": "..."}]}     likewise, by the model's own chat template
    {"text": "..."}                                        text only
    {"question": "...", "choices": ["...", ...], "answer": 1}

A `.csv` has such names as its header. A `.txt` holds texts that blank lines part, or one a line where there are none.
Questions are read as task files of lm-evaluation-harness have them, too: `query`, `choices` as `{"text": [...],
"label": [...]}`, `gold`, `label` or `answerKey` as a number or a letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.samples.texts.rows import read_text, split_rows

_QUESTIONS = ("question", "query", "prompt")
_ANSWERS = ("answer", "gold", "label", "answerKey")
_COMPLETIONS = ("answer", "completion", "response")
_KNOWN = '{"prompt": "..."}, {"messages": [...]}, {"text": "..."} or {"question": "...", "choices": [...], "answer": 0}'


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One text of a file.

    Attributes:
        where: File and line, for errors.
        text: Plain text; None for the others.
        prompt: What is generated from, or the question.
        messages: A conversation in its place; None for the others.
        answer: What follows the prompt, if the file says so.
        choices: Of a question.
        label: Number of the right choice.
    """

    where: str
    text: str | None = None
    prompt: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None
    answer: str | None = None
    choices: tuple[str, ...] = ()
    label: int | None = None

    @property
    def is_prompt(self) -> bool:
        return not self.choices and (self.prompt is not None or self.messages is not None)


def read_entries(path: Path) -> list[Entry]:
    """Reads a file of texts.

    Raises:
        BadInputError: No such file, not of a kind that is read, not UTF-8, an entry that says nothing, or none at all.
    """
    text = read_text(path, _KNOWN)
    if path.suffix.casefold() == ".txt":
        entries = _read_txt(text, path)
    else:
        entries = [_make_entry(row.values, row.where) for row in split_rows(text, path, _KNOWN, bare="prompt")]
    if not entries:
        raise BadInputError(f"{path} holds no text", hint=f"a line of .jsonl: {_KNOWN}")
    return entries


def _read_txt(text: str, path: Path) -> list[Entry]:
    parts = [part.strip() for part in text.replace("\r\n", "\n").split("\n\n")]
    parts = [part for part in parts if part]
    if len(parts) == 1:
        parts = [line.strip() for line in parts[0].split("\n") if line.strip()]
    return [Entry(where=f"{path}: text {number}", text=part) for number, part in enumerate(parts, start=1)]


def _make_entry(values: Mapping[str, Any], where: str) -> Entry:
    if "choices" in values:
        return _make_question(values, where)
    if "messages" in values:
        return Entry(where=where, messages=_read_messages(values["messages"], where))
    for kind in ("prompt", "text"):
        found = values.get(kind)
        if isinstance(found, str) and found.strip():
            answer = next((values[name] for name in _COMPLETIONS if isinstance(values.get(name), str)), None)
            return Entry(where=where, text=found) if kind == "text" else Entry(where=where, prompt=found, answer=answer)
    raise BadInputError(f"{where}: holds no text; its keys are {', '.join(map(str, values)) or 'none'}", hint=_KNOWN)


def _read_messages(values: Any, where: str) -> tuple[Mapping[str, str], ...]:
    fits = isinstance(values, list) and all(
        isinstance(each, dict) and isinstance(each.get("role"), str) and isinstance(each.get("content"), str)
        for each in values
    )
    if not fits or not values:
        raise BadInputError(
            f"{where}: messages: expected a list of messages with role and content, both texts",
            hint='such as {"messages": [{"role": "user", "content": "..."}]}',
        )
    return tuple({"role": each["role"], "content": each["content"]} for each in values)


def _make_question(values: Mapping[str, Any], where: str) -> Entry:
    prompt = next((values[name] for name in _QUESTIONS if isinstance(values.get(name), str)), None)
    given = values["choices"]
    is_table = isinstance(given, dict)
    choices, names = (given.get("text"), given.get("label")) if is_table else (given, None)
    fits = isinstance(choices, list) and len(choices) > 1 and all(isinstance(each, str) and each for each in choices)
    if prompt is None or not prompt.strip() or not fits:
        raise BadInputError(
            f"{where}: a question has a text and two choices or more, which are texts",
            hint='such as {"question": "...", "choices": ["yes", "no"], "answer": 0}',
        )
    label = _find_label(next((values[name] for name in _ANSWERS if name in values), None), choices, names)
    if label is None:
        raise BadInputError(
            f"{where}: answer: expected the number of the right choice, counted from 0, its letter or its text",
            hint='such as {"question": "...", "choices": ["yes", "no"], "answer": 0}',
        )
    return Entry(where=where, prompt=prompt, choices=tuple(choices), label=label)


def _find_label(answer: Any, choices: Sequence[str], names: Any) -> int | None:
    """Returns the number of the right choice, given as that, as its text, its name, or its letter."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer if 0 <= answer < len(choices) else None
    if not isinstance(answer, str):
        return None
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    for known in (choices, names if isinstance(names, list) else (), letters):
        if answer in known:
            return list(known).index(answer)
    return int(answer) if answer.isdecimal() and int(answer) < len(choices) else None
