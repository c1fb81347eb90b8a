"""Loading and running models in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import Feeds, RunSettings, Session
from modelwright.targets.graphs.run import blame, open_file, session_options
from modelwright.targets.ort.profile import profile_session
from modelwright.targets.ort.settings import apply_settings, read_settings

Array = npt.NDArray[Any]


class OrtSession(Session):
    """A model loaded in ONNX Runtime.

    Args:
        path: The model's file.
        signature: Of the ONNX model.
        settings: How to run.
        is_float: Whether it is to compute in floats, so that none of them is out of place.
        profiles_in: A folder for the profile, where there is to be one.
        entries: Of the session's configuration, which the artifact needs.
    """

    def __init__(
        self,
        path: Path,
        signature: Signature,
        settings: RunSettings,
        *,
        is_float: bool = True,
        profiles_in: Path | None = None,
        entries: Mapping[str, str] | None = None,
    ) -> None:
        self._path = path
        self._is_float = is_float
        self._settings = settings
        self._names = [spec.name for spec in signature.outputs]
        options = prepare_options(settings, profiles_in)
        for key, value in (entries or {}).items():
            options.add_session_config_entry(key, value)
        self._session = open_file(path, settings, MeasurementInvalidError, options)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        try:
            return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            raise MeasurementInvalidError(
                f"{self._path.name} failed in ONNX Runtime{blame(error)}", detail=str(error)
            ) from error

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        run, prepared = self._session.run, dict(feeds)
        return lambda: run(None, prepared)

    def share(self) -> Session:
        """Returns this one: ONNX Runtime's sessions take calls from several threads."""
        return self

    def profile_operators(self, feeds: Feeds) -> OperatorProfile:
        return profile_session(self._session, self.bind(feeds), self._path, is_float=self._is_float)

    def describe_execution(self) -> dict[str, Any]:
        """Returns how it runs; which operators, and in which precision, only a profile tells."""
        return {
            "threads": self._settings.threads,
            "spinning": self._settings.threads > 1 and bool(self._settings.options.get("spinning", True)),
            "device": "cpu",
            **({"settings": self._read_settings()} if self._settings.options else {}),
        }

    def _read_settings(self) -> dict[str, str]:
        return read_settings(self._session.get_session_options(), self._settings.options)

    def close(self) -> None:
        """Frees the model."""
        self._session = None


def prepare_options(settings: RunSettings, profiles_in: Path | None = None) -> Any:
    """Returns a session's options, set as chosen.

    Args:
        settings: How to run.
        profiles_in: A folder for the profile of all that the session runs; None for none.

    Raises:
        BadInputError: The runtime has no such setting, or it takes no such value.
    """
    options = session_options(settings)
    apply_settings(options, settings.options)
    if profiles_in is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profiles_in / "profile")
    return options
