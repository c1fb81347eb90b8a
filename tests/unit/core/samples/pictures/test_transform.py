"""What pixels become: values worked out by hand, and torchvision's formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelwright.core.errors import BadInputError
from modelwright.core.records.pictures import Preprocess
from modelwright.core.samples.pictures.decode import UnreadableError
from modelwright.core.samples.pictures.transform import fit, make_transform


def make(**options: Any) -> Preprocess:
    return Preprocess(input="x", **{"interpolation": "nearest", **options})


def test_values_of_a_hand_made_picture() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = (255, 0, 51)
    pixels[1, 1] = (102, 204, 153)
    picture = Image.fromarray(pixels)
    plain = make_transform(make(size=(2, 2)))(picture)
    assert plain.dtype == np.float32
    assert plain.shape == (3, 2, 2)
    assert np.allclose(plain[:, 0, 0], [1.0, 0.0, 0.2])
    assert np.allclose(plain[:, 1, 1], [0.4, 0.8, 0.6])
    norm = make_transform(make(size=(2, 2), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0)))(picture)
    assert np.allclose(norm[:, 0, 0], [1.0, -1.0, 0.1])
    assert np.allclose(norm[:, 1, 1], [-0.2, 2.2, 0.3])
    last = make_transform(make(size=(2, 2), channels="bgr", layout="nhwc", scale=1.0, mean=(1.0, 2.0, 3.0)))(picture)
    assert last.shape == (2, 2, 3)
    assert last[0, 0].tolist() == [50.0, -2.0, 252.0], "blue, green, red, each less its mean"
    whole = make_transform(make(size=(2, 2), scale=1.0, dtype="uint8"))(picture)
    assert whole.dtype == np.uint8
    assert whole[0].tolist() == [[255, 0], [0, 102]]


def test_gray_has_one_channel_or_no_axis_for_it() -> None:
    picture = Image.fromarray(np.array([[0, 255], [51, 102]], np.uint8))
    options = {"size": (2, 2), "channels": "gray"}
    assert np.allclose(make_transform(make(**options))(picture), [[[0, 1], [0.2, 0.4]]])
    assert make_transform(make(layout="nhwc", **options))(picture).shape == (2, 2, 1)
    flat = make_transform(make(layout="nhw", **options))(picture)
    assert np.allclose(flat, [[0, 1], [0.2, 0.4]])


def number_pixels(height: int, width: int) -> Image.Image:
    """Returns a picture whose red is the row and whose green is the column."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([rows, columns, np.zeros_like(rows)], axis=2))


@pytest.mark.parametrize(
    ("height", "width", "resize", "crop"),
    [
        (100, 150, 50, (40, 40)),
        (150, 100, 50, (50, 45)),
        (75, 75, 75, (64, 64)),
        (37, 91, 33, (33, 31)),
        (9, 200, 8, (8, 8)),
    ],
)
def test_the_middle_is_cut_out_as_torchvision_does(height: int, width: int, resize: int, crop: tuple[int, int]) -> None:
    """torchvision: the longer side is int(size * long / short), the middle begins at int(round((h - th) / 2.0))."""
    picture = number_pixels(height, width)
    short, long = min(height, width), max(height, width)
    longer = int(resize * long / short)
    rows, columns = (resize, longer) if height <= width else (longer, resize)
    resized = np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR))
    top, left = round((rows - crop[0]) / 2.0), round((columns - crop[1]) / 2.0)
    expected = resized[top : top + crop[0], left : left + crop[1]]
    found = np.asarray(fit(picture, make(resize=resize, crop=crop, interpolation="bilinear")))
    assert np.array_equal(found, expected)


def test_the_middle_of_a_numbered_picture() -> None:
    found = np.asarray(fit(number_pixels(10, 21), make(crop=(4, 6))))
    assert found[0, 0].tolist() == [3, 8, 0], "round(7.5) is 8"
    assert found[-1, -1].tolist() == [6, 13, 0]


def test_resizing_averages_what_a_pixel_covers() -> None:
    picture = Image.fromarray(np.array([[0, 100], [200, 100]], np.uint8))
    assert np.asarray(fit(picture, make(size=(1, 1), interpolation="box"))).tolist() == [[100]]


def test_a_letterbox_keeps_the_aspect_and_fills_with_bars() -> None:
    picture = Image.new("RGB", (20, 10), (9, 9, 9))
    found = np.asarray(fit(picture, make(letterbox=(8, 8), pad=114)))
    assert found.shape == (8, 8, 3)
    assert (found[2:6] == 9).all(), "8 wide, 4 high, in the middle"
    assert (found[:2] == 114).all()
    assert (found[6:] == 114).all()
    tall = np.asarray(fit(Image.new("L", (3, 9), 7), make(letterbox=(6, 8), channels="gray")))
    assert tall.shape == (6, 8)
    assert (tall[:, 3:5] == 7).all()
    assert tall.sum() == 6 * 2 * 7


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadInputError, match="a picture of 5x8 is smaller than crop=6x6"):
        fit(number_pixels(5, 8), make(crop=(6, 6)))
    with pytest.raises(UnreadableError, match="too thin"):
        fit(Image.new("L", (20000, 1)), make(resize=256, crop=(256, 256), channels="gray"))
