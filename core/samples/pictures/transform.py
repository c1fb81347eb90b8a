"""A picture into the values of one sample: resized, cut or padded, normalized, in the model's order of axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.records.pictures import Preprocess
from modelwright.core.samples.pictures.decode import MOST_PIXELS, UnreadableError

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]


def make_transform(preprocess: Preprocess) -> Callable[[Image], Array]:
    """Returns what makes the values of a sample of a picture in the mode `RGB` or `L`.

    A pixel has 256 values: what each of them becomes is computed once, in double precision.
    """
    table = _make_table(preprocess)
    has_axis, is_first = preprocess.layout != "nhw", preprocess.layout == "nchw"

    def transform(picture: Image) -> Array:
        pixels = np.asarray(fit(picture, preprocess))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if preprocess.channels == "bgr":
            pixels = pixels[:, :, ::-1]
        planes = [table[channel][pixels[:, :, channel]] for channel in range(pixels.shape[2])]
        if not has_axis:
            return np.asarray(planes[0])
        return np.stack(planes, axis=0 if is_first else 2)

    return transform


def fit(picture: Image, preprocess: Preprocess) -> Image:
    """Returns a picture of the height and width that are wanted.

    The shorter side, the rounding and the middle are torchvision's `Resize` and `CenterCrop`.

    Raises:
        BadInputError: It is smaller than what is to be cut out.
        UnreadableError: It is so thin that its longer side would become too long.
    """
    from PIL import Image

    how = Image.Resampling[preprocess.interpolation.upper()]
    width, height = picture.size
    if preprocess.size is not None:
        return picture.resize(preprocess.size[::-1], how)
    if preprocess.letterbox is not None:
        rows, columns = preprocess.letterbox
        ratio = min(rows / height, columns / width)
        inner = max(1, round(width * ratio)), max(1, round(height * ratio))
        canvas = Image.new(picture.mode, (columns, rows), (preprocess.pad,) * len(picture.getbands()))
        canvas.paste(picture.resize(inner, how), ((columns - inner[0]) // 2, (rows - inner[1]) // 2))
        return canvas
    if preprocess.resize is not None:
        short = min(width, height)
        width, height = preprocess.resize * width // short, preprocess.resize * height // short
        if width * height > MOST_PIXELS:
            raise UnreadableError("it is too thin: its longer side would have too many pixels")
        picture = picture.resize((width, height), how)
    assert preprocess.crop is not None
    rows, columns = preprocess.crop
    if rows > height or columns > width:
        raise BadInputError(
            f"a picture of {height}x{width} is smaller than crop={rows}x{columns}",
            hint=f"add resize={max(rows, columns)} to --preprocess, or take size instead of crop",
        )
    top, left = round((height - rows) / 2.0), round((width - columns) / 2.0)
    return picture.crop((left, top, left + columns, top + rows))


def _make_table(preprocess: Preprocess) -> Array:
    depth = 1 if preprocess.channels == "gray" else 3
    mean, std = (np.broadcast_to(np.array(numbers), depth)[:, None] for numbers in (preprocess.mean, preprocess.std))
    return np.asarray((np.arange(256) * preprocess.scale - mean) / std, dtype=preprocess.dtype)
