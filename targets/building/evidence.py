"""What an artifact is built from and judged by: which samples calibrate, tune and judge, and FP32's answers to them.

Prepared once for all targets of a comparison. The three parts never overlap: a recipe that chooses among candidates
does so on the tuning part, and the evaluation part only judges.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, UsageError
from modelwright.core.outputs.chain_runs import record_chains
from modelwright.core.outputs.chains import STEPS, Chain
from modelwright.core.outputs.limit import Limit, LimitedBy, Metric
from modelwright.core.outputs.output_files import read_reference, write_outputs
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.outputs.states import State, StateChoice, choose_states, explain_misfit
from modelwright.core.outputs.tasks.roles import OutputRole, Role, find_roles
from modelwright.core.outputs.user_metric import stage_targets, try_on_fp32
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.pictures import Pictures, read_pictures
from modelwright.core.records.signature import Signature
from modelwright.core.records.texts import TEXT_TOKENIZER, Texts, read_texts
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples
from modelwright.targets.building.doubts import (
    count_right,
    doubt_limit,
    find_doubts,
    find_foreign_states,
    look_at,
    require_finite_answers,
    require_other_samples,
)
from modelwright.targets.contract import Array

CHAINS = "chains"
"""Where FP32's outputs at the end of its chains lie, beside those on single samples."""
EVIDENCE_TIMEOUT_S = 6 * 3600.0
"""For what hangs besides inferences, which have a limit each: samples and chained steps are counted."""
ANSWERS_LIMIT_S = 1800.0
"""FP32 on one part of the samples: an artifact has as long to be proved on them."""
_TRIED_S = 60.0
EVALUATION_LIMIT = 512
"""Samples that judge, at most, unless the user asks for more: a share of 99 % is then known within 0.9 points."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Samples by part, and where FP32's outputs on them lie.

    Attributes:
        calibration: None when the file has too few samples to spare any.
        tuning: None likewise.
        evaluation: Always there.
        described: Part -> path, count, SHA-256, whether labelled; for manifests and results.
        reference: Folder with FP32's outputs for `tuning` and `evaluation`, each in a folder of its name.
        random: Whether the samples are noise that the user asked for by name.
        roles: Output -> what it means, found in FP32's outputs on the evaluation samples or said by the user.
        doubts: What the evaluation samples cannot show, a sentence each.
        chain: What FP32's states become when they are fed back; None for a model without states.
        limit: What an artifact may lose at most; None where the user set no limit.
        fp32_metric: What the user's metric says of FP32 on the evaluation samples, where it sets the limit.
        pictures: How the pictures became samples that they were; None where they were none.
        texts: Likewise of texts.
        tokenizer: The file that made tokens of them; None where they were none.
    """

    calibration: SampleRef | None
    tuning: SampleRef | None
    evaluation: SampleRef
    described: Mapping[str, Any]
    reference: Path
    random: bool
    roles: Mapping[str, OutputRole] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    chain: Chain | None = None
    limit: Limit | None = None
    fp32_metric: float | None = None
    pictures: Pictures | None = None
    texts: Texts | None = None
    tokenizer: Path | None = None

    @property
    def evaluation_answers(self) -> Path:
        """The folder of FP32's outputs on the evaluation samples."""
        return self.reference / "evaluation"

    @property
    def sampled_shapes(self) -> dict[str, list[list[int]]]:
        """Input name -> the shapes seen among the samples, batch dimension included."""
        parts = [part for part in self.described.values() if part is not None]
        return {name: [part["shapes"][name] for part in parts] for name in parts[0]["shapes"]} if parts else {}

    @property
    def shared(self) -> Path:
        """A folder that all builds from this evidence see."""
        return self.reference / "shared"


