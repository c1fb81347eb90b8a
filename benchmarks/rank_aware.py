"""Whether `mix --rank-aware` helps or hurts the transformer of examples/mixed_precision, whatever samples calibrate.

    python benchmarks/rank_aware.py --cifar FOLDER

FOLDER is that of `examples/mixed_precision/data.py`. Each seed draws other training images, of which half calibrate;
with the same ones scales are chosen by their error alone, and with the order of attention's scores. All test images
judge both. Writes `results/rank-aware-MACHINE.json` and `.md`. Exit code 1: the same bits everywhere are worse with
ranking, in the mean over seeds.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from goals.interval import estimate_mean
from revision import find_revision

from modelwright import examples
from modelwright.cli.printing import close_progress, open_progress
from modelwright.core.files import write_json
from modelwright.core.records.codec import Count, Number, Record, Share, encode
from modelwright.examples.mixed_precision.data import read
from modelwright.harness.mixing.mixing import mix
from modelwright.harness.mixing.record import Mixture
from modelwright.harness.mixing.settings import Ranges, Settings
from modelwright.profiles import detect_host
from modelwright.targets.readiness import package_versions

HERE = Path(__file__).resolve().parent
VIT = f"{Path(examples.__file__).parent / 'mixed_precision' / 'model.py'}:vit"
BITS = (6, 4)
FIXED = tuple(f"{bits} bits" for bits in BITS)
"""As the table of `mix` calls them."""
SEEDS = range(3)
DRAWN = 512
"""Training images a seed: half of them calibrate, the others are those that `--max-drop` would choose by."""
PACKAGES = ("onnxruntime", "onnx", "torch", "numpy")


class Seeded(Record, kw_only=True):
    """Right answers with the calibration images of one seed.

    Attributes:
        seed: That drew the images.
        plain: With scales of least error, or up to the largest value.
        ranked: With scales that keep the order of attention's scores, where that helps on images held aside.
    """

    seed: Count
    plain: Share
    ranked: Share


class Case(Record, kw_only=True):
    """One way to give bits, over all seeds.

    Attributes:
        ranges: Where grids end without ranking.
        row: Of the table of `mix`.
        seeded: One a seed.
    """

    ranges: Ranges
    row: str
    seeded: tuple[Seeded, ...]

    @property
    def hurts(self) -> bool:
        """Whether the same bits everywhere are worse; what mixed bits do depends on the order of layers, too."""
        return self.row in FIXED and self.points[0] < 0

    @property
    def points(self) -> tuple[float, float]:
        """Mean gain by ranking, and half of its 95 % interval."""
        return estimate_mean([100 * (each.ranked - each.plain) for each in self.seeded])


class Findings(Record, kw_only=True):
    """A file of results.

    Attributes:
        machine: That all ran on.
        created: ISO 8601, UTC.
        revision: Of this repository then.
        versions: Package -> version then.
        images: Part -> how many: drawn a seed, and test.
        fp32: Right answers of FP32.
        kept: Note of each mix on how often ranked scales served better.
        cases: All that was judged.
    """

    machine: str
    created: str
    revision: str
    versions: dict[str, str]
    images: dict[str, Count]
    fp32: Number
    kept: tuple[str, ...]
    cases: tuple[Case, ...]


def main() -> None:
    """Mixes, compares, writes."""
    arguments = _parse()
    host = detect_host()
    machine = f"{host.cpu_model or host.architecture}, {host.cores} cores"
    path = arguments.results / f"rank-aware-{re.sub(r'[^a-z0-9]+', '-', machine.lower()).strip('-')}.json"
    cases: list[Case] = []
    kept: list[str] = []
    for ranges in arguments.ranges or ("mse", "minmax"):
        with tempfile.TemporaryDirectory() as folder:
            mixtures = dict(run(arguments.cifar, Path(folder), ranges))
        cases += list_cases(mixtures, ranges)
        kept += [f"{ranges}, seed {seed}: {note}" for seed, mixture in mixtures.items() for note in mixture.notes]
        findings = Findings(
            machine=machine,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            revision=find_revision(),
            versions=package_versions(*PACKAGES),
            images={"drawn": DRAWN, "test": mixtures[SEEDS[0]].samples["evaluation"]},
            fp32=mixtures[SEEDS[0]].rows[0].quality.value,
            kept=tuple(kept),
            cases=tuple(cases),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, encode(findings))
        path.with_suffix(".md").write_text(show(findings))
        print(show(findings), flush=True)
    raise SystemExit(int(any(case.hurts for case in cases)))


def run(cifar: Path, work: Path, ranges: Ranges) -> Iterator[tuple[int, Mixture]]:
    """Yields what a mix finds with the images of each seed."""
    images, labels = read(cifar, "train")
    judged, judged_labels = read(cifar, "test")
    np.savez(work / "test.npz", image=judged, labels=judged_labels)
    for seed in SEEDS:
        drawn = np.random.default_rng(seed).choice(len(images), DRAWN, replace=False)
        np.savez(work / "drawn.npz", image=images[drawn], labels=labels[drawn])
        progress = open_progress()
        try:
            yield (
                seed,
                mix(
                    VIT,
                    samples=work / "drawn.npz",
                    evaluation=work / "test.npz",
                    evaluation_limit=len(judged_labels),
                    out=work / "mixed",
                    settings=Settings(bits=BITS, ranges=ranges, rank_aware=True),
                    progress=progress,
                ),
            )
        finally:
            close_progress(progress)


def list_cases(mixtures: dict[int, Mixture], ranges: Ranges) -> Iterator[Case]:
    """Yields each row that there is with and without ranking."""
    found = {
        seed: {(row.name, row.rank_aware): row.quality.value for row in mixture.rows if row.granularity == "channel"}
        for seed, mixture in mixtures.items()
    }
    for name in [name for name, rank_aware in found[SEEDS[0]] if rank_aware]:
        seeded = (Seeded(seed=seed, plain=rows[name, False], ranked=rows[name, True]) for seed, rows in found.items())
        yield Case(ranges=ranges, row=name, seeded=tuple(seeded))


def show(findings: Findings) -> str:
    """Returns a page for people."""
    versions = ", ".join(f"{name} {version}" for name, version in findings.versions.items())
    lines = [
        "# Ranked scales of attention, with and without",
        "",
        f"The vision transformer of examples/mixed_precision ({findings.fp32:.2%} in FP32), a scale for each channel, "
        f"simulated; {findings.images['drawn']} training images drawn anew for each of {len(SEEDS)} seeds, "
        f"{findings.images['test']:,} test images judge. {findings.machine}; {findings.created}, revision "
        f"{findings.revision}; {versions}.",
        "",
        f"| ranges | bits | {' | '.join(f'seed {seed}: without, with' for seed in SEEDS)} | points, mean | 95 % |",
        f"| --- | --- |{' ---: |' * len(SEEDS)} ---: | ---: |",
    ]
    for case in findings.cases:
        mean, spread = case.points
        pairs = " | ".join(f"{each.plain:.2%}, {each.ranked:.2%}" for each in case.seeded)
        lines.append(
            f"| {case.ranges} | {case.row} | {pairs} | {mean:+.2f} | {mean - spread:+.2f} to {mean + spread:+.2f} |"
        )
    hurt = [f"{case.row} ({case.ranges})" for case in findings.cases if case.hurts]
    verdict = f"Not reached: {', '.join(hurt)}." if hurt else "Reached."
    lines += ["", f"Wanted: no loss in the mean at {' and '.join(map(str, BITS))} bits everywhere. {verdict}", ""]
    return "\n".join([*lines, *(f"- {note}" for note in findings.kept)]) + "\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, help="folder with train.npz and test.npz")
    parser.add_argument("--ranges", action="append", choices=("mse", "minmax"), help="default: both")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
