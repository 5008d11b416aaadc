"""Databases that people made by hand become ours: in every known state, with their rows, and with what is not ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from legacy_states import STATES, State
from support import execute, query, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL


Rows = dict[str, dict[str, Any]]

NOW = "now"
# What a NULL becomes: the column's default; where there is a better time that the row knows, that.
BY_DEFAULT: dict[str, dict[str, Any]] = {
    "call_sessions": {"used_turn": False, "credit_cost": 0},
    "user_accounts": {"subscription_tier": "free"},
}
BEST_TIMES = {
    ("call_sessions", "start_time"): ("created_at", "end_time", "updated_at"),
    ("call_sessions", "created_at"): ("start_time", "end_time", "updated_at"),
    ("user_accounts", "created_at"): ("updated_at",),
    ("user_accounts", "updated_at"): ("created_at",),
}
TABLES = ("call_sessions", "user_presence", "user_accounts", "token_usage", "call_notes", "invoices")


def rows(url: URL) -> dict[str, Rows]:
    """Every row of every table, by its primary key."""
    found = {}
    for table in TABLES:
        if query(url, f"SELECT to_regclass('public.{table}')") != [(None,)]:
            key = {"user_accounts": "user_id", "invoices": "number"}.get(table, "id")
            sql = f"SELECT {key}::text, to_jsonb(t)::text FROM public.{table} AS t"
            found[table] = {str(name): json.loads(str(row)) for name, row in query(url, sql)}
    return found


def adopted(table: str, row: dict[str, Any], now: str, *, default_availability: bool) -> dict[str, Any]:
    """What a row of before has to be afterwards."""
    result = dict(row)
    if table == "user_presence":
        result = {"host_id": result.pop("user_id", None) or row["host_id"], "room_token": None} | result
        result["is_available"] = default_availability if row["is_available"] is None else row["is_available"]
        result["updated_at"] = row["updated_at"] or now
        return result
    for column, value in result.items():
        if value is None:
            times = [row[name] for name in BEST_TIMES.get((table, column), ()) if row[name] is not None]
            if column in BY_DEFAULT.get(table, {}):
                result[column] = BY_DEFAULT[table][column]
            elif (table, column) in BEST_TIMES or (table, column) == ("token_usage", "timestamp"):
                result[column] = times[0] if times else now
    if table == "call_sessions" and row["updated_at"] is None:
        known = [row[name] for name in ("start_time", "end_time", "created_at") if row[name] is not None]
        result["updated_at"] = max(known) if known else now
    return result


@pytest.fixture(params=["superuser", "supabase-old"])
def by_hand(request: pytest.FixtureRequest, new_sort: Callable[[str], URL], state: State) -> URL:
    """A database in a state that people made, with awkward rows, and with what they added of their own."""
    url = new_sort(str(request.param))
    if state.ran:
        execute(url, state.script(rows=True, by_hand=True))
    return url


@pytest.fixture(params=STATES, ids=str)
def state(request: pytest.FixtureRequest) -> State:
    found: State = request.param
    return found


def test_state_is_adopted_with_every_row(by_hand: URL, state: State) -> None:
    before = rows(by_hand)
    default = [("true",)] if state.has_hosts else [("false",)]
    upgraded = run("upgrade", "head", url=by_hand)
    assert upgraded.status == 0, upgraded
    after = rows(by_hand)
    [(now,)] = query(by_hand, "SELECT to_jsonb(max(logged_at))#>>'{}' FROM oblivion.adoption_log") or [(None,)]
    moved = {
        str(row["id"]): row
        for (row,) in query(by_hand, "SELECT was FROM oblivion.adoption_log WHERE kind = 'row'")
        if isinstance(row, dict)
    }
    for table, its in before.items():
        kept = {
            key: adopted(table, row, str(now), default_availability=default == [("true",)]) for key, row in its.items()
        }
        for key in moved if table == "user_presence" else ():
            # It went as it was, but for the new name and the new column.
            was = {"host_id" if name == "user_id" else name: value for name, value in its[key].items()}
            assert moved[key] == {"room_token": None} | was
            del kept[key]
        if table == "token_usage":
            for key, row in its.items():
                if row["timestamp"] is None and row["session_id"] in before.get("call_sessions", {}):
                    call = before["call_sessions"][row["session_id"]]
                    kept[key]["timestamp"] = call["end_time"] or call["start_time"]
        assert {key: after[table][key] for key in its if key in kept} == kept, table
    if not state.has_hosts and state.has_calls:
        assert {row["room_id"] for row in after["user_presence"].values()} >= {"newest", "room"}
        assert len(moved) == 4
    assert run("check", url=by_hand).status == 0
    verified = run("verify", url=by_hand)
    assert verified.status == 0, verified.out
