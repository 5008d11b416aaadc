"""What must hold of the books, whatever happened before: each query gives the rows that are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import NullPool, create_engine

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

# Nothing here asks a function of the engine but explain_call(), which is compared; prices are worked out anew.
_CALLS: Final = """
WITH calls AS (
  SELECT
    c.id,
    m.user_id,
    c.start_time,
    c.end_time,
    c.credit_cost,
    -- A page's clock may be wrong.
    (m.by_page OR c.start_time = m.started_at) AND c.user_id IS NOT DISTINCT FROM m.user_id AS is_followed,
    m.cost,
    m.settled,
    m.refunded,
    m.has_incident,
    m.is_plain,
    m.by_page,
    m.segment,
    m.usage_id,
    m.first_minute,
    m.due_before,
    m.used_turn,
    m.tokens_per_minute,
    CASE
      WHEN m.by_page AND (c.end_time IS NULL OR m.reaped) THEN least(m.direct_rate, m.turn_rate)
      WHEN m.used_turn THEN m.turn_rate
      ELSE m.direct_rate
    END AS card,
    -- Of an account that was closed the usage went with it, and what began before is not billed while there is none.
    m.user_id NOT LIKE 'anonymous\\_%'
      AND EXISTS (SELECT FROM user_accounts AS a WHERE a.user_id = m.user_id)
      AND NOT EXISTS (SELECT FROM token_ledger AS l WHERE l.user_id = m.user_id AND l.kind = 'closing') AS is_billed,
    c.end_time IS NOT NULL AND m.settled AS is_done,
    ceil(greatest(0, extract(epoch FROM CASE
      WHEN m.by_page AND abs(extract(epoch FROM c.start_time - m.started_at)) > 3e9 THEN m.seen_at - m.started_at
      ELSE c.end_time - c.start_time
    END)) / 60) AS minutes
  FROM oblivion.call_meters AS m
  JOIN call_sessions AS c ON c.id = m.session_id
),
past AS (
  SELECT
    session_id,
    sum(minutes) AS minutes,
    sum(minutes::numeric * tokens_per_minute) AS price,
    count(*) AS segments,
    bool_and(minutes > 0) AS have_minutes
  FROM oblivion.call_segments
  GROUP BY session_id
)
"""

_INVARIANTS: Final = {
    "a balance is the sum of its ledger, without a gap": """
SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0 OR balance < 0
""",
    "a balance is opening + top-ups + refunds - charges + direct changes, and never below zero": """
SELECT *
FROM (
  SELECT
    l.*,
    sum(tokens) OVER (PARTITION BY user_id ORDER BY id) AS running,
    row_number() OVER (PARTITION BY user_id ORDER BY id DESC) = 1 AS is_last
  FROM token_ledger AS l
) AS l
LEFT JOIN user_accounts AS a USING (user_id)
WHERE l.running <> l.balance
  OR l.balance < 0
  OR l.is_last AND l.balance <> coalesce(a.tokens_remaining, 0)
  OR l.kind NOT IN ('opening', 'closing', 'charge', 'refund', 'top_up', 'direct')
  OR l.kind = 'charge' AND (l.tokens >= 0 OR l.session_id IS NULL)
  OR l.kind IN ('refund', 'top_up') AND (l.tokens <= 0 OR l.key IS NULL)
""",
    "a credit is made once": """
