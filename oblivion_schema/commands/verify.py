"""`oblivion-schema verify`: a checklist of the objects that the metadata declares, and of the data's invariants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from alembic.script import ScriptDirectory
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.declare.access import is_guarded
from oblivion_schema.declare.ddl import declared, qualified
from oblivion_schema.declare.sql import quoted, unquoted
from oblivion_schema.deploy import upgrade as migrate
from oblivion_schema.drift.catalog import CONSTRAINTS, Catalog, read
from oblivion_schema.errors import primary_message
from oblivion_schema.tables.access import current_modes
from oblivion_schema.tables.accounts import DEMO_ACCOUNTS, user_accounts
from oblivion_schema.tables.base import metadata
from oblivion_schema.tables.calls import active_calls, call_sessions
from oblivion_schema.tables.ledger import balance_audit
from oblivion_schema.tables.metering import billing_incidents, call_meters
from oblivion_schema.tables.rates import RATES, token_rates
from oblivion_schema.tables.rollups import DRIFTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, MetaData, Table

_FIX: Final = "upgrade head where the revision is older, else put it back as oblivion-schema upgrade head --sql has it"


@dataclass(frozen=True)
class Check:
    """One line of the checklist; `problem` is empty if the check passed."""

    subject: str
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the check passed."""
        return not self.problem

    def __str__(self) -> str:
        return f"ok    {self.subject}" if self.passed else f"FAIL  {self.subject}: {self.problem}"


def verify(connection: Connection) -> Iterator[Check]:
    """Run all checks on the database of `connection`; the row that one of them inserts is rolled back."""
    with connection.begin_nested() as everything:
        connection.execute(text("SET LOCAL search_path = public"))
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        catalog = read(connection)
        not_valid = {f"{item.on_name}.{item.own_name}" for item in catalog.objects.values() if not item.is_valid}
        for check in _check_objects(set(_in_force(catalog))):
            yield _with_rows(connection, check, not_valid)
        yield _attempt(connection, "revision", _check_revision)
        yield _attempt(connection, "access", _check_access)
        yield _attempt(connection, "pages", _check_pages)
        yield _attempt(connection, "token rates", _check_rates)
        yield _attempt(connection, "demo accounts", _check_demo_accounts)
        yield _attempt(connection, "every balance is the sum of its ledger", _check_balances)
        yield _attempt(connection, "every call that has ended is billed", _check_bills)
        yield _attempt(connection, "every token that a call cost is in token_usage, or in its meter", _check_usage)
        yield _attempt(connection, "every sum in the roll-ups is that of its rows", _check_rollups)
        yield _attempt(connection, "a call can be inserted and is active (rolled back)", _check_insert)
        everything.rollback()


