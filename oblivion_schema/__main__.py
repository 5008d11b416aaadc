"""`python -m oblivion_schema`: the command line where its script is not on the path."""

from oblivion_schema.cli import main

main()
