"""Task files of lm-evaluation-harness with choices, whose questions lie in files of one's own.

    task: colours
    dataset_path: json
    dataset_kwargs: {data_files: {test: colours.jsonl}}
    test_split: test
    output_type: multiple_choice
    doc_to_text: "Question: {{question}} Answer:"
    doc_to_choice: "{{choices}}"
    doc_to_target: answer

Its keys mean here what they mean there, and what would be read another way is refused by name. Templates are Jinja's,
in its sandbox; no code is run (`!function`), and nothing is fetched.
"""

from __future__ import annotations

import ast
import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from modelwright.core.errors import BadInputError
from modelwright.core.samples.texts.rows import open_table, require_whole_characters
from modelwright.targets.readiness import require_import

SUFFIXES = (".yaml", ".yml")
_LARGEST_BYTES = 256 * 2**20
_HANDED_ON = ("task", "task_alias", "tag", "group", "metadata", "metric_list", "should_decontaminate", "training_split")
"""Of these nothing depends that is scored here: all four accuracies are always told."""
_READ = (
    *("dataset_path", "dataset_kwargs", "test_split", "validation_split", "output_type", "description"),
    *("doc_to_text", "doc_to_choice", "doc_to_target", "target_delimiter", "num_fewshot", "repeats"),
)
_TEXTS = ("output_type", "task", "dataset_path", "test_split", "validation_split", "description", "target_delimiter")
_MOST_NODES = 100_000
_ADAPTER = "run lm_eval itself with the artifact: python -m modelwright.harness.language.lm_evaluation --help"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question as text.

    Attributes:
        where: It stands, for errors.
        context: What is read first.
        choices: That may follow it.
        label: Number of the right one.
        delimiter: Between the two.
    """

    where: str
    context: str
    choices: tuple[str, ...]
    label: int
    delimiter: str = " "


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """A task that was read: its name and its questions."""

    name: str
    questions: tuple[Asked, ...]


def read_task(path: Path) -> TaskFile:
    """Reads a task and all questions of its file.

    Raises:
        BadInputError: Not such a file, keys that would mean something else here, or questions that do not fit.
        ToolchainMissingError: The package that reads YAML is absent.
    """
    config = _read_config(path)
    _require_known(config, path)
    questions = tuple(_ask(config, document, where) for where, document in _read_documents(config, path))
    if not questions:
        raise BadInputError(f"{path}: its file holds no question", hint="give a file with questions")
    return TaskFile(name=str(config.get("task") or path.stem), questions=questions)


def _read_config(path: Path) -> dict[str, Any]:
    yaml = require_import("yaml", "llm")
    try:
        text = _read_bounded(path)
        if _count_nodes(yaml.compose(text, Loader=yaml.SafeLoader), {}) > _MOST_NODES:
            raise BadInputError(f"{path}: its aliases (*) make more than {_MOST_NODES:,} values of it", hint=_ADAPTER)
        config = yaml.safe_load(text)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}", hint="check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        told = " ".join(str(error).split())
        hint = f"its code is not run here; {_ADAPTER}" if "!function" in told else "see its line"
        raise BadInputError(f"{path} cannot be read as a task: {told}", hint=hint) from error
    if not isinstance(config, dict) or "output_type" not in config:
        raise BadInputError(
            f"{path} is no task: expected keys such as output_type and doc_to_text",
            hint="a group or a list of tasks names others: give their files one by one",
        )
    return config


def _read_bounded(path: Path) -> str:
    """Returns what a file holds; a device or a pipe would have no end."""
    if path.exists() and not path.is_file():
        raise BadInputError(f"{path} is no file", hint="give a file")
    if path.stat().st_size > _LARGEST_BYTES:
        raise BadInputError(f"{path} is larger than 256 MB", hint="give a part of it")
    return path.read_text(encoding="utf-8-sig")


def _count_nodes(node: Any, known: dict[int, float]) -> float:
    """Returns how many values a node of YAML stands for, each alias written out; one that holds itself is endless."""
    if node is None or isinstance(node.value, str):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is counted
        parts = [part for each in node.value for part in (each if isinstance(each, tuple) else (each,))]
        known[id(node)] = 1 + sum(_count_nodes(part, known) for part in parts)
    return known[id(node)]


def _require_known(config: Mapping[str, Any], path: Path) -> None:
    for key in _TEXTS:
        if not isinstance(config.get(key) or "", str):
            raise BadInputError(
                f"{path}: {key}: expected a text, found a {type(config[key]).__name__}",
                hint="see lm-evaluation-harness' guide of tasks; a group names tasks: give their files one by one",
            )
    if config["output_type"] != "multiple_choice":
        raise BadInputError(
            f"{path}: output_type: {config['output_type']}: only multiple_choice is scored here", hint=_ADAPTER
        )
    if config.get("num_fewshot"):
        raise BadInputError(f"{path}: num_fewshot: {config['num_fewshot']}: examples are not drawn here", hint=_ADAPTER)
    unknown = sorted(str(key) for key, value in config.items() if key not in (*_READ, *_HANDED_ON) and value)
    if unknown:
        raise BadInputError(f"{path}: {', '.join(unknown)}: not read here, and the scores would differ", hint=_ADAPTER)
    missing = [key for key in ("dataset_path", "doc_to_text", "doc_to_choice", "doc_to_target") if key not in config]
    if missing:
        raise BadInputError(f"{path}: {', '.join(missing)}: missing", hint="see lm-evaluation-harness' guide of tasks")


def _read_documents(config: Mapping[str, Any], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields where a document stands, and the document."""
    kind = config["dataset_path"]
    readers = {"json": _read_json, "csv": _read_csv}
    if kind not in readers:
        raise BadInputError(
            f"{path}: dataset_path: {kind}: only files of one's own are read here, json and csv", hint=_ADAPTER
        )
    for file in _find_files(config, path):
        try:
            for number, document in readers[kind](_read_bounded(file)):
                where = f"{file}: {number}"
                if not isinstance(document, dict):
                    raise BadInputError(f"{where}: expected an object, found a {type(document).__name__}")
                require_whole_characters(document, where)
                yield where, document
        except OSError as error:
            raise BadInputError(
                f"{path}: data_files: {file} cannot be read: {error.strerror or error}",
                hint="paths are those from here, or from the task's own folder",
            ) from error
        except (ValueError, RecursionError, csv.Error) as error:
            raise BadInputError(f"{file} cannot be read as {kind}: {error}", hint="one object a line") from error


