"""Calls: one row for each embedded call; end_time is NULL while a call is running."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Interval,
    Named,
    Numeric,
    Table,
    Text,
    TypedColumns,
    Uuid,
    text,
)

from oblivion_schema.declare.access import (
    IS_NOT_THE_ENGINE,
    METERED,
    READ,
    READ_WRITE,
    grant,
    grant_reading,
    own,
    publish,
    row_level_security,
)
from oblivion_schema.declare.ddl import declare, function, trigger, view
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.base import Timestamp, metadata

SQL: Final = Path(__file__).with_suffix("")


class CallSessionColumns(TypedColumns):
    """Columns of `call_sessions`."""

    id: Named[UUID] = Column(
        Uuid, primary_key=True, server_default=text("gen_random_uuid()"), comment="Identifier of the call."
    )
    room_id: Named[str] = Column(Text, comment="Room identifier, chosen by the embedding page.")
    start_time: Named[datetime] = Column(
        Timestamp,
        server_default=text("now()"),
        comment="When the call began, by the client's clock; for a call of start_call() by the server's.",
    )
    end_time: Named[datetime | None] = Column(Timestamp, comment="When the call ended; NULL while it is running.")
    mode: Named[str] = Column(Text, comment="What the call carries: video or voice-only.")
    used_turn: Named[bool] = Column(
        Boolean, server_default=text("false"), comment="Whether a TURN relay carried the media."
    )
    credit_cost: Named[Decimal] = Column(
        Numeric(10, 4),
        server_default=text("0.00"),
        comment=(
            "Metered call: tokens due, written by the engine when the call turns or ends. Other call: its cost, as the"
            " client reports it."
        ),
    )
    user_id: Named[str | None] = Column(
        Text, comment="Who pays: an account, anonymous_<n>, or NULL. No foreign key: the account need not exist."
    )
    created_at: Named[datetime] = Column(Timestamp, server_default=text("now()"), comment="When the row was inserted.")
    updated_at: Named[datetime] = Column(
        Timestamp, server_default=text("now()"), comment="When the row last changed; a trigger sets it."
    )
    __row_pos__: tuple[UUID, str, datetime, datetime | None, str, bool, Decimal, str | None, datetime, datetime]


call_sessions: Final = Table(
    "call_sessions",
    metadata,
    CallSessionColumns,
    CheckConstraint("mode IN ('video', 'voice-only')", name="mode"),
    Index("idx_call_sessions_room_id", "room_id"),
    Index("idx_call_sessions_start_time", "start_time"),
    Index("idx_call_sessions_user_id", "user_id"),
    # Serves queries by used_turn alone too, because that is its first column.
    Index("idx_call_sessions_billing", "used_turn", "start_time"),
    comment="One row for each embedded call.",
)
# Not an Index(): its postgresql_where would make this package import the whole PostgreSQL dialect.
declare(
    call_sessions,
    "index",
    "idx_call_sessions_active",
    "CREATE INDEX idx_call_sessions_active ON public.call_sessions (start_time) WHERE end_time IS NULL",
)
# In the authenticated mode a user may insert own calls, as clients do, but only open ones, with a credit_cost of 0. If
# pages are metered a user may also end own calls, as clients do.
row_level_security(
    call_sessions,
    select=own("user_id"),
    insert=own("user_id", further="credit_cost = 0 AND end_time IS NULL"),
    update=own("user_id", further=METERED),
)
grant(
    call_sessions,
    when_open=dict.fromkeys(API_ROLES, READ_WRITE),
    authenticated={
        "authenticated": [*READ, "INSERT (room_id, start_time, mode, used_turn, credit_cost, user_id)"],
        "service_role": READ_WRITE,
    },
    when_metered={"authenticated": ["UPDATE (end_time, used_turn, credit_cost)"]},
)
publish(call_sessions)

# user_accounts has a trigger with this function too.
function(metadata, SQL / "public.update_updated_at_column.sql")

trigger(call_sessions, "update_call_sessions_updated_at", "BEFORE UPDATE", "public.update_updated_at_column")
trigger(call_sessions, "guard_metered_call", "BEFORE UPDATE", "oblivion.guard_metered_call", when=IS_NOT_THE_ENGINE)
trigger(
    call_sessions,
    "correct_meter",
    "AFTER UPDATE OF start_time, end_time, user_id",
    "oblivion.correct_meter",
    # Only for the owner: guard_metered_call() does it for others. Not for the engine's own writes, which it labels,
    # unless somebody else's trigger makes the change meanwhile.
    when="has_table_privilege('oblivion.call_meters'::regclass, 'UPDATE WITH GRANT OPTION') AND (pg_trigger_depth() > 0"
    " OR NOT starts_with(coalesce(current_setting('oblivion.reason', true), ''), 'charge '))",
)
trigger(call_sessions, "bill_page_call", "AFTER UPDATE", "oblivion.bill_page_call", when=IS_NOT_THE_ENGINE)
trigger(call_sessions, "meter_page_call", "AFTER INSERT", "oblivion.meter_page_call", when=IS_NOT_THE_ENGINE)
trigger(call_sessions, "settle_deleted_call", "BEFORE DELETE", "oblivion.settle_deleted_call")
trigger(call_sessions, "note_insert", "AFTER INSERT", "oblivion.note_calls", transition="NEW TABLE AS added")
trigger(
    call_sessions,
    "note_update",
    "AFTER UPDATE",
    "oblivion.note_calls",
    transition="OLD TABLE AS removed NEW TABLE AS added",
)
trigger(call_sessions, "note_delete", "AFTER DELETE", "oblivion.note_calls", transition="OLD TABLE AS removed")
trigger(call_sessions, "clear_rollups", "AFTER TRUNCATE", "oblivion.clear_rollups")


class ActiveCallColumns(TypedColumns):
    """Columns of `active_calls`."""

    id: Named[UUID] = Column(Uuid, comment="Identifier of the call.")
    room_id: Named[str] = Column(Text, comment="Room identifier.")
    mode: Named[str] = Column(Text, comment="video or voice-only.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether a TURN relay carries the media.")
    start_time: Named[datetime] = Column(Timestamp, comment="When the call began.")
    duration: Named[timedelta | None] = Column(
        Interval, comment="How long the call has been running; NULL if start_time is infinite."
    )
    __row_pos__: tuple[UUID, str, str, bool, datetime, timedelta | None]


active_calls: Final = view(
    SQL / "public.active_calls.sql",
    metadata,
    ActiveCallColumns,
    reads=[call_sessions],
)
grant_reading(active_calls)
