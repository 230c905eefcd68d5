"""`python -m srblock` is the command `srblock`."""

from srblock.cli import main

if __name__ == "__main__":
    main()
