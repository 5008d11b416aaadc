"""Alembic runs this for each command; what it does stands in the package, so that the wheel does the same."""

from oblivion_schema.deploy.environment import run

run()
