"""The words in which `oblivion_schema.tables` declares what SQLAlchemy has no object for."""
