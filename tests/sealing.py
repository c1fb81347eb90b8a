"""Records as someone writes them who knows the format: changed, and hashed anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.files import hash_json
from modelwright.core.records.seal import SEAL


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a record of any content with the hash that belongs to it."""
    content = {name: value for name, value in values.items() if name != SEAL}
    path.write_text(json.dumps({**content, SEAL: hash_json(content)}))


def change_record(path: Path, **changes: Any) -> None:
    """Gives keys of a record other values, and the record another hash."""
    write_record(path, json.loads(path.read_text()) | changes)