def _find_files(config: Mapping[str, Any], path: Path) -> list[Path]:
    """Returns the files of the split that is judged on: the test's, else the validation's."""
    options = config.get("dataset_kwargs") or {}
    files = options.get("data_files") if isinstance(options, dict) else None
    split = config.get("test_split") or config.get("validation_split")
    if not files or split is None or set(options) - {"data_files"}:
        raise BadInputError(
            f"{path}: expected test_split or validation_split, and dataset_kwargs with data_files alone",
            hint="such as dataset_kwargs: {data_files: {test: questions.jsonl}} and test_split: test",
        )
    by_split = files if isinstance(files, dict) else {"train": files}
    if split not in by_split:
        raise BadInputError(
            f"{path}: data_files has no split {split!r}, it has {', '.join(map(str, by_split))}",
            hint="name one of them by test_split",
        )
    names = by_split[split]
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInputError(f"{path}: data_files: expected names of files", hint="such as {test: questions.jsonl}")
    return [Path(name) if Path(name).exists() else path.parent / name for name in names]


def _read_json(text: str) -> Iterator[tuple[str, Any]]:
    if text.lstrip().startswith("["):
        yield from ((f"document {number}", each) for number, each in enumerate(json.loads(text), start=1))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", json.loads(line)


def _read_csv(text: str) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(open_table(text), start=2):
        yield f"row {number}", {name: _as_number(value) for name, value in row.items() if isinstance(name, str)}


def _as_number(value: Any) -> Any:
    """Returns a cell of a table as the number that it writes."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value) else value


def _ask(config: Mapping[str, Any], document: dict[str, Any], where: str) -> Asked:
    context = _evaluate(config["doc_to_text"], document, where, "doc_to_text")
    choices = _list_choices(config["doc_to_choice"], document, where)
    target = _evaluate(config["doc_to_target"], document, where, "doc_to_target")
    if isinstance(target, str) and target.isdigit() and config["doc_to_target"] not in document:
        target = int(target)
    if not isinstance(context, str) or (context.isdigit() and config["doc_to_text"] not in document):
        raise BadInputError(
            f"{where}: doc_to_text gives {context!r}, a number: tasks whose choices stand in the question are not "
            "scored here",
            hint=_ADAPTER,
        )
    label = choices.index(target) if isinstance(target, str) and target in choices else target
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(choices):
        raise BadInputError(
            f"{where}: doc_to_target gives {target!r}, which is neither one of the choices nor the number of one",
            hint="choices count from 0; digits that a template gives are read as a number, as in lm-evaluation-harness",
        )
    description = config.get("description") or ""
    if description:
        description = str(_evaluate(description, document, where, "description"))
    delimiter = config.get("target_delimiter", " ")
    return Asked(where=where, context=description + context, choices=choices, label=label, delimiter=str(delimiter))


def _list_choices(given: Any, document: dict[str, Any], where: str) -> tuple[str, ...]:
    choices = list(given.values()) if isinstance(given, dict) else given
    if isinstance(choices, str):
        choices = _evaluate(choices, document, where, "doc_to_choice")
    if isinstance(choices, str):
        try:
            choices = ast.literal_eval(choices)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            _refuse_choices(where, choices)
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) and one for one in choices):
        _refuse_choices(where, choices)
    return tuple(choices)


def _refuse_choices(where: str, found: Any) -> NoReturn:
    raise BadInputError(
        f"{where}: doc_to_choice gives {str(found)[:80]!r}, expected a list of two texts or more",
        hint='such as doc_to_choice: ["yes", "no"], or the name of a key that holds a list',
    )


def _evaluate(given: Any, document: dict[str, Any], where: str, key: str) -> Any:
    """Returns what a key of a task says of a document: one of its values by name, or a template of them."""
    if not isinstance(given, str):
        return given
    if given in document:
        return document[given]
    from jinja2 import StrictUndefined
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = _replace
    try:
        return environment.from_string(given).render(**document)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError, re.error) as error:
        keys: Sequence[str] = list(map(str, document))
        raise BadInputError(
            f"{where}: {key} cannot be filled in: {error}", hint=f"the document has {', '.join(keys)}"
        ) from error


def _replace(text: str, pattern: str, replacement: str, count: int = 0) -> str:
    """Is lm-evaluation-harness' own filter."""
    return re.sub(pattern, replacement, text, count=count)
