"""Find a PostgreSQL server and connect to it: `database` reads URLs, `embedded` runs the server of the extra."""
