"""The command line's frame: the app, its console, signals, and errors in one line."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
import warnings
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError, Parameter

from srblock import __version__
from srblock.cli.config import take_options
from srblock.cli.numbers import refuse_fractions, within

if TYPE_CHECKING:
    from rich.console import Console

START = time.monotonic()  # before torch is imported: that counts too

app = App(
    name="srblock",
    help="Does the Squeeze-and-Remember block help? Train with and without it, and see.",
    version=__version__,
    help_format="plaintext",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
    default_parameter=Parameter(validator=within),  # of options without limits of their own; others name it, too
)
app.register_install_completion_command()

FAILED = 1  # a run has no result
WRONG = 2  # input that a user can mend
AGAIN = 75  # the time is up and the same command goes on: EX_TEMPFAIL of sysexits.h
RESUMED = frozenset({"compare", "reproduce", "sweep", "train"})  # commands that go on where they were stopped
INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT, SIGTERM


def console() -> Console:
    """Return a console for standard output as it is now."""
    from rich.console import Console

    return Console()


def command_line() -> str:
    """Return the command as it was given, to be given again."""
    return shlex.join(["srblock", *sys.argv[1:]])


def started() -> float:
    """Return when this process began, by time.monotonic(): a time budget counts from there."""
    return START


def _say(text: object) -> None:
    from srblock.report.terminal import without_controls

    print(without_controls(str(text)), file=sys.stderr)


def _leave_torchrun(status: int) -> None:
    """End one of several processes at once, as all is written: torch's threads may abort one that tears itself down.

    ("terminate called without an active exception", seen now and then on a busy machine, torch 2.15 with gloo.)
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    _say(f"warning: {message}")


def main() -> None:
    """Run the command line; errors that a user can mend are one line, not a traceback."""
    terminated: list[int] = []

    def terminate(number: int, _: object) -> None:
        """End as Ctrl-C does: every context is left, so workers are ended and files are whole."""
        signal.signal(number, signal.SIG_IGN)  # once is enough; whoever cannot wait sends SIGKILL
        terminated.append(number)
        raise KeyboardInterrupt  # nothing else gets through Ray

    warnings.showwarning = _warn
    warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")  # Pillow's; ours is an error
    signal.signal(signal.SIGTERM, terminate)  # what Slurm and containers send
    try:
        words = sys.argv[1:]
        of_file = take_options(app["compare"], words)
        names, commands, rest = app.parse_commands(words)
        if names and not names[-1].startswith("-") and commands[-1].default_command:
            refuse_fractions(commands[-1], rest, of_file if names == ("compare",) else {})
        status = app(words)
        _leave_torchrun(status or 0)
        sys.exit(status)
    except KeyboardInterrupt:
        resumed = not RESUMED.isdisjoint(sys.argv[1:2])
        kept = f" Finished epochs are kept; go on with the same command:\n  {command_line()}" if resumed else ""
        _say(f"\nstopped.{kept}")
        sys.exit(TERMINATED if terminated else INTERRUPTED)
    except CycloptsError as error:
        _say(f"error: {str(error).strip()}")
        sys.exit(WRONG)
    except (ValueError, OSError) as error:  # what our rooms raise for bad input, damaged files and full disks
        ours = error.strerror if isinstance(error, OSError) and error.filename is None else None  # without "[Errno 28]"
        _say(f"error: {ours or error}")
        sys.exit(WRONG)
    except RuntimeError as error:
        # torch's on a GPU, which is not worth importing torch for, and on the CPU.
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        _say(
            f"error: the device is out of memory ({str(error).splitlines()[0]}); use a smaller --batch-size or "
            "--image-size. Finished runs are safe; the same command goes on"
        )
        sys.exit(WRONG)
