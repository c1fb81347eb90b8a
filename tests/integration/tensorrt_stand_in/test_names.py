"""The stand-in has the names of the vendor's module: those of TensorRT for RTX, which can be installed anywhere."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from stand_in import tensorrt as stand_in


def _signatures(function: Any) -> list[list[str]]:
    """Returns the argument names of each overload of a function that pybind made, `self` left out."""
    text = (function.__doc__ or "").strip()
    found = re.findall(rf"^(?:\d+\. )?{function.__name__}\((.*?)\) ->", text, re.MULTILINE)
    names = [re.findall(r"(?:^|, )(\w+):", arguments) for arguments in found]
    return [[name for name in overload if name != "self"] for overload in names]


def test_the_stand_in_has_the_names_of_the_real_module() -> None:
    """Classic TensorRT cannot be installed here; TensorRT for RTX has the same API, and its real module is compared."""
    real = pytest.importorskip(
        "tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed", exc_type=ImportError
    )
    compared = 0
    for name, mine in vars(stand_in).items():
        if name.startswith("_") or not inspect.isclass(mine) or not mine.__module__.startswith(stand_in.__name__):
            continue
        theirs = getattr(real, name)
        for member, function in vars(mine).items():
            if member.startswith("_"):
                continue
            assert hasattr(theirs, member) or member in _OWN.get(name, ()), f"{name}.{member}"
            if inspect.isfunction(function) and hasattr(theirs, member):
                arguments = [argument for argument in inspect.signature(function).parameters if argument != "self"]
                overloads = _signatures(getattr(theirs, member))
                if overloads:
                    # The vendor's further arguments have defaults.
                    fits = any(overload[: len(arguments)] == arguments for overload in overloads)
                    assert fits, f"{name}.{member}{arguments}: {overloads}"
                    compared += 1
    assert compared > 30
    assert _signatures(real.init_libnvinfer_plugins) == [["logger", "namespace"]]
    # What only TensorRT for RTX has and sessions use: it cannot run here.
    assert _signatures(real.ICudaEngine.create_execution_context)[1] == ["runtime_config"]
    assert hasattr(real.ICudaEngine, "create_runtime_config")
    assert hasattr(real.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert hasattr(real.DynamicShapesKernelSpecializationStrategy, "EAGER")
    for name in ("BuilderFlag", "DataType", "ErrorCode", "HardwareCompatibilityLevel", "LayerInformationFormat"):
        assert set(getattr(stand_in, name).__members__) <= set(getattr(real, name).__members__), name
    for name in ("MemoryPoolType", "NetworkDefinitionCreationFlag", "ProfilingVerbosity", "TensorIOMode"):
        assert set(getattr(stand_in, name).__members__) <= set(getattr(real, name).__members__), name
    assert set(stand_in.ILogger.Severity.__members__) == set(real.ILogger.Severity.__members__)


_OWN = {
    "INetworkDefinition": ("fill", "list_data_dependent"),
    "ICudaEngine": ("input_names", "output_names"),
}
"""What only the stand-in has, for its own use."""
