"""What to know before believing a comparison: each caution names the numbers, the likely cause and the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelwright.harness.formatting import format_interval, format_percent, format_significant, join_words
from modelwright.harness.verdict.gpu_cautions import find_gpu_cautions
from modelwright.harness.verdict.operators import explain_operators, integer_share
from modelwright.harness.verdict.wording import interval_text, short_title, times_as_fast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelwright.harness.results.record import Measurement
    from modelwright.harness.results.statistics import SpeedRatio
    from modelwright.harness.verdict.findings import Findings

LOW_AGREEMENT = 0.98
FEW_SAMPLES = 100
"""Under this, one sample is more than the point of accuracy that decides what may ship."""

FEW_ROUNDS = 20
"""With 5 paired rounds ratios were off by 11 % RMS on a shared machine, with 10 by 4 %, with 25 by 0.5 %."""

MAX_PAIRS = 3

HALF_SPEED = 0.5
"""Below it, `7.0 times slower` reads better than `at 0.14 of its speed`."""

SMALL_GAIN, MOSTLY_INTEGER = 2.0, 0.66
"""An INT8 artifact that is less than this many times as fast, at a smaller share of its time in integers, could gain
more: integers alone are about three times as fast."""

INTERRUPTED = 1.3
"""Inferences whose mean is above their median by this factor more than others' is were interrupted more often: on a
quiet machine both are within a tenth of each other."""

_DOT_PRODUCT = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"})
_X86_OR_ARM = frozenset({"avx2", "avx", "sse4_2", "asimd"})
_PRECISION_NAMES = {"f32": "fp32", "float32": "fp32", "f16": "fp16", "float16": "fp16", "bfloat16": "bf16"}


def find_cautions(findings: Findings) -> list[str]:
    """Returns the cautions, the most important first."""
    explained: set[frozenset[str]] = set()
    return [
        *_about_samples(findings),
        *_about_int8(findings, explained),
        *_about_agreement(findings),
        *_about_precision(findings),
        *_about_pairs(findings, explained),
        *find_gpu_cautions(findings),
        *_about_machine(findings),
        *_about_energy(findings),
    ]


def _about_samples(findings: Findings) -> list[str]:
    comparison, cautions = findings.comparison, []
    count = comparison.evaluation_count
    if comparison.samples.random:
        cautions.append(
            "The samples are random numbers: accuracy, agreement and calibration say nothing about your data. "
            "Give real ones with --samples."
        )
    elif count and count < FEW_SAMPLES and comparison.measured and findings.axis in ("accuracy", "agreement"):
        cautions.append(
            f"Quality was judged on {count} samples only: one sample is {format_significant(100 / count, 2)} points. "
            "Give more with --eval."
        )
    if findings.axis is None and comparison.measured:
        cautions.append("No quality figure was measured, so only the speeds can be compared. Give samples with --eval.")
    if findings.relaxed:
        cautions.append(_explain_relaxed(findings))
    return cautions


def _explain_relaxed(findings: Findings) -> str:
    """Says which limit was lowered, and what the artifact to ship loses."""
    task = findings.ship.task if findings.ship else None
    if findings.ship is None or task is None or task.worst is None:
        return "Nothing faster than FP32 agrees with it in 99 % of the samples; the limit was lowered to 98 %."
    return (
        "Nothing faster than FP32 follows it so closely that nobody would notice; the limit was lowered. "
        f"Of {findings.ship.title}, output {task.worst.output}: {task.worst.text}."
    )


def _about_int8(findings: Findings, explained: set[frozenset[str]]) -> list[str]:
    """Warns where INT8 is not faster than the best float of the same runtime, or little, and says why."""
    cautions = []
    measured = [row for row in findings.order if row.measured]
    for row in measured:
        if row.is_float or not row.precision.startswith("int"):
            continue
        rival = _find_rival(row, measured, findings)
        found = None if rival is None else findings.speeds.ratio(row, rival)
        if rival is None or found is None:
            continue
        if findings.speeds.is_faster(row, rival):
            cautions += _explain_small_gain(row, rival, found)
            continue
        explained.add(frozenset((row.target, rival.target)))
        # Where speed-ups are over another FP32, a bare "FP32" would be taken for that one.
        is_other_fp32 = rival.precision == "fp32" and findings.reference not in (None, rival)
        name = rival.title if is_other_fp32 else short_title(rival, row)
        shown = found
        if found.is_same:
            text = f"{row.title} is not faster than {name} here beyond doubt: {found.ratio:.2f} times its speed"
        elif found.ratio < HALF_SPEED:
            shown = found.inverted
            text = f"{row.title} is {shown.ratio:.1f} times slower than {name}"
        else:
            text = f"{row.title} is slower than {name}: it runs at {found.ratio:.2f} of its speed"
        cautions.append(f"{text}{interval_text(shown)}. {_explain_slow_int8(row, rival, found, findings)}")
    return cautions


def _find_rival(row: Measurement, measured: Sequence[Measurement], findings: Findings) -> Measurement | None:
    """Returns the float that INT8 has to beat: the fastest of its runtime, else the FP32 that all are held against."""
    floats = [other for other in measured if other.is_float and other.device == row.device]
    floats = [other for other in floats if other.variant == row.variant] or floats
    own = next((other for other in floats if other.runtime == row.runtime), None)
    return own or (findings.reference if findings.reference in floats else None)


def _explain_small_gain(row: Measurement, rival: Measurement, found: SpeedRatio) -> list[str]:
    """Says why INT8 gains little although it is faster: much of its time goes into something else."""
    if row.operators is None or found.ratio >= SMALL_GAIN or integer_share(row.operators) > MOSTLY_INTEGER:
        return []
    sentences = explain_operators(row, rival, found)
    if not sentences:
        return []
    return [
        f"{row.title} is only {times_as_fast(found)} as {short_title(rival, row)}{interval_text(found)}. "
        f"{' '.join(sentences)}"
    ]


def _explain_slow_int8(row: Measurement, rival: Measurement, found: SpeedRatio, findings: Findings) -> str:
    """Returns the cause and the cure, by the runtime's profile; without one the likely ones, by what is known."""
    if row.precision.endswith("-weights"):
        return "Weights alone in fewer bits save memory; they save time only where a model waits for its weights."
    sets = frozenset(findings.comparison.environment.instruction_sets)
    executed = _normalize_precision(row.executed)
    sentences = explain_operators(row, rival, found)
    if executed is not None and executed in ("fp32", "fp16", "bf16") and not sentences:
        return f"The runtime says that it ran it in {executed.upper()}: its INT8 kernels do not cover this model."
    if row.on_gpu and not sentences:
        return (
            "Most likely its layers are too small to fill the GPU, where launching them takes longer than computing "
            "them, or conversions around the INT8 layers take the rest. Compare at a larger --batch, or ship the "
            "float one."
        )
    if not row.on_gpu and sets & _X86_OR_ARM and not sets & _DOT_PRODUCT:
        no_gain = "This CPU has no INT8 dot product (VNNI, AMX, Arm dotprod), so INT8 saves size, not time."
        return " ".join([no_gain, *sentences, "Measure on the machine that will serve."])
    cure = _find_cure(row, rival, findings)
    if sentences:
        return " ".join([*sentences, cure])
    if rival.precision == "bf16" and "amx_bf16" in sets:
        return (
            f"AMX runs BF16 nearly as fast as INT8, and the conversions around the INT8 layers take the rest: "
            f"ship {rival.title}."
        )
    if "dynamic" in row.precision:
        return f"Dynamic quantization measures every activation at run time, which convolutions pay dearly for. {cure}"
    return (
        "Most likely the runtime does not fuse this model's quantize and dequantize steps, or its layers are so small "
        f"that those cost more than INT8 saves. {cure}"
    )


