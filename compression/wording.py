"""What a method brings and what it does not, said before the user waits for it."""

from __future__ import annotations

from modelwright.core.records.compressed import CompressedModel

ZEROS_BRING_NOTHING = (
    "zeros among weights make nothing faster in the runtimes here, and no smaller where files are not compressed "
    "(measured with 90 % of zeros in ONNX Runtime and OpenVINO): they count in what a download takes; "
    "prune:structured makes a network faster"
)
TWO_FOUR_BRINGS = (
    "2:4 made nothing faster in ONNX Runtime and OpenVINO, where it was measured; sparse tensor cores (NVIDIA, compute "
    "capability 8.0 and later) can use the pattern, where the engine's builder is told to: that was not measured"
)


def describe_result(record: CompressedModel) -> list[str]:
    """Returns lines for people: what it cost before and after."""
    before, after = record.before, record.after
    judged = (
        "held-out samples of --eval" if record.evaluation else "samples held back of --train, which chose the epoch"
    )
    return [
        f"parameters  {before.parameters:,} -> {after.parameters:,}",
        f"MACs        {before.macs:,} -> {after.macs:,} a sample",
        f"weights     {before.weights_bytes / 1e6:.3f} -> {after.weights_bytes / 1e6:.3f} MB; "
        f"deflated {before.deflated_bytes / 1e6:.3f} -> {after.deflated_bytes / 1e6:.3f} MB",
        f"zeros       {before.zero_share:.1%} -> {after.zero_share:.1%} of weights",
        f"quality     {record.quality_before.describe()} -> {record.quality_after.describe()} "
        f"({record.quality_after.samples} {judged})",
    ]
