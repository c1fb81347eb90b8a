"""The JSON Schema of `results.json`, made from the records, their docstrings, and the table of metrics."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Any

import msgspec

from modelwright.harness.results.metrics import LIMITS, METRICS
from modelwright.harness.results.places import Metric
from modelwright.harness.results.record import SCHEMA, Comparison, Measurement

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


def describe_results() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of what this version writes."""
    root, parts = describe_records(Comparison)
    for metric in METRICS:
        _describe_metric(metric, parts)
    whole = parts["Comparison"]["properties"]
    whole["schema"]["const"] = SCHEMA
    whole["limits"] |= {
        "properties": {
            name: {"type": "number", "description": f"{limit.help} Of: {metric.title}."}
            for name, (metric, limit) in LIMITS.items()
        },
        "additionalProperties": False,
    }
    return finish_schema(f"results.json of modelwright, schema {SCHEMA}", root, parts)


def describe_records(kind: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the schema of a record, and of all records that it is made of by their names, with their docstrings."""
    (root,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    for each in _list_kinds(kind, {}).values():
        _describe_fields(each, parts[each.__name__])
    return root, parts


def finish_schema(title: str, root: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """Returns a JSON Schema (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **root, "$defs": parts}


def _list_kinds(kind: Any, found: dict[str, type]) -> dict[str, type]:
    """Returns name -> record of a record and all that it is made of."""
    if isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or hasattr(kind, "__dataclass_fields__")):
        parts = () if kind.__name__ in found else tuple(typing.get_type_hints(kind).values())
        found[kind.__name__] = kind
    else:
        parts = typing.get_args(kind)
    for part in parts:
        _list_kinds(part, found)
    return found


def _describe_fields(kind: type, schema: dict[str, Any]) -> None:
    """Adds the docstring's words: of the record its first paragraph, of each field its own."""
    text = inspect.getdoc(kind) or ""
    schema["description"] = " ".join(text.partition("\n\n")[0].split())
    for name, words in _ATTRIBUTE.findall(text.partition("Attributes:\n")[2]):
        schema["properties"][name]["description"] = " ".join(words.split())


def _describe_metric(metric: Metric, parts: dict[str, Any]) -> None:
    """Adds what the table knows of a figure, where its key leads; what two keys lead to is described by the first."""
    kind: Any = Measurement
    *path, name = metric.key.split(".")
    for step in path:
        kind = next(iter(_list_kinds(typing.get_type_hints(kind)[step], {}).values()))
    field = parts[kind.__name__]["properties"][name]
    if "title" in field:
        return
    field["title"] = metric.title
    unit = f"in {metric.unit}" if metric.unit else ""
    better = f"{metric.better} is better" if metric.better else ""
    null = f"null {metric.null}" if metric.null else ""
    words = "; ".join(part for part in (metric.title, unit, better, null) if part)
    field["description"] = " ".join(filter(None, (f"{words[0].upper()}{words[1:]}.", field.get("description"))))
