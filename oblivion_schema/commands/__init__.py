"""What the commands beside Alembic's do, without the command line around it."""
