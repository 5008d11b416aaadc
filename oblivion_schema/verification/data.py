"""What must hold for the rows, counted: balances, bills, usage, roll-ups, identities and what they refer to."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.triggers import foreign_triggers
from oblivion_schema.declare.ddl import qualified
from oblivion_schema.tables.access import others_policies
from oblivion_schema.tables.backfills import backfills
from oblivion_schema.tables.base import metadata
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.ledger import balance_audit
from oblivion_schema.tables.metering import billing_incidents, call_meters
from oblivion_schema.tables.rates import RATES, token_rates
from oblivion_schema.tables.rollups import DRIFTS, call_deltas, usage_deltas
from oblivion_schema.tables.sign_up import callers_without_account
from oblivion_schema.verification.check import SHOWN, Check, attempt, lacks, named, not_tried, note, result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Connection

_SQL: Final = Path(__file__).with_suffix("")
_TABLES: Final = [f"{table.schema or 'public'}.{table.name}" for table in metadata.tables.values() if not table.is_view]
_PILE: Final = 50_000
"""More deltas than ever wait where folding works: each thousandth change folds them."""


# Whoever sees some rows alone would call right what is wrong.
_HIDDEN: Final = """
SELECT string_agg(c.relname, ', ' ORDER BY c.relname)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relname = ANY (ARRAY['user_accounts', 'token_usage', 'token_ledger'])
  AND row_security_active(c.oid)
