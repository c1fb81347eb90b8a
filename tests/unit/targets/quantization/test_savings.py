"""The time that layers give up in float: known answers of the estimate."""

import pytest

from modelwright.targets.quantization.savings import LayerWork, share_given_up

MILLION = 1e6


def test_a_classifier_costs_its_bytes_more_than_its_products() -> None:
    """MobileNetV2's: 0.4 % of the products, of the time that 8 bits save some 2 % (1.7 % by ONNX Runtime's profile)."""
    works = {
        "body": LayerWork(products=299 * MILLION, weights=2.2 * MILLION, values=6.7 * MILLION, passes_integers=True),
        "pool": LayerWork(products=0.0, values=1280, passes_integers=True),
        "head": LayerWork(products=1.28 * MILLION, weights=1.28 * MILLION, values=1000),
    }
    assert share_given_up(works, ("head",)) == pytest.approx(6.4 / 381, rel=0.02)
    assert share_given_up(works, ()) == 0.0


def test_values_are_converted_where_float_meets_integers() -> None:
    works = {
        name: LayerWork(products=10 * MILLION, values=0.1 * MILLION, passes_integers=True) for name in ("a", "b", "c")
    }
    alone = 1 / 3
    border = MILLION / (3 * (0.75 * 11 * MILLION - 50_000))
    assert share_given_up(works, ("a",)) == pytest.approx(alone + border)
    assert share_given_up(works, ("b",)) == pytest.approx(alone + 2 * border)
    assert share_given_up(works, ("a", "b")) == pytest.approx(2 * alone + border), "none between two in float"
    assert share_given_up(works, ("a", "b", "c")) == pytest.approx(1.0)


def test_a_net_that_is_over_before_it_begins_saves_nothing_and_may_go_back_whole() -> None:
    """Rows of a table: starting three operators takes longer than what they multiply."""
    works = {name: LayerWork(products=4096, weights=4096, values=64) for name in ("a", "b", "c")}
    assert share_given_up(works, ("a", "b")) == 0.0
