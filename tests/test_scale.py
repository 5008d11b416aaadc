"""docs/scale.md tells the truth: its statements run as they are written, and leave what it says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import psycopg
from books import check
from support import PROJECT, libpq, query, run

if TYPE_CHECKING:
    from sqlalchemy import URL

PAGE: Final = (PROJECT / "docs" / "scale.md").read_text(encoding="utf-8")
# Two calls of each of two users are over, and one of each goes on.
CALLS: Final = """
INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('a', 100), ('b', 3);
SELECT start_call(user_id, 'lobby', 'video', client_key => n::text)
FROM user_accounts, generate_series(1, 3) AS n WHERE user_id IN ('a', 'b');
UPDATE call_sessions SET start_time = start_time - interval '90 seconds';
SELECT tick_call(id) FROM call_sessions;
SELECT end_call(session_id) FROM oblivion.call_meters WHERE client_key < '3';
SELECT top_up('a', 5, 'gift');
INSERT INTO oblivion.billing_incidents (session_id, action, error_code, message, resolved_at)
VALUES (gen_random_uuid(), 'tick', '57014', 'canceled', now());
"""
SUMS: Final = """
SELECT u.user_id, u.tokens_remaining, count(*), sum(l.tokens), max(l.balance)
FROM user_accounts AS u JOIN token_ledger AS l USING (user_id)
GROUP BY 1, 2
ORDER BY 1
"""


def statements(heading: str) -> list[str]:
    """The statements below a heading of the page."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return [
        statement
        for block in re.findall(r"^```sql\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        for statement in re.split(r";\n", block)
        if statement
    ]


def do(url: URL, statement: str) -> None:
    """Run it outside a transaction, as psql does."""
    with psycopg.connect(libpq(url), autocommit=True) as connection:
        connection.execute(statement)


def test_old_rows_are_deleted_and_no_balance_and_no_call_that_goes_on_changes(upgraded: URL) -> None:
    do(upgraded, CALLS)
    before = query(upgraded, SUMS)
    deletions = [each for each in statements("Retention") if each.startswith("DELETE")]
    assert len(deletions) == 3
    for deletion in deletions:
        do(upgraded, deletion)
    assert query(upgraded, "SELECT count(*) FROM call_sessions") == [(6,)], "they are not old"
    for deletion in deletions:
        do(upgraded, re.sub(r"interval '[^']+'", "interval '-1 hour'", deletion))
    assert query(upgraded, "SELECT client_key, settled FROM oblivion.call_meters") == [("3", False)] * 2
    assert query(upgraded, "SELECT FROM token_usage") == query(upgraded, "SELECT FROM oblivion.billing_incidents") == []
    assert query(upgraded, SUMS) == before
    assert query(upgraded, "SELECT total_calls FROM daily_billing_summary") == [(2,)], "reports lose them, too"
    assert query(upgraded, "SELECT sum(total_sessions) FROM user_token_summary") == [(0,)]
    # What keeps its answer, and what does not.
    assert query(upgraded, "SELECT status FROM top_up('a', 5, 'gift')") == [("known",)]
    assert query(upgraded, "SELECT count(*) FROM start_call('a', 'lobby', 'video', client_key => '1')") == [(1,)]
    assert query(upgraded, "SELECT count(*) FROM call_sessions") == [(3,)], "a start of then is a new call"
    check(upgraded)
    result = run("verify", url=upgraded)
    assert result.status == 0, result.out


def test_each_statement_of_the_page_runs(upgraded: URL) -> None:
    do(upgraded, CALLS)
    others = [each for heading in ("Settings", "Retention", "What to watch") for each in statements(heading)]
    assert len(others) == 4 + 6 + 3
    with psycopg.connect(libpq(upgraded), autocommit=True) as connection:
        for statement in others:
            connection.execute(statement)
    check(upgraded)
