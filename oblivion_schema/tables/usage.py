"""Usage: the log of tokens consumed; each row belongs to an account, and names a call."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Named,
    Table,
    Text,
    TypedColumns,
    Uuid,
    text,
)
from sqlalchemy.schema import conv

from oblivion_schema.declare.access import IS_NOT_THE_ENGINE, READ, READ_WRITE, grant, own, row_level_security
from oblivion_schema.declare.ddl import declare, trigger
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.base import Timestamp, metadata


class TokenUsageColumns(TypedColumns):
    """Columns of `token_usage`."""

    id: Named[UUID] = Column(
        Uuid, primary_key=True, server_default=text("gen_random_uuid()"), comment="Identifier of the row."
    )
    user_id: Named[str] = Column(
        Text,
        ForeignKey("user_accounts.user_id", name=conv("fk_token_usage_user_id"), ondelete="CASCADE"),
        comment="The account that paid.",
    )
    session_id: Named[str] = Column(
        Text, comment="Id of the call, as text; the call of an old row may not exist any more."
    )
    tokens_used: Named[int] = Column(Integer, comment="Tokens that the call, or a segment of it, cost.")
    timestamp: Named[datetime] = Column(Timestamp, server_default=text("now()"), comment="When the usage was logged.")
    mode: Named[str] = Column(Text, comment="Mode that is priced: voice (a voice-only call) or video.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applied.")
    duration_seconds: Named[int | None] = Column(
        Integer, comment="Length of the call, or of the segment, in seconds; NULL if unknown."
    )
    __row_pos__: tuple[UUID, str, str, int, datetime, str, bool, int | None]


token_usage: Final = Table(
    "token_usage",
    metadata,
    TokenUsageColumns,
    CheckConstraint("tokens_used >= 0", name=conv("positive_token_usage")),
    CheckConstraint("mode IN ('voice', 'video')", name="mode"),
    CheckConstraint("duration_seconds IS NULL OR duration_seconds >= 0", name=conv("valid_duration")),
    Index("idx_token_usage_timestamp", "timestamp"),
    # Serves queries by user_id alone too, because that is its first column.
    Index("idx_token_usage_user_date", "user_id", "timestamp"),
    comment="Log of the tokens that calls consumed.",
)
# A hash index: queries compare session_id for equality only, and it is less than half as big as a B-tree. Not an
# Index(): its postgresql_using would make this package import the whole PostgreSQL dialect.
declare(
    token_usage,
    "index",
    "idx_token_usage_session",
    "CREATE INDEX idx_token_usage_session ON public.token_usage USING hash (session_id)",
)
# In the authenticated mode a user may insert no row. If pages are metered, a trigger drops the row that a client logs
# of an own call before PostgreSQL looks at the policy.
row_level_security(token_usage, select=own("user_id"))
grant(
    token_usage,
    when_open=dict.fromkeys(API_ROLES, READ_WRITE),
    authenticated={"authenticated": READ, "service_role": READ_WRITE},
    when_metered={
        "authenticated": ['INSERT (user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp")']
    },
)

trigger(token_usage, "guard_usage", "BEFORE INSERT OR UPDATE OR DELETE", "oblivion.guard_usage", when=IS_NOT_THE_ENGINE)
trigger(token_usage, "note_insert", "AFTER INSERT", "oblivion.note_usage", transition="NEW TABLE AS added")
trigger(
    token_usage,
    "note_update",
    "AFTER UPDATE",
    "oblivion.note_usage",
    transition="OLD TABLE AS removed NEW TABLE AS added",
)
trigger(token_usage, "note_delete", "AFTER DELETE", "oblivion.note_usage", transition="OLD TABLE AS removed")
trigger(token_usage, "clear_rollups", "AFTER TRUNCATE", "oblivion.clear_rollups")
