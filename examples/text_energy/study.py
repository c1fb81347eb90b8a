"""A study: what it is of, its artifacts, and the trials that are still to be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, MeasurementInvalidError, UsageError, suggest
from modelwright.core.files import hash_file, hash_json, write_json
from modelwright.core.process.child import run_in_child
from modelwright.core.records.codec import Count, Record, Sha256, encode, read_record
from modelwright.core.scratch import staged_directory
from modelwright.examples.text_energy.prepare import CALIBRATION, EVALUATION, SOURCE, TIMED
from modelwright.examples.text_energy.texts import find_part
from modelwright.examples.text_energy.trial import HINT, Trial, describe_trial, read_trials, write_table, write_trial
from modelwright.harness import measure
from modelwright.harness.building import build_targets
from modelwright.harness.claimed import claimed_folder, spell_source
from modelwright.harness.preconditions import require_gpu_for
from modelwright.harness.progress import Progress, Undisturbed
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.measure_artifacts import require_threads
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles import detect_host
from modelwright.targets.table import get_target, target_names

PRECISIONS = {
    "fp32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "int8-dynamic": "int8-dynamic",
    "int8-static": "int8",
}
"""As a study calls it -> as targets do."""
DEVICES = ("cpu", "cuda")
STUDY, TRIALS, TABLE, INPUTS, ARTIFACTS = "study.json", "trials", "trials.csv", "inputs", "artifacts"
OTHER_OUT = "choose another --out, or give the settings of before"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a study is asked for.

    Attributes:
        model: A folder of transformers.
        data: A folder of labelled texts.
        devices: `cpu`, `cuda`.
        precisions: Keys of `PRECISIONS`.
        runtimes: As targets name them, such as `ort`.
        batches: Texts an inference.
        trials: Of each artifact at each batch.
        threads: Of every runtime on the CPU.
        effort: How long a trial takes; as `compare` takes it.
        length: Tokens of a text; None for what holds nearly all of them.
        calibrate: Texts that calibrate and on which recipes choose, at most.
        fit: Others that a head is fitted on, at most, where the model has none.
        limit: Texts that judge at most.
        seed: Of the order of turns; each trial adds its number.
    """

    model: Path
    data: Path
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    runtimes: tuple[str, ...]
    batches: tuple[int, ...]
    trials: int
    threads: int
    effort: str
    length: int | None
    calibrate: int
    fit: int
    limit: int
    seed: int


class Settings(Record, kw_only=True):
    """What all trials of a study share; it cannot change while there are some.

    Attributes:
        model_sha256: Of its files.
        data_sha256: Of its files.
    """

    schema: Count = 1
    model_sha256: Sha256
    data_sha256: Sha256
    threads: Count
    effort: str
    length: Count | None
    calibrate: Count
    fit: Count
    limit: Count


def run_study(asked: Asked, out: Path, progress: Progress | None = None) -> list[Trial]:
    """Runs the trials that are not there yet, and writes the table of all.

    Args:
        asked: What is to be measured.
        out: A folder: `source.py`, `inputs/`, `artifacts/`, `trials/`, `trials.csv`.
        progress: Told what is going on.

    Returns:
        All trials of the folder; targets that none could be made of are among them, with the reason.

    Raises:
        UsageError: Unknown precision, runtime or device, or a batch of 0.
        BadInputError: The model, the data or the folder cannot be used.
        ToolchainMissingError: A GPU is asked for and there is none.
    """
    tell = Undisturbed(progress)
    targets, absent = choose_targets(asked)
    require_threads(asked.threads, detect_host())
    for device in asked.devices:
        require_gpu_for(MeasureSettings(effort=get_effort(asked.effort), device=device))
    settings = _read_settings(asked)
    with claimed_folder(out, spell_source(asked.model), overwrite=False):
        _require_same(out / STUDY, settings)
        _prepare(asked, out, tell)
        write_json(out / STUDY, encode(settings))
        trials = out / TRIALS
        trials.mkdir(exist_ok=True)
        artifacts, failed = _build(asked, out, targets, tell)
        for device, names in targets.items():  # what was missing before may be there now
            for name in (*names, *asked.precisions):
                (trials / f"{device}-{name}.json").unlink(missing_ok=True)
        for trial in (*absent, *failed):
            write_trial(trials, trial)
        write_table(out / TABLE, read_trials(trials))
        for number in range(1, asked.trials + 1):
            for batch in asked.batches:
                for device in asked.devices:
                    wanted = [name for name in targets[device] if name in artifacts]
                    _run(asked, out, device, batch, number, {name: artifacts[name] for name in wanted}, tell)
        found = read_trials(trials)
        write_table(out / TABLE, found)
    return found


