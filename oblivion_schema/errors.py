"""Errors that the user can fix: each is one line, the cause and then the fix."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from alembic.util import CommandError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class UserError(CommandError):
    """Its text is one line, the cause and then the fix; a command prints it and exits with a nonzero status."""


_CONNECTION_FIXES: Final = (
    ("translate host name", "Check the host name in the URL."),
    ("onnection refused", "Check that PostgreSQL runs there, and the port."),
    ("No such file or directory", "Check that PostgreSQL runs there, and the socket's folder."),
    ("authentication failed", "Check user and password."),
    ("no password supplied", "Put the password into the URL, or into PGPASSWORD."),
    ("does not exist", "Create it first, or check its name in the URL."),
    ("timeout expired", "Check that the host can be reached from here."),
    ("no pg_hba.conf entry", "Allow this user and host in the server's pg_hba.conf, or connect with sslmode=require."),
    ("invalid connection option", "Check the part of the URL behind the question mark."),
    ("too many", "Close other connections first."),
    ("remaining connection slots", "Close other connections first."),
    ("starting up", "Try again in a moment."),
)


def cannot_connect(database: str, error: Exception) -> UserError:
    """The error for a failed connection; `database` is its name in the message, without a password."""
    # libpq tries each address of a host, and reports each in a line or two. A line of the server itself says most.
    lines = str(getattr(error, "orig", None) or error).splitlines() or [""]
    cause = one_line(next((line for line in lines if "FATAL" in line), lines[0])).rstrip(".")
    fix = next((f" {fix}" for sign, fix in _CONNECTION_FIXES if sign in cause), "")
    return UserError(f"Cannot connect to {database}: {cause}.{fix}")


def explain(error: DBAPIError, engine: Engine) -> UserError:
    """The error for a statement that PostgreSQL refused, with PostgreSQL's hint.

    The transaction was rolled back, so nothing was changed. After a lock timeout it asks the database of `engine` which
    session holds the lock.
    """
    state, message, detail, hint = _fields(error)
    if error.connection_invalidated or state in {"57P01", "57P02", "57P03"}:
        return UserError(
            f"The server ended the connection: {message}. Uncommitted changes were undone: run the command again."
        )
    if state == "57014" and "user request" in message:
        return interrupted()
    if state == "55P03":
        return UserError(
            f"{_lock_holders(error, engine)} Nothing was changed: end that session, or wait longer with"
            " -x lock-timeout=60s."
        )
    if message == "tuple concurrently updated":
        return UserError("Another session changed the same object. Nothing was changed: run the command again.")
    if state == "42501":
        fix = (
            "run this as the owner of the database, or let the owner GRANT CREATE ON DATABASE and ON SCHEMA public"
            " to this role"
            if re.search(r"for (database|schema public)", message)
            else "run this as the owner of that object, usually the role that ran the first upgrade"
        )
        return UserError(f"{message}. Nothing was changed: {fix}.")
    if state == "2BP01":  # PostgreSQL's hint is CASCADE, which no revision says
        hint = "Remove that first, with the tool that made it, such as the downgrade of your own Alembic"
    return UserError(". ".join([*filter(None, (message, detail, hint, _where(error))), "Nothing was changed"]) + ".")


def _where(error: DBAPIError) -> str:
    """Of a revision's statement that says which rows may make it fail: the statement."""
    comment, _, statement = (error.statement or "").partition("\n")
    return f"In {' '.join(statement.split())}" if comment.startswith("-- Fails ") else ""


def invalid_declaration(error: SQLAlchemyError) -> UserError:
    """The error for a metadata that cannot be built: the object, the reason, and the line in its SQL if known."""
    if not isinstance(error, DBAPIError):
        said = one_line(error).partition(" (Background")[0].rstrip(".")
        return UserError(f"The metadata cannot be built: {said}. Nothing was changed.")
    diagnostics = getattr(error.orig, "diag", None)
    inner = getattr(diagnostics, "internal_query", None)
    statement = error.statement or ""
    _, message, detail, hint = _fields(error)
    said = ". ".join(filter(None, (message, detail, hint)))
    where = _line_of(error, inner or statement)
    named = _object_of(inner if inner and statement.startswith("DO ") else statement)
    return UserError(f"PostgreSQL rejects the metadata's {named}: {said}{where}. Nothing was changed.")