def _in_force(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Each object that exists and has effect, as (kind, name); an object of a table has the name `table.object`.

    Disabled triggers, and constraints and indexes that are not valid, have no effect.
    """
    items = catalog.objects.values()
    fires = {"ENABLE", "ENABLE ALWAYS"}
    off = {item.part_of for item in items if item.kind == "trigger state" and item.definition not in fires}
    for item in items:
        if not item.is_valid or item.address in off:
            continue
        kind = "constraint" if item.kind in CONSTRAINTS else item.kind
        own, on = (unquoted(name.removeprefix("public.")) for name in (item.own_name, item.on_name))
        match kind:
            case "function":
                yield kind, own.partition("(")[0]
            case "row level security":
                yield kind, on
            case "nullability":
                yield item.definition.lower(), f"{on}.{own}"
            case "view":
                yield kind, own
                if "security_invoker = true" in item.definition.partition("AS\n")[0]:
                    yield "security invoker", own
                for column in item.shape.removesuffix(",").split(", "):
                    yield "column", f"{own}.{unquoted(column.partition(' ')[0])}"
            case "index":
                # An index has the schema of its table, so only its own name is kept.
                yield kind, f"{on}.{own.rpartition('.')[2]}"
            case _:
                yield kind, f"{on}.{own}" if on else own


def _check_objects(found: set[tuple[str, str]]) -> Iterator[Check]:
    relations = sorted(metadata.tables.values(), key=lambda relation: (relation.is_view, relation.fullname))
    for relation in relations:
        yield _check_relation(relation, found)
    expected = [belonging for relation in relations for belonging in _belongings(relation)]
    owners: list[Table[Any] | MetaData] = [metadata, *relations]
    functions = (item for owner in owners for item in declared(owner) if item.kind == "function")
    expected += [(item.kind, item.name.removeprefix("public.")) for item in functions]
    off = {"constraint": " or not validated", "index": " or not valid", "trigger": " or disabled"}
    for kind, name in expected:
        problem = f"is missing{off.get(kind, '')}: {_FIX}"
        yield Check(f"{kind} {name}", "" if (kind, name) in found else problem)
    for relation in relations:
        if is_guarded(relation):
            guarded = ("row level security", relation.fullname) in found
            yield Check(f"row level security of {relation.fullname}", "" if guarded else f"is off: {_FIX}")


def _with_rows(connection: Connection, check: Check, not_valid: set[str]) -> Check:
    """The check; for a constraint that is NOT VALID, with the rows that break it."""
    kind, _, name = check.subject.partition(" ")
    table, _, constraint = name.partition(".")
    if kind != "constraint" or check.passed or f"public.{name}" not in not_valid:
        return check
    relation = metadata.tables[table]
    condition = connection.scalar(text(_BREAKS), {"table": f"public.{table}", "constraint": constraint})
    key = ", ".join(quoted(column.name) for column in relation.primary_key)
    rows = f"FROM {qualified(relation)} AS t WHERE {condition}"
    # The condition comes from PostgreSQL's catalogs, so it needs no escapes.
    count = connection.exec_driver_sql(f"SELECT count(*) {rows}", execution_options={"no_parameters": True}).scalar()
    first = connection.exec_driver_sql(
        f"SELECT ({key})::text {rows} ORDER BY {key} LIMIT {_SHOWN}", execution_options={"no_parameters": True}
    ).scalars()
    validate = f"ALTER TABLE public.{table} VALIDATE CONSTRAINT {constraint}"
    if not count:
        return Check(check.subject, f"is NOT VALID, but no row breaks it any more: {validate}")
    named = ", ".join(map(str, first)) + (", ..." if count > _SHOWN else "")
    names = ", ".join(column.name for column in relation.primary_key)
    return Check(check.subject, f"{count} old rows break it ({names} {named}): correct them, then {validate}")


_SHOWN: Final = 5


def _more(count: int) -> str:
    """How many of `count` are left when the first are shown."""
    return f" and {count - _SHOWN} more" if count > _SHOWN else ""


_BREAKS: Final = """
SELECT CASE contype
  WHEN 'c' THEN format('NOT (%s)', pg_get_expr(conbin, conrelid))
  ELSE (
    SELECT format(
      't.%1$I IS NOT NULL AND NOT EXISTS (SELECT FROM %2$s AS other WHERE other.%3$I = t.%1$I)',
      own.attname, confrelid::regclass, other.attname
    )
    FROM pg_attribute AS own, pg_attribute AS other
    WHERE own.attrelid = conrelid AND own.attnum = conkey[1]
      AND other.attrelid = confrelid AND other.attnum = confkey[1]
  )
END
FROM pg_constraint
WHERE conrelid = CAST(:table AS regclass) AND conname = :constraint
"""


def _belongings(relation: Table[Any]) -> Iterator[tuple[str, str]]:
    """The constraints, indexes, policies and triggers that the metadata declares on a table, as (kind, name)."""
    on = relation.fullname
    if not relation.is_view:
        # A table without a primary key has one without columns in SQLAlchemy.
        there = (c for c in relation.constraints if c is not relation.primary_key or len(relation.primary_key))
        yield from (("constraint", f"{on}.{constraint.name}") for constraint in there)
    yield from (("index", f"{on}.{index.name}") for index in relation.indexes)
    for item in declared(relation):
        if item.kind in {"index", "policy", "trigger"}:
            yield item.kind, f"{on}.{item.name.rpartition('.')[2]}"


def _check_relation(relation: Table[Any], found: set[tuple[str, str]]) -> Check:
    kind = "view" if relation.is_view else "table"
    subject = f"{kind} {relation.fullname}, {len(relation.columns)} columns"
    if (kind, relation.fullname) not in found:
        return Check(subject, f"is missing: {_FIX}")
    missing = [c.name for c in relation.columns if ("column", f"{relation.fullname}.{c.name}") not in found]
    if missing:
        return Check(subject, f"lacks {', '.join(missing)}: {_FIX}")
    if not relation.is_view:
        nullable = [
            c.name
            for c in relation.columns
            if not c.nullable and ("not null", f"{relation.fullname}.{c.name}") not in found
        ]
        return Check(subject, f"takes NULL in {', '.join(nullable)}: {_FIX}" if nullable else "")
    if ("security invoker", relation.fullname) not in found:
        return Check(subject, f"reads with its owner's rights, past row level security: {_FIX}")
    return Check(subject)


def _attempt(connection: Connection, subject: str, check: Callable[[Connection, str], Check]) -> Check:
    try:
        with connection.begin_nested() as savepoint:
            result = check(connection, subject)
            savepoint.rollback()
    except DBAPIError as error:
        return Check(subject, primary_message(error))
    return result


def _check_revision(connection: Connection, subject: str) -> Check:
    head = ScriptDirectory.from_config(migrate.config()).get_current_head()
    found = connection.scalar(text("SELECT string_agg(version_num, ', ') FROM oblivion.alembic_version"))
    return Check(f"{subject} {head}", "" if found == head else f"the database is at {found or 'none'}: {_FIX}")


def _check_access(connection: Connection, subject: str) -> Check:
    connection.execute(text("SELECT oblivion.open_access()"))  # fails where the database has no mode
    says = {"open": "everybody may read and write", "authenticated": "signed-in users reach their own rows"}
    mode = current_modes(connection).access
    return Check(f"{subject} {mode}: {says[mode]}")


def _check_pages(connection: Connection, subject: str) -> Check:
    connection.execute(text("SELECT oblivion.page_billing()"))
    says = {"trusted": "they bill their calls by themselves", "metered": "the database bills their calls"}
    mode = current_modes(connection).pages
    return Check(f"{subject} {mode}: {says[mode]}")


def _check_rates(connection: Connection, subject: str) -> Check:
    there = {tuple(row) for row in connection.execute(select(token_rates))}
    missing = [f"{r['mode']}{' over TURN' * r['used_turn']}" for r in RATES if tuple(r.values()) not in there]
    differs = f"{', '.join(missing)}: missing, or another rate than the schema's; calls would have a wrong price"
    return Check(subject, differs if missing else "")


def _check_demo_accounts(connection: Connection, subject: str) -> Check:
    names = {str(account["user_id"]) for account in DEMO_ACCOUNTS}
    there = set(connection.scalars(select(user_accounts.c.user_id).where(user_accounts.c.user_id.in_(names))))
    if not there:
        return Check(f"{subject}: none, left out by -x demo=no or deleted since")
    missing = ", ".join(sorted(names - there))
    return Check(subject, f"{missing} missing: insert them, or delete the other ones too" if missing else "")


def _check_balances(connection: Connection, subject: str) -> Check:
    wrong = (balance_audit.c.drift != 0) | (balance_audit.c.gaps != 0)
    accounts = connection.scalar(select(func.count()).select_from(balance_audit).where(wrong)) or 0
    if not accounts:
        return Check(subject)
    first = connection.execute(select(balance_audit).where(wrong).order_by(balance_audit.c.user_id).limit(_SHOWN))
    named = "; ".join(f"{row.user_id}: drift {row.drift}, gaps {row.gaps}" for row in first)
    reason = "something bypassed the triggers: oblivion.balance_audit has all of them"
    return Check(subject, f"{accounts} balances are wrong ({named}{_more(accounts)}): {reason}")


def _check_bills(connection: Connection, subject: str) -> Check:
    ended = call_meters.join(call_sessions, call_sessions.c.id == call_meters.c.session_id)
    unsettled = connection.scalar(
        select(func.count()).select_from(ended).where(~call_meters.c.settled, call_sessions.c.end_time.is_not(None))
    )
    an_hour_ago = func.clock_timestamp() - timedelta(hours=1)
    incidents = connection.scalar(
        select(func.count())
        .select_from(billing_incidents)
        .where(billing_incidents.c.resolved_at.is_(None), billing_incidents.c.first_at <= an_hour_ago)
    )
    if not unsettled and not incidents:
        return Check(subject)
    return Check(
        subject,
        f"{unsettled} ended calls are not billed, {incidents} incidents are open for more than an hour:"
        " run oblivion-schema settle; oblivion.billing_incidents has the reasons",
    )


# Calls whose usage is known: they have ended, or go on as usual. A deleted account takes its usage with it.
_UNLOGGED: Final = """
WITH logged AS (
  SELECT session_id, sum(tokens_used) AS tokens FROM public.token_usage GROUP BY session_id
),
calls AS (
  SELECT
    m.session_id,
    coalesce(l.tokens, 0) AS tokens,
    CASE WHEN m.is_plain THEN m.due_before ELSE m.cost END AS expected
  FROM oblivion.call_meters AS m
  JOIN public.user_accounts AS a ON a.user_id = m.user_id
  LEFT JOIN logged AS l ON l.session_id = m.session_id::text
  WHERE (m.settled OR m.is_plain)
    AND NOT EXISTS (SELECT FROM public.token_ledger AS c WHERE c.user_id = m.user_id AND c.kind = 'closing')
)
SELECT count(*), (array_agg(format('%s: %s of %s', session_id, tokens, expected)))[1 \\: :shown]
FROM calls
WHERE tokens <> expected
"""


def _check_usage(connection: Connection, subject: str) -> Check:
    calls, first = connection.execute(text(_UNLOGGED), {"shown": _SHOWN}).one()
    if not calls:
        return Check(subject)
    reason = "rows of token_usage were written or deleted past the engine; no balance depends on them"
    return Check(subject, f"{calls} calls have other tokens there ({', '.join(first)}{_more(calls)}): {reason}")


def _check_rollups(connection: Connection, subject: str) -> Check:
    found = []
    for drift in DRIFTS:
        rows = connection.execute(select(drift)).mappings()
        found += [f"{drift.fullname}: {', '.join(f'{k} {v}' for k, v in row.items() if v != 0)}" for row in rows]
    if not found:
        return Check(subject)
    named = "; ".join(found[:_SHOWN]) + _more(len(found))
    return Check(subject, f"{len(found)} sums are wrong ({named}): run SELECT oblivion.rebuild_rollups()")


def _check_insert(connection: Connection, subject: str) -> Check:
    call = connection.scalar(
        call_sessions.insert().values(room_id="oblivion-schema verify", mode="video").returning(call_sessions.c.id)
    )
    active = connection.scalar(select(func.count()).select_from(active_calls).where(active_calls.c.id == call))
    return Check(subject, "" if active == 1 else "active_calls does not show it")
