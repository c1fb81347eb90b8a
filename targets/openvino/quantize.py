"""Chooses how a model is quantized for OpenVINO: recipes are tried in order and judged on the tuning samples.

NNCF's own accuracy control only logs when it misses its limit, so the guard is here. All recipes make the same
kernels run, so the first that follows FP32 closely is taken. When none follows it well enough, the layers that do the
most harm go back to float, a group at a time.
"""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import Array, BuildRequest, RunSettings
from modelwright.targets.openvino.recipes import (
    BF16_INSTRUCTION_SETS,
    CONVOLUTIONAL,
    ENOUGH_AGREEMENT,
    ENOUGH_COSINE,
    TRANSFORMER,
    WANTED_AGREEMENT,
    WANTED_COSINE,
    Candidate,
    Score,
    Trial,
)
from modelwright.targets.openvino.session import OpenvinoSession, silence_vendor

TRY_BUDGET_S = 75.0
"""No further try is begun when it would probably end after this. Whether it was, is in the recipe."""
_RANKING_SAMPLES = 16
_GROUPS = 12
_FLOAT_SHARES = (1, 2, 4)  # worst groups, of `_GROUPS`, that go back to float in the successive tries
_BF16_COSINE_LOSS = 0.0005
_RECURRENT = re.compile("(LSTM|GRU|RNN|AUGRU)(Cell|Sequence)$")
WITHOUT_FUSION = {"SNIPPETS_MODE": "DISABLE"}
"""Compiles without the kernels that OpenVINO makes up for several layers at once. Those of two or more quantized
fully connected layers gave wrong numbers where an activation has a zero point (OpenVINO 2026.4)."""
# Operators that a quantized value passes through unchanged, on its way to the one that computes with it.
_TRANSPARENT = frozenset(
    {"Reshape", "Transpose", "Split", "VariadicSplit", "Squeeze", "Unsqueeze", "Concat", "MaxPool", "StridedSlice"}
)


def quantize_model(
    openvino: Any, nncf: Any, model: Any, request: BuildRequest
) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """Quantizes a converted model.

    Returns:
        The quantized OpenVINO model, the recipe for the manifest, and notes for the user.

    Raises:
        BuildFailedError: NNCF fails on this model.
    """
    nncf.set_log_level(logging.ERROR)
    search = _Search(openvino, nncf, model, request)
    search.try_candidates()
    if search.can_judge and search.best.rank[0] == 0:
        search.put_layers_back()
    best = search.best
    if best.score is not None and best.score.cosine == -1.0:
        raise BuildFailedError(
            f"OpenVINO cannot run {request.model_path.name} as NNCF quantizes it",
            hint="openvino-fp32 and openvino-bf16 need no quantization; ort-int8 has another quantizer",
            detail=search.refusal,
        )
    hint, hint_reason, hint_score = search.choose_float_precision(best)
    notes = search.notes()
    if not any(is_activation_quantizer(node) for node in best.model.get_ops()):
        notes.append("NNCF found nothing to quantize: this artifact runs in float")
    recipe = {
        "method": "NNCF post-training quantization",
        "model_kind": "transformer" if search.is_transformer else "other",
        "chosen": asdict(best.candidate),
        "overflow_fix": search.overflow_fix,
        "calibration_count": search.calibration.count,
        "candidates": [trial.to_dict() for trial in search.trials],
        "ignored_layers": list(best.ignored),
        "goal": {
            "wanted": {"agreement": WANTED_AGREEMENT, "cosine": WANTED_COSINE},
            "enough": {"agreement": ENOUGH_AGREEMENT, "cosine": ENOUGH_COSINE},
            "reached": None if best.score is None else ("missed", "enough", "wanted")[best.score.tier],
            "tuning_count": request.tuning.count if request.tuning and search.can_judge else 0,
            "time_budget_ended_search": search.ran_out,
        },
        "compile_options": search.options,
        "inference_precision": hint,
        "inference_precision_reason": hint_reason,
        "inference_precision_score": None if hint_score is None else hint_score.describe(),
    }
    return best.model, recipe, tuple(notes)


