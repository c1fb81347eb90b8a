"""What was tried, kept in the folder by Optuna, and what to try next, by its sampler.

The trials lie in `study.journal`, one line of JSON a step: written as they happen, so that what was measured stays
whatever happens later, and read again by the next run of the same search.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, ToolchainMissingError
from modelwright.core.records.codec import decode, encode
from modelwright.harness.tuning.record import Configuration, Trial
from modelwright.harness.tuning.space import Space

JOURNAL = "study.journal"
_NAME = "tune"
_RECORD, _KEY = "modelwright", "modelwright-key"
_STARTUP = 10
"""Trials that Optuna draws at random before it follows what it has seen."""
_REPEATS = 60
"""Proposals in a row that were tried before, after which the space counts as exhausted."""
_LARGEST_BYTES = 64 * 2**20


class Study:
    """A search in a folder.

    Args:
        folder: Holds the journal.
        key: Of all that decides what a trial is worth; another one is another search.
        space: What can be tried.
        seed: Of the sampler.

    Raises:
        ToolchainMissingError: Optuna is absent or broken.
        BadInputError: The journal is damaged, or of another search.
    """

    def __init__(self, folder: Path, key: str, space: Space, seed: int) -> None:
        self._optuna = import_optuna()
        self._space = space
        self._path = folder / JOURNAL
        self._open: Any = None
        require_plain(self._path)
        _mend_end(self._path)
        with self._explained():
            self._study = self._load(seed)
            found = self._study.user_attrs.get(_KEY)
            if found is None:
                if self._study.get_trials(deepcopy=False):
                    raise ValueError("it has trials, and nothing says of what")
                self._study.set_user_attr(_KEY, key)
            self.trials = self._read_trials()
        if found not in (None, key):
            raise BadInputError(
                f"{folder} holds a search of other artifacts: what was built now is not what its trials ran, as "
                "another version of a toolchain builds it, or another target could be built",
                hint="choose another --out, or add --overwrite to begin anew",
            )

    def _load(self, seed: int) -> Any:
        optuna = self._optuna
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the vendor calls experimental
            backend = optuna.storages.journal.JournalFileBackend(str(self._path))
            storage = optuna.storages.JournalStorage(backend)
            sampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, n_startup_trials=_STARTUP, warn_independent_sampling=False
            )
            return optuna.create_study(
                storage=storage, sampler=sampler, study_name=_NAME, direction="maximize", load_if_exists=True
            )

    def _read_trials(self) -> list[Trial]:
        """Returns what earlier runs tried; a trial that was cut off is closed, by its score where that was written."""
        state = self._optuna.trial.TrialState
        found = []
        for each in self._study.get_trials(deepcopy=False):
            score = None
            if _RECORD in each.user_attrs:
                found.append(decode(Trial, each.user_attrs[_RECORD], where=str(self._path)))
                score = found[-1].score
            if each.state not in (state.RUNNING, state.WAITING):
                continue
            if score is None:
                self._study.tell(each.number, state=state.FAIL, skip_if_finished=True)
            else:
                self._study.tell(each.number, score, skip_if_finished=True)
        if [trial.number for trial in found] != list(range(len(found))):
            raise ValueError("trials are missing")
        return found

    @property
    def tried(self) -> set[tuple[Any, ...]]:
        """The keys of all configurations that were tried."""
        return {trial.configuration.key for trial in self.trials}

    def propose(self, planned: Sequence[Configuration]) -> Configuration | None:
        """Returns what to try next: what is planned and was not tried, else what Optuna makes of the trials so far.

        Returns:
            The configuration, for which `keep` is to be called; None where nothing new is proposed any more.
        """
        tried = self.tried
        with self._explained():
            fresh = next((each for each in planned if each.key not in tried), None)
            if fresh is not None:
                self._study.enqueue_trial(self._parameters(fresh))
            for _ in range(_REPEATS):
                self._open = self._study.ask()
                configuration = self._suggest(self._open)
                if configuration.key not in tried:
                    return configuration
                self._tell_again(configuration)
        return None

    def repeat(self, configuration: Configuration) -> None:
        """Makes what was tried before the proposal that `keep` is to be called for."""
        with self._explained():
            self._study.enqueue_trial(self._parameters(configuration))
            self._open = self._study.ask()
            self._suggest(self._open)

    def keep(self, trial: Trial) -> None:
        """Writes down what came of the last proposal."""
        with self._explained():
            self._open.set_user_attr(_RECORD, encode(trial))
            self._tell(trial.score)
            self._open = None
        self.trials.append(trial)

    def _tell_again(self, configuration: Configuration) -> None:
        """Tells the sampler what it asked for twice."""
        known = [trial.score for trial in self.trials if trial.configuration.key == configuration.key]
        self._tell(known[-1] if known else None)

    def _tell(self, score: float | None) -> None:
        if score is None:
            self._study.tell(self._open, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(self._open, score)

    def _parameters(self, configuration: Configuration) -> dict[str, Any]:
        """Returns a configuration as Optuna has it: every setting of its runtime, and what is at its default too."""
        artifact = configuration.artifact
        return {
            "artifact": artifact,
            "load": f"{configuration.threads}x{configuration.requests}",
            **{
                self._name(artifact, option.name): configuration.options.get(option.name, option.default)
                for option in self._space.settings[artifact]
            },
        }

    def _suggest(self, asked: Any) -> Configuration:
        artifact = asked.suggest_categorical("artifact", list(self._space.settings))
        loads = {f"{threads}x{requests}": (threads, requests) for threads, requests in self._space.loads}
        load = loads[asked.suggest_categorical("load", list(loads))]
        options = {
            option.name: asked.suggest_categorical(self._name(artifact, option.name), list(option.candidates))
            for option in self._space.settings[artifact]
        }
        return self._space.make(artifact, load, options)

    def _name(self, artifact: str, option: str) -> str:
        return f"{self._space.runtimes[artifact]}:{option}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns whatever Optuna makes of a journal that it did not write so into one error."""
        try:
            yield
        except (BadInputError, ToolchainMissingError, OSError) as error:
            if isinstance(error, BadInputError) and str(self._path) in error.message:
                raise self._damaged(error) from error
            raise
        except Exception as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> BadInputError:
        return BadInputError(
            f"{self._path} is damaged, or no search of modelwright's",
            hint="add --overwrite to begin anew, or choose another --out",
            detail=f"{type(error).__name__}: {error}",
        )


