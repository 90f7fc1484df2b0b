"""`python -m frostbert` is the program."""

import os
import sys

from ._program import program


def main() -> None:
    own = program()
    os.execv(own, [own, *sys.argv[1:]])


if __name__ == "__main__":
    main()