def _find_cure(row: Measurement, rival: Measurement, findings: Findings) -> str:
    """Returns which INT8 does pay here, beside the float of its own runtime too, where one does; else to do without."""
    measured = [other for other in findings.order if other.measured]

    def pays(other: Measurement) -> bool:
        own = _find_rival(other, measured, findings)
        return all(findings.speeds.is_faster(other, each) for each in (rival, own) if each is not None)

    better = [other for other in findings.order if other in findings.candidates and not other.is_float and pays(other)]
    better.sort(key=lambda other: other.runtime != row.runtime)
    if not better:
        return "Ship the float one, or compare at a larger --batch."
    found = findings.speeds.ratio(better[0], rival)
    if found is None or row.operators is None:
        return f"{better[0].title} does pay here."
    return f"{better[0].title} does pay here: it is {times_as_fast(found)} as {rival.title}."


def _about_agreement(findings: Findings) -> list[str]:
    low = [
        row for row in findings.order if row.measured and row.agreement is not None and row.agreement < LOW_AGREEMENT
    ]
    if not low or findings.comparison.samples.random:
        return []
    names, shares = join_words([row.title for row in low]), join_words([format_percent(row.agreement) for row in low])
    verb = "gives" if len(low) == 1 else "give"
    return [
        f"{names} {verb} another answer than FP32 to more than 2 % of the samples (agreement {shares}): "
        "look at which ones before you ship it."
    ]


