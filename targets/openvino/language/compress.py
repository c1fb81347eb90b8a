"""Weights of a language model in 8 or 4 bits: candidates, packed by NNCF, of which tuning tokens choose one.

The vendor's own default is always among them. The smallest that keeps perplexity is taken. In 4 bits matrices are also
rounded for the calibration tokens (`rounded.py`), and those that lose most by it may keep 8 bits.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.targets.language.contract import LanguageBuildRequest
from modelwright.targets.language.perplexity import measure_loss
from modelwright.targets.openvino.language.generator import OpenvinoGenerator
from modelwright.targets.openvino.language.rounded import RoundedLayer, find_layers, measure_inputs, round_layers
from modelwright.targets.openvino.session import silence_vendor
from modelwright.targets.openvino.words import find_cause
from modelwright.targets.readiness import require_import

LIMITS: Mapping[int, float] = {8: 0.005, 4: 0.08}
"""Bits -> what perplexity may grow by where the user says nothing."""
_CALIBRATION_TOKENS = 4096
"""More changed no perplexity by a percent."""
_HINT = "openvino-fp32 and openvino-bf16 take the model as it is"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to compress.

    Attributes:
        mode: Of NNCF's `compress_weights`.
        group_size: Columns of a matrix that share a scale; None for all of them.
        rounds: Whether weights are rounded for the calibration tokens first.
        share_in_8_bits: Of the weights of 4 bits: those of the layers that lose most are packed in 8.
    """

    mode: str
    group_size: int | None = None
    rounds: bool = False
    share_in_8_bits: float = 0.0

    @property
    def name(self) -> str:
        parts = [self.mode.lower().replace("_", " ")]
        parts += [] if self.group_size is None else [f"in groups of {self.group_size}"]
        parts += ["rounded for the calibration tokens"] if self.rounds else []
        parts += [f"{self.share_in_8_bits:.0%} of the weights in 8 bits"] if self.share_in_8_bits else []
        return ", ".join(parts)


VENDOR_DEFAULT: Mapping[int, Candidate] = {
    8: Candidate(mode="INT8_ASYM"),
    4: Candidate(mode="INT4_ASYM", group_size=128),
}
CANDIDATES: Mapping[int, Sequence[Candidate]] = {
    8: (Candidate(mode="INT8_SYM"), VENDOR_DEFAULT[8]),
    4: (
        VENDOR_DEFAULT[4],
        Candidate(mode="INT4_ASYM", group_size=64, rounds=True),
        Candidate(mode="INT4_ASYM", group_size=32, rounds=True),
        *(
            Candidate(mode="INT4_ASYM", group_size=32, rounds=True, share_in_8_bits=share)
            for share in (0.1, 0.2, 0.35, 0.5, 0.7)
        ),
    ),
}
"""By bits, the smallest file first. Tables and the head have 8 bits in all of them."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A candidate that was built.

    Attributes:
        candidate: Which.
        model: Of OpenVINO.
        layers_in_8_bits: Names of matrices that have 8 bits where others have 4.
        weight_bytes: Of the file.
        increase: Of perplexity on the tuning tokens, as a share; None without such tokens.
    """

    candidate: Candidate
    model: Any = field(repr=False)
    layers_in_8_bits: Sequence[str]
    weight_bytes: int
    increase: float | None

    def describe(self) -> dict[str, Any]:
        return {
            "candidate": self.candidate.name,
            "weight_bytes": self.weight_bytes,
            "perplexity_increase": None if self.increase is None else round(self.increase, 5),
        }