"""


def _hidden(connection: Connection) -> str:
    """The tables of which this role may see some rows alone."""
    with suppress(DBAPIError), connection.begin_nested():  # one of these functions may be missing, too
        if connection.scalar(text("SELECT oblivion.open_access() OR oblivion.is_service_role()")):
            return ""
    return connection.scalar(text(_HIDDEN)) or ""


class _Invariant(NamedTuple):
    """What must hold, the relations by which it is checked, and the check."""

    subject: str
    needs: tuple[str, ...]
    check: Callable[..., Iterable[Check]]


def check_data(connection: Connection) -> Iterator[Check]:
    """A line for each thing that must hold; a revision that lacks its tables leaves it out."""
    hidden = _hidden(connection)
    for subject, needs, check in _INVARIANTS:
        if hidden and needs:
            yield not_tried(subject, f"row level security hides rows of {hidden} from this role")
            continue
        if missing := lacks(connection, *needs):
            yield not_tried(subject, f"there is no {missing}")
            continue
        yield from attempt(connection, subject, partial(check, subject=subject))
    yield from attempt(connection, "triggers and policies of others", _foreign)


def _query(file: str) -> Any:
    return text(
        (_SQL / f"{file}.sql").read_text(encoding="utf-8").replace("::", r"\:\:").replace("[1:5]", rf"[1\:{SHOWN}]")
    )


def _rates(connection: Connection, subject: str) -> Iterable[Check]:
    there = {tuple(row) for row in connection.execute(select(token_rates))}
    missing = [f"{r['mode']}{' over TURN' * r['used_turn']}" for r in RATES if tuple(r.values()) not in there]
    mend = "missing, or another rate than the schema's; calls would have a wrong price: oblivion-schema check --sql"
    yield result(subject, f"{', '.join(missing)}: {mend}" if missing else "")


def _balances(connection: Connection, subject: str) -> Iterable[Check]:
    wrong = (balance_audit.c.drift != 0) | (balance_audit.c.gaps != 0)
    accounts = connection.scalar(select(func.count()).select_from(balance_audit).where(wrong)) or 0
    if not accounts:
        yield Check(subject)
        return
    first = connection.execute(select(balance_audit).where(wrong).order_by(balance_audit.c.user_id).limit(SHOWN))
    rows = named((f"{row.user_id}: drift {row.drift}, gaps {row.gaps}" for row in first), accounts)
    yield result(
        subject,
        f"{accounts} balances are wrong ({rows}): something bypassed the triggers; oblivion.balance_audit has all of"
        " them, SELECT oblivion.rebuild_ledger() notes the balances as they are",
    )


def _bills(connection: Connection, subject: str) -> Iterable[Check]:
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
    problem = (
        f"{unsettled} ended calls are not billed, {incidents} incidents are open for more than an hour:"
        " run oblivion-schema settle; oblivion.billing_incidents has the reasons"
    )
    yield result(subject, problem if unsettled or incidents else "")


def _usage(connection: Connection, subject: str) -> Iterable[Check]:
    calls, first = connection.execute(_query("usage_of_calls")).one()
    reason = "rows of token_usage were written or deleted past the engine; no balance depends on them"
    yield result(subject, f"{calls} calls have other tokens there ({named(first, calls)}): {reason}" if calls else "")


def _rollups(connection: Connection, subject: str) -> Iterable[Check]:
    if left := [name for name in _left_to_fill(connection) if name != "ledger"]:
        yield not_tried(subject, f"{' and '.join(left)} are not filled in yet")
        return
    found = []
    for drift in DRIFTS:
        rows = connection.execute(select(drift)).mappings()
        found += [f"{drift.fullname}: {', '.join(f'{k} {v}' for k, v in row.items() if v != 0)}" for row in rows]
    yield result(
        subject,
        f"{len(found)} sums are wrong ({named(found, len(found))}): run SELECT oblivion.rebuild_rollups()"
        if found
        else "",
    )


def _deltas(connection: Connection, subject: str) -> Iterable[Check]:
    piled = False
    for deltas, function in ((usage_deltas, "fold_usage"), (call_deltas, "fold_calls")):
        count = connection.scalar(select(func.count()).select_from(deltas)) or 0
        if count > _PILE:
            piled = True
            yield result(
                subject,
                f"{count} wait in {deltas.fullname}, which makes reports slow: no session that writes is READ"
                f" COMMITTED, or one holds their lock: SELECT oblivion.{function}({count})",
            )
    if not piled:
        yield Check(subject)


def _referred(connection: Connection, subject: str) -> Iterable[Check]:
    found = False
    # Those that are not valid were named with their constraint.
    not_valid = set(connection.scalars(text("SELECT conname FROM pg_constraint WHERE NOT convalidated")))
    for table in metadata.tables.values():
        for key in table.foreign_key_constraints:
            if key.name in not_valid:
                continue
            [column], [other] = key.column_keys, [element.column for element in key.elements]
            lost = f"NOT EXISTS (SELECT FROM {qualified(other.table)} AS o WHERE o.{other.name} = t.{column})"
            rows = f"{qualified(table)} AS t WHERE t.{column} IS NOT NULL AND {lost}"
            count = connection.scalar(text(f"SELECT count(*) FROM {rows}")) or 0  # noqa: S608
            if count:
                found = True
                first = connection.scalars(
                    text(f"SELECT DISTINCT t.{column}\\:\\:text FROM {rows} ORDER BY 1 LIMIT {SHOWN}")  # noqa: S608
                )
                lost_rows = f"{count} rows of {table.fullname} have no {other.table.fullname}"
                mend = f"insert those, or DELETE FROM {rows}"  # noqa: S608 - all names are the metadata's
                yield result(subject, f"{lost_rows} ({column} {', '.join(first)}): {mend}")
    if not found:
        yield Check(subject)


def _identities(connection: Connection, subject: str) -> Iterable[Check]:
    behind = []
    for row in connection.execute(_query("identities"), {"tables": _TABLES}).all():
        # In this order: a number is given before its row can be seen.
        newest = connection.exec_driver_sql(row.newest).scalar() or 0
        last = connection.exec_driver_sql(row.last).scalar() or 0
        if newest > last:
            behind.append(f"{row.identity} at {last} of {newest}")
    yield result(subject, f"{', '.join(behind)}: SELECT oblivion.restart_identities()" if behind else "")


def _publications(connection: Connection, subject: str) -> Iterable[Check]:
    refuses = connection.execute(_query("not_replicated"), {"tables": _TABLES}).all()
    yield result(
        subject,
        "; ".join(
            f"UPDATE and DELETE of {row.name} fail because of publication {row.publication}:"
            f" ALTER TABLE {row.name} REPLICA IDENTITY FULL"
            for row in refuses
        ),
    )


def _left_to_fill(connection: Connection) -> Sequence[str]:
    return connection.scalars(select(backfills.c.name).order_by(backfills.c.name)).all()


def _backfills(connection: Connection, subject: str) -> Iterable[Check]:
    if left := _left_to_fill(connection):
        yield note(subject, f"not yet: {', '.join(left)}; reports compute it meanwhile: SELECT oblivion.backfill()")
    else:
        yield Check(subject)


def _callers(connection: Connection, subject: str) -> Iterable[Check]:
    count = connection.scalar(select(func.count()).select_from(callers_without_account)) or 0
    if count:
        says = f"{count} users call, or called, without one, and pay nothing: {callers_without_account.fullname}"
        yield note(subject, f"{says} names them, docs/sign-up.md says how they get one")
    else:
        yield Check(subject)


def _foreign(connection: Connection) -> Iterable[Check]:
    for trigger in foreign_triggers(connection):
        yield note(str(trigger), trigger.says)
    for line in others_policies(connection, metadata):
        yield note("policies", line)


_INVARIANTS: Final = (
    _Invariant("token rates", ("token_rates",), _rates),
    _Invariant("every balance is the sum of its ledger", ("oblivion.balance_audit",), _balances),
    _Invariant("every call that has ended is billed", ("oblivion.billing_incidents",), _bills),
    _Invariant("every token that a call cost is in token_usage, or in its meter", ("oblivion.call_meters",), _usage),
    _Invariant("every sum in the roll-ups is that of its rows", ("oblivion.daily_calls_drift",), _rollups),
    _Invariant("changes are folded into the roll-ups", ("oblivion.call_deltas",), _deltas),
    _Invariant("every row that another one names is there", ("oblivion.call_segments",), _referred),
    _Invariant("every identity is ahead of its rows", ("token_ledger",), _identities),
    _Invariant("what an upgrade left is filled in", ("oblivion.backfills",), _backfills),
    _Invariant("everybody who calls has an account", ("oblivion.callers_without_account",), _callers),
    _Invariant("every published table can be updated", (), _publications),
)
