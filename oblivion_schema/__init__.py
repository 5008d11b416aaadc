"""The database of Oblivion, an embeddable video and voice calling widget.

Tables and views are SQLAlchemy Core objects with typed columns; import them from here. `upgrade()` brings a database
to the newest revision; `tokens_for()` computes the price of a call. `oblivion_schema.billing` has the functions that
start, bill and end calls, with typed columns too.

Importing this package opens no connection, reads no environment variable, and loads neither Alembic nor a database
driver.
"""

from oblivion_schema.deploy.upgrade import upgrade
from oblivion_schema.tables.accounts import user_accounts
from oblivion_schema.tables.adoption_log import adoption_log
from oblivion_schema.tables.base import metadata
from oblivion_schema.tables.calls import active_calls, call_sessions
from oblivion_schema.tables.ledger import balance_audit, token_ledger
from oblivion_schema.tables.metering import billing_incidents, call_meters, call_segments, live_calls
from oblivion_schema.tables.pages import page_calls
from oblivion_schema.tables.presence import user_presence
from oblivion_schema.tables.rates import token_rates, tokens_for
from oblivion_schema.tables.reports import daily_billing_summary, daily_token_usage, user_token_summary
from oblivion_schema.tables.sign_up import callers_without_account, sign_up
from oblivion_schema.tables.usage import token_usage

__version__ = "1.0.0"

__all__ = [
    "active_calls",
    "adoption_log",
    "balance_audit",
    "billing_incidents",
    "call_meters",
    "call_segments",
    "call_sessions",
    "callers_without_account",
    "daily_billing_summary",
    "daily_token_usage",
    "live_calls",
    "metadata",
    "page_calls",
    "sign_up",
    "token_ledger",
    "token_rates",
    "token_usage",
    "tokens_for",
    "upgrade",
    "user_accounts",
    "user_presence",
    "user_token_summary",
]