def _about_precision(findings: Findings) -> list[str]:
    """Warns where a float target ran in another precision than its name says."""
    cautions = []
    for row in findings.order:
        executed, declared = _normalize_precision(row.executed), _normalize_precision(row.precision)
        known = ("fp32", "fp16", "bf16", "int8")
        if row.measured and row.is_float and executed in known and declared in known and executed != declared:
            cautions.append(
                f"{row.title} ran in {executed.upper()}, as its runtime says: its figures are those of "
                f"{executed.upper()} on this machine."
            )
    return cautions


def _about_pairs(findings: Findings, explained: set[frozenset[str]]) -> list[str]:
    """Names pairs of the same speed that matter: with the recommended target, or both on the front."""
    matter = [
        (first, second)
        for first, second in findings.pairs
        if frozenset((first.target, second.target)) not in explained
        and (findings.ship in (first, second) or (first in findings.front and second in findings.front))
    ]
    cautions = []
    for first, second in matter[:MAX_PAIRS]:
        found = findings.speeds.ratio(first, second)
        assert found is not None, "a pair of the same speed has a ratio"
        interval = (
            f": the ratio is {found.ratio:.2f}, 95 % interval {format_interval(*found.ci95, separator=' to ')}"
            if found.ci95
            else ""
        )
        cautions.append(f"{first.title} and {second.title} cannot be told apart in speed{interval}.")
    if len(matter) > MAX_PAIRS:
        cautions.append(f"{len(matter) - MAX_PAIRS} more pairs cannot be told apart in speed either.")
    return cautions


def _about_machine(findings: Findings) -> list[str]:
    comparison, cautions = findings.comparison, []
    rounds = comparison.settings.rounds
    if not comparison.measured:
        return []
    if rounds is not None and rounds < FEW_ROUNDS and len(comparison.measured) > 1:
        launches = "one launch" if comparison.settings.launches == 1 else f"{comparison.settings.launches} launches"
        cautions.append(
            f"Only {rounds} rounds were measured, in {launches}, which tell apart "
            "what differs by more than a few percent: a process is up to half a percent faster or slower for as long "
            "as it lives. Decide close calls with --effort standard or strict."
        )
    interrupted = _about_interruptions(comparison.measured)
    cautions += interrupted
    if comparison.environment.virtual_machine and not interrupted:
        cautions.append(
            "This is a virtual machine: its neighbours take time from it. The speed-ups were measured in turns and "
            "hold; the milliseconds, p99 most of all, may differ on another day."
        )
    return cautions


def _about_interruptions(measured: Sequence[Measurement]) -> list[str]:
    """Warns where others had the processor: most long inferences are interrupted then, and few short ones.

    Turns do not help: the median of what is short shows nothing of it, that of what is long all.
    """
    timed = [
        (row.latency_ms.mean / row.latency_ms.p50, row.latency_ms.mean, row.latency_ms.p50, row.title)
        for row in measured
        if not row.on_gpu and row.latency_ms is not None and row.latency_ms.mean and row.latency_ms.p50
    ]
    if len(timed) < 2:
        return []
    (more, short_mean, short_median, short), (less, long_mean, long_median, long) = max(timed), min(timed)
    if more / less < INTERRUPTED:
        return []
    return [
        f"Other processes had the processor: on average, an inference of {short} took {more:.1f} times its median, "
        f"one of {long} {less:.1f} times. The speed-ups are of medians, which favour what is too short to be "
        f"interrupted: by means, {short} is {long_mean / short_mean:.2f} times as fast as {long}, not "
        f"{long_median / short_median:.2f} times. Measure again when nothing else runs."
    ]


def _about_energy(findings: Findings) -> list[str]:
    estimated = [row for row in findings.comparison.measured if row.energy_estimated]
    if not estimated:
        return []
    sources = join_words(sorted({(row.energy and row.energy.source) or "unknown source" for row in estimated}))
    known = [row for row in findings.comparison.measured if row.energy_j is not None]
    whose = "" if len(estimated) == len(known) else f" of {join_words([row.title for row in estimated])}"
    return [
        f"Energy and carbon{whose} are estimates ({sources}), not measurements: they follow the latency and cannot "
        "show that one precision draws more power than another."
    ]


def _normalize_precision(name: str | None) -> str | None:
    if name is None:
        return None
    lowered = name.lower()
    return "int8" if lowered.startswith("int8") else _PRECISION_NAMES.get(lowered, lowered)
