"""How pictures became samples: what a program that serves the model has to do with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from modelwright.core.records.codec import Count, Line, Number, Record, read_record

Channels = Literal["rgb", "bgr", "gray"]
Layout = Literal["nchw", "nhwc", "nhw"]
Dtype = Literal["float32", "float16", "float64", "uint8"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]
Alpha = Literal["drop", "white", "black"]
Side = Annotated[int, Meta(ge=1, le=16384, description="a number of pixels from 1 to 16384")]
Level = Annotated[int, Meta(ge=0, le=255, description="a whole number from 0 to 255")]

PICTURES_FILE = "pictures.json"
"""Lies in a folder of samples that were made of pictures, and holds `Pictures`."""
BYTE_SCALE = 1 / 255
BYTE_SCALE_TEXT = "1/255"


class Preprocess(Record):
    """What is done to a picture, in this order.

    It is turned upright as its EXIF data say, brought to 8 bits a channel and to `channels`, resized, cut or padded,
    and its values v become (v * scale - mean) / std.

    Attributes:
        input: The model's input.
        size: Height and width that the whole picture is stretched to; None where it keeps its aspect.
        resize: The shorter side's length; the longer one's is rounded down.
        crop: Height and width of what is cut out of the middle.
        letterbox: Height and width that the whole picture fits into, with bars of the value `pad`.
        pad: Of bars, before scaling.
        interpolation: Of resizing; smaller pictures are averaged over what each pixel covers, as Pillow does.
        alpha: What transparent pixels become: their own colour, or what is under them.
        channels: In their order.
        scale: Of values from 0 to 255.
        mean: Per channel, or one for all, after scaling.
        std: Likewise.
        layout: Order of the axes; `nhw` has none for channels.
        dtype: Of the values.
    """

    input: Line
    size: tuple[Side, Side] | None = None
    resize: Side | None = None
    crop: tuple[Side, Side] | None = None
    letterbox: tuple[Side, Side] | None = None
    pad: Level = 0
    interpolation: Interpolation = "bilinear"
    alpha: Alpha = "drop"
    channels: Channels = "rgb"
    scale: Number = BYTE_SCALE
    mean: tuple[Number, ...] = (0.0,)
    std: tuple[Number, ...] = (1.0,)
    layout: Layout = "nchw"
    dtype: Dtype = "float32"

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        found = self.size or self.crop or self.letterbox
        assert found is not None
        return found

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one sample, without an axis of the batch."""
        height, width = self.sides
        depth = 1 if self.channels == "gray" else 3
        return {"nchw": (depth, height, width), "nhwc": (height, width, depth), "nhw": (height, width)}[self.layout]

    def describe(self) -> str:
        """Returns the text that `--preprocess` takes for exactly this."""
        parts = {
            "size": _spell_sides(self.size),
            "resize": None if self.resize is None else str(self.resize),
            "crop": _spell_sides(self.crop),
            "letterbox": _spell_sides(self.letterbox),
            "pad": str(self.pad) if self.letterbox else None,
            "interpolation": self.interpolation,
            "alpha": None if self.alpha == "drop" else self.alpha,
            "channels": self.channels,
            "scale": BYTE_SCALE_TEXT if self.scale == BYTE_SCALE else repr(self.scale),
            "mean": _spell_numbers(self.mean, 0.0),
            "std": _spell_numbers(self.std, 1.0),
            "layout": self.layout,
            "dtype": self.dtype,
        }
        return ",".join(f"{name}={text}" for name, text in parts.items() if text is not None)


class Pictures(Record):
    """Pictures that were made into samples.

    Attributes:
        preprocess: What was done to each.
        classes: Names of the labels 0, 1, ...; None without labels.
        order: What put the classes into this order: `their names`, or a file's name.
        taken: Samples that were made.
        left: Pictures that were not needed: a part of so many was chosen by a fixed seed.
        copies: Files of the same bytes as another one, left out.
        unreadable: Names of files that are no whole pictures, left out; the first few.
        unreadable_count: All of them.
        others: A file that is no picture, if there is one.
        others_count: All of them.
        lonely: The one folder that all pictures were in: no classes.
    """

    preprocess: Preprocess
    classes: tuple[Line, ...] | None = None
    order: Line | None = None
    taken: Count
    left: Count = 0
    copies: Count = 0
    unreadable: tuple[Line, ...] = ()
    unreadable_count: Count = 0
    others: tuple[Line, ...] = ()
    others_count: Count = 0
    lonely: Line | None = None

    def describe_classes(self, shown: int = 4) -> str:
        """Returns for instance `0: cat, 1: dog`."""
        classes = self.classes or ()
        named = [f"{number}: {name}" for number, name in enumerate(classes)]
        if len(named) > shown:
            named = [*named[: shown - 1], "...", named[-1]]
        return ", ".join(named)

    def tell(self, name: str) -> list[str]:
        """Returns what the user is to know, a sentence each.

        Args:
            name: Of the samples, as the user wrote it.
        """
        chosen = f" of {self.taken + self.left:,}, chosen by a fixed seed," if self.left else ""
        told = [f"{name}: {self.taken:,} pictures{chosen} by --preprocess {self.preprocess.describe()}"]
        if self.classes is not None:
            told.append(f"{name}: labels are {self.describe_classes()}, in the order of {self.order}")
        if self.lonely is not None:
            told.append(f"{name}: no labels, as all pictures lie in one folder, {self.lonely}")
        if self.classes is not None and _reads_as_numbers_out_of_order(self.classes):
            told.append(
                f"{name}: folders named by numbers are sorted as texts, 10 before 2: --labels gives their order"
            )
        for why, names, count in (
            ("as it cannot be read", self.unreadable, self.unreadable_count),
            ("as no picture", self.others, self.others_count),
        ):
            if count:
                more = f" and {count - len(names)} more" if count > len(names) else ""
                told.append(f"{name}: left out {why}: {'; '.join(names)}{more}")
        if self.copies:
            told.append(f"{name}: left out as copies of others, byte by byte: {self.copies}")
        return told


def read_pictures(samples: Path) -> Pictures | None:
    """Returns how the pictures became samples that a folder of samples was made of; None where it was not."""
    path = samples / PICTURES_FILE
    return read_record(Pictures, path, what="the record of pictures") if path.is_file() else None


def _reads_as_numbers_out_of_order(names: tuple[str, ...]) -> bool:
    if not all(name.isascii() and name.isdecimal() for name in names):
        return False
    numbers = list(map(int, names))
    return numbers != sorted(numbers) and list(names) == sorted(names)


def _spell_sides(sides: tuple[int, int] | None) -> str | None:
    if sides is None:
        return None
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


def _spell_numbers(numbers: tuple[float, ...], usual: float) -> str | None:
    return None if set(numbers) == {usual} else ":".join(map(repr, numbers))
