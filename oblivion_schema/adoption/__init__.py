"""What an upgrade does with tables that were made by hand: foreseen, prepared, and told afterwards."""
