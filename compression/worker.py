"""The child side of a compression: loads source and data, carries out the methods, saves what comes out."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.metadata
import platform
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.compression.augmentation import make_augment
from modelwright.compression.batch_norm import settle_batch_norms
from modelwright.compression.checkpoint import BEST, LAST, Checkpoint, Progress
from modelwright.compression.data import (
    Data,
    count_shared,
    open_data,
    require_classes,
    require_enough,
    require_same_answers,
)
from modelwright.compression.loading import hash_function, load_source, load_student
from modelwright.compression.methods import Method, parse_methods
from modelwright.compression.network import Network, copy_state, make_network, measure_size, measure_sparsity, weigh
from modelwright.compression.objective import check_first_batch, make_objective
from modelwright.compression.saving import require_savable, save_network
from modelwright.compression.settings import Settings
from modelwright.compression.step import Step, Task
from modelwright.compression.steps import make_step
from modelwright.compression.teacher import Teacher, has_classes
from modelwright.compression.threads import settle_threads
from modelwright.compression.training import seed, train
from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_json
from modelwright.core.process.child import LASTING
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.compressed import CompressedModel, Stage
from modelwright.core.samples.python_source import shorten_traceback, split_function
from modelwright.core.system_errors import explain_os_error

_TRAINING = ("torch", "torch-pruning", "torchao")
"""Packages that decide what comes out."""
_PACKAGES = ("modelwright", *_TRAINING, "safetensors", "numpy")


def compress_in_child(
    kind: str,
    path: str,
    folder: str,
    function: str | None,
    source: str,
    methods: Sequence[str],
    settings: dict[str, Any],
    train_path: str,
    train_name: str,
    evaluation_path: str | None,
    evaluation_name: str | None,
    out: str,
    staging: str,
    known: str | None,
    renew: bool,
    trust: bool,
    progress: Callable[[str], None],
) -> dict[str, Any] | None:
    """Compresses a source.

    Args:
        kind: `pt2` or `factory`.
        path: The source's file.
        folder: Where its other files lie.
        function: Of a factory.
        source: As the user wrote it.
        methods: In their order.
        settings: `Settings`, encoded.
        train_path: Samples that train.
        train_name: As the user wrote them, for messages.
        evaluation_path: Samples that judge, or None.
        evaluation_name: As `train_name`.
        out: The folder of the result, with the checkpoint in it.
        staging: Where the result is written.
        known: Key of the result that lies in `out` already.
        renew: Whether another one, or another unfinished one, gives way.
        trust: Whether code in a saved program may run.
        progress: Takes what is going on; lines that begin with `LASTING` stay.

    Returns:
        `CompressedModel`, encoded; None where the result is the known one.
    """
    wanted, steps = decode(Settings, settings), parse_methods(methods)
    with explain_os_error(Path(out)):
        progress(f"loading {source}")
        loaded = load_source(kind, Path(path), Path(folder), function, Path(train_path), trust=trust)
        network = make_network(loaded)
        data = open_data(Path(train_path), train_name, network.examples)
        evaluation = None
        if evaluation_path is not None and evaluation_name is not None:
            evaluation = open_data(Path(evaluation_path), evaluation_name, network.examples)
            _require_other(data, evaluation, network)
            if wanted.max_drop is not None:
                require_enough(evaluation)
        described = {
            "source": hash_json({"files": loaded.files, "weights": loaded.weights_sha256}),
            "methods": [_identify(method, Path(train_path)) for method in steps],
            "settings": _hash_settings(wanted),
            "train": encode(data.describe()),
        }
        unfinished = hash_json(described)
        judged = None if evaluation is None else evaluation.describe()
        trained_by = {name: version for name, version in _list_versions().items() if name in _TRAINING}
        key = hash_json(
            {**described, "epochs": wanted.epochs, "evaluation": encode(judged), "versions": trained_by},
        )
        if key == known:
            return None
        if known is not None and not renew:
            raise BadInputError(
                f"{out} holds the result of another source, or of other methods, data, settings or versions of torch",
                hint="choose another --out, or add --overwrite",
            )
        checkpoint = Checkpoint(Path(out))
        state = checkpoint.open(unfinished, renew=renew) or Progress(key=unfinished)
        chosen, held = data.split()
        objective = make_objective(wanted.loss, data.answers)
        if evaluation is not None:
            require_same_answers(data, evaluation)
        task = Task(
            train=data,
            chosen=chosen,
            held=held,
            objective=objective,
            settings=wanted,
            augment=make_augment(wanted.augment) if wanted.augment else None,
            teacher=_make_teacher(network, data, wanted),
        )
        for each in (data, evaluation):
            if each is not None:
                check_first_batch(network, objective, each)
                if objective.metric == "accuracy":
                    require_classes(each)
        require_savable(network)
        for note in network.notes:
            progress(f"{LASTING}note: {note}")
        judging = (data, held) if evaluation is None else (evaluation, _all(evaluation))
        progress("evaluating the source")
        before = measure_size(network)
        settle_threads(before.macs, wanted.batch)
        quality_before = objective.measure(network, *judging)
        progress(f"{LASTING}{source}: {quality_before.describe()} on {quality_before.samples} samples that judge")
        state, last = _carry_out(steps, network, task, checkpoint, state, progress)
        progress("counting and evaluating the result")
        after, sparsity = measure_size(network), measure_sparsity(network)
        last.convert(network)
        after = replace(after, **weigh(network))
        quality_after = objective.measure(network, *judging)
        progress("saving the result")
        files = save_network(network, Path(staging), hide_examples=loaded.examples_from_samples)
        stages = (*state.done[:-1], replace(state.done[-1], notes=tuple(last.notes)))
        record = CompressedModel(
            key=key,
            source=source,
            source_sha256=described["source"],
            methods=tuple(method.text for method in steps),
            loss=Path(wanted.loss).name,
            seed=wanted.seed,
            batch=wanted.batch,
            train=data.describe(),
            evaluation=judged,
            stages=stages,
            before=before,
            after=after,
            quality_before=quality_before,
            quality_after=quality_after,
            sparsity=sparsity,
            files=files,
            versions=_list_versions(),
            notes=tuple(network.notes),
        )
        return encode(record)  # type: ignore[no-any-return]  # a record becomes a dict


def _identify(method: Method, samples: Path) -> str:
    """Returns what a method is: its text, and of a student the code and weights, wherever they lie."""
    if not method.student:
        return method.text
    path, function = split_function(method.student)
    return f"{method.kind}:{path.name}:{function} {hash_json(load_student(method.student, samples).files)}"


def _hash_settings(settings: Settings) -> str:
    """Hashes what decides a result beside how long it was trained; functions of the user's by their code."""
    loss, augment = hash_function(settings.loss), hash_function(settings.augment)
    return hash_json(encode(replace(settings, loss=loss, augment=augment, epochs=0, budget_s=None, max_drop=None)))


