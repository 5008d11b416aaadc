"""Errors that their reader can mend: one line, the cause and then the fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from alembic.util import CommandError
from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.exc import DBAPIError


class UserError(CommandError):
    """What is wrong and what to do, in one line; Alembic's command line prints it and exits with status 255."""


_CONNECTION_FIXES: Final = (
    ("translate host name", "Check the host name in the URL."),
    ("onnection refused", "Check that PostgreSQL runs there, and the port."),
    ("No such file or directory", "Check that PostgreSQL runs there, and the socket's folder."),
    ("authentication failed", "Check user and password."),
    ("no password supplied", "Put the password into the URL, or into PGPASSWORD."),
    ("does not exist", "Create it first, or check its name in the URL."),
    ("timeout expired", "Check that the host can be reached from here."),
    ("no pg_hba.conf entry", "Allow this user and host in the server's pg_hba.conf, or connect with sslmode=require."),
)


def cannot_connect(database: str, error: Exception) -> UserError:
    """Why there is no connection to `database`, which is named without its password."""
    # libpq's further lines ask whether the server is running, or tell of the host's next address.
    cause = _one_line(str(getattr(error, "orig", None) or error).partition("\n")[0])
    fix = next((fix for sign, fix in _CONNECTION_FIXES if sign in cause), "Check the URL.")
    return UserError(f"Cannot connect to {database}: {cause.rstrip('.')}. {fix}")


def explain(error: DBAPIError, engine: Engine) -> UserError:
    """What PostgreSQL refused, with its hint; nothing was changed, for the transaction is gone.

    `engine` is asked who holds the lock when a lock timed out.
    """
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if error.connection_invalidated or state in {"57P01", "57P02", "57P03"}:
        return UserError(
            f"The server ended the connection: {primary_message(error)}. Nothing was changed: run the command again."
        )
    if state == "55P03":
        return UserError(
            f"{_lock_holders(error, engine)} Nothing was changed: end that session, or wait longer with"
            " -x lock-timeout=60s."
        )
    if state == "42501":
        return UserError(
            f"{primary_message(error)}. Nothing was changed: run this as the owner of the database, or let the owner"
            " GRANT CREATE ON DATABASE and ON SCHEMA public to this role."
        )
    diagnostics = getattr(error.orig, "diag", None)
    hint = getattr(diagnostics, "message_hint", None)
    detail = getattr(diagnostics, "message_detail", None)
    parts = [primary_message(error), *filter(None, (detail, hint)), "Nothing was changed"]
    return UserError(". ".join(_one_line(part).rstrip(".") for part in parts) + ".")


def primary_message(error: DBAPIError) -> str:
    """What PostgreSQL said, without detail, hint and position."""
    diagnostics = getattr(error.orig, "diag", None)
    return _one_line(getattr(diagnostics, "message_primary", None) or error.orig).rstrip(".")


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _lock_holders(error: DBAPIError, engine: Engine) -> str:
    named = dict.fromkeys(re.findall(r"\b(?:public|oblivion)\.\w+", error.statement or ""))
    with engine.connect() as connection:
        held = {row.relation: row.holders for row in connection.execute(text(_HELD_RELATIONS))}
    if named:
        held = {relation: holders for relation, holders in held.items() if relation in named}
    if not held:
        return f"Timed out waiting for a lock on {', '.join(named) or 'a table'}."
    return f"Timed out waiting for a lock: {'; '.join(f'{r} is held by {h}' for r, h in held.items())}."


_HELD_RELATIONS: Final = """
SELECT
  format('%I.%I', n.nspname, c.relname) AS relation,
  string_agg(DISTINCT concat_ws(' ', 'process', l.pid, '(' || nullif(a.application_name, '') || ')'), ', ') AS holders
FROM pg_locks AS l
JOIN pg_class AS c ON c.oid = l.relation
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.granted
  AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND c.relkind IN ('r', 'p', 'v')
  AND n.nspname IN ('public', 'oblivion')
GROUP BY 1
ORDER BY 1
"""
