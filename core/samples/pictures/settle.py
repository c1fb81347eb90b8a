"""Preprocessing that is settled: what the user said, and where they said nothing what the model's input says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.errors import UsageError
from modelwright.core.records.pictures import BYTE_SCALE, Channels, Dtype, Layout, Preprocess
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.fitting import fits
from modelwright.core.samples.pictures.wishes import GEOMETRY, Wishes
from modelwright.core.samples.source import SignatureNeededError

_DEPTHS = (1, 3)
_OTHERWISE = "write file.py:function instead, which yields a dict of the model's inputs for each picture"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """How an input of a model holds a picture; None for what it leaves open."""

    layout: Layout
    depth: int | None
    height: int | None
    width: int | None

    @property
    def sides(self) -> tuple[int, int] | None:
        return None if self.height is None or self.width is None else (self.height, self.width)


def settle(wishes: Wishes, signature: Signature | None) -> Preprocess:
    """Returns what is done to pictures.

    Args:
        wishes: What the user said.
        signature: Of the model; None before it is known.

    Raises:
        SignatureNeededError: There is no signature, and the user did not say all.
        UsageError: The model's input is no picture, or another one.
    """
    spec = None if signature is None else _choose_input(wishes, signature)
    said = any(name in wishes.values for name in GEOMETRY)
    if spec is None and ("input" not in wishes.values or not (said or wishes.preset)):
        raise SignatureNeededError(
            "pictures are made for a model whose inputs are not known yet",
            hint=f"say more: --preprocess {wishes.text},input=NAME,size=224 with the input's name and size",
        )
    place = _read_place(spec, wishes.get("layout"))
    channels: Channels = wishes.get("channels") or ("gray" if place.depth == 1 or place.layout == "nhw" else "rgb")
    dtype: Dtype = wishes.get("dtype") or ("float32" if spec is None else _choose_dtype(spec))
    scale = wishes.get("scale") or (1.0 if dtype == "uint8" else BYTE_SCALE)
    settled = Preprocess(
        input=wishes.get("input") if spec is None else spec.name,
        **_choose_geometry(wishes, place),
        **{name: value for name in ("pad", "interpolation", "alpha") if (value := wishes.get(name)) is not None},
        channels=channels,
        scale=scale,
        mean=_take_numbers(wishes, "mean", channels) or (0.0,),
        std=_take_numbers(wishes, "std", channels) or (1.0,),
        layout=place.layout,
        dtype=dtype,
    )
    _require_sense(wishes, settled)
    if spec is not None and not fits(spec.shape or (), (1, *settled.row_shape)):
        raise UsageError(
            f"--preprocess {wishes.text} makes {list(settled.row_shape)}, the model takes {spec.describe()}",
            hint="leave size, crop, letterbox, channels and layout away where the model fixes them: they are read from "
            "it; resize and letterbox take what fits it",
        )
    return settled


def _choose_input(wishes: Wishes, signature: Signature) -> TensorSpec:
    specs = {spec.name: spec for spec in signature.inputs}
    if len(specs) != 1:
        raise UsageError(f"a picture is one input, and the model takes {', '.join(specs)}", hint=_OTHERWISE)
    (spec,) = specs.values()
    wanted = wishes.values.get("input", spec.name)
    if wanted != spec.name:
        raise UsageError(
            f"--preprocess {wishes.text}: the model's input is {spec.name}, not {wanted}",
            hint=f"write input={spec.name}",
        )
    return spec


def _read_place(spec: TensorSpec | None, wanted: Layout | None) -> _Place:
    """Finds channels, height and width among the axes of an input."""
    if spec is None:
        return _Place(layout=wanted or "nchw", depth=None, height=None, width=None)
    shape = spec.shape or ()
    layout = wanted or _find_layout(shape)
    if layout == "nhw":
        axes: Sequence[Any] = (1, *shape[-2:])
    elif layout == "nhwc":
        axes = (*shape[-1:], *shape[-3:-1])
    else:
        axes = shape[-3:]
    depth, height, width = (size if isinstance(size, int) else None for size in (axes if len(axes) == 3 else (0, 0, 0)))
    if len(shape) not in (3, 4) or (depth is not None and depth not in _DEPTHS):
        raise UsageError(
            f"{spec.describe()} is no picture of 1 or 3 channels{f' with the layout {wanted}' if wanted else ''}",
            hint=_OTHERWISE,
        )
    return _Place(layout=layout, depth=depth, height=height, width=width)


def _find_layout(shape: Sequence[int | str]) -> Layout:
    if len(shape) == 3 and shape[0] != _DEPTHS[-1] and shape[-1] not in _DEPTHS:
        return "nhw"
    first = shape[-3] if len(shape) >= 3 else None
    is_last = len(shape) >= 3 and shape[-1] in _DEPTHS and first not in _DEPTHS
    return "nhwc" if is_last else "nchw"


def _choose_geometry(wishes: Wishes, place: _Place) -> dict[str, Any]:
    said = {name: wishes.values[name] for name in GEOMETRY if name in wishes.values}
    if not said and wishes.preset is not None:
        crop = place.sides or (wishes.preset.side, wishes.preset.side)
        return {"crop": crop, "resize": math.floor(max(crop) / wishes.preset.share)}
    if "resize" in said and "crop" not in said:
        crop = place.sides or (said["resize"], said["resize"])
        if max(crop) > said["resize"]:
            raise UsageError(
                f"--preprocess {wishes.text}: a shorter side of {said['resize']} is less than the model takes, "
                f"{crop[0]}x{crop[1]}",
                hint=f"write resize={max(crop)} or more",
            )
        return {**said, "crop": crop}
    if said:
        return said
    if place.sides is None:
        raise UsageError(
            f"--preprocess {wishes.text}: the model leaves height and width open", hint="say them, such as size=224"
        )
    return {"size": place.sides}


def _choose_dtype(spec: TensorSpec) -> Dtype:
    floats: dict[str, Dtype] = {"float16": "float16", "float32": "float32", "float64": "float64"}
    return floats.get(spec.dtype, "uint8")


def _take_numbers(wishes: Wishes, name: str, channels: str) -> tuple[float, ...] | None:
    """Returns mean or std in the order of the channels; a preset's are for red, green, blue."""
    numbers: tuple[float, ...] | None = wishes.get(name)
    if numbers is not None and name not in wishes.values and channels == "bgr":
        return numbers[::-1]
    return numbers


def _require_sense(wishes: Wishes, settled: Preprocess) -> None:
    depth = 1 if settled.channels == "gray" else 3
    for name, numbers in (("mean", settled.mean), ("std", settled.std)):
        if len(numbers) not in (1, depth):
            raise UsageError(
                f"--preprocess {wishes.text}: {name} has {len(numbers)} numbers, gray pictures have one channel",
                hint=f"say one: {name}={numbers[0]:g}",
            )
    if settled.layout == "nhw" and depth != 1:
        raise UsageError(
            f"--preprocess {wishes.text}: layout nhw has no axis for channels",
            hint="add channels=gray, or take another layout",
        )
    if settled.dtype == "uint8" and (settled.scale, set(settled.mean), set(settled.std)) != (1.0, {0.0}, {1.0}):
        raise UsageError(
            f"--preprocess {wishes.text}: the model takes whole numbers from 0 to 255, which are not scaled",
            hint="leave scale, mean, std and presets away: the model does that itself",
        )
