"""Token billing.

Why: calls cost tokens. The database stores the balance of each account, the tokens consumed, and the rates per minute.
Locks: nothing that another session can wait for on an empty database. Existing tables and views are locked against
reads and writes, all at once or none. That is 0.86 s for ten million rows of usage, which are scanned once and not
rewritten; 0.07 s after `oblivion-schema prepare`.
"""

from pathlib import Path

from oblivion_schema.operations import join_realtime, run_file, run_sql
from oblivion_schema.operations.adoption import (
    add_check,
    add_foreign_key,
    begin_adoption,
    create_index,
    drop_index_as_made,
    drop_index_unless,
    drop_policy_as_made,
    drop_unless_adopted,
    fill_nulls,
    lock_together,
    note_others,
    release_adopted,
    replace_view,
    set_defaults,
)

revision = "003"
down_revision = "002"
branch_labels = None
depends_on = None

SQL = Path(__file__).with_suffix("")


ACCOUNT_COLUMNS = {
    "user_id": "text",
    "tokens_remaining": "integer",
    "created_at": "timestamp with time zone",
    "updated_at": "timestamp with time zone",
    "email": "text",
    "subscription_tier": "text",
}
USAGE_COLUMNS = {
    "id": "uuid",
    "user_id": "text",
    "session_id": "text",
    "tokens_used": "integer",
    "timestamp": "timestamp with time zone",
    "mode": "text",
    "used_turn": "boolean",
    "duration_seconds": "integer",
}
RATE_COLUMNS = {
    "mode": "text",
    "used_turn": "boolean",
    "effective_from": "timestamp with time zone",
    "tokens_per_minute": "integer",
}
USAGE_INDEXES = (
    "idx_token_usage_session_id",
    "idx_token_usage_timestamp",
    "idx_token_usage_user_date",
    "idx_token_usage_billing",
)
ACCOUNT_POLICIES = ("user_accounts_select", "user_accounts_insert", "user_accounts_update", "user_accounts_delete")
USAGE_POLICIES = ("token_usage_select", "token_usage_insert", "token_usage_update", "token_usage_delete")


