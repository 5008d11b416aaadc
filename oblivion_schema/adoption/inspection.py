"""`oblivion-schema inspect`: what an upgrade would do to a database, said before anything is changed.

It tells what becomes of what people made; new objects of ours it does not list. The revisions are asked for that: what
they want is heard and not done (`operations.requests_of()`), and compared with what is there. One read-only transaction
does it, and locks what a reader locks. Findings have the kinds and names that the upgrade notes in
`oblivion.adoption_log`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.script.revision import RevisionError
from sqlalchemy import func, select, text, true

from oblivion_schema.adoption import snapshot
from oblivion_schema.adoption.copies import what_is_missing
from oblivion_schema.adoption.locks import inspect_locks, inspect_work_beside
from oblivion_schema.adoption.made import inspect_names
from oblivion_schema.adoption.pages import HINT, pages_bill
from oblivion_schema.adoption.preparation import dropped_indexes
from oblivion_schema.adoption.report import Inspection
from oblivion_schema.adoption.rights import inspect_grants, inspect_rights
from oblivion_schema.adoption.tables import Table, inspect_table
from oblivion_schema.adoption.triggers import foreign_triggers
from oblivion_schema.adoption.views import inspect_view
from oblivion_schema.operations import requests_of
from oblivion_schema.operations.adoption import view_in
from oblivion_schema.tables.access import current_modes, has_modes
from oblivion_schema.tables.accounts import DEMO_ACCOUNTS
from oblivion_schema.tables.adoption_log import adoption_log
from oblivion_schema.tables.base import PRIVATE_SCHEMA, metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, Row

    from oblivion_schema.adoption.snapshot import Snapshot
    from oblivion_schema.operations import Request


def inspect(
    connection: Connection, revisions: ScriptDirectory, *, demo: bool = True, lock_timeout: str = "5s"
) -> Inspection:
    """Inspect the database of `connection`, on which no transaction may be open; it is left in a read-only one.

    `demo`: whether the upgrade opens demo accounts. Raises sqlalchemy.exc.DBAPIError, such as after `lock_timeout`.
    """
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    # As revisions are run.
    connection.execute(select(func.set_config("search_path", "public", true())))
    connection.execute(select(func.set_config("lock_timeout", lock_timeout, true())))
    found = Inspection()
    facts = snapshot.read_facts(connection)
    if facts.has_version_table and not facts.may_read_version:
        found.state = "ours, at a revision that this role may not see"
        found.stop("role", "role", f"this role may not read {PRIVATE_SCHEMA}.alembic_version: connect as its owner")
        return found
    at = snapshot.read_versions(connection) if facts.has_version_table else []
    try:
        pending = list(revisions.iterate_revisions("heads", tuple(at) or "base"))[::-1]
    except RevisionError:
        found.state = f"at revision {', '.join(at)}, which this version of oblivion_schema does not have"
        found.stop("revision", "revision", "install the version that upgraded the database, or a newer one")
        return found
    found.pending = tuple(f"{script.revision} ({script.doc.rstrip('.')})" for script in pending)
    requests = requests_of(pending)
    names = {*_public_names(), *_locked(requests)}
    there = snapshot.read(connection, facts, names)
    found.state = _state(there.relations, at)
    if not at and (missing := what_is_missing(connection)):
        found.stop("copy", "token_ledger", missing)
        return found
    if pending:
        applied = requests_of(script for script in revisions.walk_revisions() if script not in pending)
        inspect_rights(found, facts)
        inspect_names(connection, found, requests, applied)
        _inspect_own(there, found, requests, demo=demo)
        _inspect_others(connection, found, facts, names)
    if at and has_modes(connection):
        modes = current_modes(connection)
        found.modes = f"access {modes.access}, pages {modes.pages}"
    if pages_bill(connection):
        found.warn("pages", "token_usage", HINT)
    return found


def _public_names() -> set[str]:
    return {table.name for table in metadata.tables.values() if not table.schema}


def _locked(requests: Iterable[Request]) -> set[str]:
    return {name for asked in requests if asked.function == "lock_together" for name in asked.arguments["relations"]}


def _state(relations: Mapping[str, Row[Any]], at: Sequence[str]) -> str:
    if at:
        return f"ours, at revision {', '.join(at)}"
    if not relations:
        return "empty of what is ours"
    tables = {name: row for name, row in relations.items() if not row.is_view}
    if all(row.comment == metadata.tables[name].comment for name, row in tables.items() if name in metadata.tables):
        return f"tables of ours without a revision in {PRIVATE_SCHEMA}.alembic_version"
    return f"made by hand: {', '.join(_scripts(tables)) or 'by none of the known scripts'}"


def _scripts(tables: Mapping[str, Row[Any]]) -> Iterator[str]:
    """The scripts that made the tables."""
    if "call_sessions" in tables:
        yield "calls"
    if presence := tables.get("user_presence"):
        first = "host_id" not in presence.columns
        safe = "room_token" in presence.columns
        yield f"presence ({'first' if first else 'fixed'}{' and safe' * safe} script{'s' * safe})"
    if billing := [name for name in ("user_accounts", "token_usage") if name in tables]:
        half = "" if len(billing) > 1 else f" ({billing[0]} alone)"
        trigger = "user_accounts" in tables and "update_user_accounts_updated_at" in tables["user_accounts"].triggers
        yield f"billing{half} {'with' if trigger else 'without'} its trigger"


def _inspect_own(there: Snapshot, found: Inspection, requests: Sequence[Request], *, demo: bool) -> None:
    """Tell what becomes of tables and views that people made under names of ours."""
    relations = there.relations
    adopted = [
        name for name, comment in _adoptions(requests) if name in relations and relations[name].comment != comment
    ]
    own = [*adopted, *sorted(there.taken_over & relations.keys() - set(adopted))]
    asked: dict[str, list[Request]] = {name: [] for name in own}
    for request in requests:
        if (name := request.arguments.get("table")) in asked:
            asked[name].append(request)
    dropped = dropped_indexes(requests)
    for name, its_requests in asked.items():
        inspect_table(Table(there, found, relations[name], dropped), its_requests, is_new=name in adopted)
    views = [request.arguments["file"] for request in requests if request.function == "replace_view"]
    for file in views:
        inspect_view(there, found, file)
    if any(name == "user_accounts" for name, _ in _adoptions(requests)):
        _inspect_accounts(there, found, demo=demo)
    for trigger in foreign_triggers(there.connection):
        if trigger.on_table.removeprefix("public.") in own:
            found.warn("trigger", trigger.name, f"{trigger}: {trigger.says}")
    inspect_grants(there, found, [*adopted, *(view_in(file)[0] for file in views)])
    inspect_work_beside(there, found, requests)
    inspect_locks(there, found, requests, adopted)


def _adoptions(requests: Iterable[Request]) -> Iterator[tuple[str, str]]:
    """The tables that revisions take over where people made them, and the comments that ours have."""
    for request in requests:
        if request.function == "begin_adoption":
            yield request.arguments["table"], request.arguments["comment"]


def _inspect_accounts(there: Snapshot, found: Inspection, *, demo: bool) -> None:
    row = there.relations.get("user_accounts")
    if row is not None and not any(index["unique_on"] == "user_id" for index in row.indexes.values()):
        found.stop("key", "user_accounts", "public.user_accounts has no primary key: ADD PRIMARY KEY (user_id)")
    if not demo or (row is not None and not row.may_read):
        return
    names = [str(account["user_id"]) for account in DEMO_ACCOUNTS]
    is_there: set[str] = set()
    if row is not None and "user_id" in row.columns:
        sql = text("SELECT user_id::text FROM user_accounts WHERE user_id::text = ANY (:names)")
        is_there = set(there.connection.scalars(sql, {"names": names}))
    if new := [name for name in names if name not in is_there]:
        found.do("demo", "accounts", f"add the demo accounts {', '.join(new)}: -x demo=no leaves them out", len(new))
    else:
        found.leave("demo accounts", ", ".join(names))


def _inspect_others(connection: Connection, found: Inspection, facts: Row[Any], names: set[str]) -> None:
    """Tell what else is in schema public; a downgrade may have put the log of an adoption there."""
    if facts.comment_of_old_log == adoption_log.comment:
        found.do("log", "public.adoption_log", "move public.adoption_log back to schema oblivion, with its rows")
        names = {*names, adoption_log.name}
    for other in snapshot.rows(connection, "others", names=sorted(names)):
        found.leave(other.kind, other.name)
