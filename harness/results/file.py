"""`results.json`: the comparison to and from its file.

Files of schema 1 are read too. They lack keys that are null since, and tell the devices of a title apart only when
they are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json, render_json
from modelwright.core.records.codec import decode, encode
from modelwright.harness.results.metrics import LIMITS
from modelwright.harness.results.record import SCHEMA, Comparison, Executed, tell_devices_apart

_READ = (1, SCHEMA)
_WHAT = "results of a comparison"
_HINT = "if a newer modelwright wrote it, update this one"


def render_results(comparison: Comparison) -> str:
    """Returns the text of results.json."""
    return render_json(encode_results(comparison))


def encode_results(comparison: Comparison) -> dict[str, Any]:
    """Returns a comparison as JSON values."""
    values = _spell(encode(comparison))
    assert isinstance(values, dict)
    return values


def read_results(path: str | Path) -> Comparison:
    """Reads the results that `compare` or `measure` wrote.

    Raises:
        BadInputError: No such file, not results, of a schema that this version does not read, or with keys that are
            unknown, missing or wrong; names the file and the key.
    """
    path = Path(path)
    return decode_results(read_json(path, _WHAT), where=str(path))


def decode_results(values: Mapping[str, Any], *, where: str) -> Comparison:
    """Returns JSON values as the comparison that they are.

    Args:
        values: Of a results.json.
        where: Begins the messages.

    Raises:
        BadInputError: As `read_results`.
    """
    schema = values.get("schema")
    if type(schema) is not int or schema not in _READ:
        told = "it does not say its schema" if schema is None else f"its schema {schema!r:.40} is not among {_READ}"
        raise BadInputError(
            f"{where} cannot be read as {_WHAT}: {told}",
            hint="update modelwright, which reads the results of older versions, or measure again",
        )
    comparison = decode(Comparison, {**_type_executed(values), "schema": SCHEMA}, where=where, hint=_HINT)
    if schema == 1:
        comparison = replace(comparison, measurements=tell_devices_apart(comparison.measurements))
    _require_sense(comparison, where)
    return comparison


def _type_executed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns results whose rows tell what they executed in by its record: it was in the runtime's own words once."""
    rows = values.get("measurements")
    if not isinstance(rows, list):
        return values
    return {**values, "measurements": [_type_row(row) if isinstance(row, dict) else row for row in rows]}


def _type_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    told = row.get("precision_executed")
    if not isinstance(told, dict) or told.keys() <= set(Executed.__struct_fields__):
        return row
    return {**row, "precision_executed": encode(Executed.of(told))}


def _require_sense(comparison: Comparison, where: str) -> None:
    """Refuses what no type can: two rows of one name, and limits that there are not."""
    for name, count in Counter(row.target for row in comparison.measurements).items():
        if count > 1:
            raise BadInputError(f"{where}: measurements: {name!r} is there {count} times")
    for name in comparison.limits.keys() - LIMITS.keys():
        raise BadInputError(f"{where}: limits.{name}: unknown key", hint=f"known here: {', '.join(LIMITS)}")


def _spell(value: Any) -> Any:
    """Escapes what JSON lacks: halves of surrogate pairs, as in file names of another encoding."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_spell(key): _spell(item) for key, item in value.items()}
    return [_spell(item) for item in value] if isinstance(value, list) else value
