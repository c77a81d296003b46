"""`python -m tempo VERB`: the command line where the script `tempo` is not on the path."""

from tempo.cli import main

main()
