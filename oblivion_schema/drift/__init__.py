"""What differs between a database and the code, and the revision that mends it."""
