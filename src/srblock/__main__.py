"""`python -m srblock` is the command `srblock`."""

import sys


def main() -> None:
    """Run the command line, or say what it needs where srblock is installed without its extras."""
    try:
        from srblock.cli import main as command
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "srblock":
            raise
        sys.exit(f'srblock: the commands need {error.name}; pip install "srblock[experiments]"')
    command()


if __name__ == "__main__":
    main()
