"""Which PostgreSQL: the URL's sources, connecting, and the embedded server."""
