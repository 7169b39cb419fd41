"""`python -m promptecho`: how workflow rules call the command line from any stage's environment."""

from promptecho.cli import main

main()
