"""`python -m promptecho`: how workflow rules call the command line from any stage's environment."""

import sys

try:
    from promptecho.cli import main
except KeyboardInterrupt:  # while modules are imported
    sys.stderr.write("promptecho: interrupted; the same command goes on\n")
    sys.exit(130)

main()