def choose_targets(asked: Asked) -> tuple[dict[str, tuple[str, ...]], list[Trial]]:
    """Returns device -> targets of the table that compute in what is asked for, and what cannot be had there.

    Raises:
        UsageError: A name is unknown, or a number is too small.
        ToolchainMissingError: A GPU is asked for and there is none.
    """
    records = [get_target(name).record for name in target_names()]
    for what, given, known in (
        ("device", asked.devices, DEVICES),
        ("precision", asked.precisions, tuple(PRECISIONS)),
        ("runtime", asked.runtimes, tuple(dict.fromkeys(record.runtime for record in records))),
    ):
        for name in given:
            if name not in known:
                raise UsageError(
                    f"there is no {what} {name!r}", hint=suggest(name, known) or f"one of {', '.join(known)}"
                )
    for name, number in (*(("batch", batch) for batch in asked.batches), ("number of trials", asked.trials)):
        if number < 1:
            raise UsageError(f"a {name} of {number} measures nothing", hint="give 1 or more")
    chosen: dict[str, tuple[str, ...]] = {}
    absent: list[Trial] = []
    for device in asked.devices:
        chosen[device] = ()
        for precision in asked.precisions:
            names = [
                record.name
                for record in records
                if (record.runtime in asked.runtimes and record.precision == PRECISIONS[precision])
                and device in record.devices
            ]
            chosen[device] += tuple(names)
            if not names:
                reason = f"none of the runtimes {', '.join(asked.runtimes)} computes in {precision} on {device}"
                absent.append(
                    Trial(
                        model=asked.model.name, device=device, target=precision, runtime=" ".join(asked.runtimes),
                        precision=precision, status="skipped", reason=reason,
                    )
                )  # fmt: skip
    return chosen, absent


def _read_settings(asked: Asked) -> Settings:
    """Hashes what the study is of."""
    if not (asked.model / "config.json").is_file():
        raise BadInputError(
            f"{asked.model} is no folder of transformers: it has no config.json",
            hint="give a folder as save_pretrained writes it, with config.json, tokenizer.json and *.safetensors",
        )
    model = sorted(path for path in asked.model.iterdir() if path.suffix in (".json", ".safetensors"))
    if not any(path.suffix == ".safetensors" for path in model):
        raise BadInputError(
            f"{asked.model} has no *.safetensors", hint="save the model again: model.save_pretrained(FOLDER)"
        )
    data = [find_part(asked.data, name) for name in ("train", "test")]
    hashes = [hash_json({path.name: hash_file(path) for path in paths}) for paths in (model, data)]
    return Settings(
        model_sha256=hashes[0], data_sha256=hashes[1], threads=asked.threads, effort=asked.effort,
        length=asked.length, calibrate=asked.calibrate, fit=asked.fit, limit=asked.limit,
    )  # fmt: skip


def _require_same(path: Path, settings: Settings) -> None:
    """Refuses to add trials to those of another study: they would not compare."""
    if not path.is_file():
        return
    before = read_record(Settings, path, what="the settings of a study", hint="choose another --out")
    for name in Settings.__struct_fields__:
        was, now = getattr(before, name), getattr(settings, name)
        if was != now:
            what = f"of {name} {was}, not {now}" if not name.endswith("sha256") else f"of another {name.split('_')[0]}"
            raise BadInputError(f"{path.parent} holds trials {what}", hint=OTHER_OUT)


