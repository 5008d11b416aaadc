"""The work of the commands that `oblivion-schema` adds to Alembic's, without their command line."""
