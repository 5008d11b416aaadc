"""A fleet: one database for each site, all of them named in one file, and commands that work on all of them."""
