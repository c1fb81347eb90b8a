"""Weights of a language model in 8 or 4 bits: candidates, of which tuning tokens choose one.

The vendor's own default is the first of them, and ships where it keeps perplexity: no other is as small. The others are
packed here, on the grids that all runtimes share (`targets/language`): in 4 bits rounded for the calibration tokens,
with as many matrices in 8 bits as perplexity asks for.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.targets.language.compensated import CompensatedGrids
from modelwright.targets.language.contract import LanguageBuildRequest, Tokens
from modelwright.targets.language.grids import BlockFormat, Grids, NearestGrids
from modelwright.targets.language.mixture import Mixture, choose_few, choose_mixture
from modelwright.targets.language.own_texts import find_tuning_texts
from modelwright.targets.language.perplexity import measure_loss
from modelwright.targets.language.portable import LinearLayer, PortableModel
from modelwright.targets.openvino.language.generator import OpenvinoGenerator
from modelwright.targets.openvino.language.packed import pack_matrices
from modelwright.targets.openvino.language.widths import note_wider, read_widths
from modelwright.targets.openvino.session import silence_vendor
from modelwright.targets.openvino.words import find_cause
from modelwright.targets.readiness import require_import

LIMITS: Mapping[int, float] = {8: 0.005, 4: 0.08}
"""Bits -> what perplexity may grow by where the user says nothing."""
VENDOR_DEFAULT: Mapping[int, tuple[str, int | None]] = {8: ("INT8_ASYM", None), 4: ("INT4_ASYM", 128)}
"""Bits -> NNCF's mode, and columns of a matrix that share a scale; None for all of them."""
_BLOCK, _MOST = 32, 192
"""As many values of a matrix in 8 bits share a scale as divide its rows: a multiple of the first, up to the second.
SmolLM2-135M so took no more CPU time a token than with a scale a column, which costs half a percent of perplexity; with
blocks of 32 it took a sixth more."""
_ACTIVATIONS = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
_ROUNDED, _EXACT = "32", "0"
"""Products of integers, of activations that are rounded to 8 bits in groups of so many as they come; and of floats."""
_CHOOSING_TEXTS = 16
"""That candidates of 8 bits are compared on, at most. What they lose is so little that a few texts do not tell it from
chance, and as nothing of theirs is fitted to the calibration texts, these may choose, too."""
_HINT = "openvino-fp32 and openvino-bf16 take the model as it is"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A candidate that was built.

    Attributes:
        name: What was done.
        model: Of OpenVINO; None where another candidate was better, for memory.
        activations: How those that are multiplied are rounded, a property.
        matrices: How many are stored how; None where the vendor packed them.
        weight_bytes: Of the file.
        increase: Of perplexity on the tuning tokens, as a share; None without such tokens.
    """

    name: str
    model: Any = field(repr=False)
    activations: str = _ROUNDED
    matrices: Sequence[Mapping[str, Any]] | None = None
    weight_bytes: int
    increase: float | None

    @property
    def compile_options(self) -> dict[str, str]:
        return {_ACTIVATIONS: self.activations}

    def describe(self) -> dict[str, Any]:
        return {
            "candidate": self.name,
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
        self._portable = PortableModel(request.model)
        self._few = choose_few(self._portable)
        limit = request.max_perplexity_increase
        self._limit = LIMITS[bits] if limit is None else limit
        self._texts = find_tuning_texts(request, self._portable) if bits == 4 else request.tuning
        if bits == 8 and request.tuning is not None and request.calibration is not None:
            self._texts = _join_rows(request.tuning, request.calibration)[:_CHOOSING_TEXTS]
        self._loss = None if self._texts is None else self._measure(model, _EXACT)
        self._tried: list[Tried] = []
        self._best: Tried | None = None

    def choose(self) -> tuple[Tried, list[Tried]]:
        """Returns the candidate that ships, and all that were tried.

        Raises:
            BuildFailedError: None keeps perplexity within the limit that the user set; or NNCF fails.
        """
        if self._loss is None:
            self._try_likely()
        else:
            mode, size = VENDOR_DEFAULT[self._bits]
            name = f"NNCF's {mode.lower()}" + ("" if size is None else f" in groups of {size}")
            if not self._keeps(self._try(name, self._compress(mode, size))):
                self._try_shared()
        best = self._best
        assert best is not None, "one is always tried"
        if best.increase is not None and not self._keeps(best) and self._request.max_perplexity_increase is not None:
            raise BuildFailedError(
                f"no way of packing weights in {self._bits} bits keeps perplexity within {self._limit:+.1%} on the "
                f"tuning tokens; the closest has {best.increase:+.1%} ({best.name})",
                hint="allow more by --max-perplexity-increase, or take a target of more bits",
            )
        return best, self._tried

    def note_widths(self, chosen: Tried) -> list[str]:
        """Returns what the user has to know of matrices that have more bits than the target's name says."""
        widths = read_widths(chosen.model, self._portable)
        return note_wider(widths, self._portable, self._bits, self._few.size, self._request.record.vocab_size)

    def _keeps(self, tried: Tried) -> bool:
        return tried.increase is not None and tried.increase <= self._limit

    def _is_better(self, found: Tried) -> bool:
        """Whether a candidate is to ship rather than the best one before: the smallest of those that keep the limit."""
        best = self._best
        if best is None or self._keeps(found) != self._keeps(best):
            return best is None or self._keeps(found)
        if self._keeps(found):
            return found.weight_bytes < best.weight_bytes
        assert found.increase is not None
        assert best.increase is not None
        return found.increase < best.increase

    def _try_likely(self) -> None:
        """Makes the candidate that is the likeliest to lose little, where there is nothing to choose on."""
        self._pack(self._make_more(), _ROUNDED)

    def _try_shared(self) -> None:
        """Tries grids of this tool, the smallest first; each is made only where it can still win."""
        more = self._make_more()
        if self._bits == 8:
            for activations in (_ROUNDED, _EXACT):
                if self._keeps(self._pack(more, activations)):
                    return
            return
        if self._request.calibration is None:
            self._pack(more, _ROUNDED)
            return
        self._mix(more)

    def _make_more(self) -> Grids:
        """Returns all matrices in 8 bits: in blocks where they divide into them, a table and its head row by row."""

        def choose(layer: LinearLayer) -> BlockFormat:
            sizes = [size for size in range(_BLOCK, _MOST + 1, _BLOCK) if layer.rows % size == 0]
            is_head = layer.columns == self._request.record.vocab_size
            return BlockFormat(bits=8, size=layer.rows if is_head or not sizes else sizes[-1], symmetric=False)

        return NearestGrids(self._portable, {name: choose(one) for name, one in self._portable.linear_layers.items()})

    def _mix(self, more: Grids) -> Mixture:
        """Tries 4 bits with the fewest matrices in 8 that perplexity asks for.

        Blocks are those that ONNX Runtime's artifact has, rounded once for both.
        """
        names = [
            layer.name
            for layer in self._portable.linear_layers.values()
            if layer.rows % self._few.size == 0 and layer.columns != self._request.record.vocab_size
        ]
        few = CompensatedGrids(self._request, self._portable, self._few, names)

        def measure(grids: Grids) -> float:
            increase = self._pack(grids, _ROUNDED).increase
            assert increase is not None, "there are tokens to choose on"
            return increase

        assert self._texts is not None, "4 bits are always chosen on texts"
        return choose_mixture(self._request, few, more, self._texts, measure)

    def _pack(self, grids: Grids, activations: str) -> Tried:
        model = self._model.clone()
        pack_matrices(self._openvino, model, grids)
        matrices = grids.describe()
        return self._try(_name(matrices, activations), model, activations, matrices)

    def _try(
        self,
        name: str,
        model: Any,
        activations: str = _ROUNDED,
        matrices: Sequence[Mapping[str, Any]] | None = None,
    ) -> Tried:
        increase = None if self._loss is None else math.expm1(self._measure(model, activations) - self._loss)
        if increase is not None:
            self._request.progress(f"{name}: perplexity {increase:+.1%} on the tuning tokens")
        tried = Tried(
            name=name,
            model=model,
            activations=activations,
            matrices=matrices,
            weight_bytes=count_constant_bytes(model),
            increase=increase,
        )
        if self._is_better(tried):
            self._best = tried
        self._tried.append(replace(tried, model=None))
        return tried

    def _compress(self, mode: str, group_size: int | None) -> Any:
        nncf = self._nncf
        # Angles of positions are looked up in tables, too, which NNCF would take for weights.
        lookups = [
            node.get_friendly_name()
            for node in self._model.get_ops()
            if node.get_type_name() == "Gather"
            and node.input_value(0).get_node().get_type_name() == "Constant"
            and node.input_value(0).get_node().get_friendly_name() not in self._portable.tables
        ]
        options: dict[str, Any] = {"ignored_scope": nncf.IgnoredScope(names=lookups, validate=False)}
        if group_size is not None:
            # A layer whose rows do not divide into such groups takes smaller ones, or 8 bits.
            advanced = require_import("nncf.quantization.advanced_parameters", "openvino")
            adjust = advanced.GroupSizeFallbackMode.ADJUST
            options["group_size"] = group_size
            options["advanced_parameters"] = advanced.AdvancedCompressionParameters(group_size_fallback_mode=adjust)
        try:
            with silence_vendor():
                return nncf.compress_weights(self._model.clone(), mode=nncf.CompressWeightsMode[mode], **options)
        except Exception as error:
            raise BuildFailedError(
                f"NNCF cannot compress the weights ({mode}): {find_cause(error)}", hint=_HINT, detail=str(error)
            ) from error

    def _measure(self, model: Any, activations: str) -> float:
        assert self._texts is not None, "nothing is measured without texts"
        properties = {**self._properties, _ACTIVATIONS: activations, "INFERENCE_NUM_THREADS": self._request.threads}
        # Written and read as what ships will be.
        with tempfile.TemporaryDirectory(dir=self._request.scratch) as folder:
            path = Path(folder) / "candidate.xml"
            self._openvino.save_model(model, path, compress_to_fp16=False)
            compiled = self._openvino.Core().compile_model(path, "CPU", properties)
            return measure_loss(OpenvinoGenerator(compiled, {}, self._request.record), self._texts)


def count_constant_bytes(model: Any) -> int:
    """Returns what the constants of a model take in its file."""
    return sum(int(node.get_byte_size()) for node in model.get_ops() if node.get_type_name() == "Constant")


def _join_rows(first: Tokens, second: Tokens) -> Tokens:
    """Returns texts of equal length one after the other; the first alone where lengths differ."""
    return np.concatenate([first, second]) if first.shape[1] == second.shape[1] else first


def _name(matrices: Sequence[Mapping[str, Any]], activations: str) -> str:
    parts = [f"{one['layers']} matrices in {one['bits']} bits by blocks of {one['block_size']}" for one in matrices]
    return ", ".join([*parts, *(["float activations"] if activations == _EXACT else [])])
