"""Every value of a real record, replaced by what does not belong there: refused in one sentence, or harmless."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sealing
from click.testing import CliRunner

from modelwright.cli.inspect import inspect
from modelwright.core.errors import BadInputError
from modelwright.core.records.artifact import open_artifact
from modelwright.core.records.artifact_files import MANIFEST
from modelwright.core.records.exported import load_exported

EARLIER = Path(__file__).with_name("earlier")
GPU = {
    "flavour": "tensorrt", "name": "NVIDIA L4", "compute_capability": "8.9", "runs_on": ["8.9"],
    "hardware_compatible": "none", "driver_version": "580.65.06", "cuda_version": "13.0", "memory_bytes": 3_000_000,
}  # fmt: skip
CHECK = {"output": "logits", "measure": "flips", "value": 0.0, "good": 0.01, "broken": 0.1, "text": "none flips"}
TASK = {"task": "classes", "samples": 300, "detection": [], "measure": "agreement", "kept": 1.0, "checks": [CHECK]}
NEVER_JSON = ("NaN", "-Infinity", "1e400", "[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000)
"""What no record may hold anywhere: not even where any JSON value may stand."""
KINDS: tuple[tuple[Any, ...], ...] = (
    (None,),
    (True,),
    (-1, 2.5, 1e308, 10**18, 10**400),
    ("", "7", "x" * 100_000, "\x1b[2J\u202e", "\ud800", "../../etc/passwd"),
    ([], [None], {}, {"": {"a": []}}),
)
FREE = ("recipe",)
"""Keys under which a target's own words stand, any JSON value of them."""
UNIONS = ("shape", "runs_on")
"""Keys that hold values of several types."""
OPTIONAL = (
    "schema", "gpu", "memory_bytes", "calibration", "tuning", "evaluation", "random", "emulated", "device", "task",
    "roles", "weights_sha256", "program", "program_sha256",
)  # fmt: skip
"""Keys that a record may be without, beside all of a manifest's `requires`."""
LONGEST_MESSAGE = 400


def list_places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yields where values lie in JSON, containers too."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*place, key)
        yield from list_places(value[key], (*place, key))


def pick_values(number: int) -> list[Any]:
    """Returns two values of each kind for a place, other ones for the next: a few places see all."""
    return [kind[(2 * number + step) % len(kind)] for kind in KINDS for step in range(min(2, len(kind)))]


def put(data: dict[str, Any], place: tuple[str | int, ...], value: Any) -> tuple[dict[str, Any], Any]:
    """Returns a copy with another value in a place, and what was there."""
    changed: Any = copy.deepcopy(data)
    holder: Any = changed
    for key in place[:-1]:
        holder = holder[key]
    before, holder[place[-1]] = holder[place[-1]], value
    return changed, before


def require_one_sentence(error: BadInputError, path: Path) -> None:
    assert str(path.name) in error.message
    assert len(error.message) < LONGEST_MESSAGE + len(str(path))
    assert error.message.isprintable()


def read_manifest() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((EARLIER / MANIFEST).read_text())
    # One candidate, one instruction set: more of the same show nothing new.
    data["recipe"]["candidates"] = data["recipe"]["candidates"][:1]
    for machine in (data["machine"], data["proof"]["host"]):
        machine["instruction_sets"] = ["avx2"]
        machine["gpu"] = {name: GPU[name] for name in ("name", "compute_capability", "memory_bytes")}
    data["proof"]["fidelity"]["task"] = TASK
    data["proof"]["roles"] = {"logits": {"name": "logits", "role": "classes", "why": "labels", "axis": 1}}
    return data | {"schema": 2, "requires": data["requires"] | {"gpu": GPU}, "notes": ["a note"]}


def read_export() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((EARLIER / "model.export.json").read_text())
    return data | {"schema": 3, "notes": ["a note"], "comparison_reason": "a reason"}


RECORDS = {MANIFEST: read_manifest(), "model.export.json": read_export()}


@pytest.fixture(params=RECORDS)
def record(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    return tmp_path / request.param, RECORDS[request.param]


def open_record(path: Path) -> Any:
    if path.name == MANIFEST:
        return open_artifact(path.parent).manifest
    return load_exported(path, verify=False)


def test_the_records_themselves_are_read(record: tuple[Path, dict[str, Any]]) -> None:
    path, data = record
    sealing.write_record(path, data)
    open_record(path)


def test_wrong_values_are_refused_or_harmless(record: tuple[Path, dict[str, Any]]) -> None:
    path, data = record
    refused = opened = 0
    for number, place in enumerate(list_places(data)):
        for value in pick_values(number):
            changed, before = put(data, place, value)
            sealing.write_record(path, changed)
            try:
                open_record(path)
            except BadInputError as error:
                require_one_sentence(error, path)
                refused += 1
                continue
            opened += 1
            is_free = place[0] in FREE and len(place) > 1
            is_same_kind = value is None or type(value) is type(before) or before is None or set(UNIONS) & set(place)
            is_number = isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool)
            assert is_free or is_same_kind or is_number, f"{place}: {before!r} became {value!r}"
            if path.name == MANIFEST:
                shown = CliRunner().invoke(inspect, [str(path.parent)])
                assert (shown.exit_code, shown.exception) == (0, None), f"{place}: {value!r}"
                assert shown.output.replace("\n", "").isprintable()
    assert refused > 2 * opened > 0


def test_what_is_no_json_is_refused_everywhere(record: tuple[Path, dict[str, Any]]) -> None:
    path, data = record
    for place in list_places(data):
        changed, _ = put(data, place, "PLACE")
        for text in NEVER_JSON:
            path.write_text(json.dumps(changed).replace('"PLACE"', text))
            with pytest.raises(BadInputError) as caught:
                open_record(path)
            require_one_sentence(caught.value, path)


def test_unknown_and_missing_keys_are_named(record: tuple[Path, dict[str, Any]]) -> None:
    path, data = record
    maps = ("recipe", "files", "versions", "packages", "shapes", "outputs", "roles")
    for place in [(), *list_places(data)]:
        changed, before = put({"top": data}, ("top", *place), None)
        if not isinstance(before, dict) or set(maps) & {key for key in place if isinstance(key, str)}:
            continue
        changed, _ = put({"top": data}, ("top", *place), before | {"surprise": 1})
        sealing.write_record(path, changed["top"])
        dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in (*place, "surprise"))
        with pytest.raises(BadInputError, match=re.escape(f": {dotted[1:]}: unknown key")):
            open_record(path)
        for key in before:
            changed, _ = put({"top": data}, ("top", *place), {name: before[name] for name in before if name != key})
            sealing.write_record(path, changed["top"])
            if place[:1] == ("requires",) or (key in OPTIONAL and place[-1:] != (key,)):
                open_record(path)
                continue
            with pytest.raises(BadInputError, match=f"{key}: missing"):
                open_record(path)


def test_a_truncated_or_foreign_file_is_refused(record: tuple[Path, dict[str, Any]]) -> None:
    path, data = record
    text = json.dumps(data).encode()
    for content in (*(text[:end] for end in range(0, len(text), 97)), b"\xff\xfe" + text, text + b"x", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(BadInputError) as caught:
            open_record(path)
        require_one_sentence(caught.value, path)
