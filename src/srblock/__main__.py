"""`python -m srblock` is the command `srblock`."""

import sys

EXTRA = (  # what the extra brings, by the names that are imported
    *("torchvision", "timm", "sklearn", "scipy", "matplotlib", "PIL", "jinja2", "rich", "cyclopts", "safetensors"),
    "filelock",
)


def main() -> None:
    """Run the command line, or say what it needs where srblock is installed without its extras."""
    try:
        from srblock.cli import main as command

        command()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.exit(f'srblock: the commands need {error.name}; pip install "srblock[experiments]"')


if __name__ == "__main__":
    main()
