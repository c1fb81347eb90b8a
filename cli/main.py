"""The `modelwright` command: the list of commands, and the one place where errors become output."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from modelwright.core.errors import ModelwrightError, UsageError

_COMMANDS = {
    "demo": "Run everything on the embedded example and show what comes out.",
    "targets": "Say what can be built and run here; if not, why.",
    "profiles": "List hardware profiles and which of them this machine fits.",
    "export": "Turn a source into a verified ONNX model.",
    "build": "Build artifacts for one or more targets, each proved against FP32.",
    "measure": "Measure artifacts on this machine, side by side.",
    "compare": "Build every target of a model, measure them side by side, say which to ship.",
    "tune": "Search which artifact and which settings run best on this machine.",
    "compress": "Make a smaller source: prune it, and train it again.",
    "study": "Compress, build, measure and plot variants of a model, as a file says.",
    "mix": "Choose bits for each layer, by what it loses and the energy that it takes.",
    "inspect": "Show what an artifact is and how it was made.",
    "verify": "Check an artifact's hashes and whether this machine can run it.",
    "schema": "Print the JSON Schema of a file that other programs read.",
}

_WITH_RUNTIMES = ("demo", "export", "build", "measure", "compare", "tune", "compress", "study", "mix")
_SIGPIPE = 13
"""What shells call the reader's leaving, also where `signal` lacks the name."""

_EPILOG = """\b
Exit codes: 0 done, 1 a fault of modelwright's own, 2 usage, 3 bad input,
4 toolchain missing, 5 build failed, 6 measurement invalid,
7 a limit you set was not met, 130 interrupted.

\b
Start with:  modelwright demo
Then:        modelwright compare model.onnx --samples samples.npz --out out
"""


class _LazyGroup(click.Group):
    """Imports a command's module only when it is called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"modelwright.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import importlib.metadata

    click.echo(f"modelwright {importlib.metadata.version('modelwright')}")
    ctx.exit()


@click.group(cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """One FP32 model in; artifacts for every runtime out, proved and measured.

    modelwright exports a trained model to ONNX, builds INT8, BF16 and FP16 artifacts for ONNX Runtime, OpenVINO,
    TFLite, TensorRT and PyTorch, proves each against the FP32 model on your own samples, measures all of them side by
    side on the hardware they are for, and says which to ship and why.
    """


def main() -> None:
    """Runs the command line and ends the process with the documented exit code."""
    _prepare_streams()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # `nohup` ignores it, and that is to stay
            signal.signal(number, _interrupt)
    sys.exit(_run())


def _run() -> int:
    try:
        _require_text(sys.argv[1:])
        result: Any = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        if _wants_json():
            _show_error(UsageError(error.format_message(), hint="see --help"))
        else:
            error.show()
        return error.exit_code
    except ModelwrightError as error:
        _show_error(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _show_interrupt()
    except (BrokenPipeError, SystemExit):  # click and rich turn the first into the second
        # The reader of our output left, as `head` does; writing to it again at exit must not fail either.
        _silence(sys.stdout)
        return 128 + _SIGPIPE
    except Exception as error:
        from modelwright.core.faults import as_error

        fault = as_error(error, " ".join(["modelwright", *sys.argv[1:2]]))
        _show_error(fault)
        if isinstance(error, OSError):
            _silence(sys.stdout)
        return fault.exit_code
    return result if isinstance(result, int) else 0


def _prepare_streams() -> None:
    """Makes the standard streams safe: open, and able to print every character in some way."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # A stream that the caller closed would be given to the next file opened, a child's pipe for instance.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - lives as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _require_text(arguments: Sequence[str]) -> None:
    """Refuses file names that are not text in this locale: the runtimes' libraries cannot open them."""
    for argument in arguments:
        if not _is_text(argument):
            raise UsageError(
                f"{argument!r} is not text in this locale, so that runtimes cannot open it",
                hint="rename the file, or choose a UTF-8 locale: LC_ALL=C.UTF-8",
            )
    if arguments and arguments[0] in _WITH_RUNTIMES:
        _require_working_directory()


def _require_working_directory() -> None:
    """Refuses a working directory in which nothing can be opened."""
    try:
        folder = str(Path.cwd())
    except FileNotFoundError as error:
        raise UsageError("the working directory is not there any more", hint="change to one that is") from error
    if not _is_text(folder):
        raise UsageError(
            f"the working directory {folder!r} is not text in this locale, so that runtimes can open nothing in it",
            hint="rename it, work from another one, or choose a UTF-8 locale: LC_ALL=C.UTF-8",
        )


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


_interrupted_by: list[int] = []


def _interrupt(number: int, _frame: Any) -> None:
    """Lets a polite request to end do what Ctrl-C does: children end, nothing half-made stays."""
    _interrupted_by.append(number)
    raise KeyboardInterrupt


def _show_interrupt() -> int:
    number = _interrupted_by[0] if _interrupted_by else signal.SIGINT
    message = "interrupted: what was finished is kept; the same command goes on from there"
    with contextlib.suppress(OSError):
        if _wants_json() and not _has_printed():
            click.echo(json.dumps({"error": {"kind": "Interrupted", "message": message, "exit_code": 128 + number}}))
        else:
            click.echo(message, err=True)
    return 128 + number


def _wants_json() -> bool:
    return "--json" in sys.argv


def _has_printed() -> bool:
    """Whether a JSON value is out already, such as results that miss a limit: there must be one only."""
    printing = sys.modules.get("modelwright.cli.printing")
    return printing is not None and bool(printing.json_printed)


def _silence(stream: Any) -> None:
    """Sends what is still to be written to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _show_error(error: ModelwrightError) -> None:
    """Prints an error: for people on standard error; for machines, with `--json`, on standard output."""
    with contextlib.suppress(OSError):
        if _wants_json() and not _has_printed():
            click.echo(json.dumps({"error": {**error.to_dict(), "exit_code": error.exit_code}}))
            return
        from modelwright.cli.printing import print_folded, readable

        print_folded(error.message, mark=click.style("error:", fg="red", bold=True) + " ", indent=0, err=True)
        if error.detail:
            lines = error.detail.strip().splitlines()
            for line in lines[-12:]:
                click.echo(click.style(f"  | {readable(line)}", dim=True), err=True)
        if error.hint:
            print_folded(error.hint, mark=click.style("hint:", bold=True) + " ", indent=0, err=True)


if __name__ == "__main__":
    main()
