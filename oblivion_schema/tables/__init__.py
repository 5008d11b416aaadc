"""The database: a module for each concept, with its tables, views, policies, triggers and functions.

`access` is imported first, because the policies of all tables call its functions.
"""

from oblivion_schema.tables import access as access
