"""What compression reached, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from goals.findings import LEAST_SPEEDUP, LOST_BY_ROUNDING, MOST_POINTS_LOST, Distillation, Findings, Pruning, Rounding


def show(findings: Findings) -> str:
    """Returns a page with all goals that ran."""
    versions = ", ".join(f"{name} {version}" for name, version in findings.versions.items())
    images = ", ".join(f"{count:,} {part}" for part, count in findings.images.items())
    lines = [
        "# Compression of ResNet-20",
        "",
        f"{findings.machine}, one thread; images of CIFAR-10: {images}, of which the latter only judge; "
        f"{findings.created}, revision {findings.revision}; {versions}.",
    ]
    if findings.pruning:
        lines += ["", "## Half of all channels pruned", "", *_show_pruning(findings.pruning)]
    if findings.distillation:
        lines += ["", "## A student, alone and taught", "", *_show_distillation(findings.distillation)]
    if findings.qat:
        lines += ["", "## Few bits, after training and through it", "", *_show_rounding(findings.qat)]
    return "\n".join(lines) + "\n"


def _show_pruning(found: Pruning) -> Iterator[str]:
    yield "| | parameters | MACs | accuracy |"
    yield "| --- | ---: | ---: | ---: |"
    for name, size, quality in (
        ("ResNet-20", found.before, found.quality_before),
        ("half of it", found.after, found.quality_after),
    ):
        yield f"| {name} | {size.parameters:,} | {size.macs:,} | {quality.value:.2%} |"
    interval = found.speedup.ci95
    ends = f" (95 %: {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    yield ""
    yield (
        f"{found.speedup.ratio:.2f} times as fast in ONNX Runtime{ends}, {abs(found.points_lost):.2f} points "
        f"{'lost' if found.points_lost >= 0 else 'gained'}; wanted: "
        f"{LEAST_SPEEDUP:g} times, {MOST_POINTS_LOST:g} point at most. {_verdict(reached=found.is_reached)} "
        f"{found.settings}."
    )


def _show_distillation(found: Distillation) -> Iterator[str]:
    yield "| seed | alone | taught |"
    yield "| ---: | ---: | ---: |"
    for each in found.seeded:
        yield f"| {each.seed} | {each.alone.value:.2%} | {each.taught.value:.2%} |"
    mean, spread = found.points_gained
    yield ""
    yield (
        f"{mean:+.2f} points by the teacher ({found.teacher.value:.2%}), 95 %: {mean - spread:+.2f} to "
        f"{mean + spread:+.2f}, paired by seed; wanted: more than 0. {_verdict(reached=found.is_reached)} "
        f"The student has {found.parameters:,} parameters; {found.settings}; labels weigh "
        f"{found.alpha:g} where it is taught."
    )


def _show_rounding(found: tuple[Rounding, ...]) -> Iterator[str]:
    yield "| bits | FP32 | rounded after training | trained through rounding | |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for each in found:
        verdict = (
            _verdict(reached=each.is_reached) if each.is_called_for else f"loses {LOST_BY_ROUNDING:g} point or less"
        )
        yield (
            f"| {each.bits} | {each.source.value:.2%} | {each.rounded.value:.2%} | {each.trained.value:.2%} | "
            f"{verdict} |"
        )
    yield ""
    yield f"The same quantizers, ranges of training data; {found[0].settings}."


def _verdict(*, reached: bool) -> str:
    return "Reached." if reached else "Not reached."
