"""The reports as plain sums over the rows, as they were before there were roll-ups, and where ours say otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from oblivion_schema.tables.rollups import DRIFTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PLAIN: Final = {
    "active_calls": """
        SELECT id, room_id, mode, used_turn, start_time, CASE WHEN isfinite(start_time) THEN now() - start_time END
        FROM public.call_sessions
        WHERE end_time IS NULL
    """,
    "daily_billing_summary": """
        SELECT
          (start_time AT TIME ZONE 'UTC')::date AS call_date,
          count(*),
          count(*) FILTER (WHERE used_turn),
          count(*) FILTER (WHERE mode = 'video'),
          count(*) FILTER (WHERE mode = 'voice-only'),
          sum(credit_cost),
          sum(greatest(0, extract(epoch FROM end_time - start_time)))
            FILTER (WHERE isfinite(start_time) AND isfinite(end_time))
            / (60 * count(*) FILTER (WHERE isfinite(start_time) AND isfinite(end_time)))
        FROM public.call_sessions
        GROUP BY call_date
    """,
    "daily_token_usage": """
        SELECT
          ("timestamp" AT TIME ZONE 'UTC')::date AS usage_date,
          mode,
          used_turn,
          count(*),
          sum(tokens_used),
          avg(tokens_used),
          coalesce(sum(duration_seconds), 0) / 60.0
        FROM public.token_usage
        GROUP BY usage_date, mode, used_turn
    """,
    "user_token_summary": """
        SELECT
          a.user_id,
          a.tokens_remaining,
          a.subscription_tier,
          a.created_at,
          coalesce(sum(u.tokens_used), 0),
          count(u.id),
          max(u."timestamp")
        FROM public.user_accounts AS a
        LEFT JOIN public.token_usage AS u ON u.user_id = a.user_id
        GROUP BY a.user_id
    """,
}
"""Each report. A mean is a sum through a number here, too: avg() rounds twice, in the last digits."""

# In one statement, and so of one moment, whoever writes meanwhile.
REPORTS: Final = "\nUNION ALL\n".join(
    f"SELECT '{view} {said}', r::text FROM ({one} EXCEPT ALL {other}) AS r"
    for view, plain in PLAIN.items()
    for said, one, other in (("says", f"TABLE public.{view}", plain), ("lacks", plain, f"TABLE public.{view}"))
)
EVERYTHING: Final = "\nUNION ALL\n".join(
    [REPORTS, *(f"SELECT '{drift.fullname}', r::text FROM {drift.fullname} AS r" for drift in DRIFTS)]
)


def wrong(execute: Callable[[str], Iterable[Sequence[Any]]], sql: str = EVERYTHING) -> list[tuple[str, str]]:
    """Each row in which a report is not what plain sums are, and, for those who may see that, each sum that is off."""
    return [(str(name), str(row)) for name, row in execute(sql)]