def require_plain(path: Path) -> None:
    """Refuses a journal that is no plain file of a size that a search has.

    Raises:
        BadInputError: Says what it is.
    """
    if not path.is_symlink() and not path.exists():
        return
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
        raise BadInputError(
            f"{path} is no journal of a search: it is a link, no file, or larger than any",
            hint="move it away, or choose another --out",
        )


def _mend_end(path: Path) -> None:
    """Ends the last line of a journal, or drops it where it was cut off: by a kill, or a full disk.

    Optuna would write the next step behind it, and no run could read the journal any more.
    """
    if not path.exists():
        return
    with path.open("r+b") as journal:
        whole, newline, rest = journal.read().rpartition(b"\n")
        if not rest:
            return
        try:
            json.loads(rest)
        except ValueError:
            journal.truncate(len(whole) + len(newline))
        else:
            journal.write(b"\n")


def import_optuna() -> Any:
    """Imports Optuna, which then says nothing of its own.

    Raises:
        ToolchainMissingError: It is absent or broken.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ToolchainMissingError(
            f"searching needs Python package {error.name}", hint="pip install 'modelwright[tune]'"
        ) from error
    except Exception as error:
        raise ToolchainMissingError(
            "optuna is installed but does not import",
            hint="reinstall it: pip install --force-reinstall optuna",
            detail=f"{type(error).__name__}: {error}",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
