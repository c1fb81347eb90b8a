"""What is said of preprocessing, what is read from the model, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest
from refusing import refused

from modelwright.core.records.codec import decode, encode
from modelwright.core.records.pictures import Preprocess
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.pictures.settle import settle
from modelwright.core.samples.pictures.wishes import parse_wishes
from modelwright.core.samples.source import SignatureNeededError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def make_signature(*shape: int | str, dtype: str = "float32") -> Signature:
    return Signature(inputs=(TensorSpec(name="x", dtype=dtype, shape=shape),), outputs=())


def ask(text: str, *shape: int | str, dtype: str = "float32") -> Preprocess:
    return settle(parse_wishes(text), make_signature(*shape, dtype=dtype))


@pytest.mark.parametrize(
    ("text", "shape", "expected"),
    [
        ("scale=1/255", ("batch", 3, 32, 48), {"size": (32, 48), "layout": "nchw", "channels": "rgb"}),
        ("scale=1", ("n", 32, 48, 3), {"size": (32, 48), "layout": "nhwc", "channels": "rgb", "scale": 1.0}),
        ("scale=1", ("n", 1, 28, 28), {"size": (28, 28), "layout": "nchw", "channels": "gray"}),
        ("scale=1", ("n", 28, 28), {"size": (28, 28), "layout": "nhw", "channels": "gray"}),
        ("scale=1", (3, 32, 32), {"size": (32, 32), "layout": "nchw"}),
        ("scale=1", (32, 32, 3), {"size": (32, 32), "layout": "nhwc"}),
        ("imagenet", (1, 3, 224, 224), {"resize": 256, "crop": (224, 224), **IMAGENET, "scale": 1 / 255}),
        ("imagenet", ("n", 3, "h", "w"), {"resize": 256, "crop": (224, 224)}),
        ("imagenet", ("n", 3, 299, 299), {"resize": 341, "crop": (299, 299)}),
        ("imagenet,resize=232", ("n", 3, 224, 224), {"resize": 232, "crop": (224, 224), **IMAGENET}),
        ("imagenet,size=64", ("n", 3, "h", "w"), {"size": (64, 64), "resize": None, "crop": None, **IMAGENET}),
        ("imagenet,channels=bgr", ("n", 3, 224, 224), {"mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229)}),
        ("mean=1:2:3,channels=bgr", ("n", 3, 8, 8), {"mean": (1.0, 2.0, 3.0)}),
        ("inception", ("n", 299, 299, 3), {"mean": (0.5,), "std": (0.5,), "layout": "nhwc"}),
        ("clip", ("n", 3, 224, 224), {"interpolation": "bicubic", "resize": 224, "crop": (224, 224)}),
        ("letterbox=384x640,pad=114", ("n", 3, "h", "w"), {"letterbox": (384, 640), "pad": 114}),
        ("scale=1", ("n", 3, 8, 8), {"dtype": "float32"}),
    ],
)
def test_what_is_not_said_is_read_from_the_model(text: str, shape: Any, expected: dict[str, Any]) -> None:
    settled = ask(text, *shape)
    assert {name: getattr(settled, name) for name in expected} == expected


def test_whole_numbers_are_not_scaled() -> None:
    settled = ask("size=8", "n", 8, 8, 3, dtype="uint8")
    assert (settled.dtype, settled.scale) == ("uint8", 1.0)
    assert ask("scale=1", "n", 3, 8, 8, dtype="float16").dtype == "float16"


@pytest.mark.parametrize(
    "text",
    [
        "imagenet",
        "letterbox=40x24,pad=7,alpha=white,channels=bgr",
        "mean=0.1:0.2:0.3,std=3,interpolation=lanczos,scale=1/127.5",
    ],
)
def test_what_is_printed_says_exactly_the_same_again(text: str) -> None:
    settled = ask(text, "n", 3, "h", "w") if "mean" not in text else ask(text, "n", 3, 9, 7)
    assert ask(settled.describe(), "n", 3, "h", "w") == settled
    assert decode(Preprocess, encode(settled)) == settled


def test_before_the_model_is_known_name_and_size_are_to_be_said() -> None:
    with pytest.raises(SignatureNeededError) as caught:
        settle(parse_wishes("imagenet"), None)
    assert "input=NAME,size=224" in (caught.value.hint or "")
    settled = settle(parse_wishes("imagenet,input=pixels,size=224"), None)
    assert (settled.input, settled.row_shape) == ("pixels", (3, 224, 224))


@pytest.mark.parametrize(
    ("wrong", "words", "mended", "told"),
    [
        ("imagnet", "'imagnet' is neither", "imagenet", "imagenet"),
        ("qqq", "'qqq' is neither", "imagenet", "imagenet"),
        ("imagenet,clip", "two presets", "clip", "give one"),
        ("sise=8", "'sise' is unknown", "size=8", "size"),
        ("size=8,size=9", "size is given twice", "size=8", "give size once"),
        ("size=0", "size=0: expected a side", "size=224", "size=224"),
        ("size=8x8x8", "expected a side", "size=160x320", "size=160x320"),
        ("std=0", "std=0: expected one number above 0", "std=0.229:0.224:0.225", "std=0.229:0.224:0.225"),
        ("mean=1:2", "mean=1:2: expected one number, or three", "mean=0.485:0.456:0.406", "mean=0.485:0.456:0.406"),
        ("mean=nan", "expected one number", "mean=0.485:0.456:0.406", "0.485:0.456:0.406"),
        ("scale=1/0", "expected a number above 0", "scale=1/255", "scale=1/255"),
        ("channels=cmyk", "expected one of rgb, bgr, gray", "channels=bgr", "channels=bgr"),
        ("pad=256", "from 0 to 255", "pad=114,letterbox=9", "pad=114"),
        ("size=8,crop=8", "size and crop exclude each other", "size=8", "take one of them"),
        ("resize=8,crop=9", "9x9 cannot be cut out", "resize=9,crop=9", "resize=9"),
    ],
)
def test_what_makes_no_sense_is_said_otherwise(wrong: str, words: str, mended: str, told: str) -> None:
    assert told in refused(lambda: parse_wishes(wrong), words)
    assert parse_wishes(mended).text == mended


@pytest.mark.parametrize(
    ("wrong", "words", "mended", "told", "spec"),
    [
        ("scale=1", "leaves height and width open", "scale=1,size=224", "size=224", ("n", 3, "h", "w")),
        (
            "size=8",
            r"makes \[3, 8, 8\], the model takes x float32 \[n, 3, 9, 9\]",
            "scale=1",
            "leave size",
            ("n", 3, 9, 9),
        ),
        ("resize=8", "a shorter side of 8 is less than the model takes, 9x9", "resize=9", "resize=9", ("n", 3, 9, 9)),
        ("scale=1,input=y", "input is x, not y", "scale=1,input=x", "input=x", ("n", 3, 9, 9)),
        (
            "imagenet",
            "mean has 3 numbers, gray pictures have one",
            "mean=0.485,std=0.229",
            "mean=0.485",
            ("n", 1, 9, 9),
        ),
        ("layout=nhw,channels=rgb", "no axis for channels", "layout=nhw,channels=gray", "channels=gray", ("n", 9, 9)),
    ],
)
def test_what_does_not_fit_the_model_is_said_otherwise(
    wrong: str, words: str, mended: str, told: str, spec: Any
) -> None:
    assert told in refused(lambda: ask(wrong, *spec), words)
    assert ask(mended, *spec)


def test_whole_numbers_leave_no_room_for_a_mean() -> None:
    hint = refused(lambda: ask("imagenet", "n", 3, 8, 8, dtype="uint8"), "whole numbers from 0 to 255")
    assert "leave scale, mean, std and presets away" in hint
    assert ask("size=8", "n", 3, 8, 8, dtype="uint8")


def test_models_that_take_no_picture_take_a_function() -> None:
    told = "write file.py:function instead"
    assert told in refused(lambda: ask("imagenet", "n", 384), "x float32 .n, 384. is no picture")
    assert told in refused(lambda: ask("imagenet", "n", 4, 8, 8), "no picture of 1 or 3 channels")
    assert told in refused(lambda: ask("layout=nchw,size=8", "n", 8, 8, 3), "with the layout nchw")
    spec = make_signature("n", 3, 8, 8).inputs[0]
    two = Signature(inputs=(spec, TensorSpec(name="y", dtype="float32", shape=("n", 1))), outputs=())
    assert told in refused(lambda: settle(parse_wishes("imagenet"), two), "the model takes x, y")
