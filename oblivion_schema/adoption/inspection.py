"""`oblivion-schema inspect`: what an upgrade would do to a database, said before anything is changed.

The revisions themselves are asked: what they want is heard rather than done (`operations.requests_of()`), and compared
with what is there, in one read-only transaction that locks nothing but what a reader locks. Findings have the kinds and
names that the upgrade then notes in `oblivion.adoption_log`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alembic.script.revision import RevisionError
from sqlalchemy import bindparam, func, select, text, true
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.log import noted
from oblivion_schema.adoption.preparation import DROPS_INDEX
from oblivion_schema.adoption.report import Finding, Inspection
from oblivion_schema.declare.access import REALTIME
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.declare.sql import quoted
from oblivion_schema.errors import held_relations, primary_message
from oblivion_schema.operations import requests_of, unindented
from oblivion_schema.operations.adoption import others_on, view_in
from oblivion_schema.tables.accounts import DEMO_ACCOUNTS
from oblivion_schema.tables.adoption_log import adoption_log
from oblivion_schema.tables.base import PRIVATE_SCHEMA, metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Connection, Row, TextClause

    from oblivion_schema.operations import Request

SECONDS_PER_MILLION_ROWS: Final = 0.1
"""What SET NOT NULL, which scans a table once, takes for a million rows of usage (benchmarks/adoption.py)."""
SECONDS_PER_MILLION_ROWS_OF_INDEX: Final = 1.0
"""What an index of two or three columns takes for them."""
SECONDS_PER_MILLION_ACCOUNTS: Final = 3.3
"""What the opening rows of the ledger take for a million accounts, and `prepare` cannot do before."""
SECONDS_PER_MILLION_ROWS_SUMMED: Final = 1.0
"""What the roll-ups of a million rows of usage, or of calls, take, and `prepare` cannot do before either."""
_LONG_SECONDS: Final = 0.5


# Not to_regprocedure(): up to 16 it fails where the type of an argument does not exist.
_HAS_FUNCTION: Final = text(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = to_regnamespace(:schema) AND proname = :name"
    " AND replace(oidvectortypes(proargtypes), ', ', ',') = :arguments)"
)


def _named(signature: str) -> dict[str, str]:
    schema, name, arguments = re.fullmatch(r"(\w+)\.(\w+)\((.*)\)", signature).groups()  # type: ignore[union-attr]
    return {"schema": schema, "name": name, "arguments": arguments.replace(", ", ",")}


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
    return _Inspector(connection, demo=demo).inspect(revisions)


class _Inspector:
    """One inspection: the facts, and what was found so far."""

    def __init__(self, connection: Connection, *, demo: bool) -> None:
        self.connection = connection
        self.demo = demo
        self.facts = connection.execute(text(_FACTS), {"roles": list(API_ROLES)}).one()
        self.found = Inspection("")
        self.relations: dict[str, Row[Any]] = {}
        self.adopted: set[str] = set()
        self.blocked: set[str] = set()
        self.dropped: dict[str, set[str]] = {}
        self.seconds = 0.0
        self.unprepared_seconds = 0.0
        self.has_old_log = False

    def inspect(self, revisions: ScriptDirectory) -> Inspection:
        versions = self._versions()
        if versions is None:
            return self.found
        pending = self._pending(revisions, versions)
        if pending is None:
            return self.found
        self.found.pending = tuple(f"{script.revision} ({script.doc.rstrip('.')})" for script in pending)
        requests = requests_of(pending)
        ours = {table.name for table in metadata.tables.values() if not table.schema}
        names = sorted({adoption_log.name, *_locked(requests), *ours})
        rows = self.connection.execute(_relations(), {"names": names})
        self.relations = {row.name: row for row in rows}
        self._put_aside(self.relations.pop(adoption_log.name, None))
        self.found.state = self._state(versions)
        if pending:
            self._check_rights()
            self._roles()
        for request in requests:
            self._consider(request)
        if pending:
            self._accounts(requests)
            self._made(requests)
            self._ledger(requests)
            self._rollups(requests)
            self._grants(requests)
            self._whole_public(names)
            self._locks(_locked(requests))
        self.found.put_in_order()
        return self.found

    def _put_aside(self, log: Row[Any] | None) -> None:
        """The log of an adoption that was taken back, which went to schema public with the rows in it."""
        if log is not None and log.comment == adoption_log.comment:
            self.has_old_log = True
            says = "take back public.adoption_log, with the rows that were moved there before"
            self._will("log", "public.adoption_log", says)
        elif log is not None:
            self.found.stays.append(Finding("table", "public.adoption_log"))

    # Which state.

    def _versions(self) -> list[str] | None:
        if not self.facts.has_version_table:
            return []
        if not self.facts.may_read_version:
            self.found.state = "ours, at a revision that this role may not see"
            self._stop("role", "role", f"this role may not read {PRIVATE_SCHEMA}.alembic_version: be its owner")
            return None
        return list(self.connection.scalars(text(f"SELECT version_num FROM {PRIVATE_SCHEMA}.alembic_version")))

    def _pending(self, revisions: ScriptDirectory, versions: Sequence[str]) -> list[Script] | None:
        try:
            scripts = list(revisions.iterate_revisions("heads", tuple(versions) or "base"))
        except RevisionError:
            self.found.state = f"at revision {', '.join(versions)}, which this version of oblivion_schema does not have"
            self._stop(
                "revision", "revision", "install the version that the database was upgraded with, or a newer one"
            )
            return None
        return scripts[::-1]

    def _state(self, versions: Sequence[str]) -> str:
        if versions:
            return f"ours, at revision {', '.join(versions)}"
        there = {name: row for name, row in self.relations.items() if not row.is_view}
        if not self.relations:
            return "empty of what is ours"
        if all(row.comment == metadata.tables[name].comment for name, row in there.items() if name in metadata.tables):
            return f"tables of ours without {PRIVATE_SCHEMA}.alembic_version: a copy of schema public alone"
        return f"made by hand: {', '.join(self._scripts(there)) or 'by none of the known scripts'}"

    @staticmethod
    def _scripts(there: Mapping[str, Row[Any]]) -> Iterator[str]:
        if "call_sessions" in there:
            yield "calls"
        if presence := there.get("user_presence"):
            first = "host_id" not in presence.columns
            safe = "room_token" in presence.columns
            yield f"presence ({'first' if first else 'fixed'}{' and safe' * safe} script{'s' * safe})"
        if billing := [name for name in ("user_accounts", "token_usage") if name in there]:
            half = "" if len(billing) > 1 else f" ({billing[0]} alone)"
            trigger = "user_accounts" in there and "update_user_accounts_updated_at" in there["user_accounts"].triggers
            yield f"billing{half} {'with' if trigger else 'without'} its trigger"

    # What a request comes to.

    def _consider(self, request: Request) -> None:
        arguments = request.arguments
        table = str(arguments.get("table", ""))
        match request.function:
            case "begin_adoption":
                self._adopt(table, arguments["comment"], arguments["columns"])
            case "fill_nulls" if table in self.relations:
                self._fill(table, arguments["columns"])
            case "add_rule" if table in self.relations:
                self._rule(table, arguments["name"], arguments["rule"])
            case "drop_policy_as_made" if table in self.relations:
                made = "r true" if arguments.get("reads_only") else "* true true"
                policy = self.relations[table].policies.get(arguments["name"])
                if policy and policy["as_made"] == made:
                    self._drop(table, "policy", arguments["name"], quoted(arguments["name"]))
            case "drop_index_as_made" | "drop_index_unless" if table in self.relations:
                self._drop_index(request)
            case "replace_view":
                name, query = view_in(arguments["file"])
                if name in self.relations:
                    self._replace_view(name, query)
            case "note_others" if table in self.adopted and table not in self.blocked:
                self._others(table, arguments["columns"], arguments["ours"])

    def _adopt(self, table: str, comment: str, columns: Mapping[str, str]) -> None:
        row = self.relations.get(table)
        if row is None or row.comment == comment:
            return
        there = {name: column["type"] for name, column in row.columns.items()}
        if table == "user_presence":
            self._presence_columns(row, there)
        wrong = [] if row.is_ordinary else ["it is no ordinary table"]
        if not row.is_ours and row.is_ordinary:
            wrong.append(f"it belongs to {row.owner}, who has to run this")
        lacks = sorted(columns.keys() - there.keys())
        wrong += [f"it lacks {', '.join(lacks)}"] * bool(lacks)
        wrong += [
            f"its {name} is {there[name]}, not {kind}"
            for name, kind in sorted(columns.items())
            if name in there and there[name] != kind
        ]
        self.adopted.add(table)
        name = f"public.{table}"
        if wrong:
            self.blocked.add(table)
            self._stop("table", name, f"{name} cannot be taken over: {', '.join(wrong)}")
            return
        self._will("table", name, name)
        if row.forced:
            self._will("forced", name, f"let the owner of {name} past row level security again, as it is not by FORCE")
        if not row.may_read:
            self._warn("rows", name, f"this role may not read {name}, the rows of which are not counted")
        elif row.sees_some_rows:
            self._warn("rows", name, f"row level security may hide rows of {name}, which are not counted then")
        if table == "user_presence":
            self._presence_rows(row)

    def _presence_columns(self, row: Row[Any], there: dict[str, str]) -> None:
        if "user_id" in there and "host_id" not in there:
            there["host_id"] = there.pop("user_id")
            self._will("renamed", "public.user_presence.host_id", "rename public.user_presence.user_id to host_id")
            self.dropped.setdefault("user_presence", set()).add("column public.user_presence.user_id")
        if "room_token" not in there:
            there |= {"room_token": "text"}
            self._will("added", "public.user_presence.room_token", "add the column public.user_presence.room_token")
        if "idx_user_presence_host_unique" in row.constraints:
            # It is made again, as an index.
            self._drop(row.name, "unique constraint", "idx_user_presence_host_unique")

    def _presence_rows(self, row: Row[Any]) -> None:
        """The rows of hosts that have a newer one."""
        is_index = "idx_user_presence_host_unique" in row.indexes
        if not row.may_read or (is_index and "idx_user_presence_host_unique" not in row.constraints):
            return
        hosts = self._query(
            f"SELECT {_host(row)} AS host, count(*) - 1 AS moved FROM user_presence"
            " GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 DESC, 1"
        )
        if not hosts:
            return
        if row.is_referred_to:
            self._stop(
                "row",
                "public.user_presence",
                "public.user_presence has hosts with several rows, and another table refers to them:"
                " leave one row for each host",
            )
            return
        moved = sum(host.moved for host in hosts)
        named = ", ".join(f"{host.host} {host.moved}" for host in hosts[:_SHOWN])
        rest = f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
        says = f"move {_rows(moved)} of public.user_presence to oblivion.adoption_log, for the host has a newer one:"
        self._will("row", "public.user_presence", f"{says} {named}{rest}", moved)

    def _fill(self, table: str, columns: Mapping[str, str]) -> None:
        row = self.relations[table]
        if table in self.blocked or not row.may_read:
            return
        nullable = [name for name in columns if row.columns.get(name, {}).get("nullable")]
        if not nullable or row.constraints.get(f"{table}_prepared_check", {}).get("valid"):
            return
        self.seconds += row.rows / 1e6 * SECONDS_PER_MILLION_ROWS
        counts = ", ".join(f"count(*) FILTER (WHERE {quoted(name)} IS NULL)" for name in nullable)
        any_null = " OR ".join(f"{quoted(name)} IS NULL" for name in nullable)
        source = quoted("public", table)
        if table == "user_presence":
            source = _presence(row, newest_only=self._is_moved())
        by_column: list[int]
        for rows, *by_column in self._query(f"SELECT count(*) FILTER (WHERE {any_null}), {counts} FROM {source} AS t"):
            named = ", ".join(f"{name} {count}" for name, count in zip(nullable, by_column, strict=True) if count)
            if rows:
                self.seconds += row.rows / 1e6 * SECONDS_PER_MILLION_ROWS  # which finds them
                self._will("filled", f"public.{table}", f"fill NULLs in {_rows(rows)} of public.{table}: {named}", rows)

                self._check_fill(row, source, any_null)

    def _check_fill(self, row: Row[Any], source: str, any_null: str) -> None:
        """Whether rows that are filled break a check that is NOT VALID, which looks at them then."""
        for name, constraint in row.constraints.items():
            if constraint["kind"] == "c" and not constraint["valid"]:
                broken = f"({any_null}) AND NOT ({constraint['expression']})"
                for (count,) in self._query(f"SELECT count(*) FROM {source} AS t WHERE {broken}"):
                    if count:
                        says = f"{_rows(count)} of public.{row.name} with a NULL, which is filled, would break {name}"
                        self._stop("check", name, f"{says}, NOT VALID so far: mend them, or drop it")

    def _is_moved(self) -> bool:
        return any(finding.kind == "row" for finding in self.found.will)

    def _rule(self, table: str, name: str, rule: str) -> None:
        row = self.relations[table]
        there = row.constraints.get(name)
        if table in self.blocked:
            return
        if there and there["valid"]:
            if there["kind"] == "c" and row.may_read and not self._is_same(table, there["expression"], rule):
                self._warn("rule", name, f"{name} on public.{table} is not as ours, and stays so: alembic check tells")
            return
        if not row.may_read:
            return
        condition = _broken(rule, self.relations)
        self.seconds += row.rows / 1e6 * SECONDS_PER_MILLION_ROWS
        for (count,) in self._query(f"SELECT count(*) FROM {quoted('public', table)} AS t WHERE {condition}"):
            self._add_rule(table, name, count)

    def _add_rule(self, table: str, name: str, count: int) -> None:
        if count:
            breaks = "breaks" if count == 1 else "break"
            says = f"hold {name} on public.{table} for new rows alone (NOT VALID): {_rows(count)} {breaks} it"
            self._will("not valid", f"{name} on public.{table}", says, count)
        else:
            self._will("added rule", f"{name} on public.{table}", f"add {name} on public.{table}")

    def _is_same(self, table: str, expression: str, rule: str) -> bool:
        """Whether PostgreSQL reads both conditions alike."""
        ours = rule.removeprefix("CHECK ")
        plans = [
            self._query(f"EXPLAIN (VERBOSE, COSTS OFF) SELECT {condition} FROM {quoted('public', table)}")
            for condition in (f"({expression})", ours)
        ]
        return plans[0] == plans[1]

    def _drop(self, table: str, kind: str, name: str, says: str = "") -> None:
        self.dropped.setdefault(table, set()).add(f"{kind} {name}")
        if kind in {"policy", "index"}:
            self._will(f"drop {kind}", name, says or name)

    def _drop_index(self, request: Request) -> None:
        table, name = str(request.arguments["table"]), str(request.arguments["name"])
        index = self.relations[table].indexes.get(name)
        if index is None:
            return
        if request.function == "drop_index_as_made":
            columns = re.escape(request.arguments["columns"])
            goes = re.fullmatch(rf"CREATE INDEX .* USING btree \({columns}\)", index["definition"]) is not None
        else:
            definition = re.escape(request.arguments.get("definition", "%")).replace("%", ".*")
            goes = not index["valid"] or re.fullmatch(definition, index["definition"]) is None
        if goes:
            self._drop(table, "index", name)

    def _replace_view(self, name: str, query: str) -> None:
        row = self.relations[name]
        on = f"public.{name}"
        if not row.is_view:
            self._stop("view", on, f"{on} is no view, and ours has that name: rename it")
        elif not row.may_alter:
            self._stop("view", on, f"view {on} belongs to {row.owner}, who has to run this")
        else:
            if self._has_other_columns(row, query):
                if row.readers:
                    self._stop(
                        "view",
                        on,
                        f"view {on} has columns of other types than ours, and {', '.join(row.readers)} reads it:"
                        " drop that, and make it again after the upgrade",
                    )
                    return
                self._will("remade", on, f"drop {on}, which has columns of other types than ours, and make it again")
            else:
                self._will("replace view", on, on)
            if not row.is_invoker:
                for role, lacks in sorted(row.readers_without_rights.items()):
                    self._warn(
                        "reader",
                        f"{role} {on}",
                        f"{role} may read {on}, which then reads with its reader's rights: to go on,"
                        f" GRANT SELECT ON {', '.join(lacks)} TO {role}",
                    )

    def _has_other_columns(self, row: Row[Any], query: str) -> bool:
        tables = set(re.findall(r"\bpublic\.(\w+)", query))
        if tables & self.blocked or not all(
            name in self.relations and self.relations[name].may_read for name in tables
        ):
            return False
        result = self.connection.exec_driver_sql(
            f"SELECT * FROM ({unindented(query)}) AS ours LIMIT 0",
            execution_options={"no_parameters": True},
        )
        ours = [(column[0], column[1]) for column in result.cursor.description] if result.cursor else []
        theirs = sorted(row.columns.items(), key=lambda item: int(item[1]["place"]))
        return [(name, column["type_oid"]) for name, column in theirs] != ours[: len(theirs)]

    def _others(self, table: str, columns: Sequence[str], ours: Sequence[str]) -> None:
        noted_before = {(entry.kind, entry.name) for entry in noted(self.connection)}
        dropped = self.dropped.get(table, set())
        gone = {f"{table}_prepared_check"} | {thing.partition(" ")[2] for thing in dropped}
        found = self.connection.exec_driver_sql(
            f"{others_on(table, columns, ours)} ORDER BY 1, 2", execution_options={"no_parameters": True}
        )
        for kind, name, _ in found:
            # Ours is what the name says before the table's.
            own = name.removesuffix(f" on public.{table}")
            plain = own.removeprefix("public.") if kind == "index" else own
            if _unquoted(plain) not in gone and f"{kind} {name}" not in dropped and (kind, name) not in noted_before:
                self.found.stays.append(Finding(kind, name))
        for name, policy in self.relations[table].policies.items():
            if policy["permissive"] and name not in ours and f"policy {name}" not in dropped:
                self._warn(
                    "policy",
                    name,
                    f"policy {quoted(name)} on public.{table} is permissive: it lets through what ours refuse in the"
                    " authenticated mode",
                )

    # The database as a whole.

    def _check_rights(self) -> None:
        facts = self.facts
        if not facts.has_schema and not facts.may_create_schema:
            self._stop(
                "role", "database", "this role may not make schemas: let the database's owner GRANT CREATE ON DATABASE"
            )
        if facts.has_schema and not facts.owns_schema:
            self._stop(
                "role", "schema", f"schema {PRIVATE_SCHEMA} belongs to {facts.schema_owner}, who has to run this"
            )
        if not facts.may_create_in_public:
            self._stop("role", "public", "this role may not make objects in schema public: let its owner GRANT CREATE")
        if facts.is_read_only:
            self._stop("role", "read-only", "the server, or this role, is read-only: name the primary server")
        for row in self._query(_OTHER_FUNCTIONS):
            self._stop("function", row.name, f"function {row.name} {row.wrong}")

    def _roles(self) -> None:
        missing = [role for role in API_ROLES if role not in self.facts.api_roles]
        if missing and self.facts.may_create_roles:
            for role in missing:
                self._will("make role", role, role)
        elif missing:
            self._warn(
                "roles",
                "roles",
                f"there is no role {', '.join(missing)}, which this role may not make: it is granted nothing",
            )
        if self.relations:
            says = f"give {', '.join(API_ROLES)} what the access mode gives them on all of these, and take the rest"
            self._will("grants", "API roles", says)

    def _accounts(self, requests: Sequence[Request]) -> None:
        if not any(request.arguments.get("table") == "user_accounts" for request in requests):
            return
        row = self.relations.get("user_accounts")
        if row is not None:
            if not any(index["unique_on"] == "user_id" for index in row.indexes.values()):
                self._stop("key", "user_accounts", "public.user_accounts has no primary key: ADD PRIMARY KEY (user_id)")
            if not row.may_read:
                return
        if not self.demo:
            return
        names = [str(account["user_id"]) for account in DEMO_ACCOUNTS]
        there: set[str] = set()
        if row is not None and "user_id" in row.columns:
            sql = text("SELECT user_id::text FROM user_accounts WHERE user_id::text = ANY (:names)")
            there = set(self.connection.scalars(sql, {"names": names}))
        if new := [name for name in names if name not in there]:
            has = f", beside {', '.join(sorted(there))}, which are there" if there else ""
            self._will(
                "demo", "accounts", f"open the demo accounts {', '.join(new)}{has}; not with -x demo=no", len(new)
            )
        elif row is not None:
            self.found.stays.append(Finding("demo accounts", ", ".join(names)))

    def _made(self, requests: Iterable[Request]) -> None:
        """What is created, on tables that are there and beside them."""
        statements = [unindented(request.arguments["sql"]) for request in requests if request.function == "run_sql"]
        functions = {str(name) for (name,) in self._query(_FUNCTIONS)}
        gone = {dropped[1] for sql in statements if (dropped := DROPS_INDEX.match(sql))}
        for name in sorted(gone & {index for row in self.relations.values() for index in row.indexes}):
            self._will("drop index", name, name)
        for sql in statements:
            if (made := _CREATE.search(sql)) and made["name"] not in gone:
                self._made_by(made, sql, functions)
                self._in_the_way(made, statements)
            if parameter := _SETS_FILLFACTOR.match(sql):
                self._fillfactor(parameter["table"], parameter["value"])
            if defaults := _SETS_DEFAULTS.match(sql):
                self._defaults(defaults[1], sql)
        for request in requests:
            if request.function == "join_realtime" and REALTIME in self.facts.publications:
                table = request.arguments["table"]
                if table not in self.relations or REALTIME not in self.relations[table].publications:
                    self._will("publish", f"public.{table}", f"public.{table}")
            if request.function == "replace_view" and request.arguments["name"] not in self.relations:
                self._will("make view", f"public.{request.arguments['name']}", f"public.{request.arguments['name']}")

    def _made_by(self, made: re.Match[str], sql: str, functions: set[str]) -> None:
        kind, name, table = made["kind"].lower(), made["name"].removeprefix("public."), made["table"]
        row = self.relations.get(table or "")
        match kind:
            case "table" if name not in self.relations and not (self.has_old_log and name == str(adoption_log)):
                self._will("make table", made["name"], made["name"])
            case "view" if not made["again"]:
                self._will("make view", made["name"], made["name"])
            case "function" if made["name"] not in functions or _is_made_once(made):
                self._will("make function", made["name"], made["name"])
            case "function":
                self._will("replace function", made["name"], made["name"])
            case "index" if row is not None:
                index = row.indexes.get(name)
                if index is None or name in row.constraints:
                    self._will("make index", name, name)
                    whole = SECONDS_PER_MILLION_ROWS_OF_INDEX if " WHERE " not in sql else SECONDS_PER_MILLION_ROWS
                    self.seconds += row.rows / 1e6 * whole
                elif not index["valid"] or _plain(index["definition"]) != _plain(sql):
                    self._warn("index", name, f"index {name} is not as ours, and stays so: alembic check tells")
            case "trigger" if row is not None and name not in row.triggers:
                self._will("make trigger", f"{name} on public.{table}", name)
            case "policy" if row is not None and name not in row.policies:
                self._will("make policy", f"{name} on public.{table}", f"public.{table}")

    def _in_the_way(self, made: re.Match[str], statements: Sequence[str]) -> None:
        """What has the name of something that a later revision makes, which takes nothing over."""
        if not _is_made_once(made):
            return
        kind, name, table = made["kind"].lower(), made["name"].removeprefix("public."), made["table"]
        if kind == "table" and name in self.relations:
            self._stop("table", made["name"], f"{made['name']} is there already, and ours has that name: rename it")
        elif kind == "trigger" and table in self.relations and name in self.relations[table].triggers:
            on = f"{name} on public.{table}"
            self._stop("trigger", on, f"trigger {on} is there already, and ours has that name: rename it")
        elif kind == "function":
            says = re.compile(rf"COMMENT ON FUNCTION ({re.escape(made['name'])}\(.*?\)) IS ")
            for signature in [found[1] for sql in statements if (found := says.match(sql))]:
                if self.connection.scalar(_HAS_FUNCTION, _named(signature)):
                    self._stop(
                        "function",
                        signature,
                        f"function {signature} is there already, and ours has that name: rename it",
                    )

    def _fillfactor(self, table: str, new: str) -> None:
        row = self.relations.get(table)
        if row is not None and table not in self.blocked and row.fillfactor != new:
            on = f"public.{table}"
            self._will("fillfactor", on, f"set the fillfactor of {on} to {new}, from {row.fillfactor or 'none'}")

    def _ledger(self, requests: Iterable[Request]) -> None:
        """The rows of accounts with which the ledger begins."""
        if not _runs(requests, _OPENS_LEDGER):
            return
        accounts = sum(finding.rows for finding in self.found.will if finding.kind == "demo")
        row = self.relations.get("user_accounts")
        if row is not None and row.may_read:
            accounts += sum(count for (count,) in self._query("SELECT count(*) FROM user_accounts"))
            self.unprepared_seconds += row.rows / 1e6 * SECONDS_PER_MILLION_ACCOUNTS
        if accounts:
            says = f"open public.token_ledger with the balances of {accounts} account{'s' * (accounts != 1)}"
            self._will("ledger", "public.token_ledger", says, accounts)

    def _rollups(self, requests: Iterable[Request]) -> None:
        """The sums with which the roll-ups begin."""
        if not _runs(requests, _FILLS_ROLLUPS):
            return
        counted = []
        for name in ("token_usage", "call_sessions"):
            row = self.relations.get(name)
            if row is not None and row.may_read:
                count = sum(count for (count,) in self._query(f"SELECT count(*) FROM {name}"))
                self.unprepared_seconds += count / 1e6 * SECONDS_PER_MILLION_ROWS_SUMMED
                counted += [(count, f"{_rows(count)} of public.{name}")] if count else []
        if counted:
            says = f"sum {' and '.join(says for _, says in counted)} in roll-ups"
            self._will("rollups", "oblivion", says, sum(count for count, _ in counted))

    def _defaults(self, table: str, sql: str) -> None:
        row = self.relations.get(table)
        for column, new in _DEFAULT.findall(sql) if row is not None and table not in self.blocked else ():
            is_there = row is not None and row.columns.get(column)
            old = is_there["default"] if is_there else None
            if is_there and re.sub(r"'?::\w+.*$", "", old or "NULL").strip("'") != new.strip("'"):
                self._will(
                    "default",
                    f"public.{table}.{column}",
                    f"set the default of public.{table}.{column} to {new}, from {old or 'none'}",
                )

    def _grants(self, requests: Iterable[Request]) -> None:
        touched = {str(request.arguments.get("table") or request.arguments.get("name")) for request in requests}
        for name, row in self.relations.items():
            if name in touched and row.given_to_public:
                self._warn(
                    "grant",
                    name,
                    f"PUBLIC has {', '.join(row.given_to_public)} on public.{name}, and will not: GRANT it to the"
                    " roles that need it",
                )

    def _whole_public(self, names: Sequence[str]) -> None:
        for kind, name in self.connection.execute(_others_in_public(), {"names": names}):
            self.found.stays.append(Finding(kind, name))

    def _locks(self, relations: Sequence[str]) -> None:
        there = [name for name in relations if name in self.relations]
        for relation, holders in held_relations(self.connection):
            if relation.removeprefix("public.") in there:
                self._warn(
                    "lock",
                    relation,
                    f"{relation} is held by {holders}: the upgrade waits for that, up to its lock timeout",
                )
        seconds = self.seconds + self.unprepared_seconds
        locked = f"all of these tables will be locked for about {seconds:.1f} s"
        if self.seconds >= _LONG_SECONDS:
            less = (
                f"less by about {self.seconds:.1f} s"
                if self.unprepared_seconds >= _LONG_SECONDS
                else "a fraction of that"
            )
            self._warn(
                "time", "lock", f"{locked}: run oblivion-schema prepare first, while clients go on, and it is {less}"
            )
        elif seconds >= _LONG_SECONDS:
            self._warn("time", "lock", f"{locked}, in which the ledger is opened and roll-ups are filled")

    # Notes.

    def _query(self, sql: str) -> list[Row[Any]]:
        """The rows; none, and a warning, where the role may not read them."""
        try:
            with self.connection.begin_nested():
                result = self.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
                return list(result.all())
        except DBAPIError as error:
            self._warn("rows", sql, f"not counted: {primary_message(error)}")
            return []

    def _will(self, kind: str, name: str, says: str, rows: int = 0) -> None:
        self.found.will.append(Finding(kind, name, says, rows))

    def _warn(self, kind: str, name: str, says: str) -> None:
        self.found.warnings.append(Finding(kind, name, says))

    def _stop(self, kind: str, name: str, says: str) -> None:
        self.found.obstacles.append(Finding(kind, name, says))


_SHOWN: Final = 5


def _locked(requests: Iterable[Request]) -> list[str]:
    names = (
        name for request in requests if request.function == "lock_together" for name in request.arguments["relations"]
    )
    return list(dict.fromkeys(names))


def _runs(requests: Iterable[Request], statement: re.Pattern[str]) -> bool:
    return any(
        request.function == "run_sql" and statement.search(unindented(request.arguments["sql"])) for request in requests
    )


def _host(row: Row[Any]) -> str:
    """The host, as it is once the columns are taken over."""
    return f"coalesce({', '.join(name for name in ('host_id', 'user_id') if name in row.columns)})"


def _presence(row: Row[Any], *, newest_only: bool) -> str:
    """The rows of user_presence as they are once the columns are taken over, and the duplicates moved."""
    others = ", ".join(quoted(name) for name in row.columns if name != "host_id")
    host = _host(row)
    first = f"DISTINCT ON ({host}) " if newest_only else ""
    order = f" ORDER BY {host}, updated_at DESC NULLS LAST, id" if newest_only else ""
    return f"(SELECT {first}{others}, {host} AS host_id FROM public.user_presence{order})"


def _broken(rule: str, relations: Mapping[str, Row[Any]]) -> str:
    """The condition of the rows of `t` that break a rule."""
    key = re.fullmatch(r"FOREIGN KEY \((\w+)\) REFERENCES public\.(\w+) \((\w+)\).*", rule)
    if key is None:
        return f"NOT ({rule.removeprefix('CHECK ')})"
    own, table, other = key.groups()
    if table not in relations:
        return f"t.{own} IS NOT NULL"
    return f"t.{own} IS NOT NULL AND NOT EXISTS (SELECT FROM public.{table} AS other WHERE other.{other} = t.{own})"


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _plain(index: str) -> str:
    """The definition of an index without what is written in either way."""
    index = re.sub(r"IF NOT EXISTS |CONCURRENTLY |USING btree ", "", " ".join(index.split()))
    return re.sub(r" WHERE \((.*)\)$", r" WHERE \1", index)


def _is_made_once(made: re.Match[str]) -> bool:
    """Whether it is made where it must not be there: by a statement that decides nothing itself."""
    return made.start() == 0 and not made["again"] and not made["if_not_there"]


_CREATE: Final = re.compile(
    r"CREATE (?P<again>OR REPLACE )?(?:UNIQUE )?(?P<kind>TABLE|INDEX|FUNCTION|TRIGGER|POLICY|VIEW)\s+"
    r"(?P<if_not_there>IF NOT EXISTS )?(?P<name>[\w.]+)"
    r"(?:\s+(?:(?:BEFORE|AFTER) [A-Z ]+?\s+)?ON public\.(?P<table>\w+))?"
)
_SETS_FILLFACTOR: Final = re.compile(r"ALTER TABLE public\.(?P<table>\w+) SET \(fillfactor = (?P<value>\d+)\)")
_OPENS_LEDGER: Final = re.compile(r"^INSERT INTO public\.token_ledger\b")
_FILLS_ROLLUPS: Final = re.compile(r"^INSERT INTO oblivion\.daily_calls\b")
_SETS_DEFAULTS: Final = re.compile(r"ALTER TABLE public\.(\w+)\s+ALTER \"?\w+\"? SET DEFAULT")
_DEFAULT: Final = re.compile(r"ALTER \"?(\w+)\"? SET DEFAULT (.+?)(?:,?\n|,?$)")


@cache
def _relations() -> TextClause:
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    return text(sql.replace("::", r"\:\:")).bindparams(bindparam("names"))


def _others_in_public() -> TextClause:
    return text(_OTHERS_IN_PUBLIC.replace("::", r"\:\:")).bindparams(bindparam("names"))


_FACTS: Final = """
SELECT
  s.oid IS NOT NULL AS has_schema,
  pg_get_userbyid(s.nspowner) AS schema_owner,
  pg_has_role(s.nspowner, 'USAGE') AS owns_schema,
  v.oid IS NOT NULL AS has_version_table,
  coalesce(has_schema_privilege(s.oid, 'USAGE') AND has_table_privilege(v.oid, 'SELECT'), false) AS may_read_version,
  has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
  has_schema_privilege('public', 'CREATE') AS may_create_in_public,
  (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) AS may_create_roles,
  pg_is_in_recovery() OR (
    SELECT reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'
  ) AS is_read_only,
  ARRAY(SELECT rolname FROM pg_roles WHERE rolname = ANY (CAST(:roles AS text[]))) AS api_roles,
  ARRAY(
    SELECT pubname FROM pg_publication WHERE NOT puballtables AND pg_has_role(pubowner, 'USAGE')
  ) AS publications
