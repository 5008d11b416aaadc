"""Rates: tokens for each started minute of a call; a past rate never changes, a new one replaces it from its date."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import Boolean, CheckConstraint, Column, Integer, Named, Table, Text, TypedColumns, text

from oblivion_schema.declare.access import EVERYBODY, READ, READ_WRITE, SERVICE, grant, row_level_security
from oblivion_schema.declare.ddl import reference_rows
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.base import Timestamp, metadata


class TokenRateColumns(TypedColumns):
    """Columns of `token_rates`."""

    mode: Named[str] = Column(Text, primary_key=True, comment="voice (a voice-only call) or video.")
    used_turn: Named[bool] = Column(Boolean, primary_key=True, comment="Whether a TURN relay carries the media.")
    effective_from: Named[datetime] = Column(
        Timestamp,
        primary_key=True,
        server_default=text("now()"),
        comment="When the rate takes effect; it holds until the next rate takes effect.",
    )
    tokens_per_minute: Named[int] = Column(Integer, comment="Tokens for each started minute.")
    __row_pos__: tuple[str, bool, datetime, int]


token_rates: Final = Table(
    "token_rates",
    metadata,
    TokenRateColumns,
    CheckConstraint("mode IN ('voice', 'video')", name="mode"),
    CheckConstraint("tokens_per_minute >= 0", name="tokens_per_minute"),
    comment="Tokens for each started minute of a call, by mode and TURN.",
)
row_level_security(token_rates, select=EVERYBODY, insert=SERVICE, update=SERVICE, delete=SERVICE)
_READERS: Final = dict.fromkeys(API_ROLES, READ) | {"service_role": READ_WRITE}
grant(token_rates, when_open=_READERS, authenticated=_READERS)

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)

RATES: Final[tuple[dict[str, Any], ...]] = (
    {"mode": "voice", "used_turn": False, "effective_from": _ALWAYS, "tokens_per_minute": 1},
    {"mode": "voice", "used_turn": True, "effective_from": _ALWAYS, "tokens_per_minute": 2},
    {"mode": "video", "used_turn": False, "effective_from": _ALWAYS, "tokens_per_minute": 2},
    {"mode": "video", "used_turn": True, "effective_from": _ALWAYS, "tokens_per_minute": 6},
)
"""The rows of `token_rates` that the schema inserts."""
reference_rows(token_rates, *RATES)

# Sorted by date, so that a newer rate overwrites an older one.
_TOKENS_PER_MINUTE = {
    (rate["mode"], rate["used_turn"]): int(rate["tokens_per_minute"])
    for rate in sorted(RATES, key=lambda rate: rate["effective_from"])
}


def tokens_for(
    duration_seconds: float,
    mode: Literal["video", "voice", "voice-only"],
    used_turn: bool,  # noqa: FBT001 - the columns' order
) -> int:
    """Tokens that a call costs, by the newest rates in `RATES`; rates that users inserted are not known here.

    `duration_seconds`: length of the call in seconds; every started minute counts, zero or less costs nothing.
    `mode`: as in `token_usage` or in `call_sessions`. `used_turn`: whether a TURN relay carried the media.
    Raises ValueError for another mode, or for a length that is not finite.
    """
    rate = _TOKENS_PER_MINUTE.get(("voice" if mode == "voice-only" else mode, bool(used_turn)))
    if rate is None:
        raise ValueError(f"Unknown mode {mode!r}: use 'video', 'voice' or 'voice-only'.")
    if not math.isfinite(duration_seconds):
        raise ValueError(f"duration_seconds is {duration_seconds}: give a number of seconds.")
    return max(0, math.ceil(duration_seconds / 60)) * rate
