"""How pictures became samples, as manifests hold it: typed, refused where it is wrong, said in words."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.pictures import Pictures, Preprocess

PICTURES = Pictures(
    preprocess=Preprocess(input="x", resize=256, crop=(224, 192), mean=(0.5,), std=(0.25, 0.5, 1.0)),
    classes=tuple("abcdef"),
    order="names.txt",
    taken=9,
)


def test_it_is_read_as_it_was_written_and_says_what_it_is() -> None:
    assert decode(Pictures, encode(PICTURES)) == PICTURES
    assert PICTURES.preprocess.describe() == (
        "resize=256,crop=224x192,interpolation=bilinear,channels=rgb,scale=1/255,mean=0.5,std=0.25:0.5:1.0,"
        "layout=nchw,dtype=float32"
    )
    assert PICTURES.preprocess.row_shape == (3, 224, 192)
    assert PICTURES.describe_classes() == "0: a, 1: b, 2: c, ..., 5: f"
    assert PICTURES.describe_classes(shown=6) == "0: a, 1: b, 2: c, 3: d, 4: e, 5: f"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("scale", "1/255", "preprocess.scale"),
        ("pad", 256, "preprocess.pad: expected a whole number from 0 to 255"),
        ("crop", [224], "preprocess.crop"),
        ("crop", [0, 224], "preprocess.crop"),
        ("channels", "cmyk", "preprocess.channels: expected one of rgb, bgr, gray"),
        ("dtype", "object", "preprocess.dtype"),
        ("blur", 3, "preprocess.blur: unknown key"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(key: str, value: Any, words: str) -> None:
    told = encode(PICTURES)
    told["preprocess"][key] = value
    with pytest.raises(BadInputError, match=words):
        decode(Pictures, told)