def upgrade() -> None:
    lock_together("user_token_summary", "daily_token_usage", "token_usage", "user_accounts")
    begin_adoption("user_accounts", "Token balances, one row for each account.", ACCOUNT_COLUMNS)
    begin_adoption("token_usage", "Log of the tokens that calls consumed.", USAGE_COLUMNS)
    begin_adoption("token_rates", "Tokens for each started minute of a call, by mode and TURN.", RATE_COLUMNS)
    run_file(SQL / "public.user_accounts.sql")
    fill_nulls(
        "user_accounts",
        tokens_remaining="0",
        created_at="coalesce(updated_at, now())",
        updated_at="coalesce(created_at, now())",
        subscription_tier="'free'",
    )
    set_defaults(
        "user_accounts",
        {
            "tokens_remaining": "100",
            "created_at": "now()",
            "updated_at": "now()",
            "subscription_tier": "'free'",
        },
    )
    add_check("user_accounts", "positive_tokens", "tokens_remaining >= 0")
    add_check(
        "user_accounts",
        "user_accounts_subscription_tier_check",
        "subscription_tier IN ('free', 'pro', 'enterprise')",
    )
    drop_policy_as_made("user_accounts", "Allow all operations on user_accounts")
    drop_index_as_made("user_accounts", "idx_user_accounts_tokens", "tokens_remaining")
    drop_index_unless("user_accounts", "idx_user_accounts_email")
    create_index("user_accounts", "idx_user_accounts_email", "email")
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_user_accounts_updated_at
        BEFORE UPDATE ON public.user_accounts
        FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column()
        """
    )
    run_file(SQL / "public.token_usage.sql")
    run_file(SQL / "refuse_nulls.sql")
    fill_nulls(
        "token_usage",
        "call_sessions",
        # If the row names an existing call, when that call ended.
        timestamp=(
            "coalesce(CASE WHEN session_id ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' THEN ("
            "SELECT coalesce(c.end_time, c.start_time) FROM public.call_sessions AS c WHERE c.id = session_id::uuid"
            ") END, now())"
        ),
    )
    set_defaults("token_usage", {"id": "gen_random_uuid()", '"timestamp"': "now()"})
    add_foreign_key("token_usage", "fk_token_usage_user_id", "user_id", "user_accounts", "user_id")
    add_check("token_usage", "positive_token_usage", "tokens_used >= 0")
    add_check("token_usage", "token_usage_mode_check", "mode IN ('voice', 'video')")
    add_check("token_usage", "valid_duration", "duration_seconds IS NULL OR duration_seconds >= 0")
    drop_policy_as_made("token_usage", "Allow all operations on token_usage")
    drop_index_as_made("token_usage", "idx_token_usage_user_id", "user_id")
    drop_index_as_made("token_usage", "idx_token_usage_mode", "mode")
    for name in USAGE_INDEXES:
        drop_index_unless("token_usage", name)
    create_index("token_usage", "idx_token_usage_session_id", "session_id")
    create_index("token_usage", "idx_token_usage_timestamp", '"timestamp"')
    create_index("token_usage", "idx_token_usage_user_date", 'user_id, "timestamp"')
    create_index("token_usage", "idx_token_usage_billing", 'mode, used_turn, "timestamp"')
    run_file(SQL / "public.token_rates.sql")
    run_file(SQL / "policies.sql")
    replace_view(SQL / "public.user_token_summary.sql")
    replace_view(SQL / "public.daily_token_usage.sql")
    run_file(SQL / "grants.sql")
    join_realtime("user_accounts")

    run_sql(
        """
        INSERT INTO public.token_rates (mode, used_turn, effective_from, tokens_per_minute)
        VALUES
          ('voice', false, '1970-01-01 00:00:00+00', 1),
          ('voice', true, '1970-01-01 00:00:00+00', 2),
          ('video', false, '1970-01-01 00:00:00+00', 2),
          ('video', true, '1970-01-01 00:00:00+00', 6)
        ON CONFLICT (mode, used_turn, effective_from) DO NOTHING
        """
    )
    run_sql(
        """
        INSERT INTO public.user_accounts (user_id, tokens_remaining, subscription_tier, email)
        SELECT user_id, tokens_remaining, subscription_tier, email
        FROM (
          VALUES
            ('demo_user', 500, 'free', 'demo@oblivn.com'),
            ('test_user_1', 100, 'free', 'test1@oblivn.com'),
            ('test_user_2', 250, 'pro', 'test2@oblivn.com'),
            ('developer', 1000, 'enterprise', 'dev@oblivn.com')
        ) AS demo (user_id, tokens_remaining, subscription_tier, email)
        WHERE coalesce(current_setting('oblivion.demo', true), '') <> 'no'
          AND NOT EXISTS (SELECT FROM public.user_accounts AS a WHERE a.user_id = demo.user_id)
        ON CONFLICT (user_id) DO NOTHING
        """
    )

    note_others(
        "user_accounts",
        list(ACCOUNT_COLUMNS),
        [
            "user_accounts_pkey",
            "positive_tokens",
            "user_accounts_subscription_tier_check",
            "idx_user_accounts_email",
            "update_user_accounts_updated_at",
            "supabase_realtime",
            *ACCOUNT_POLICIES,
        ],
    )
    note_others(
        "token_usage",
        list(USAGE_COLUMNS),
        [
            "token_usage_pkey",
            "fk_token_usage_user_id",
            "positive_token_usage",
            "token_usage_mode_check",
            "valid_duration",
            *USAGE_INDEXES,
            *USAGE_POLICIES,
        ],
    )


def downgrade() -> None:
    run_file(SQL / "down/refuse_to_drop_rows.sql")
    release_adopted("token_usage", USAGE_POLICIES)
    release_adopted("user_accounts", ACCOUNT_POLICIES)
    drop_unless_adopted(
        "token_usage",
        "DROP VIEW public.daily_token_usage",
        "DROP VIEW public.user_token_summary",
        "DROP TABLE public.token_usage",
    )
    # If token_usage was adopted and user_accounts was not, the foreign key and the view still depend on user_accounts.
    drop_unless_adopted(
        "user_accounts",
        "DROP VIEW IF EXISTS public.user_token_summary",
        "ALTER TABLE IF EXISTS public.token_usage DROP CONSTRAINT IF EXISTS fk_token_usage_user_id",
        "DROP TABLE public.user_accounts",
    )
    drop_unless_adopted("token_rates", "DROP TABLE public.token_rates")
