"""What compression is held to, on ResNet-20 with CIFAR-10's images: three goals, run whole and written down.

    python benchmarks/compression.py --cifar FOLDER                   # all of them: an hour on one core
    python benchmarks/compression.py --cifar FOLDER --goal qat        # one; what was found of the others stays

- pruning: half of all channels go; at least 1.6 times as fast in ONNX Runtime, at most one point lost.
- distillation: a student that learns from ResNet-20 does better than the same student alone, from the same seeds.
- qat: where rounding to few bits after training loses more than a point, training through it loses less.

FOLDER is that of `examples/mixed_precision/data.py`. The test images only judge. What was trained is kept in `--work`:
the same call trains nothing twice. Writes `results/compression-MACHINE.json` and `.md`. Exit code 1: a goal was missed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from goals.findings import Distillation, Findings, Pruning, Rounding, Seeded, read_findings, write_findings
from goals.page import show
from msgspec.structs import replace
from revision import find_revision

from modelwright import examples
from modelwright.cli.printing import close_progress, open_progress
from modelwright.compression import Settings, compress
from modelwright.core.records.compressed import CompressedModel
from modelwright.examples.mixed_precision.data import write
from modelwright.harness import compare
from modelwright.profiles import detect_host
from modelwright.targets.readiness import package_versions

HERE = Path(__file__).resolve().parent
EXAMPLE = Path(examples.__file__).parent / "mixed_precision"
RESNET20 = f"{EXAMPLE / 'model.py'}:resnet20"
STUDENT = f"{HERE / 'models' / 'cifar.py'}:create_student"
AUGMENT = f"{EXAMPLE / 'augment.py'}:shift_and_mirror"

PRUNING = Settings(epochs=15, lr=3e-3, augment=AUGMENT, distil_from_source=True)
DISTILLATION = Settings(epochs=6, lr=5e-3, augment=AUGMENT, alpha=0.1)
SEEDS = range(5)
ROUNDING = Settings(epochs=1, lr=5e-4, augment=AUGMENT)
BITS = ("w4a4",)
PACKAGES = ("torch", "torch-pruning", "torchao", "onnxruntime")


def main() -> None:
    """Trains, measures, writes."""
    arguments = _parse()
    torch.set_num_threads(1)
    work: Path = arguments.work.expanduser()
    if not (work / "test.npz").exists():
        write(arguments.cifar, work)
    host = detect_host()
    machine = f"{host.cpu_model or host.architecture}, {host.cores} cores"
    path = arguments.results / f"compression-{re.sub(r'[^a-z0-9]+', '-', machine.lower()).strip('-')}.json"
    missed = False
    for name in arguments.goal or GOALS:
        found = GOALS[name](work, arguments.effort)
        earlier = read_findings(path, machine) or Findings(
            machine=machine, created="", revision="", versions={}, images={}
        )
        findings = replace(
            earlier,
            **{name: found},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            revision=find_revision(),
            versions=package_versions(*PACKAGES),
            images={"training": count_images(work / "train.npz"), "test": count_images(work / "test.npz")},
        )
        write_findings(path, findings)
        path.with_suffix(".md").write_text(show(findings))
        print(show(findings), flush=True)
        missed |= not all(each.is_reached for each in (found if isinstance(found, tuple) else (found,)))
    raise SystemExit(int(missed))


def prune(work: Path, effort: str) -> Pruning:
    """Takes half of the channels, and measures what is left in turns with the whole network."""
    record = run(work, "pruned", "prune:structured:0.5", PRUNING)
    comparison = compare(
        [RESNET20, work / "pruned"], samples=work / "train.npz", evaluation=work / "test.npz",
        out=work / "comparison", targets=["ort-fp32"], effort=effort, overwrite=True,
    )  # fmt: skip
    row = next(row for row in comparison.measurements if row.target == "pruned/ort-fp32")
    if row.speedup is None:
        raise SystemExit(f"{row.target} was not measured: {row.reason}")
    return Pruning(
        before=record.before,
        after=record.after,
        quality_before=record.quality_before,
        quality_after=record.quality_after,
        speedup=row.speedup,
        settings=f"{describe(PRUNING)}, half of the loss from the answers of the whole network; {effort} effort",
        seconds=record.stages[0].seconds,
    )


def distil(work: Path, _effort: str) -> Distillation:
    """Trains the same student alone and with its teacher, from the same seeds."""
    seeded, method = [], f"distil:{STUDENT}"
    for seed in SEEDS:
        taught = run(work, f"taught-{seed}", method, replace(DISTILLATION, seed=seed))
        alone = run(work, f"alone-{seed}", method, replace(DISTILLATION, seed=seed, alpha=1.0))
        seeded.append(Seeded(seed=seed, alone=alone.quality_after, taught=taught.quality_after))
    return Distillation(
        teacher=taught.quality_before,
        parameters=taught.after.parameters,
        alpha=DISTILLATION.alpha,
        seeded=tuple(seeded),
        settings=describe(DISTILLATION),
    )


def quantize(work: Path, _effort: str) -> tuple[Rounding, ...]:
    """Rounds to few bits, after training and through it."""
    found = []
    for bits in BITS:
        rounded = run(work, f"rounded-{bits}", "qat", replace(ROUNDING, bits=bits, epochs=0))
        trained = run(work, f"trained-{bits}", "qat", replace(ROUNDING, bits=bits))
        found.append(
            Rounding(
                bits=bits,
                source=trained.quality_before,
                rounded=rounded.quality_after,
                trained=trained.quality_after,
                settings=describe(ROUNDING),
            )
        )
    return tuple(found)


GOALS: Mapping[str, Callable[[Path, str], Pruning | Distillation | tuple[Rounding, ...]]] = {
    "pruning": prune,
    "distillation": distil,
    "qat": quantize,
}


def run(work: Path, name: str, method: str, settings: Settings) -> CompressedModel:
    """Returns what came of a method on ResNet-20; trained the first time."""
    progress = open_progress()

    def say(text: str) -> None:
        if text.startswith("* "):
            progress.finish(name, text.removeprefix("* "))
        else:
            progress.say(name, text)

    try:
        progress.start(name, f"{method} with {describe(settings)}")
        made = compress(
            RESNET20, [method], train=str(work / "train.npz"), evaluation=str(work / "test.npz"), out=work / name,
            settings=settings, progress=say,
        )  # fmt: skip
        progress.finish(name, "as trained before" if made.reused else "trained")
    finally:
        close_progress(progress)
    return made.record


def describe(settings: Settings) -> str:
    """Returns how something was trained, for people."""
    epochs = "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
    return f"{epochs} with a rate of {settings.lr:g}, batches of {settings.batch} shifted and mirrored"


def count_images(path: Path) -> int:
    """Returns how many images a file of samples holds."""
    with np.load(path) as stored:
        return len(stored["labels"])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, help="folder with train.npz and test.npz")
    parser.add_argument("--goal", action="append", choices=sorted(GOALS), help="default: all")
    parser.add_argument("--effort", default="standard", help="of the comparison of speed")
    parser.add_argument("--work", type=Path, default=Path("~/.cache/modelwright-compression"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
