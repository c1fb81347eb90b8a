"""Two folders of pictures, one that calibrates and one that judges, held against each other."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.errors import BadInputError
from modelwright.core.records.pictures import read_pictures

HASHES_FILE = "pictures.sha256"
"""Lies beside samples that were made of a folder's pictures: the SHA-256 of each file's bytes, one a line."""
_NAMED = 5

Made = tuple[str, Path | None]
"""Samples as the user calls them, and the folder that they were made into; None where there are none."""


def explain_pictures(first: Made, judging: Made) -> list[str]:
    """Returns what the user is to know of pictures among samples, a sentence each.

    Args:
        first: What calibrates, or trains.
        judging: What judges; it may be the same folder.

    Raises:
        BadInputError: Their labels do not mean the same.
    """
    found = [
        (name, path, pictures)
        for name, path in (first, judging)
        if path is not None and (pictures := read_pictures(path)) is not None
    ]
    told = list(dict.fromkeys(sentence for name, _, pictures in found for sentence in pictures.tell(name)))
    if len(found) < 2:
        return told
    (name, path, pictures), (judge_name, judge_path, judge_pictures) = found
    require_same_classes(pictures.classes, judge_pictures.classes, (name, judge_name))
    shared, judged = _count_shared(path, judge_path)
    if shared:
        told.append(
            f"{shared} of the {judged} pictures of {judge_name} have the same bytes as one of {name}: they judge too "
            "well"
        )
    return told


def require_same_classes(first: tuple[str, ...] | None, second: tuple[str, ...] | None, names: tuple[str, str]) -> None:
    """Refuses labels that do not mean the same.

    Raises:
        BadInputError: Both are there, and they differ.
    """
    if first is None or second is None or first == second:
        return
    missing = [name for name in first if name not in second]
    added = [name for name in second if name not in first]
    faults = [f"{names[1]} lacks {', '.join(missing[:_NAMED])}"] if missing else []
    faults += [f"{names[0]} lacks {', '.join(added[:_NAMED])}"] if added else []
    raise BadInputError(
        f"{names[0]} and {names[1]} have other classes: {'; '.join(faults) or 'their order differs'}",
        hint="give both folders the same classes, or one --labels FILE that names all of them in the model's order",
    )


def _count_shared(first: Path, second: Path) -> tuple[int, int]:
    """Returns how many files of the second are files of the first too, by their bytes, and of how many."""
    hashes = [path / HASHES_FILE for path in (first, second)]
    if not all(path.is_file() for path in hashes):
        return 0, 0
    known, judged = (path.read_text(encoding="ascii").split() for path in hashes)
    return len(set(known) & set(judged)), len(judged)
