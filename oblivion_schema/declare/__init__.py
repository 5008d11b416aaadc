"""Functions with which `oblivion_schema.tables` declares objects that SQLAlchemy cannot express."""
