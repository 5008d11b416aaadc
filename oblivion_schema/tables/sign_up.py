"""Sign-up: how the account of a new user comes to be; each user gets the tokens of a new account once, ever.

A page of a signed-in user calls `open_account()`. On Supabase a trigger on auth.users may do it instead. The owner says
with how many tokens: until then nobody signs up.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Integer, Named, Table, Text, TypedColumns, text

from oblivion_schema.declare.access import EXECUTE, keep_pages_out
from oblivion_schema.declare.ddl import function, grants, qualified, view
from oblivion_schema.tables.accounts import user_accounts
from oblivion_schema.tables.base import PRIVATE_SCHEMA, Timestamp, metadata
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.metering import billing_incidents

SQL: Final = Path(__file__).with_suffix("")


class SignUpColumns(TypedColumns):
    """Columns of `oblivion.sign_up`."""

    is_open: Named[bool] = Column(
        Boolean, primary_key=True, server_default=text("true"), comment="True: there is one row, or none."
    )
    tokens: Named[int] = Column(Integer, comment="Tokens of a new account.")
    __row_pos__: tuple[bool, int]


sign_up: Final = Table(
    "sign_up",
    metadata,
    SignUpColumns,
    CheckConstraint("is_open", name="is_open"),
    CheckConstraint("tokens >= 0", name="tokens"),
    schema=PRIVATE_SCHEMA,
    comment="Whether users may open accounts: without a row nobody may. allow_sign_up() writes it.",
)
keep_pages_out(sign_up)
grants(sign_up, "sign_up", f"TABLE {qualified(sign_up)}", {})


class CallerWithoutAccountColumns(TypedColumns):
    """Columns of `oblivion.callers_without_account`."""

    user_id: Named[str] = Column(Text, comment="The user whom the calls name; no account has that id.")
    calls: Named[int] = Column(BigInteger, comment="Calls of the user, none of which is billed.")
    open_calls: Named[int] = Column(BigInteger, comment="Those that have not ended.")
    minutes: Named[int] = Column(BigInteger, comment="Started minutes of those that ended, by their own times.")
    last_call: Named[datetime] = Column(Timestamp, comment="When the last one began.")
    __row_pos__: tuple[str, int, int, int, datetime]


callers_without_account: Final = view(
    SQL / "oblivion.callers_without_account.sql",
    metadata,
    CallerWithoutAccountColumns,
    reads=[call_sessions, user_accounts],
)
grants(callers_without_account, "callers_without_account", f"TABLE {qualified(callers_without_account)}", {})

_SIGNED_IN: Final = {"authenticated": EXECUTE}
function(billing_incidents, SQL / "oblivion.allow_sign_up.sql")
function(billing_incidents, SQL / "oblivion.make_account.sql")
function(billing_incidents, SQL / "oblivion.open_account.sql", granted=_SIGNED_IN)
function(billing_incidents, SQL / "oblivion.open_account_of_user.sql")
function(billing_incidents, SQL / "public.open_account.sql", granted=_SIGNED_IN)