class LanguageCompressor:
    """Builds candidates and chooses one.

    Args:
        openvino: The vendor's package.
        nncf: The vendor's package.
        model: The stateful float model.
        request: Of the build.
        bits: 4 or 8.
        properties: That the artifact will be compiled with.
    """

    def __init__(
        self,
        openvino: Any,
        nncf: Any,
        model: Any,
        request: LanguageBuildRequest,
        bits: int,
        properties: Mapping[str, str],
    ) -> None:
        nncf.set_log_level(logging.ERROR)
        self._openvino, self._nncf, self._model, self._request = openvino, nncf, model, request
        self._bits, self._properties = bits, properties
        self._energies: dict[str, Any] | None = None
        self._rounded: dict[int, dict[str, RoundedLayer]] = {}

    def choose(self) -> tuple[Tried, list[Tried]]:
        """Returns the candidate that ships, and all that were tried.

        Raises:
            BuildFailedError: None keeps perplexity within the limit that the user set; or NNCF fails.
        """
        request = self._request
        usable = [one for one in CANDIDATES[self._bits] if request.calibration is not None or not one.rounds]
        if request.tuning is None:
            best = next((one for one in usable if one.rounds and one.group_size == 32), VENDOR_DEFAULT[self._bits])
            found = self._try(best, None)
            return found, [found]
        limit = request.max_perplexity_increase
        allowed = LIMITS[self._bits] if limit is None else limit
        before = self._measure(self._model)
        tried: list[Tried] = []
        for candidate in usable:
            found = self._try(candidate, before)
            tried.append(found)
            assert found.increase is not None
            request.progress(f"{candidate.name}: perplexity {found.increase:+.1%} on the tuning tokens")
            if found.increase <= allowed:
                return found, tried
        best_found = min(tried, key=lambda one: (one.increase, one.weight_bytes))
        if limit is not None:
            raise BuildFailedError(
                f"no way of packing weights in {self._bits} bits keeps perplexity within {limit:+.1%} on the tuning "
                f"tokens; the closest has {best_found.increase:+.1%} ({best_found.candidate.name})",
                hint="allow more by --max-perplexity-increase, or take a target of more bits",
            )
        return best_found, tried

    def _try(self, candidate: Candidate, before: float | None) -> Tried:
        kept = self._choose_kept(candidate)
        model = self._build(candidate, kept)
        increase = None if before is None else self._measure(model) / before - 1
        return Tried(
            candidate=candidate,
            model=model,
            layers_in_8_bits=kept,
            weight_bytes=count_constant_bytes(model),
            increase=increase,
        )

    def _choose_kept(self, candidate: Candidate) -> list[str]:
        """Returns the layers that keep 8 bits: those whose outputs 4 bits change most, up to a share of weights."""
        if not candidate.share_in_8_bits:
            return []
        assert candidate.group_size is not None
        layers = self._round(candidate.group_size)
        room = candidate.share_in_8_bits * sum(layer.weights.size for layer in layers.values())
        kept = []
        for name in sorted(layers, key=lambda name: (-layers[name].error, name)):
            if layers[name].weights.size <= room:
                room -= layers[name].weights.size
                kept.append(name)
        return kept

    def _round(self, group_size: int) -> dict[str, RoundedLayer]:
        request = self._request
        assert request.calibration is not None
        if self._energies is None:
            request.progress("reading what matrices are multiplied with on the calibration tokens")
            rows = max(1, _CALIBRATION_TOKENS // request.calibration.shape[1])
            self._energies = dict(
                measure_inputs(self._openvino, self._model, request.record, request.calibration[:rows])
            )
        if group_size not in self._rounded:
            request.progress(f"rounding matrices in groups of {group_size}")
            self._rounded[group_size] = round_layers(self._model, request.record, self._energies, group_size)
        return self._rounded[group_size]

    def _build(self, candidate: Candidate, kept: Collection[str]) -> Any:
        model = self._model.clone()
        if candidate.rounds:
            assert candidate.group_size is not None
            opset = require_import("openvino.opset15", "openvino")
            layers = self._round(candidate.group_size)
            for name, node in find_layers(model, self._request.record).items():
                if name in layers and name not in kept:
                    node.input(1).replace_source_output(opset.constant(layers[name].weights).output(0))
        model = self._compress(model, candidate.mode, candidate.group_size, kept)
        return self._compress(model, "INT8_ASYM", None, ()) if kept else model

    def _compress(self, model: Any, mode: str, group_size: int | None, spared: Collection[str]) -> Any:
        nncf = self._nncf
        options: dict[str, Any] = {}
        if group_size is not None:
            # A layer whose rows do not divide into such groups takes smaller ones, or 8 bits.
            advanced = require_import("nncf.quantization.advanced_parameters", "openvino")
            adjust = advanced.GroupSizeFallbackMode.ADJUST
            options["group_size"] = group_size
            options["advanced_parameters"] = advanced.AdvancedCompressionParameters(group_size_fallback_mode=adjust)
        if spared:
            options["ignored_scope"] = nncf.IgnoredScope(names=sorted(spared), validate=False)
        try:
            with silence_vendor():
                return nncf.compress_weights(model, mode=nncf.CompressWeightsMode[mode], **options)
        except Exception as error:
            raise BuildFailedError(
                f"NNCF cannot compress the weights ({mode}): {find_cause(error)}", hint=_HINT, detail=str(error)
            ) from error

    def _measure(self, model: Any) -> float:
        assert self._request.tuning is not None
        # Written and read as what ships will be.
        with tempfile.TemporaryDirectory(dir=self._request.scratch) as folder:
            path = Path(folder) / "candidate.xml"
            self._openvino.save_model(model, path, compress_to_fp16=False)
            compiled = self._openvino.Core().compile_model(
                path, "CPU", {**self._properties, "INFERENCE_NUM_THREADS": self._request.threads}
            )
            generator = OpenvinoGenerator(compiled, {}, self._request.record)
            return math.exp(measure_loss(generator, self._request.tuning))


def count_constant_bytes(model: Any) -> int:
    """Returns what the constants of a model take in its file."""
    return sum(int(node.get_byte_size()) for node in model.get_ops() if node.get_type_name() == "Constant")
