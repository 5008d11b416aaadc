"""Presence: which hosts can take a call now; one row for each host."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import Boolean, Column, Index, Named, Table, Text, TypedColumns, Uuid, text

from oblivion_schema.declare.access import EXECUTE, READ_WRITE, grant, own, publish, row_level_security
from oblivion_schema.declare.ddl import declare, function, trigger
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.base import Timestamp, metadata

SQL: Final = Path(__file__).with_suffix("")


class UserPresenceColumns(TypedColumns):
    """Columns of `user_presence`."""

    id: Named[UUID] = Column(
        Uuid, primary_key=True, server_default=text("gen_random_uuid()"), comment="Identifier of the row."
    )
    host_id: Named[str] = Column(Text, comment="The host, and the conflict target of the clients' upserts.")
    is_available: Named[bool] = Column(Boolean, server_default=text("true"), comment="Whether the host takes calls.")
    room_id: Named[str] = Column(Text, comment="Room in which a caller meets the host.")
    updated_at: Named[datetime] = Column(
        Timestamp,
        server_default=text("now()"),
        comment="When the host was last heard of, by the server's clock; a trigger keeps it.",
    )
    room_token: Named[str | None] = Column(Text, comment="Secret that opens the room.")
    __row_pos__: tuple[UUID, str, bool, str, datetime, str | None]


user_presence: Final = Table(
    "user_presence",
    metadata,
    UserPresenceColumns,
    # Conflict target of the clients' upserts. A host has one row, so a longer index from host_id on is useless.
    Index("idx_user_presence_host_unique", "host_id", unique=True),
    comment="Which hosts can take a call now, one row for each host.",
)
# Free space on the page makes a heartbeat a HOT update: it writes no index, and reuses the space of dead versions of
# the row, so the table does not grow. On a full page each row would first move to a new page.
declare(user_presence, "storage parameter", "fillfactor", "ALTER TABLE public.user_presence SET (fillfactor = 60)")
# In the authenticated mode a host upserts its own row, all columns of it. Everybody else calls host_presence().
row_level_security(
    user_presence, select=own("host_id"), insert=own("host_id"), update=own("host_id"), delete=own("host_id")
)
grant(
    user_presence,
    when_open=dict.fromkeys(API_ROLES, READ_WRITE),
    authenticated=dict.fromkeys(API_ROLES[1:], READ_WRITE),
)
publish(user_presence)

function(metadata, SQL / "public.update_user_presence_updated_at.sql")
trigger(
    user_presence,
    "update_user_presence_updated_at_trigger",
    "BEFORE INSERT OR UPDATE",
    "public.update_user_presence_updated_at",
)

_CALLERS: Final = dict.fromkeys(API_ROLES, EXECUTE)
function(user_presence, SQL / "oblivion.host_presence.sql", granted=_CALLERS)
function(user_presence, SQL / "public.host_presence.sql", granted=_CALLERS)
