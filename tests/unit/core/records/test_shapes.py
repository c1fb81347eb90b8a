"""Ranges of input shapes."""

from __future__ import annotations

import pytest

from modelwright.core.errors import UsageError
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.shapes import (
    ShapeRange,
    parse_shapes,
    require_shapes_admit,
    require_shapes_fit,
    resolve_shapes,
)
from modelwright.core.records.signature import Signature, TensorSpec


def make_signature(**shapes: tuple[int | str, ...]) -> Signature:
    inputs = tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items())
    return Signature(inputs=inputs, outputs=())


IMAGE = make_signature(x=("batch", 3, 224, 224))
TEXT = make_signature(ids=("batch", "length"), mask=("batch", "length"))


def test_min_opt_max_are_read_in_that_order() -> None:
    found = parse_shapes(["x=1x3x224x224:8x3x224x224:32x3x224x224"])
    assert found == {"x": ShapeRange(minimum=(1, 3, 224, 224), optimum=(8, 3, 224, 224), maximum=(32, 3, 224, 224))}
    assert found["x"].describe() == "1x3x224x224:8x3x224x224:32x3x224x224"
    assert decode(ShapeRange, encode(found["x"])) == found["x"]


def test_one_shape_is_all_three_and_commas_and_repetition_separate_inputs() -> None:
    found = parse_shapes(["ids=4x16,mask=4x16", "a:b=2"])
    assert found["ids"] == ShapeRange(minimum=(4, 16), optimum=(4, 16), maximum=(4, 16))
    assert set(found) == {"ids", "mask", "a:b"}


@pytest.mark.parametrize(
    "text",
    [
        "x=1x3:1x3:1x9999999999",
        "x",
        "x=",
        "=1x3",
        "x=1x3:2x3",
        "x=axb",
        "x=1x3:2x3:3x3:4x3",
        "x=-1x3",
        "x=1.5",
        "x=1x3:2:3x3",
        "",
    ],
)
def test_what_is_no_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError):
        parse_shapes([text])


@pytest.mark.parametrize("text", ["x=2x3:1x3:4x3", "x=1x3:5x3:4x3", "x=0x3:1x3:2x3", "x=1:1x3:1x3"])
def test_ranges_must_ascend_and_be_positive(text: str) -> None:
    with pytest.raises(UsageError, match="ascend"):
        parse_shapes([text])


def test_an_input_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_shapes(["x=1", "x=2"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("y=1x3x224x224", "no input 'y'"),
        ("x=1x3x224", "3 dimensions"),
        ("x=1x3x200x224:1x3x224x224:1x3x224x224", "fixed at 224"),
    ],
)
def test_ranges_that_do_not_fit_the_model_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        require_shapes_fit(parse_shapes([text]), IMAGE)


def test_a_dimension_that_two_inputs_share_has_one_range() -> None:
    with pytest.raises(UsageError, match="'length'"):
        require_shapes_fit(parse_shapes(["ids=1x8:1x16:4x32,mask=1x8:1x16:4x64"]), TEXT)


def test_the_batch_goes_from_1_to_32_unless_more_is_measured() -> None:
    assert resolve_shapes({}, IMAGE, {})["x"].describe() == "1x3x224x224:1x3x224x224:32x3x224x224"
    assert resolve_shapes({}, IMAGE, {}, batch=64)["x"].describe() == "1x3x224x224:64x3x224x224:64x3x224x224"


def test_other_dimensions_span_what_the_samples_show() -> None:
    sampled = {"ids": [[1, 16], [1, 128]], "mask": [[1, 16], [1, 128]]}
    assert resolve_shapes({}, TEXT, sampled)["mask"].describe() == "1x16:1x128:32x128"


def test_an_input_without_a_range_takes_the_shared_dimensions_of_one_with() -> None:
    given = parse_shapes(["ids=1x8:2x16:4x32"])
    assert resolve_shapes(given, TEXT, {})["mask"] == given["ids"]


def test_a_fixed_model_has_one_shape_and_a_scalar_none() -> None:
    fixed = make_signature(x=(2, 5), s=())
    found = resolve_shapes({}, fixed, {})
    assert found["x"].describe() == "2x5:2x5:2x5"
    assert found["s"] == ShapeRange(minimum=(), optimum=(), maximum=())


def test_a_range_admits_what_lies_between_its_ends() -> None:
    shapes = parse_shapes(["x=1x8:2x16:4x32"])["x"]
    assert shapes.admits((4, 8))
    assert not shapes.admits((5, 8))
    assert not shapes.admits((4, 33))
    assert not shapes.admits((4,))


def test_ranges_must_hold_a_single_sample_and_the_measured_batch() -> None:
    sampled = {"x": [[1, 3, 224, 224]]}
    wide = resolve_shapes(parse_shapes(["x=1x3x224x224:8x3x224x224:16x3x224x224"]), IMAGE, sampled)
    require_shapes_admit(wide, IMAGE, sampled, 16)
    with pytest.raises(UsageError, match="a batch of 17 of x"):
        require_shapes_admit(wide, IMAGE, sampled, 17)
    narrow = resolve_shapes(parse_shapes(["x=8x3x224x224"]), IMAGE, sampled)
    with pytest.raises(UsageError, match="a sample of x has the shape 1x3x224x224") as caught:
        require_shapes_admit(narrow, IMAGE, sampled, 8)
    assert "minimum" in (caught.value.hint or "")
