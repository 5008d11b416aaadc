"""SQL that gives roles exactly the stated privileges: it also revokes what default privileges granted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from sqlalchemy import text

from oblivion_schema.declare.sql import block

if TYPE_CHECKING:
    from sqlalchemy import Connection

GrantMode: TypeAlias = Literal["open", "authenticated", "metered"]
"""The mode that decides what is granted: an access mode, or `metered`: authenticated, and pages are metered."""

GRANT_MODES: Final[tuple[GrantMode, ...]] = ("open", "authenticated", "metered")

Grants: TypeAlias = Mapping[str, Sequence[str]]
"""The privileges of each role, as GRANT names them: `{"anon": ["SELECT", "UPDATE (email)"]}`.

`exact_grants()` also takes them `WITH GRANT OPTION`.
"""

API_ROLES: Final = ("anon", "authenticated", "service_role")
"""The roles in which PostgREST runs a request: a visitor, a signed-in user, a trusted service."""

PUBLIC: Final = "PUBLIC"
_OPTION: Final = " WITH GRANT OPTION"

# Roles belong to the server: another database's upgrade may have created them, or may be creating them now. That is why
# duplicate_object and unique_violation are no errors.
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
"""Creates the missing API roles, if the role that runs it may; grants to a missing role are skipped elsewhere."""


def existing_roles(connection: Connection) -> list[str]:
    """The API roles that the server has."""
    found = connection.scalars(
        text("SELECT rolname FROM pg_roles WHERE rolname = ANY (:roles)"), {"roles": list(API_ROLES)}
    )
    return sorted(found)


def use_schema_public() -> list[str]:
    """PL/pgSQL lines that grant the API roles USAGE on schema public, if they lack it."""
    return [
        line
        for role in API_ROLES
        for line in if_role_exists(
            role,
            [
                f"IF NOT has_schema_privilege('{role}', 'public', 'USAGE') THEN",
                f"  GRANT USAGE ON SCHEMA public TO {role};",
                "END IF;",
            ],
        )
    ]


def exact_grants(target: str, by_mode: Mapping[GrantMode, Grants]) -> str:
    """One statement that gives the API roles and PUBLIC exactly the privileges on `target` that its mode has.

    - `target`: the object as GRANT names it, such as `TABLE public.token_usage`.
    - `by_mode`: the privileges of each role in each mode, such as `{"open": {"anon": ["SELECT", "UPDATE (email)"]}}`;
      the statement looks the mode up if they differ.

    It skips roles that do not exist.
    """
    lines = [f"  REVOKE ALL ON {target} FROM PUBLIC CASCADE;"]
    lines += _by_mode(target, PUBLIC, by_mode, indent="  ")
    first = by_mode["open"].get(API_ROLES[0], ())
    alike = all(its.get(role, ()) == first for its in by_mode.values() for role in API_ROLES)
    if alike and not set(target) & set("%'"):
        return block([*lines, *_for_each_role(target, first)], ["  api_role name;"])
    for role in API_ROLES:
        statements = [f"REVOKE ALL ON {target} FROM {role} CASCADE;", *_by_mode(target, role, by_mode)]
        lines += if_role_exists(role, statements)
    return block(lines)


def all_grants(grants: Iterable[tuple[str, Grants]]) -> list[str]:
    """PL/pgSQL lines that give the API roles and PUBLIC exactly these privileges; a pair is a target and its grants.

    They skip roles that do not exist.
    """
    targets = dict(grants)
    names: dict[str, list[str]] = {}
    for target in targets:
        kind, _, name = target.partition(" ")
        names.setdefault(kind, []).append(name)
    lines = []
    for role in (PUBLIC, *API_ROLES):
        statements = [f"REVOKE ALL ON {kind} {', '.join(its)} FROM {role} CASCADE;" for kind, its in names.items()]
        statements += [
            f"GRANT {', '.join(granted[role])} ON {target} TO {role};"
            for target, granted in targets.items()
            if granted.get(role)
        ]
        lines += [f"  {statement}" for statement in statements] if role == PUBLIC else if_role_exists(role, statements)
    return lines


def take_back_all(schema: str) -> list[str]:
    """PL/pgSQL lines that revoke what PUBLIC and the API roles may do with the relations and functions of `schema`."""
    lines = []
    for role in (PUBLIC, *API_ROLES):
        statements = [
            f"REVOKE ALL ON ALL {kind} IN SCHEMA {schema} FROM {role} CASCADE;"
            for kind in ("TABLES", "SEQUENCES", "FUNCTIONS")
        ]
        lines += [f"  {statement}" for statement in statements] if role == PUBLIC else if_role_exists(role, statements)
    return lines


def _by_mode(target: str, role: str, by_mode: Mapping[GrantMode, Grants], *, indent: str = "") -> list[str]:
    """Statements that give `role` its privileges in the database's mode."""

    def give(mode: GrantMode) -> list[str]:
        return _give(by_mode[mode].get(role, ()), target, role)

    when_open, when_closed, when_metered = map(give, GRANT_MODES)
    if when_closed != when_metered:
        when_closed = _if("oblivion.page_billing() = 'metered'", when_metered, when_closed)
    lines = when_open if when_open == when_closed else _if("oblivion.open_access()", when_open, when_closed)
    return [f"{indent}{line}" for line in lines]


def _give(privileges: Sequence[str], target: str, role: str) -> list[str]:
    """GRANT statements; those with the option are apart."""
    plain = [name for name in privileges if not name.endswith(_OPTION)]
    passable = [name.removesuffix(_OPTION) for name in privileges if name.endswith(_OPTION)]
    return [
        f"GRANT {', '.join(names)} ON {target} TO {role}{option};"
        for names, option in ((plain, ""), (passable, _OPTION))
        if names
    ]


def _if(condition: str, then: Sequence[str], otherwise: Sequence[str]) -> list[str]:
    """PL/pgSQL lines that execute the one or the other."""
    if not then:
        condition, then, otherwise = f"NOT {condition}", otherwise, ()
    lines = [f"IF {condition} THEN", *(f"  {line}" for line in then)]
    if otherwise:
        lines += ["ELSE", *(f"  {line}" for line in otherwise)]
    return [*lines, "END IF;"]


def _for_each_role(target: str, privileges: Sequence[str]) -> list[str]:
    roles = ", ".join(f"'{role}'" for role in API_ROLES)
    lines = [f"    EXECUTE format('REVOKE ALL ON {target} FROM %I CASCADE', api_role);"]
    lines += [
        f"    EXECUTE format('{statement.removesuffix(';')}', api_role);"
        for statement in _give(privileges, target, "%I")
    ]
    head = f"  FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ({roles}) LOOP"  # noqa: S608
    return [head, *lines, "  END LOOP;"]


def if_role_exists(role: str, statements: Sequence[str]) -> list[str]:
    """PL/pgSQL lines that execute `statements` only if `role` exists; PostgreSQL rejects a GRANT to an unknown role."""
    return [
        f"  IF to_regrole('{role}') IS NOT NULL THEN",
        *(f"    {statement}" for statement in statements),
        "  END IF;",
    ]
