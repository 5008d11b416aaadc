"""SQL that gives roles exactly what is said, whatever default privileges gave them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .sql import block

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

API_ROLES: Final = ("anon", "authenticated", "service_role")
"""The roles that PostgREST takes on: a visitor, a signed-in user, a trusted service."""

PUBLIC: Final = "PUBLIC"

# The roles are the server's, not the database's: another database may have made them, or be making them now.
CREATE_API_ROLES: Final = """\
DO $$
DECLARE
  api_role name;
BEGIN
  FOREACH api_role IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
    CONTINUE WHEN to_regrole(api_role) IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', api_role);
      IF api_role = 'service_role' AND current_setting('is_superuser') = 'on' THEN
        ALTER ROLE service_role BYPASSRLS;
      END IF;
    EXCEPTION
      WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
        NULL;
    END;
  END LOOP;
END
$$"""
"""Makes the API roles that are missing, where the role that runs it may; without them nothing is granted to them."""


def exact_grants(target: str, granted: Mapping[str, Sequence[str]]) -> str:
    """One statement after which the API roles and PUBLIC have on `target` what `granted` says, and nothing else.

    `target` as GRANT takes it, such as `TABLE public.token_usage`; `granted` the privileges of each role, such as
    `{"anon": ["SELECT", "UPDATE (email)"]}`. A role that does not exist is passed over.
    """
    lines = [f"  REVOKE ALL ON {target} FROM PUBLIC;"]
    if granted.get(PUBLIC):
        lines.append(f"  GRANT {', '.join(granted[PUBLIC])} ON {target} TO PUBLIC;")
    alike = all(granted.get(role, ()) == granted.get(API_ROLES[0], ()) for role in API_ROLES)
    if alike and not set(target) & set("%'"):
        return block([*lines, *_for_each_role(target, granted.get(API_ROLES[0], ()))], ["  api_role name;"])
    for role in API_ROLES:
        statements = [f"REVOKE ALL ON {target} FROM {role};"]
        if granted.get(role):
            statements.append(f"GRANT {', '.join(granted[role])} ON {target} TO {role};")
        lines += if_role_exists(role, statements)
    return block(lines)


def _for_each_role(target: str, privileges: Sequence[str]) -> list[str]:
    roles = ", ".join(f"'{role}'" for role in API_ROLES)
    lines = [f"    EXECUTE format('REVOKE ALL ON {target} FROM %I', api_role);"]
    if privileges:
        lines.append(f"    EXECUTE format('GRANT {', '.join(privileges)} ON {target} TO %I', api_role);")
    head = f"  FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ({roles}) LOOP"  # noqa: S608
    return [head, *lines, "  END LOOP;"]


def if_role_exists(role: str, statements: Sequence[str]) -> list[str]:
    """Lines of a block that executes `statements` only where `role` exists, as they may not even be planned else."""
    return [
        f"  IF to_regrole('{role}') IS NOT NULL THEN",
        *(f"    {statement}" for statement in statements),
        "  END IF;",
    ]