SELECT user_id, key FROM token_ledger WHERE key IS NOT NULL GROUP BY user_id, key HAVING count(*) > 1
""",
    "what is due is the rate times the started minutes, segment by segment": f"""
{_CALLS}
SELECT *
FROM calls
LEFT JOIN past ON past.session_id = calls.id
WHERE is_billed AND (
  tokens_per_minute <> card
  OR first_minute <> coalesce(past.minutes, 0)
  OR due_before <> coalesce(price, 0)
  OR segment <> coalesce(segments, 0) + 1
  OR NOT have_minutes
  OR is_done AND cost <> due_before + (calls.minutes - first_minute) * tokens_per_minute
)
""",
    "who has no account is not billed, and gets none": f"""
{_CALLS}
SELECT *
FROM calls
WHERE NOT EXISTS (SELECT FROM token_ledger AS l WHERE l.user_id = calls.user_id) AND (
  credit_cost <> 0
  OR cost <> 0
  OR EXISTS (SELECT FROM token_usage AS u WHERE u.session_id = calls.id::text)
  OR EXISTS (SELECT FROM user_accounts AS a WHERE a.user_id = calls.user_id)
)
""",
    "due = charged + shortfall, for the receipt, the ledger and the call": f"""
{_CALLS}
SELECT *
FROM calls
CROSS JOIN LATERAL (
  SELECT
    sum(due) AS due,
    sum(charged) AS charged,
    sum(shortfall) AS shortfall,
    bool_and(due = charged + shortfall AND due >= 0 AND charged >= 0 AND shortfall >= 0) AS adds_up
  FROM explain_call(calls.id)
) AS receipt
CROSS JOIN LATERAL (
  SELECT
    coalesce(-sum(tokens) FILTER (WHERE kind = 'charge'), 0) AS charges,
    coalesce(sum(tokens) FILTER (WHERE kind = 'refund'), 0) AS refunds
  FROM token_ledger AS l
  WHERE l.session_id = calls.id
) AS ledger
LEFT JOIN oblivion.live_calls AS live ON live.session_id = calls.id
WHERE NOT adds_up
  OR NOT is_followed
  OR due <> cost
  -- A call of a page may have had a meter before, and have got back what that charged.
  OR receipt.charged - refunded <> charges - refunds
  OR NOT by_page AND refunds <> refunded
  OR refunds > charges
  OR end_time IS NOT NULL AND calls.credit_cost <> cost
  OR calls.credit_cost > cost
  OR (end_time IS NULL) <> (live.session_id IS NOT NULL)
  OR (live.credit_cost, live.charged, live.shortfall) <> (due, charges, receipt.shortfall)
""",
    "a call's usage and what its meter has not yet logged are its cost": f"""
{_CALLS}
SELECT *
FROM calls
CROSS JOIN LATERAL (
  SELECT coalesce(sum(tokens_used), 0) AS used FROM token_usage AS u WHERE u.session_id = calls.id::text
) AS usage
CROSS JOIN LATERAL (
  SELECT
    -- Of the current segment, and of those over that could not be logged.
    greatest(0, cost - due_before) - coalesce((SELECT tokens_used FROM token_usage AS u WHERE u.id = usage_id), 0)
    + coalesce((
      SELECT sum(greatest(0, least(due_after, cost) - s.due_before) - coalesce(u.tokens_used, 0))
      FROM oblivion.call_segments AS s
      LEFT JOIN token_usage AS u ON u.id = s.usage_id
      WHERE s.session_id = calls.id AND NOT s.is_logged
    ), 0) AS unlogged
) AS meter
WHERE is_billed AND (
  used + unlogged <> cost
  OR is_done AND unlogged <> 0
  OR usage_id IS NOT NULL AND cost > due_before AND NOT EXISTS (SELECT FROM token_usage AS u WHERE u.id = usage_id)
  OR is_plain AND (usage_id IS NOT NULL OR end_time IS NOT NULL OR has_incident OR cost < due_before)
)
""",
    "a call that could not be billed has an incident, and no other has": """
SELECT *
FROM oblivion.call_meters AS m
FULL JOIN oblivion.billing_incidents AS i ON i.session_id = m.session_id AND i.resolved_at IS NULL
WHERE m.has_incident AND i.id IS NULL OR m.has_incident IS NOT TRUE AND i.id IS NOT NULL AND i.resolved_at IS NULL
""",
}


def discrepancies(connection: Connection) -> list[str]:
    """Each row of the books that is wrong, and why."""
    if "invariants" not in connection.info:
        # To plan them each time would take longer than to run them.
        for number, sql in enumerate(_INVARIANTS.values()):
            connection.exec_driver_sql(
                f"PREPARE invariant_{number} AS {sql}", execution_options={"no_parameters": True}
            )
        connection.info["invariants"] = True
    return [
        f"Not so: {invariant}: {dict(row)}"
        for number, invariant in enumerate(_INVARIANTS)
        for row in connection.exec_driver_sql(f"EXECUTE invariant_{number}").mappings()
    ]


def check(url: URL) -> None:
    """Fail where the books of a database are wrong."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        wrong = discrepancies(connection)
    engine.dispose()
    assert not wrong, "\n".join(wrong)
