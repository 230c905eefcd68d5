"""The command line's frame: the app, its console, and errors in one line."""

from __future__ import annotations

import shlex
import sys
import warnings
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="Does the Squeeze-and-Remember block help? Train with and without it, and see.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130  # what typer makes of Ctrl-C


def console() -> Console:
    """Return a console for standard output as it is now."""
    from rich.console import Console

    return Console()


def command_line() -> str:
    """Return the command as it was given, to be given again."""
    return shlex.join(["srblock", *sys.argv[1:]])


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {message}", err=True)


def main() -> None:
    """Run the command line; errors that a user can mend are one line, not a traceback."""
    warnings.showwarning = _warn
    try:
        app()
    except (SystemExit, KeyboardInterrupt) as end:
        if isinstance(end, KeyboardInterrupt) or end.code == INTERRUPTED:
            typer.echo(
                f"\nstopped. Finished epochs are kept; go on with the same command:\n  {command_line()}", err=True
            )
            sys.exit(INTERRUPTED)
        raise
    except (ValueError, OSError) as error:  # what our rooms raise for bad input, damaged files and full disks
        ours = error.strerror if isinstance(error, OSError) and error.filename is None else None  # without "[Errno 28]"
        typer.echo(f"error: {ours or error}", err=True)
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; not worth importing torch for
            raise
        typer.echo(
            f"error: the device is out of memory ({str(error).splitlines()[0]}); use a smaller --batch-size or "
            "--image-size. Finished runs are safe; the same command goes on",
            err=True,
        )
        sys.exit(2)
