"""The paths in a comparison that is given on: results.json says the way from its own folder, report.html the names.

Errors and notes quote paths too. There the folder of the results is left out, and the user's home is `~`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.path_names import drop_folders, find_home, relate_path
from modelwright.core.records.codec import Record
from modelwright.harness.results.record import Comparison

_BELOW_HOME = re.compile(r"~/(?:[^\s'\"/]+/)*")


def relate_paths(comparison: Comparison, folder: Path) -> Comparison:
    """Returns a comparison whose paths are told from a folder.

    Args:
        comparison: With paths as the user wrote them, from the working directory.
        folder: That results.json lies in.
    """
    related = _name_files(comparison, lambda path: relate_path(path, folder))
    given = [path for path in _list_files(comparison) if Path(path).is_absolute()]
    found: Comparison = _rewrite(related, lambda text: _hide_places(text, folder, given))
    return found


def drop_paths(comparison: Comparison) -> Comparison:
    """Returns a comparison that names files and says of no folder where it is."""
    named = _name_files(comparison, lambda path: drop_folders(f"/{path}"))
    found: Comparison = _rewrite(named, lambda text: _BELOW_HOME.sub(".../", text))
    return found


def _list_files(comparison: Comparison) -> list[str]:
    samples = comparison.samples
    parts = [part.path for part in (samples.calibration, samples.tuning, samples.evaluation) if part is not None]
    models = [variant.source.path for variant in comparison.variants]
    return [comparison.source.path, *models, *parts, *([samples.measured_on] if samples.measured_on else [])]


def _name_files(comparison: Comparison, name: Callable[[str], str]) -> Comparison:
    """Names the sources and the samples."""
    samples = comparison.samples
    parts = {
        key: None if part is None else replace(part, path=name(part.path))
        for key, part in (
            ("calibration", samples.calibration),
            ("tuning", samples.tuning),
            ("evaluation", samples.evaluation),
        )
    }
    measured_on = None if samples.measured_on is None else name(samples.measured_on)
    return replace(
        comparison,
        source=replace(comparison.source, path=name(comparison.source.path)),
        samples=replace(samples, **parts, measured_on=measured_on),
        variants=tuple(
            replace(variant, source=replace(variant.source, path=name(variant.source.path)))
            for variant in comparison.variants
        ),
    )


def _rewrite(value: Any, change: Callable[[str], str]) -> Any:
    """Changes every text in a record; names of keys stay. Nothing is checked: a figure that is none loses no result."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Record):
        return replace(value, **{name: _rewrite(getattr(value, name), change) for name in value.__struct_fields__})
    if isinstance(value, dict):
        return {key: _rewrite(item, change) for key, item in value.items()}
    return type(value)(_rewrite(item, change) for item in value) if isinstance(value, list | tuple) else value


def _hide_places(text: str, folder: Path, given: list[str]) -> str:
    """Leaves out the folder of the results and those of given files, and writes the home as `~`.

    Only places that are known are looked for: names of tensors, such as `/layer1/Conv`, look like paths as well.
    """
    if "/" not in text and "\\" not in text:
        return text
    for file in given:
        text = text.replace(file, drop_folders(file))
    for place in dict.fromkeys((str(folder.absolute()), str(folder.resolve()))):
        if Path(place).parent != Path(place):
            text = text.replace(f"{place}/", "").replace(place, ".")
    home = find_home()
    if home is not None and home.parent != home:
        text = re.sub(rf"{re.escape(str(home))}(?![\w.-])", "~", text)
    return text
