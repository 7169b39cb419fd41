"""`python -m promptecho`, as workflow rules call it from any stage's environment, and the program `promptecho`."""

import sys


def run() -> None:
    """The command line. Ctrl-C while its modules are imported is a sentence, too."""
    try:
        from promptecho.cli import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("promptecho: interrupted; the same command goes on\n")
        sys.exit(130)


if __name__ == "__main__":
    run()