FROM (VALUES (1)) AS one
LEFT JOIN pg_namespace AS s ON s.nspname = 'oblivion'
LEFT JOIN pg_class AS v ON v.relnamespace = s.oid AND v.relname = 'alembic_version'
"""
_FUNCTIONS: Final = """
SELECT format('%s.%s', nspname, proname)
FROM pg_proc JOIN pg_namespace AS n ON n.oid = pronamespace
WHERE nspname IN ('public', 'oblivion')
"""
# Under the names of ours: those that may not be replaced.
_OTHER_FUNCTIONS: Final = """
SELECT
  oid::regprocedure::text AS name,
  CASE WHEN prorettype <> 'trigger'::regtype THEN 'is no trigger function, as ours of that name is: rename it'
    ELSE format('belongs to %s, who has to run this', proowner::regrole) END AS wrong
FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND pronargs = 0
  AND proname IN ('update_updated_at_column', 'update_user_presence_updated_at')
  AND (prorettype <> 'trigger'::regtype OR NOT pg_has_role(proowner, 'USAGE'))
"""
_OTHERS_IN_PUBLIC: Final = """
SELECT
  CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END,
  format('public.%I', relname)
FROM pg_class AS c
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
  AND relname <> ALL (CAST(:names AS text[]))
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
UNION ALL
SELECT 'grant', format('%s on public.%I to %s', string_agg(privilege_type, ', '), relname, grantee::regrole)
FROM pg_class, aclexplode(relacl)
WHERE relnamespace = 'public'::regnamespace AND relkind = 'v' AND relname = ANY (CAST(:names AS text[]))
  AND grantee NOT IN (0, relowner) AND grantee::regrole::text NOT IN ('anon', 'authenticated', 'service_role')
GROUP BY relname, grantee
UNION ALL
SELECT 'grant', format('%s (%I) on public.%I to %s', privilege_type, attname, relname, grantee::regrole)
FROM pg_class AS c
JOIN pg_attribute ON attrelid = c.oid
CROSS JOIN aclexplode(attacl)
WHERE relnamespace = 'public'::regnamespace AND relname = ANY (CAST(:names AS text[]))
  AND grantee NOT IN (0, relowner) AND grantee::regrole::text NOT IN ('anon', 'authenticated', 'service_role')
ORDER BY 1, 2
"""
