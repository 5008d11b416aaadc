"""How revisions reach a database: Alembic's environment, the Python call, and SQL files."""