class _Search:
    """The tries so far, and what they are judged on."""

    def __init__(self, openvino: Any, nncf: Any, model: Any, request: BuildRequest) -> None:
        assert request.calibration is not None, "the record says that calibration samples are needed"
        self.calibration: SampleSet = request.calibration
        self._openvino, self._nncf, self._model, self._request = openvino, nncf, model, request
        self._core = openvino.Core()
        self._started = time.monotonic()
        self._tuning = list(request.tuning.feeds()) if request.tuning and request.reference else []
        self._reference = list(request.reference or ())[: len(self._tuning)]
        self.can_judge = bool(self._tuning)
        self.is_transformer = has_attention(model)
        # Without a dot-product instruction, pairs of u8 x s8 products are added in 16 bits and can saturate.
        self.overflow_fix = "disable" if request.machine.has_int8_dot_product else "enable"
        self.trials: list[Trial] = []
        self.options: dict[str, str] = {}
        self.refusal = ""
        self.ran_out = False

    @property
    def best(self) -> Trial:
        """The best trial; of equals, the first."""
        return max(self.trials, key=lambda trial: trial.rank)

    def try_candidates(self) -> None:
        """Tries the recipes for this kind of model until one does as wanted."""
        for candidate in TRANSFORMER if self.is_transformer else CONVOLUTIONAL:
            if self.trials and (not self.can_judge or self.best.rank[0] == 2):
                return
            if not self.trials or self._has_time(candidate):
                self._try(candidate, ())

    def put_layers_back(self) -> None:
        """Repeats the best recipe with its most harmful layers in float: more of them each time, until enough."""
        candidate = self.best.candidate
        recurrent = find_recurrent(self._model)
        if recurrent and self._has_time(candidate):
            self._try(candidate, recurrent)
        if self.best.rank[0] > 0 or not self._has_time(candidate):
            return
        self._request.progress("looking for the layers that lose the most")
        groups = self._rank_groups(self.best.model)
        for share in _FLOAT_SHARES:
            if self.best.rank[0] > 0 or share > len(groups) or not self._has_time(candidate):
                return
            ignored = tuple(sorted({name for group in groups[:share] for name in group}))
            ignored = tuple(sorted({*ignored, *self.best.ignored}))
            if ignored != self.trials[-1].ignored:  # groups that share their layers
                self._try(candidate, ignored)

    def choose_float_precision(self, best: Trial) -> tuple[str, str, Score | None]:
        """Returns what the float rest of the model runs in, why, and the score with it.

        BF16 makes the rest of an encoder 1.03 times faster here and more with AMX, and cost nothing measurable; it is
        still taken only where this host can show so.
        """
        if not self._request.machine.instruction_sets & BF16_INSTRUCTION_SETS:
            return "f32", "the machine has no BF16", best.score
        if not self.can_judge or "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return "f32", "BF16 could not be judged on this host", best.score
        score = self._score(best.model, hint="bf16")
        assert best.score is not None
        loss = (best.score.cosine or 0.0) - (score.cosine or 0.0)
        if score.tier < best.score.tier or loss > _BF16_COSINE_LOSS:
            return "f32", f"BF16 would lose: {score.describe()}", best.score
        return "bf16", "the machine has BF16, and it loses nothing on the tuning samples", score

    def notes(self) -> list[str]:
        """Returns what the user has to know of the result."""
        best = self.best
        if best.score is None:
            return ["there were too few samples to choose the quantization on: the first recipe was taken unchecked"]
        fusion = ["OpenVINO's fused kernels compute this model wrongly: they are switched off"] if self.options else []
        if best.score.tier == 0:
            return [
                *fusion,
                f"INT8 misses its goal on {len(self._tuning)} tuning samples ({best.score.describe()}; enough is "
                f"agreement {ENOUGH_AGREEMENT:.0%}, cosine {ENOUGH_COSINE}) after {len(self.trials)} tries: "
                "compare its accuracy before shipping it",
            ]
        if best.ignored:
            return [*fusion, f"layers left in float, because quantizing them loses too much: {', '.join(best.ignored)}"]
        return fusion

    def _has_time(self, candidate: Candidate) -> bool:
        """Whether trying a candidate would probably end within the budget, going by the first one."""
        expected_s = self.trials[0].seconds if self.trials else 0.0
        # Accurate bias correction took 2.3 times as long as the fast one on ResNet-50.
        expected_s *= 1.0 if candidate.fast_bias_correction else 2.3
        if time.monotonic() - self._started + expected_s <= TRY_BUDGET_S:
            return True
        self.ran_out = True
        return False

    def _try(self, candidate: Candidate, ignored: tuple[str, ...]) -> None:
        started = time.monotonic()
        rest = f", {len(ignored)} in float" if ignored else ""
        self._request.progress(f"quantizing: {candidate.name}{rest} ({self.calibration.count} samples)")
        model = self._quantize(candidate, ignored)
        score = self._score_either_way(model) if self.can_judge else None
        seconds = time.monotonic() - started
        self.trials.append(Trial(candidate=candidate, ignored=ignored, score=score, seconds=seconds, model=model))
        if score is not None:
            self._request.progress(f"{candidate.name}{rest}: {score.describe()}")

    def _quantize(self, candidate: Candidate, ignored: tuple[str, ...]) -> Any:
        nncf = self._nncf
        from nncf.quantization import advanced_parameters as advanced
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        options: dict[str, Any] = {"overflow_fix": advanced.OverflowFix(self.overflow_fix)}
        if candidate.min_max:
            options["activations_range_estimator_params"] = RangeEstimatorParametersSet.MINMAX
        if candidate.smooth_quant_alpha is not None:
            options["smooth_quant_alphas"] = advanced.AdvancedSmoothQuantParameters(matmul=candidate.smooth_quant_alpha)
        try:
            with silence_vendor():
                return nncf.quantize(
                    self._model.clone(),
                    nncf.Dataset(_SampleStream(self.calibration)),
                    preset=nncf.QuantizationPreset(candidate.preset),
                    target_device=nncf.TargetDevice.CPU,
                    subset_size=self.calibration.count,
                    fast_bias_correction=candidate.fast_bias_correction,
                    model_type=nncf.ModelType.TRANSFORMER if self.is_transformer else None,
                    # Some names are of nodes that NNCF itself put in: those are not in the float model.
                    ignored_scope=nncf.IgnoredScope(names=list(ignored), validate=False) if ignored else None,
                    advanced_parameters=advanced.AdvancedQuantizationParameters(**options),
                )
        except Exception as error:
            raise BuildFailedError(
                f"NNCF cannot quantize {self._request.model_path.name} ({candidate.name}): {type(error).__name__}",
                hint="openvino-fp32 and openvino-bf16 need no quantization; ort-int8 has another quantizer",
                detail=str(error),
            ) from error

    def _score_either_way(self, model: Any) -> Score:
        """Scores a model; one that loses much is scored without fused kernels too, to see whether they are at fault."""
        score = self._score(model)
        if score.tier == 2 or self.options:
            return score
        unfused = self._score(model, options=WITHOUT_FUSION)
        if unfused.tier > score.tier or unfused.loss < score.loss / 2:
            self._request.progress("OpenVINO's fused kernels compute this model wrongly: they are switched off")
            self.options = dict(WITHOUT_FUSION)
            return unfused
        return score

    def _score(
        self, model: Any, *, hint: str = "f32", limit: int | None = None, options: dict[str, str] | None = None
    ) -> Score:
        # Written and read as what ships will be: OpenVINO 2026.4 ran a quantized LSTM right from memory and wrong
        # from its file. On the threads of a measurement: which kernels are fused depends on their number.
        with tempfile.TemporaryDirectory(dir=self._request.scratch) as folder:
            path = Path(folder) / "candidate.xml"
            self._openvino.save_model(model, path, compress_to_fp16=False)
            try:
                session = OpenvinoSession(
                    self._openvino,
                    self._core,
                    self._core.read_model(path),
                    self._request.signature,
                    RunSettings().threads,
                    hint,
                    self.options if options is None else options,
                )
                outputs = [session.run(feeds) for feeds in self._tuning[:limit]]
            except RuntimeError as error:  # OpenVINO cannot run what NNCF made, as of some quantized LSTMs
                self._request.progress(f"OpenVINO cannot run it: {str(error).splitlines()[-1]}")
                self.refusal = str(error)
                return Score(agreement=0.0, cosine=-1.0, count=len(self._tuning))
        fidelity = compare_outputs(self._reference[: len(outputs)], outputs)
        return Score(agreement=fidelity.agreement, cosine=fidelity.cosine, count=fidelity.samples)

    def _rank_groups(self, quantized: Any) -> list[list[str]]:
        """Returns groups of layer names, the ones whose quantization harms most first.

        Neighbouring activation quantizers are bypassed together, and the outputs compared with FP32 on a few samples.
        """
        quantizers = [node for node in quantized.get_ordered_ops() if is_activation_quantizer(node)]
        ranked = []
        for chunk in np.array_split(np.arange(len(quantizers)), min(_GROUPS, max(1, len(quantizers)))):
            group = [quantizers[index] for index in chunk]
            names = sorted({name for node in group for name in find_consumers(node)})
            moved = [(target, node) for node in group for target in node.output(0).get_target_inputs()]
            for target, node in moved:
                target.replace_source_output(node.input_value(0))
            score = self._score(quantized, limit=_RANKING_SAMPLES)
            for target, node in moved:
                target.replace_source_output(node.output(0))
            ranked.append((score.cosine or 0.0, names))
        return [names for _, names in sorted(ranked, key=lambda entry: -entry[0]) if names]


