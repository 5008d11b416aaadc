"""Pages that bill their calls by themselves, metered: the token engine bills what they do, and they need not change.

Such a page inserts a call, sets its end, reads the balance, writes it back, and logs the usage. If pages are metered
(`access`), triggers give the call a meter and end it by the server's clock, and the last two writes have no effect. The
page gets the answers that it got before.

A page sends no tick. `burn_calls()` bills the calls of pages that have a heartbeat, so that balances go down meanwhile.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import Column, Named, TypedColumns, Uuid

from oblivion_schema.declare.access import EXECUTE
from oblivion_schema.declare.ddl import function, grants, qualified, view
from oblivion_schema.tables.base import Timestamp, metadata
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.metering import billing_incidents, call_meters
from oblivion_schema.tables.presence import user_presence

SQL: Final = Path(__file__).with_suffix("")


class PageCallColumns(TypedColumns):
    """Columns of `oblivion.page_calls`."""

    session_id: Named[UUID] = Column(Uuid, comment="The call.")
    heartbeat: Named[datetime | None] = Column(
        Timestamp, comment="Last heartbeat of its room, or of the host who makes it; NULL if there was none."
    )
    __row_pos__: tuple[UUID, datetime | None]


page_calls: Final = view(
    SQL / "oblivion.page_calls.sql",
    metadata,
    PageCallColumns,
    reads=[call_meters, call_sessions, user_presence],
)
grants(page_calls, "page_calls", f"TABLE {qualified(page_calls)}", {})

function(billing_incidents, SQL / "oblivion.meter_call.sql")
function(billing_incidents, SQL / "oblivion.unmeter_call.sql")
function(billing_incidents, SQL / "oblivion.meter_page_call.sql")
function(billing_incidents, SQL / "oblivion.bill_page_call.sql")
function(billing_incidents, SQL / "oblivion.update_account.sql")
function(billing_incidents, SQL / "oblivion.guard_account.sql")
function(billing_incidents, SQL / "oblivion.call_id.sql")
function(billing_incidents, SQL / "oblivion.guard_usage.sql")
function(billing_incidents, SQL / "public.burn_calls.sql", granted={"service_role": EXECUTE})