def prepare_evidence(
    exported: ExportedModel,
    samples: Path,
    scratch: Path,
    *,
    evaluation: Path | None = None,
    limit: int = EVALUATION_LIMIT,
    random: bool = False,
    origins: Mapping[str, str] | None = None,
    tasks: Mapping[str, Role] | None = None,
    states: StateChoice | None = None,
    max_drop: float | None = None,
    metric: Metric | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Checks and splits the samples and computes FP32's outputs on them, in a child process.

    Args:
        exported: The FP32 model.
        samples: A `.npz` file or a folder of `.npy` files; calibrates, and judges too unless `evaluation` is given.
        scratch: A folder for the FP32 outputs.
        evaluation: Samples that only judge.
        limit: Judge on at most this many samples.
        random: Whether the samples are noise.
        origins: Path that was opened -> what the user called it, for the manifest.
        tasks: Output -> its task, as the user said it; see `roles.parse_task`.
        states: What the user said about states that the next step is fed with; None finds them.
        max_drop: Points that an artifact may lose at most; None sets no limit.
        metric: The user's, of which it may lose them; None takes right answers, or without labels FP32's.
        progress: Takes a line about what is going on.

    Raises:
        BadInputError: Samples that do not fit the model, the same ones given to calibrate and to judge, a model that
            gives no number or does not come to an end on them, or a metric that says nothing of it.
        UsageError: States that the model does not have.
    """
    choice = states or StateChoice()
    chosen = choose_states(choice, exported.signature)
    if evaluation is not None and evaluation.resolve() == samples.resolve():
        raise BadInputError(
            f"{samples} is given both to calibrate and to judge",
            hint="leave out --eval: half of the samples is then held back to judge",
        )
    held_back = evaluation is None
    base = SampleRef(path=samples, holds_evaluation=held_back)
    judge = SampleRef(
        path=samples if evaluation is None else evaluation, part="evaluation", limit=limit, holds_evaluation=held_back
    )
    parts = {
        "calibration": replace(base, part="calibration"),
        "tuning": replace(base, part="tuning"),
        "evaluation": judge,
    }
    described = run_in_child(
        "modelwright.targets.building.evidence:describe_in_child",
        {
            "model_path": str(exported.model_path),
            "signature": encode(exported.signature),
            "parts": encode(parts),
            "reference": str(scratch),
            "tasks": dict(tasks or {}),
            "states": encode(chosen.states),
            "given": encode(choice.given),
            "targets": metric is not None,
        },
        purpose=f"reading the samples and running {exported.model_path.name} in FP32",
        crash_error=BadInputError,
        timeout_s=EVIDENCE_TIMEOUT_S,
        progress=progress,
    )
    roles = decode(dict[str, OutputRole], described.pop("roles"), where="what the outputs mean")
    doubts = (*chosen.unfit, *described.pop("doubts"))
    chain = described.pop("chain")
    held_to, fp32_metric, limits = _set_limit(max_drop, metric, described, roles, scratch / "evaluation")
    (scratch / "shared").mkdir(parents=True, exist_ok=True)
    for part in described.values():
        if part is not None and origins:
            part["path"] = origins.get(part["path"], part["path"])
    of_texts = next((each for each in (samples, evaluation) if each is not None and read_texts(each)), None)
    return Evidence(
        calibration=parts["calibration"] if described["calibration"] else None,
        tuning=parts["tuning"] if described["tuning"] else None,
        evaluation=judge,
        described=described,
        reference=scratch,
        random=random,
        roles=roles,
        doubts=(*doubts, *limits),
        chain=None if chain is None else decode(Chain, chain, where="the chains of FP32"),
        limit=held_to,
        fp32_metric=fp32_metric,
        pictures=read_pictures(samples) or (None if evaluation is None else read_pictures(evaluation)),
        texts=None if of_texts is None else read_texts(of_texts),
        tokenizer=None if of_texts is None else of_texts / TEXT_TOKENIZER,
    )


def _set_limit(
    max_drop: float | None,
    metric: Metric | None,
    described: dict[str, Any],
    roles: Mapping[str, OutputRole],
    answers: Path,
) -> tuple[Limit | None, float | None, list[str]]:
    """Returns the limit, what the user's metric says of FP32, and sentences on what the limit cannot hold."""
    right, metric_chooses = described.pop("right"), described.pop("metric_chooses")
    if max_drop is None:
        return None, None, []
    count = described["evaluation"]["count"]
    by: LimitedBy = "metric" if metric is not None else "accuracy" if right else "kept"
    limit = Limit(max_drop=max_drop, by=by, evaluated=count, metric=metric, metric_chooses=metric_chooses)
    if metric is None:
        return limit, None, doubt_limit(limit, roles, right=right)
    fp32, doubt = try_on_fp32(metric, answers, answers)
    return limit, fp32, [] if doubt is None else [doubt]


def describe_in_child(
    model_path: str,
    signature: dict[str, Any],
    parts: dict[str, Any],
    reference: str,
    tasks: dict[str, Role],
    states: list[dict[str, str]],
    given: list[dict[str, str]],
    targets: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Child side of `prepare_evidence`.

    Returns:
        Part -> path, count, SHA-256, whether labelled, None for an empty part; `roles`, what the outputs mean; `chain`,
        what states become; and `doubts`, what the evaluation samples cannot show.
    """
    parsed = decode(Signature, signature)
    refs = {name: decode(SampleRef, data) for name, data in parts.items()}
    described: dict[str, Any] = {}
    with ReferenceModel(Path(model_path)) as model:
        for name, ref in refs.items():
            progress(f"reading the {name} samples")
            samples = open_samples(ref, parsed)
            if samples.count == 0:
                described[name] = None
                continue
            described[name] = {
                "path": str(ref.path),
                "count": samples.count,
                "sha256": samples.sha256,
                "labels": samples.labels is not None,
                "shapes": {name: list(value.shape) for name, value in next(iter(samples.feeds(1))).items()},
            }
            if name != "calibration":
                progress(f"running FP32 on {samples.count} {name} samples")
                write_outputs(_answer(model, samples, _FEWER[name]), model.output_names, Path(reference) / name)
        if described["evaluation"] is None:
            return described | {"roles": {}, "doubts": [], "chain": None, "right": None, "metric_chooses": False}
        samples = open_samples(refs["evaluation"], parsed, checked=True)
        answers = read_reference(Path(reference) / "evaluation")
        require_finite_answers(answers)
        if targets:
            stage_targets(samples, Path(reference) / "evaluation")
        fitting, unfit = _keep_fitting(
            decode(tuple[State, ...], states), decode(tuple[State, ...], given), samples.sample(0), answers[0]
        )
        outputs = {state.output for state in fitting}
        roles = find_roles(answers, tasks=tasks, labelled=samples.labels is not None, states=outputs)
        judged = look_at(samples.feeds())
        calibrating = _hash_calibrating(refs, parsed)
        doubts = find_doubts(judged, answers, roles, samples.labels, calibrating=calibrating, states=fitting)
        chain = None
        if fitting:
            progress(f"running FP32 over {STEPS} steps, each fed with its own state")
            chain, ends = record_chains(model, samples, fitting, roles)
            if chain.reason is None:
                moving = tuple(state.input for state in fitting if state.input not in judged.still)
                foreign = find_foreign_states(samples.feeds(), fitting, ends)
                chain = replace(chain, moving=moving, foreign=foreign)
                write_outputs(ends, model.output_names, Path(reference) / CHAINS)
    if chain is not None:
        doubts += [f"{said}: what quantizes on the samples sees other states" for said in chain.foreign.values()]
    if chain is not None and chain.reason is not None:
        doubts.append(f"artifacts are not compared over {chain.steps} steps fed with their own state: {chain.reason}")
    told = {"roles": encode(roles), "doubts": [*unfit, *doubts], "chain": encode(chain)}
    known = set(samples.targets())
    chooses = refs["evaluation"].holds_evaluation or bool(known)
    chooses &= set(open_samples(refs["tuning"], parsed, checked=True).targets()) == known
    return (
        described
        | told
        | {
            "right": count_right(answers, samples.labels),
            "metric_chooses": targets and chooses,
        }
    )


_FEWER = {
    "evaluation": "judge on fewer samples with --eval-limit",
    "tuning": "give fewer --samples: up to a quarter of them is for choosing among recipes",
}
"""What helps where a part of the samples takes FP32 too long."""


def _answer(model: ReferenceModel, samples: SampleSet, fewer: str) -> Iterator[Mapping[str, Array]]:
    """Yields FP32's outputs, and stops early where all of them would take too long; `fewer` says what helps."""
    began_s = time.monotonic()
    for number, feeds in enumerate(samples.feeds(), 1):
        yield model.run(feeds)
        elapsed_s = time.monotonic() - began_s
        if elapsed_s > _TRIED_S and elapsed_s / number * samples.count > ANSWERS_LIMIT_S:
            raise BadInputError(
                f"{model.path}: FP32 takes {elapsed_s / number:.3g} s a sample, so {samples.count} samples would take "
                f"more than {ANSWERS_LIMIT_S / 60:g} minutes",
                hint=fewer,
            )


def _keep_fitting(
    states: Sequence[State], given: Sequence[State], feeds: Mapping[str, Array], answer: Mapping[str, Array]
) -> tuple[list[State], list[str]]:
    """Returns the states whose outputs are of their inputs' shape as they really are, and a sentence on the others."""
    faults = {state: fault for state in states if (fault := explain_misfit(state, feeds, answer)) is not None}
    for state in given:
        if state in faults:
            raise UsageError(
                f"--state {state.output}={state.input}: {faults[state]}",
                hint="a state keeps its shape from step to step; one that grows, as many caches do, cannot be chained",
            )
    fitting = [state for state in states if state not in faults]
    if not faults:
        return fitting, []
    first, others = next(iter(faults.values())), f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return fitting, [f"what the next step is fed with is not compared over several steps: {first}{others}"]


def _hash_calibrating(refs: Mapping[str, SampleRef], signature: Signature) -> frozenset[bytes]:
    """Returns the hashes of what calibrates and tunes: of the whole file where another one judges.

    Raises:
        BadInputError: That other one holds the same samples.
    """
    used = [refs["calibration"], refs["tuning"]]
    if not refs["evaluation"].holds_evaluation:
        used = [replace(refs["calibration"], part="all")]
    looked = [look_at(open_samples(ref, signature, checked=True).feeds()) for ref in used]
    if len(looked) == 1:
        judged = replace(refs["evaluation"], part="all", limit=None)
        require_other_samples(look_at(open_samples(judged, signature, checked=True).feeds()), looked[0])
    return frozenset(digest for rows in looked for digest in rows.digests)
