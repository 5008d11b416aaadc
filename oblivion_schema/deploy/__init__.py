"""Apply the revisions: `environment` runs Alembic, `upgrade` is the Python call, `export` writes SQL files."""
