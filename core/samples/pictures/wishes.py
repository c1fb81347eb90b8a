"""What `--preprocess` says: names with values, or a preset's name, parted by commas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from modelwright.core.errors import UsageError, suggest
from modelwright.core.records.pictures import Alpha, Channels, Dtype, Interpolation, Layout

GEOMETRY = ("size", "resize", "crop", "letterbox")
"""What decides how a picture gets the model's height and width."""
_LARGEST_SIDE = 16384
_EXAMPLE = "write for instance --preprocess imagenet, or --preprocess size=224,mean=0.5:0.5:0.5,std=0.5:0.5:0.5"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a family of models was trained.

    Attributes:
        side: Height and width, where the model leaves them open.
        share: Of the shorter side that the middle is cut out of.
        values: Of other names; mean and std in the order red, green, blue.
    """

    side: int
    share: float
    values: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    # torchvision's reference training, and what most others have taken over from it.
    "imagenet": Preset(side=224, share=0.875, values={"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}),
    # TensorFlow's Inception and MobileNet: values from -1 to 1.
    "inception": Preset(side=299, share=0.875, values={"mean": (0.5,), "std": (0.5,)}),
    # OpenAI's CLIP.
    "clip": Preset(
        side=224,
        share=1.0,
        values={
            "interpolation": "bicubic",
            "mean": (0.48145466, 0.4578275, 0.40821073),
            "std": (0.26862954, 0.26130258, 0.27577711),
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user said of preprocessing; all else is read from the model.

    Attributes:
        text: As they wrote it.
        values: Name -> value.
        preset: Whose values count where `values` has none.
    """

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)
    preset: Preset | None = None

    def get(self, name: str) -> Any:
        """Returns what was said of a name; None for nothing."""
        found = self.values.get(name)
        return self.preset.values.get(name) if found is None and self.preset is not None else found


def parse_wishes(text: str) -> Wishes:
    """Reads what follows `--preprocess`.

    Raises:
        UsageError: An unknown name, a value that is none, or a name that is said twice.
    """
    values: dict[str, Any] = {}
    preset: Preset | None = None
    for part in (part.strip() for part in text.split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            if name not in PRESETS:
                raise UsageError(
                    f"--preprocess {text}: {name!r} is neither a preset nor NAME=VALUE",
                    hint=suggest(name, (*PRESETS, *_READERS)) or f"presets: {', '.join(PRESETS)}. {_EXAMPLE}",
                )
            if preset is not None:
                raise UsageError(f"--preprocess {text}: two presets are given", hint="give one, and what differs")
            preset = PRESETS[name]
            continue
        if name not in _READERS:
            raise UsageError(
                f"--preprocess {text}: {name!r} is unknown",
                hint=suggest(name, _READERS) or f"known: {', '.join(_READERS)}",
            )
        if name in values:
            raise UsageError(f"--preprocess {text}: {name} is given twice", hint=f"give {name} once")
        read, expected = _READERS[name]
        try:
            values[name] = read(value)
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            raise UsageError(
                f"--preprocess {text}: {name}={value}: expected {expected}", hint=f"write {name}={_EXAMPLES[name]}"
            ) from error
    wishes = Wishes(text=text, values=values, preset=preset)
    _require_one_geometry(wishes)
    return wishes


def _require_one_geometry(wishes: Wishes) -> None:
    """Refuses two ways to the model's height and width."""
    said = [name for name in GEOMETRY if name in wishes.values]
    if len(said) > 1 and said != ["resize", "crop"]:
        raise UsageError(
            f"--preprocess {wishes.text}: {' and '.join(said)} exclude each other",
            hint="size stretches, resize with crop cuts the middle out, letterbox puts bars around: take one of them",
        )
    resize, crop = wishes.values.get("resize"), wishes.values.get("crop")
    if resize is not None and crop is not None and max(crop) > resize:
        raise UsageError(
            f"--preprocess {wishes.text}: {crop[0]}x{crop[1]} cannot be cut out where the shorter side is {resize}",
            hint=f"write resize={max(crop)} or more",
        )


def _read_side(text: str) -> int:
    side = int(text)
    if not 1 <= side <= _LARGEST_SIDE or not text.isdecimal():
        raise ValueError(text)
    return side


def _read_sides(text: str) -> tuple[int, int]:
    sides = [_read_side(side) for side in text.lower().split("x")]
    if len(sides) > 2:
        raise ValueError(text)
    return sides[0], sides[-1]


def _read_level(text: str) -> int:
    if not text.isdecimal() or int(text) > 255:
        raise ValueError(text)
    return int(text)


def _read_number(text: str) -> float:
    above, slash, below = text.partition("/")
    number = float(above) / float(below) if slash else float(above)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _read_scale(text: str) -> float:
    number = _read_number(text)
    if number <= 0:
        raise ValueError(text)
    return number


def _read_numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(map(_read_number, text.split(":")))
    if len(numbers) not in (1, 3):
        raise ValueError(text)
    return numbers


def _read_spreads(text: str) -> tuple[float, ...]:
    numbers = _read_numbers(text)
    if min(numbers) <= 0:
        raise ValueError(text)
    return numbers


def _read_name(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def _one_of(kind: Any) -> tuple[Callable[[str], str], str]:
    choices = get_args(kind)

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return read, f"one of {', '.join(choices)}"


_SIDES = "a side in pixels, or height x width, from 1 to 16384"
_READERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "size": (_read_sides, _SIDES),
    "resize": (_read_side, "the shorter side in pixels, from 1 to 16384"),
    "crop": (_read_sides, _SIDES),
    "letterbox": (_read_sides, _SIDES),
    "pad": (_read_level, "a whole number from 0 to 255"),
    "interpolation": _one_of(Interpolation),
    "alpha": _one_of(Alpha),
    "channels": _one_of(Channels),
    "scale": (_read_scale, "a number above 0, or a fraction"),
    "mean": (_read_numbers, "one number, or three parted by colons"),
    "std": (_read_spreads, "one number above 0, or three parted by colons"),
    "layout": _one_of(Layout),
    "dtype": _one_of(Dtype),
    "input": (_read_name, "the name of the model's input"),
}
_EXAMPLES: Mapping[str, str] = {
    "size": "224 or size=160x320",
    "resize": "256",
    "crop": "224 or crop=160x320",
    "letterbox": "640 or letterbox=384x640",
    "pad": "114",
    "interpolation": "bilinear",
    "alpha": "white",
    "channels": "bgr",
    "scale": "1/255 or scale=1",
    "mean": "0.485:0.456:0.406",
    "std": "0.229:0.224:0.225",
    "layout": "nhwc",
    "dtype": "float32",
    "input": "pixel_values",
}
