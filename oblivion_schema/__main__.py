"""`python -m oblivion_schema`: the command line, for when its script is not on the PATH."""

from oblivion_schema.cli import main

main()