def _make_teacher(network: Network, data: Data, settings: Settings) -> Teacher | None:
    """Returns the source as it is now, where what comes of it is to learn from its answers."""
    if not settings.distil_from_source:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own parts to each other, where it is a saved program
        try:
            kept = dataclasses.replace(network, module=copy.deepcopy(network.module))
        except Exception as error:  # what a module raises is its own affair
            raise BadInputError(
                f"{network.name} cannot be copied, to learn from as it was: {type(error).__name__}: {error}",
                hint="leave --distil-from-source away; or keep in the module's attributes only what copy.deepcopy "
                "copies: parameters, buffers, modules and plain values",
                detail=shorten_traceback(error),
            ) from error
    return Teacher(kept, has_classes=has_classes(data.answers, settings), settings=settings)


def _require_other(train: Data, evaluation: Data, network: Network) -> None:
    """Refuses data that judge what they trained; notes it where that is so of some of them."""
    shared = count_shared(train, evaluation)
    if shared == evaluation.count:
        raise BadInputError(
            f"all {shared} samples of {evaluation.name} are in {train.name} too: they judge nothing",
            hint="give other samples to --eval, or leave it away: a part of --train is held back then",
        )
    if shared:
        network.notes.append(
            f"{shared} of {evaluation.count} samples of {evaluation.name} are in {train.name} too: the quality after "
            "training is partly what was learnt by heart"
        )


def _carry_out(
    methods: Sequence[Method], network: Network, task: Task, checkpoint: Checkpoint, state: Progress, say: Any
) -> tuple[Progress, Step]:
    """Carries out all methods, from where an earlier run ended; returns the last of them."""
    if state.is_trained and state.stopped is None and len(state.epochs) <= task.settings.epochs:
        say(f"{LASTING}beginning anew: what is kept was trained with --epochs {len(state.epochs) - 1}")
        state = Progress(key=state.key)
    resumed, step = len(state.done), None
    if state.epochs:
        say(f"{LASTING}going on after epoch {len(state.epochs) - 1} of {methods[resumed].text}")
    for number, method in enumerate(methods):
        if number and f"start-{number}" in state.files:
            network.module.load_state_dict(checkpoint.load(f"start-{number}"))
            if network.masks:
                network.keep_zeros()
        seed(task.settings.seed, number, 0)
        step = make_step(method, task)
        step.prepare(network)
        if number < resumed:
            step.finish(network)
            continue
        for note in step.notes:
            say(f"{LASTING}note: {note}")
        seconds = _share_budget(task.settings.budget_s, state, len(methods))
        state = train(network, step, checkpoint, state, seconds, say, lambda line: say(LASTING + line))
        step.finish(network)
        settle_batch_norms(network, task.train, task.chosen)
        state = _close_stage(network, step, checkpoint, state, is_last=number + 1 == len(methods))
    assert step is not None
    return state, step


def _share_budget(budget_s: float | None, state: Progress, count: int) -> float | None:
    """Returns what the next method may take: an equal part of what earlier ones left."""
    if budget_s is None:
        return None
    spent_s = sum(stage.seconds for stage in state.done)
    return max(0.0, budget_s - spent_s) / (count - len(state.done))


def _close_stage(network: Network, step: Step, checkpoint: Checkpoint, state: Progress, *, is_last: bool) -> Progress:
    """Notes a method as carried out, and keeps the weights that the next one begins with."""
    stage = Stage(
        method=step.method.text,
        parameters=_describe_training(step) | step.describe(),
        epochs=state.epochs,
        chosen=len(state.epochs) - 1 if state.chosen is None else state.chosen,
        stopped=state.stopped,
        seconds=state.seconds,
        notes=tuple(step.notes),
    )
    closed = replace(state, done=(*state.done, stage))
    if is_last:  # kept as it is until the result lies in its place
        return closed
    files = {what: name for what, name in state.files.items() if what not in (BEST, LAST)}
    fresh = Progress(key=state.key, done=closed.done, files=files)
    return checkpoint.save(fresh, {f"start-{len(closed.done)}": copy_state(network.module)})


def _describe_training(step: Step) -> dict[str, str]:
    settings, teacher = step.task.settings, step.task.teacher
    told = {"lr": f"{settings.lr or step.lr:g}", "optimizer": "Adam, cosine"}
    if settings.augment:
        path, function = split_function(settings.augment)
        told["augment"] = f"{path.name}:{function}"
    return told | ({} if teacher is None else teacher.describe())


def _all(data: Data) -> Any:
    import numpy as np

    return np.arange(data.count, dtype=np.int64)


def _list_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
