"""Images given as samples: there are many ways from one to a model's input, and only the user knows which."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.errors import BadInputError

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def refuse_images(path: Path) -> None:
    """Refuses an image, and a folder that holds images and no arrays; says how they become samples.

    Raises:
        BadInputError: It is one.
    """
    if path.suffix.lower() in _SUFFIXES and path.is_file():
        raise BadInputError(
            f"{path} is an image, and samples are arrays: what the model takes", hint=_explain(path.parent)
        )
    if not path.is_dir() or any(path.glob("*.npy")):
        return
    images = sorted(found for found in path.rglob("*") if found.suffix.lower() in _SUFFIXES)
    if images:
        first = images[0].relative_to(path).as_posix()
        raise BadInputError(
            f"{path} is a folder of images ({len(images)} of them, such as {first}), and samples are arrays: what the "
            "model takes",
            hint=_explain(path),
        )


def _explain(folder: Path) -> str:
    kinds = ", ".join(repr(suffix) for suffix in sorted(_SUFFIXES))
    return (
        "write images.py: def load(): import pathlib, numpy, PIL.Image; return ("
        "{'INPUT': numpy.asarray(PIL.Image.open(path).convert('RGB').resize((224, 224)), 'float32').transpose(2, 0, 1) "
        f"/ 255}} for path in sorted(pathlib.Path({str(folder)!r}).rglob('*')) if path.suffix.lower() in ({kinds}))"
        ", and give images.py:load; INPUT is the input's name; size, order of axes and scale are what the model was "
        "trained on; pip install pillow"
    )
