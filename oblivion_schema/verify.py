"""The documented checklist: whether a database holds what the metadata declares, object by object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from .accounts import DEMO_ACCOUNTS, user_accounts
from .base import metadata
from .calls import active_calls, call_sessions
from .ddl import declared
from .errors import primary_message
from .rates import RATES, token_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Table

_FIX: Final = "run oblivion-schema upgrade head, or put it back as the revisions have it"

# Each object as (kind, name); what belongs to a table is named table.object.
_OBJECTS: Final = """
SELECT CASE relkind WHEN 'v' THEN 'view' ELSE 'table' END AS kind, relname AS name
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
UNION ALL
SELECT 'column', concat(relname, '.', attname)
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'security invoker', relname
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND 'security_invoker=true' = ANY (reloptions)
UNION ALL
SELECT 'index', concat(t.relname, '.', i.relname)
FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid JOIN pg_class AS t ON t.oid = indrelid
WHERE t.relnamespace = 'public'::regnamespace AND indisvalid
UNION ALL
SELECT 'row level security', relname
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relrowsecurity
UNION ALL
SELECT 'policy', concat(tablename, '.', policyname) FROM pg_policies WHERE schemaname = 'public'
UNION ALL
SELECT 'trigger', concat(relname, '.', tgname)
FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal AND tgenabled IN ('O', 'A')
UNION ALL
SELECT 'function', proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""


@dataclass(frozen=True)
class Check:
    """One line of the checklist; `problem` is empty where it passed."""

    subject: str
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the database holds what the line names."""
        return not self.problem

    def __str__(self) -> str:
        return f"ok    {self.subject}" if self.passed else f"FAIL  {self.subject}: {self.problem}"


def verify(connection: Connection) -> Iterator[Check]:
    """Check the database of `connection`, line by line; the row that it inserts is rolled back."""
    with connection.begin_nested() as everything:
        connection.execute(text("SET LOCAL search_path = public"))
        found = {(kind, name) for kind, name in connection.execute(text(_OBJECTS))}
        yield from _check_objects(found)
        for subject, problem in (
            ("token rates", _rates_problem),
            ("demo accounts", _demo_accounts_problem),
            ("a call can be inserted and is active (rolled back)", _insert_problem),
        ):
            yield Check(subject, _attempt(connection, problem))
        everything.rollback()


def _check_objects(found: set[tuple[str, str]]) -> Iterator[Check]:
    def check(kind: str, name: str, problem: str = "is missing") -> Check:
        return Check(f"{kind} {name}", "" if (kind, name) in found else f"{problem}: {_FIX}")

    relations = sorted(metadata.tables.values(), key=lambda relation: (relation.is_view, relation.name))
    for relation in relations:
        yield _check_relation(relation, found)
    for relation in relations:
        for index in sorted(str(index.name) for index in relation.indexes):
            yield check("index", f"{relation.name}.{index}")
        for item in declared(relation):
            if item.kind in {"index", "policy", "trigger"}:
                yield check(item.kind, f"{relation.name}.{item.name}")
            elif item.kind == "row level security":
                yield check(item.kind, item.name, "is off")
    for item in declared(metadata):
        if item.kind == "function":
            yield check(item.kind, item.name)


def _check_relation(relation: Table[Any], found: set[tuple[str, str]]) -> Check:
    kind = "view" if relation.is_view else "table"
    subject = f"{kind} {relation.name}, {len(relation.columns)} columns"
    if (kind, relation.name) not in found:
        return Check(subject, f"is missing: {_FIX}")
    missing = [c.name for c in relation.columns if ("column", f"{relation.name}.{c.name}") not in found]
    if missing:
        return Check(subject, f"lacks {', '.join(missing)}: {_FIX}")
    if relation.is_view and ("security invoker", relation.name) not in found:
        return Check(subject, f"reads with its owner's rights, past row level security: {_FIX}")
    return Check(subject)


def _attempt(connection: Connection, problem: Callable[[Connection], str]) -> str:
    try:
        with connection.begin_nested() as savepoint:
            answer = problem(connection)
            savepoint.rollback()
    except DBAPIError as error:
        return primary_message(error)
    return answer


def _rates_problem(connection: Connection) -> str:
    there = {tuple(row) for row in connection.execute(select(token_rates))}
    missing = [f"{r['mode']}{' over TURN' * r['used_turn']}" for r in RATES if tuple(r.values()) not in there]
    return (
        f"{', '.join(missing)} differ from the schema's, or are missing: calls would be priced wrongly"
        if missing
        else ""
    )


def _demo_accounts_problem(connection: Connection) -> str:
    names = {account["user_id"] for account in DEMO_ACCOUNTS}
    there = set(connection.scalars(select(user_accounts.c.user_id).where(user_accounts.c.user_id.in_(names))))
    if there in (names, set()):  # -x demo=no leaves all of them out
        return ""
    return f"{', '.join(sorted(map(str, names - there)))} missing: insert them, or delete the others, too"


def _insert_problem(connection: Connection) -> str:
    call = connection.scalar(
        call_sessions.insert().values(room_id="oblivion-schema verify", mode="video").returning(call_sessions.c.id)
    )
    active = connection.scalar(select(func.count()).select_from(active_calls).where(active_calls.c.id == call))
    return "" if active == 1 else "active_calls does not show it"
