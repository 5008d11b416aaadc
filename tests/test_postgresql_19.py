"""What PostgreSQL 19 adds that this schema, or its tools, must know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from legacy_states import STATES
from sqlalchemy.exc import DBAPIError
from support import execute, psql, query, request, run, signed_in

from oblivion_schema.errors import sqlstate

if TYPE_CHECKING:
    from sqlalchemy import URL

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def _since_19(server: URL) -> None:
    if not query(server, "SELECT WHERE current_setting('server_version_num')::integer >= 190000"):
        pytest.skip("the server is older than PostgreSQL 19")


def test_table_that_a_publication_of_all_leaves_out_is_not_taken_for_a_member(upgraded: URL) -> None:
    left_out = "FOR ALL TABLES EXCEPT (TABLE public.call_sessions, public.token_usage)"
    execute(upgraded, f"CREATE PUBLICATION supabase_realtime {left_out}")
    assert run("check", url=upgraded).status == 0
    assert run("access", "authenticated", url=upgraded).status == 0
    assert run("check", url=upgraded).status == 0


def test_hand_made_table_that_a_publication_leaves_out_is_not_noted_as_its_member(empty: URL) -> None:
    psql(empty, STATES[-1].script(rows=True))
    execute(empty, "CREATE PUBLICATION one FOR TABLE token_usage")
    execute(empty, "CREATE PUBLICATION every FOR ALL TABLES EXCEPT (TABLE token_usage)")
    said = run("inspect", url=empty).out
    assert "publication one of public.token_usage" in said
    assert "publication every" not in said
    assert run("upgrade", "head", url=empty).status == 0
    noted = query(empty, "SELECT name FROM oblivion.adoption_log WHERE kind = 'publication'")
    assert noted == [("one of public.token_usage",)]


@pytest.mark.parametrize("lock", ["", "FOR UPDATE"])
def test_conflict_shows_nobody_the_row_of_another(upgraded: URL, lock: str) -> None:
    """ON CONFLICT DO SELECT returns the row that was in the way."""
    execute(upgraded, "INSERT INTO user_presence (host_id, room_id, room_token) VALUES ('mine', 'r', 's')")
    execute(upgraded, "INSERT INTO user_presence (host_id, room_id, room_token) VALUES ('theirs', 'r', 'secret')")
    assert run("access", "authenticated", url=upgraded).status == 0
    ask = (
        "INSERT INTO user_presence (host_id, room_id) VALUES ('{}', 'x')"
        f" ON CONFLICT (host_id) DO SELECT {lock} RETURNING room_token"
    )
    with request(upgraded, "authenticated", signed_in("mine")) as connection:
        assert connection.exec_driver_sql(ask.format("mine")).scalar() == "s"
        with pytest.raises(DBAPIError) as refused:
            connection.exec_driver_sql(ask.format("theirs"))
    assert sqlstate(refused.value) == "42501"