def _prepare(asked: Asked, out: Path, tell: Progress) -> None:
    """Tokenizes all texts, once, and fits a head where the model has none; what is there stays."""
    if (out / INPUTS).is_dir():
        return
    tell.start("prepare", "tokenizing the texts, and fitting a head where the model has none")
    with staged_directory(out / INPUTS) as staged:
        found = run_in_child(
            "modelwright.examples.text_energy.prepare:prepare_in_child",
            {
                "model": str(asked.model.resolve()),
                "data": str(asked.data.resolve()),
                "out": str(staged),
                "length": asked.length,
                "calibrate": asked.calibrate,
                "fit": asked.fit,
            },
            purpose=f"preparing {asked.model.name}",
        )
    head = f"a head fitted on {found['fitted']} texts" if found["fitted"] else "the model's own head"
    cut = f", {found['cut']} texts of the test cut" if found["cut"] else ""
    tell.finish("prepare", f"{found['classes']} classes, {found['length']} tokens a text{cut}; {head}")


def _build(
    asked: Asked, out: Path, targets: Mapping[str, Sequence[str]], tell: Progress
) -> tuple[dict[str, Path], list[Trial]]:
    """Builds the artifacts, or finds them; returns their folders, and what could not be built."""
    names = list(dict.fromkeys(name for each in targets.values() for name in each))
    if not names:
        raise UsageError(
            f"none of {', '.join(asked.runtimes)} computes in {', '.join(asked.precisions)} on "
            f"{', '.join(asked.devices)}",
            hint="see `modelwright targets`",
        )
    inputs = out / INPUTS
    built = build_targets(
        f"{inputs / SOURCE}:create",
        samples=inputs / CALIBRATION,
        evaluation=inputs / EVALUATION,
        out=out / ARTIFACTS,
        targets=names,
        evaluation_limit=asked.limit,
        overwrite=True,  # of the study's own folder
        progress=tell,
    )
    failed = [
        replace(_describe_missing(asked, absent.target, device), status=absent.status, reason=absent.error.message)
        for absent in built.absent
        for device in asked.devices
        if absent.target in targets[device]
    ]
    return {name: artifact.directory for name, artifact in built.artifacts.items()}, failed


def _run(
    asked: Asked, out: Path, device: str, batch: int, number: int, artifacts: Mapping[str, Path], tell: Progress
) -> None:
    """Runs the trials of one device and batch, all artifacts in turns; those that are there are not run again."""
    trials, shown = out / TRIALS, f"trial {number} of {asked.trials}, batch {batch}, {device}"
    blank = {name: _describe_missing(asked, name, device, batch=batch, trial=number) for name in artifacts}
    wanted = [name for name in artifacts if not _is_measured(trials / blank[name].file_name)]
    if not wanted:
        return
    tell.start("trial", shown)
    try:
        comparison = measure(
            [artifacts[name] for name in wanted],
            samples=out / INPUTS / TIMED,
            effort=asked.effort,
            threads=asked.threads,
            batch=batch,
            device=device,
            seed=asked.seed + number,
            meter_computation=True,
            progress=tell,
        )
    except MeasurementInvalidError as error:  # none could be measured, such as for want of memory at this batch
        found = [replace(blank[name], status="failed", reason=error.message) for name in wanted]
    else:
        rows = comparison.measurements
        found = [describe_trial(row, comparison, model=asked.model.name, device=device, trial=number) for row in rows]
    for trial in found:
        write_trial(trials, trial)
    write_table(out / TABLE, read_trials(trials))
    measured = sum(trial.status == "measured" for trial in found)
    tell.finish("trial", f"{shown}: {measured} of {len(found)} measured", ok=measured == len(found))


def _is_measured(path: Path) -> bool:
    return path.is_file() and read_record(Trial, path, what="a trial", hint=HINT).status == "measured"


def _describe_missing(
    asked: Asked, target: str, device: str, *, batch: int | None = None, trial: int | None = None
) -> Trial:
    """Returns the row of a target of which nothing was measured yet."""
    record = get_target(target).record
    return Trial(
        model=asked.model.name,
        device=device,
        target=target,
        runtime=record.runtime,
        precision=record.precision,
        batch=batch,
        trial=trial,
        status="skipped",
    )
