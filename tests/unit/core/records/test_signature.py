"""What a signature says of an artifact whose shapes are narrower than its model's."""

from modelwright.core.records.signature import Signature, TensorSpec

MODEL = Signature(
    inputs=(
        TensorSpec(name="ids", dtype="int64", shape=("batch", "length")),
        TensorSpec(name="mask", dtype="int64", shape=("batch", "length")),
        TensorSpec(name="table", dtype="float32", shape=(4, 8)),
    ),
    outputs=(
        TensorSpec(name="scores", dtype="float32", shape=("batch", 3)),
        TensorSpec(name="any", dtype="float32", shape=None),
    ),
)


def test_fixing_a_dimension_fixes_it_wherever_it_stands() -> None:
    fixed = MODEL.with_fixed({"batch": 1})
    assert [spec.shape for spec in fixed.inputs] == [(1, "length"), (1, "length"), (4, 8)]
    assert [spec.shape for spec in fixed.outputs] == [(1, 3), None]
    assert not fixed.batch_is_dynamic


def test_what_an_artifact_has_fixed_is_named_with_its_size() -> None:
    assert MODEL.describe_fixed(MODEL) == ""
    assert MODEL.describe_fixed(MODEL.with_fixed({"batch": 1})) == "batch fixed at 1"
    assert MODEL.describe_fixed(MODEL.with_fixed({"length": 16, "batch": 2})) == "batch fixed at 2, length fixed at 16"