def _line_of(error: DBAPIError, statement: str) -> str:
    """The line of `statement` that PostgreSQL points at, or the first one with the name that its message quotes."""
    diagnostics = getattr(error.orig, "diag", None)
    position = getattr(diagnostics, "internal_position", None) or getattr(diagnostics, "statement_position", None)
    if not position:
        named = re.search(r'"([^"]+)"', _fields(error)[1])
        position = statement.find(named[1]) + 1 if named else 0
    if not position:
        return ""
    number = statement.count("\n", 0, int(position) - 1)
    lines = statement.split("\n")
    return f', line {number + 1}: "{lines[min(number, len(lines) - 1)].strip()}"'


_STATEMENT: Final = re.compile(
    r"""\s*(?:--[^\n]*\n\s*)*(?:CREATE(?:\ OR\ REPLACE)?(?:\ UNIQUE)?|ALTER|COMMENT\ ON|INSERT\ INTO)
    \s+(?P<kind>(?:(?!CONCURRENTLY|IF\ )[A-Z]+\s+)*)(?:CONCURRENTLY\s+|IF\ NOT\ EXISTS\s+)*
    (?P<name>(?:"[^"]+"|[\w.])+)(?:\s+ON\s+(?P<on>(?:"[^"]+"|[\w.])+))?""",
    re.VERBOSE,
)


def _object_of(statement: str) -> str:
    """The kind and name of the object that a statement creates, alters or fills, from its first words."""
    found = _STATEMENT.match(statement)
    if not found:
        return f'statement "{one_line(statement)}"'
    kind = found["kind"].strip().lower() or "rows of"
    on = f" on {found['on']}" if found["on"] and kind in {"policy", "trigger", "index"} else ""
    return f"{kind} {found['name']}{on}".replace('"', "")


def sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's error code, such as 42501."""
    return _fields(error)[0]


def interrupted() -> UserError:
    """The error for Ctrl-C."""
    return UserError("Interrupted. Uncommitted changes were undone: run the command again.")


def primary_message(error: DBAPIError) -> str:
    """PostgreSQL's message, without detail, hint and position."""
    return _fields(error)[1]


def where_it_failed(error: DBAPIError) -> str:
    """PostgreSQL's context of an error: the functions that were running."""
    given = getattr(error.orig, "args", None)
    if given and isinstance(given[0], dict):  # pg8000
        return given[0].get("W") or ""
    return getattr(getattr(error.orig, "diag", None), "context", None) or ""


def _fields(error: DBAPIError) -> tuple[str, str, str, str]:
    """SQLSTATE, message, detail and hint, each without its full stop, from any of the drivers."""
    given = getattr(error.orig, "args", None)
    if given and isinstance(given[0], dict):  # pg8000
        fields = [given[0].get(code) for code in "CMDH"]
    else:
        diagnostics = getattr(error.orig, "diag", None)
        names = ("sqlstate", "message_primary", "message_detail", "message_hint")
        if diagnostics is None:  # asyncpg, of whose error SQLAlchemy makes another one
            diagnostics, names = getattr(error.orig, "__cause__", None), ("sqlstate", "message", "detail", "hint")
        fields = [getattr(diagnostics, name, None) for name in names]
    state, message, detail, hint = (one_line(field or "").rstrip(".") for field in fields)
    return state, message or one_line(str(error.orig).partition("\n")[0]).rstrip("."), detail, hint


def one_line(value: object) -> str:
    r"""`value` as text on one line; `\x1b` stands for an escape character, which would write to the terminal.

    Visitors choose ids, so they choose what commands print.
    """
    said = " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in said)


def _lock_holders(error: DBAPIError, engine: Engine) -> str:
    named = dict.fromkeys(re.findall(r"\b(?:public|oblivion)\.\w+", error.statement or ""))
    held: list[str] = []
    # A connection of its own: the caller's pool may have none left. The server may have none left either.
    with suppress(SQLAlchemyError), create_engine(engine.url, poolclass=NullPool).connect() as connection:
        held = [
            f"{relation} is held by {holders}"
            for relation, holders in held_relations(connection)
            if relation in named or not named
        ]
    if not held:
        return f"Timed out waiting for a lock on {', '.join(named) or 'a table'}."
    return f"Timed out waiting for a lock: {'; '.join(held)}."


def held_relations(connection: Connection) -> list[tuple[str, str]]:
    """The tables and views on which other sessions hold a lock of any mode, and these sessions."""
    return [(row.relation, row.holders) for row in connection.execute(text(_HELD_RELATIONS))]


_HELD_RELATIONS: Final = """
SELECT
  format('%I.%I', n.nspname, c.relname) AS relation,
  string_agg(
    format('process %s (%s)', l.pid, concat_ws(', ', nullif(a.application_name, ''), l.mode)),
    ', ' ORDER BY l.pid, l.mode
  ) AS holders
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