class _SampleStream:
    """Hands samples to NNCF one at a time, as often as it asks."""

    def __init__(self, samples: SampleSet) -> None:
        self._samples = samples

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return self._samples.feeds()

    def __len__(self) -> int:
        return self._samples.count


def has_attention(model: Any) -> bool:
    """Whether the graph attends: a fused attention operator, or a MatMul of what a Softmax made."""
    return any(
        node.get_type_name() == "ScaledDotProductAttention"
        or (
            node.get_type_name() == "MatMul"
            and any(value.get_node().get_type_name() == "Softmax" for value in node.input_values())
        )
        for node in model.get_ops()
    )


def find_recurrent(model: Any) -> tuple[str, ...]:
    """Returns the names of the recurrent layers."""
    return tuple(sorted(str(n.get_friendly_name()) for n in model.get_ops() if _RECURRENT.match(n.get_type_name())))


def is_activation_quantizer(node: Any) -> bool:
    """Whether a node rounds an activation; NNCF stores weights as integers, without such a node."""
    return bool(node.get_type_name() == "FakeQuantize" and node.input_value(0).get_node().get_type_name() != "Constant")


def find_consumers(node: Any) -> set[str]:
    """Returns the names of the operators that compute with a node's output."""
    names: set[str] = set()
    waiting = [node]
    while waiting:
        for target in [target for port in waiting.pop().outputs() for target in port.get_target_inputs()]:
            consumer = target.get_node()
            if consumer.get_type_name() in _TRANSPARENT:
                waiting.append(consumer)
            elif consumer.get_type_name() not in {"FakeQuantize", "Result", "ShapeOf"}:
                names.add(str(consumer.get_friendly_name()))
    return names
