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

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError

SUFFIXES = (".jsonl", ".csv", ".txt")
_LARGEST_BYTES = 64 * 2**20
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


def is_text_file(path: str | Path) -> bool:
    """Whether a name is that of a file of texts."""
    return Path(path).suffix.casefold() in SUFFIXES


def read_entries(path: Path) -> list[Entry]:
    """Reads a file of texts.

    Raises:
        BadInputError: No such file, not of a kind that is read, not UTF-8, an entry that says nothing, or none at all.
    """
    if not is_text_file(path):
        raise BadInputError(
            f"{path} is no file of texts: language models take {', '.join(SUFFIXES)}",
            hint=f"a line of .jsonl: {_KNOWN}",
        )
    try:
        if not path.is_file():
            raise BadInputError(f"no such file: {path} (texts)", hint="check the path")
        if path.stat().st_size > _LARGEST_BYTES:
            raise BadInputError(
                f"{path} has {path.stat().st_size / 1e6:.0f} MB; files of texts are read up to 64 MB",
                hint="give a part of it: some thousand tokens calibrate and judge",
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}", hint="check the path") from error
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".txt": _read_txt}
    entries = readers[path.suffix.casefold()](text, path)
    if not entries:
        raise BadInputError(f"{path} holds no text", hint=f"a line of .jsonl: {_KNOWN}")
    return entries


def _read_txt(text: str, path: Path) -> list[Entry]:
    parts = [part.strip() for part in text.replace("\r\n", "\n").split("\n\n")]
    parts = [part for part in parts if part]
    if len(parts) == 1:
        parts = [line.strip() for line in parts[0].split("\n") if line.strip()]
    return [Entry(where=f"{path}: text {number}", text=part) for number, part in enumerate(parts, start=1)]


def _read_csv(text: str, path: Path) -> list[Entry]:
    try:
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise BadInputError(f"{path} is not a .csv: {error}", hint="quote texts that hold commas or lines") from error
    entries = []
    for number, row in enumerate(rows, start=2):
        # Cells beyond the header lie under None, and missing ones are None.
        values = {name: value for name, value in row.items() if isinstance(name, str) and value}
        entries.append(_make_entry(values, f"{path}: row {number}"))
    return entries


def _read_jsonl(text: str, path: Path) -> list[Entry]:
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"{where}: not JSON: {error}", hint=f"one object a line, such as {_KNOWN}") from error
        if isinstance(values, str):
            values = {"prompt": values}
        if not isinstance(values, dict):
            raise BadInputError(
                f"{where}: expected an object, found a {type(values).__name__}", hint=f"such as {_KNOWN}"
            )
        entries.append(_make_entry(values, where))
    return entries


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
