"""The database: a module for each concept, with its tables, views, policies, triggers and functions.

`access` comes first: what it declares, the policies of all tables call.
"""

from oblivion_schema.tables import access as access
