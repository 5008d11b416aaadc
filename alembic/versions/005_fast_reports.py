"""Reports that stay fast.

Why: reports read each row of usage and of calls, and took longer with each of them; from here on they read roll-ups, which
triggers keep in the transaction of each change. Fewer and smaller indexes on usage, and heartbeats that change none.
Locks: calls, usage and presence against everybody while the roll-ups are filled from the rows there are, and an index of
usage is built: ?
"""

from oblivion_schema.operations import keep_grants, restore_grants, run_sql
from oblivion_schema.operations.adoption import lock_together

revision = "005"
down_revision = "004"
branch_labels = None
depends_on = None

LOCKED = (
    "active_calls",
    "daily_billing_summary",
    "daily_token_usage",
    "user_token_summary",
    "call_sessions",
    "token_usage",
    "user_presence",
)
TABLES = ("sees_all", "daily_usage", "user_usage", "usage_deltas", "daily_calls", "call_deltas")


def upgrade() -> None:
    lock_together(*LOCKED)
    change_indexes()
    create_tables()
    create_functions()
    guard_tables()
    create_triggers()
    create_views()
    change_presence()
    fill()
    for thing, comment in (
        (
            "FUNCTION oblivion.call_amounts(timestamp with time zone,timestamp with time zone,text,boolean,numeric)",
            "What one call adds to the sums of its day.",
        ),
        ("FUNCTION oblivion.fold_usage(integer)", "Folds deltas into the roll-ups of usage."),
        ("FUNCTION oblivion.fold_calls(integer)", "Folds deltas into the roll-up of calls."),
        ("FUNCTION oblivion.note_usage()", "Trigger: appends what a statement changed in usage."),
        ("FUNCTION oblivion.note_calls()", "Trigger: appends what a statement changed in calls."),
        ("FUNCTION oblivion.clear_rollups()", "Trigger: empties what stood for the rows of a table."),
        (
            "FUNCTION oblivion.rebuild_rollups()",
            "Mends the roll-ups, while writers go on; returns how many sums were off.",
        ),
        (
            "COLUMN public.user_presence.updated_at",
            "When the host was last heard of, by the server''s clock; a trigger keeps it.",
        ),
        ("FUNCTION oblivion.host_presence(text,interval)", "What anybody may know of a host, past row level security."),
        (
            "FUNCTION public.host_presence(text,interval)",
            "Whether a host takes calls, where, and when the host was last heard of; away when that is longer ago than stale_after by the server''s clock, 2 minutes unless it is given; no row for one that is not known.",
        ),
        (
            "TABLE oblivion.sees_all",
            "One row, which those see whom row level security shows all rows of calls and usage.",
        ),
        ("COLUMN oblivion.sees_all.yes", "True."),
        ("TABLE oblivion.daily_usage", "Usage by UTC day, mode and TURN, but for what usage_deltas holds."),
        ("COLUMN oblivion.daily_usage.usage_date", "UTC day on which the usage was logged."),
        ("COLUMN oblivion.daily_usage.mode", "voice or video."),
        ("COLUMN oblivion.daily_usage.used_turn", "Whether the TURN rate applied."),
        ("COLUMN oblivion.daily_usage.sessions", "Rows of usage."),
        ("COLUMN oblivion.daily_usage.tokens", "Sum of their tokens."),
        ("COLUMN oblivion.daily_usage.seconds", "Sum of their lengths, unknown ones as zero."),
        ("TABLE oblivion.user_usage", "Usage by account, but for what usage_deltas holds."),
        ("COLUMN oblivion.user_usage.user_id", "The account."),
        ("COLUMN oblivion.user_usage.sessions", "Its rows of usage."),
        ("COLUMN oblivion.user_usage.tokens", "Sum of their tokens."),
        ("COLUMN oblivion.user_usage.last_usage", "The newest of them, unless has_lost_rows."),
        (
            "COLUMN oblivion.user_usage.has_lost_rows",
            "Rows were deleted, or moved back in time: last_usage may be of one of those.",
        ),
        ("TABLE oblivion.usage_deltas", "What changed in usage and is not yet in daily_usage and user_usage."),
        ("COLUMN oblivion.usage_deltas.user_id", "The account; NULL where it is a day''s alone."),
        ("COLUMN oblivion.usage_deltas.usage_date", "UTC day; NULL where it is an account''s alone."),
        ("COLUMN oblivion.usage_deltas.mode", "voice or video; NULL as the day."),
        ("COLUMN oblivion.usage_deltas.used_turn", "Whether the TURN rate applied; NULL as the day."),
        ("COLUMN oblivion.usage_deltas.sessions", "Rows more, or, below zero, fewer."),
        ("COLUMN oblivion.usage_deltas.tokens", "Tokens more."),
        ("COLUMN oblivion.usage_deltas.seconds", "Seconds more."),
        ("COLUMN oblivion.usage_deltas.last_usage", "The newest of the rows that came."),
        ("COLUMN oblivion.usage_deltas.has_lost_rows", "Rows that went may have been newer than those that came."),
        ("TABLE oblivion.daily_calls", "Calls by the UTC day on which they began, but for what call_deltas holds."),
        ("COLUMN oblivion.daily_calls.call_date", "UTC day on which the calls began."),
        ("COLUMN oblivion.daily_calls.calls", "Calls."),
        ("COLUMN oblivion.daily_calls.turn_calls", "Those that a TURN relay carried."),
        ("COLUMN oblivion.daily_calls.video_calls", "Those with video."),
        ("COLUMN oblivion.daily_calls.voice_calls", "Those with voice only."),
        ("COLUMN oblivion.daily_calls.credits", "Sum of their credit_cost, but for NaN."),
        ("COLUMN oblivion.daily_calls.credits_unknown", "Those whose credit_cost is NaN."),
        ("COLUMN oblivion.daily_calls.ended_calls", "Those that ended, and have a length."),
        ("COLUMN oblivion.daily_calls.seconds", "Sum of these lengths."),
        (
            "COLUMN public.active_calls.duration",
            "How long it has been going on; NULL where it began at no finite time.",
        ),
        ("TABLE oblivion.call_deltas", "What changed in calls and is not yet in daily_calls."),
        ("COLUMN oblivion.call_deltas.call_date", "UTC day on which the calls began."),
        ("COLUMN oblivion.call_deltas.calls", "Calls."),
        ("COLUMN oblivion.call_deltas.turn_calls", "Those that a TURN relay carried."),
        ("COLUMN oblivion.call_deltas.video_calls", "Those with video."),
        ("COLUMN oblivion.call_deltas.voice_calls", "Those with voice only."),
        ("COLUMN oblivion.call_deltas.credits", "Sum of their credit_cost, but for NaN."),
        ("COLUMN oblivion.call_deltas.credits_unknown", "Those whose credit_cost is NaN."),
        ("COLUMN oblivion.call_deltas.ended_calls", "Those that ended, and have a length."),
        ("COLUMN oblivion.call_deltas.seconds", "Sum of these lengths."),
        (
            "VIEW oblivion.daily_usage_drift",
            "What the roll-up of days lacks against the rows of usage; no row where it is right.",
        ),
        ("COLUMN oblivion.daily_usage_drift.usage_date", "The day."),
        ("COLUMN oblivion.daily_usage_drift.mode", "voice or video."),
        ("COLUMN oblivion.daily_usage_drift.used_turn", "Whether the TURN rate applied."),
        ("COLUMN oblivion.daily_usage_drift.sessions", "Rows that are missing, or, below zero, too many."),
        ("COLUMN oblivion.daily_usage_drift.tokens", "Tokens that are missing."),
        ("COLUMN oblivion.daily_usage_drift.seconds", "Seconds that are missing."),
        (
            "VIEW oblivion.user_usage_drift",
            "What the roll-up of accounts lacks against the rows of usage; no row where it is right.",
        ),
        ("COLUMN oblivion.user_usage_drift.user_id", "The account."),
        ("COLUMN oblivion.user_usage_drift.sessions", "Rows that are missing, or, below zero, too many."),
        ("COLUMN oblivion.user_usage_drift.tokens", "Tokens that are missing."),
        ("COLUMN oblivion.user_usage_drift.last_usage", "When it last used any."),
        ("COLUMN oblivion.user_usage_drift.has_lost_rows", "Whether the roll-up takes a later time for that."),
        (
            "VIEW oblivion.daily_calls_drift",
            "What the roll-up of calls lacks against the rows of calls; no row where it is right.",
        ),
        ("COLUMN oblivion.daily_calls_drift.call_date", "UTC day on which the calls began."),
        ("COLUMN oblivion.daily_calls_drift.calls", "Calls."),
        ("COLUMN oblivion.daily_calls_drift.turn_calls", "Those that a TURN relay carried."),
        ("COLUMN oblivion.daily_calls_drift.video_calls", "Those with video."),
        ("COLUMN oblivion.daily_calls_drift.voice_calls", "Those with voice only."),
        ("COLUMN oblivion.daily_calls_drift.credits", "Sum of their credit_cost, but for NaN."),
        ("COLUMN oblivion.daily_calls_drift.credits_unknown", "Those whose credit_cost is NaN."),
        ("COLUMN oblivion.daily_calls_drift.ended_calls", "Those that ended, and have a length."),
        ("COLUMN oblivion.daily_calls_drift.seconds", "Sum of these lengths."),
    ):
        run_sql(f"COMMENT ON {thing} IS '{comment}'")


def change_indexes() -> None:
    """Fewer, and smaller."""
    run_sql("DROP INDEX public.idx_token_usage_billing")
    run_sql("DROP INDEX public.idx_token_usage_session_id")
    run_sql("CREATE INDEX IF NOT EXISTS idx_token_usage_session ON public.token_usage USING hash (session_id)")
    # What `prepare` made before is ours, which the revisions before this one could not know.
    run_sql(
        """
        DELETE FROM oblivion.adoption_log
        WHERE kind = 'index' AND name = 'public.idx_token_usage_session on public.token_usage'
        """
    )


def create_tables() -> None:
    """The roll-ups, and what is not yet in them."""
    run_sql(
        """
        CREATE TABLE oblivion.sees_all (
          yes boolean NOT NULL,
          CONSTRAINT sees_all_pkey PRIMARY KEY (yes)
        )
        """
    )
    run_sql("ALTER TABLE oblivion.sees_all ADD CONSTRAINT sees_all_yes_check CHECK (yes)")
    run_sql(
        """
        INSERT INTO oblivion.sees_all (yes)
          VALUES (true)
        """
    )
    run_sql(
        """
        CREATE TABLE oblivion.daily_usage (
          usage_date date NOT NULL,
          mode text NOT NULL,
          used_turn boolean NOT NULL,
          sessions bigint NOT NULL,
          tokens bigint NOT NULL,
          seconds bigint NOT NULL,
          CONSTRAINT daily_usage_pkey PRIMARY KEY (usage_date, mode, used_turn)
        )
        """
    )
    run_sql(
        """
        CREATE TABLE oblivion.user_usage (
          user_id text NOT NULL,
          sessions bigint NOT NULL,
          tokens bigint NOT NULL,
          last_usage timestamp with time zone,
          has_lost_rows boolean NOT NULL,
          CONSTRAINT user_usage_pkey PRIMARY KEY (user_id)
        )
        WITH (fillfactor = 50)
        """
    )
    run_sql(
        """
        CREATE TABLE oblivion.usage_deltas (
          user_id text,
          usage_date date,
          mode text,
          used_turn boolean,
          sessions bigint NOT NULL,
          tokens bigint NOT NULL,
          seconds bigint NOT NULL,
          last_usage timestamp with time zone,
          has_lost_rows boolean NOT NULL
        )
        WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
        """
    )
    run_sql(
        """
        CREATE TABLE oblivion.daily_calls (
          call_date date NOT NULL,
          calls bigint NOT NULL,
          turn_calls bigint NOT NULL,
          video_calls bigint NOT NULL,
          voice_calls bigint NOT NULL,
          credits numeric NOT NULL,
          credits_unknown bigint NOT NULL,
          ended_calls bigint NOT NULL,
          seconds numeric NOT NULL,
          CONSTRAINT daily_calls_pkey PRIMARY KEY (call_date)
        )
        """
    )
    run_sql(
        """
        CREATE TABLE oblivion.call_deltas (
          call_date date NOT NULL,
          calls bigint NOT NULL,
          turn_calls bigint NOT NULL,
          video_calls bigint NOT NULL,
          voice_calls bigint NOT NULL,
          credits numeric NOT NULL,
          credits_unknown bigint NOT NULL,
          ended_calls bigint NOT NULL,
          seconds numeric NOT NULL
        )
        WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
        """
    )


def create_functions() -> None:
    """What keeps them."""
    run_sql(
        """
        CREATE FUNCTION oblivion.call_amounts(start_time timestamp with time zone, end_time timestamp with time zone, mode text, used_turn boolean, credit_cost numeric)
        RETURNS TABLE(call_date date, calls bigint, turn_calls bigint, video_calls bigint, voice_calls bigint, credits numeric, credits_unknown bigint, ended_calls bigint, seconds numeric)
        LANGUAGE sql
        IMMUTABLE PARALLEL SAFE
        BEGIN ATOMIC
        SELECT ((start_time AT TIME ZONE 'UTC'::text))::date AS timezone,
             1,
             (used_turn)::integer AS used_turn,
             ((mode = 'video'::text))::integer AS int4,
             ((mode = 'voice-only'::text))::integer AS int4,
                 CASE
                     WHEN (credit_cost = 'NaN'::numeric) THEN (0)::numeric
                     ELSE credit_cost
                 END AS credit_cost,
             ((credit_cost = 'NaN'::numeric))::integer AS int4,
                 CASE
                     WHEN (isfinite(start_time) AND isfinite(end_time)) THEN 1
                     ELSE 0
                 END AS "case",
                 CASE
                     WHEN (isfinite(start_time) AND isfinite(end_time)) THEN (EXTRACT(epoch FROM end_time) - EXTRACT(epoch FROM start_time))
                     ELSE (0)::numeric
                 END AS "case";
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.fold_usage(most integer)
        RETURNS void
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        DECLARE
          emptied_days pg_catalog.date[];
          emptied_users pg_catalog.text[];
        BEGIN
          -- One at a time, who else would waits for nothing; and not from an older snapshot, in which a delta may be there that
          -- somebody has folded since.
          IF current_setting('transaction_isolation') <> 'read committed'
            OR NOT pg_try_advisory_xact_lock(hashtextextended('oblivion.fold_usage', 0))
          THEN
            RETURN;
          END IF;
          WITH folded AS (
            DELETE FROM oblivion.usage_deltas AS d
            WHERE d.ctid = ANY (ARRAY(SELECT o.ctid FROM oblivion.usage_deltas AS o LIMIT most))
            RETURNING d.*
          ),
          days AS (
            INSERT INTO oblivion.daily_usage AS u (usage_date, mode, used_turn, sessions, tokens, seconds)
            SELECT f.usage_date, f.mode, f.used_turn, sum(f.sessions), sum(f.tokens), sum(f.seconds)
            FROM folded AS f
            WHERE f.usage_date IS NOT NULL
            GROUP BY f.usage_date, f.mode, f.used_turn
            ON CONFLICT (usage_date, mode, used_turn) DO UPDATE
            SET sessions = u.sessions + excluded.sessions,
              tokens = u.tokens + excluded.tokens,
              seconds = u.seconds + excluded.seconds
            RETURNING u.usage_date, u.sessions
          ),
          users AS (
            INSERT INTO oblivion.user_usage AS u (user_id, sessions, tokens, last_usage, has_lost_rows)
            SELECT f.user_id, sum(f.sessions), sum(f.tokens), max(f.last_usage), bool_or(f.has_lost_rows)
            FROM folded AS f
            WHERE f.user_id IS NOT NULL
            GROUP BY f.user_id
            ON CONFLICT (user_id) DO UPDATE
            SET sessions = u.sessions + excluded.sessions,
              tokens = u.tokens + excluded.tokens,
              last_usage = greatest(u.last_usage, excluded.last_usage),
              has_lost_rows = u.has_lost_rows OR excluded.has_lost_rows
            RETURNING u.user_id, u.sessions
          )
          SELECT
            (SELECT array_agg(d.usage_date) FROM days AS d WHERE d.sessions = 0),
            (SELECT array_agg(s.user_id) FROM users AS s WHERE s.sessions = 0)
          INTO emptied_days, emptied_users;
          DELETE FROM oblivion.daily_usage AS u
          WHERE u.usage_date = ANY (emptied_days) AND u.sessions = 0 AND u.tokens = 0 AND u.seconds = 0;
          -- Not where deltas are left: the row may have lost what one of them says.
          DELETE FROM oblivion.user_usage AS u
          WHERE u.user_id = ANY (emptied_users) AND u.sessions = 0 AND u.tokens = 0
            AND NOT EXISTS (SELECT FROM oblivion.usage_deltas AS d WHERE d.user_id = u.user_id);
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.fold_calls(most integer)
        RETURNS void
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        DECLARE
          emptied pg_catalog.date[];
        BEGIN
          IF current_setting('transaction_isolation') <> 'read committed'
            OR NOT pg_try_advisory_xact_lock(hashtextextended('oblivion.fold_calls', 0))
          THEN
            RETURN;
          END IF;
          WITH folded AS (
            DELETE FROM oblivion.call_deltas AS d
            WHERE d.ctid = ANY (ARRAY(SELECT o.ctid FROM oblivion.call_deltas AS o LIMIT most))
            RETURNING d.*
          ),
          days AS (
            INSERT INTO oblivion.daily_calls AS u (
              call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
            )
            SELECT
              f.call_date, sum(f.calls), sum(f.turn_calls), sum(f.video_calls), sum(f.voice_calls),
              sum(f.credits), sum(f.credits_unknown), sum(f.ended_calls), sum(f.seconds)
            FROM folded AS f
            GROUP BY f.call_date
            ON CONFLICT (call_date) DO UPDATE
            SET calls = u.calls + excluded.calls,
              turn_calls = u.turn_calls + excluded.turn_calls,
              video_calls = u.video_calls + excluded.video_calls,
              voice_calls = u.voice_calls + excluded.voice_calls,
              credits = u.credits + excluded.credits,
              credits_unknown = u.credits_unknown + excluded.credits_unknown,
              ended_calls = u.ended_calls + excluded.ended_calls,
              seconds = u.seconds + excluded.seconds
            RETURNING u.call_date, u.calls
          )
          SELECT array_agg(d.call_date) INTO emptied FROM days AS d WHERE d.calls = 0;
          DELETE FROM oblivion.daily_calls AS u
          WHERE u.call_date = ANY (emptied)
            AND (u.calls, u.turn_calls, u.video_calls, u.voice_calls, u.credits, u.credits_unknown, u.ended_calls, u.seconds)
              = (0, 0, 0, 0, 0, 0, 0, 0);
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.note_usage()
        RETURNS trigger
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        DECLARE
          noted integer;
          further integer := 0;
          change pg_catalog.record;
        BEGIN
          IF TG_OP = 'INSERT' THEN
            -- One row at a time is what happens most: as they are; of more than some, sums.
            INSERT INTO oblivion.usage_deltas (
              user_id, usage_date, mode, used_turn, sessions, tokens, seconds, last_usage, has_lost_rows
            )
            SELECT
              a.user_id, (a."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, a.mode, a.used_turn,
              1, a.tokens_used, coalesce(a.duration_seconds, 0), a."timestamp", false
            FROM added AS a
            LIMIT 100;
            GET DIAGNOSTICS noted = ROW_COUNT;
            IF noted = 100 THEN
              INSERT INTO oblivion.usage_deltas (
                user_id, usage_date, mode, used_turn, sessions, tokens, seconds, last_usage, has_lost_rows
              )
              SELECT
                a.user_id, (a."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, a.mode, a.used_turn,
                count(*), sum(a.tokens_used), coalesce(sum(a.duration_seconds), 0), max(a."timestamp"), false
              FROM (SELECT * FROM added OFFSET 100) AS a
              GROUP BY GROUPING SETS (((a."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, a.mode, a.used_turn), (a.user_id));
              GET DIAGNOSTICS further = ROW_COUNT;
            END IF;
          ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO oblivion.usage_deltas (
              user_id, usage_date, mode, used_turn, sessions, tokens, seconds, last_usage, has_lost_rows
            )
            SELECT
              r.user_id, (r."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, r.mode, r.used_turn,
              -count(*), -sum(r.tokens_used), -coalesce(sum(r.duration_seconds), 0), NULL, true
            FROM removed AS r
            GROUP BY GROUPING SETS (((r."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, r.mode, r.used_turn), (r.user_id));
            GET DIAGNOSTICS noted = ROW_COUNT;
          ELSE
            SELECT
              a.tokens_used - r.tokens_used AS tokens,
              coalesce(a.duration_seconds, 0) - coalesce(r.duration_seconds, 0) AS seconds,
              (a.user_id, a."timestamp", a.mode, a.used_turn) = (r.user_id, r."timestamp", r.mode, r.used_turn)
                AND NOT EXISTS (SELECT FROM added OFFSET 1) AS is_plain,
              a.user_id, a."timestamp", a.mode, a.used_turn
            INTO change
            FROM added AS a
            CROSS JOIN removed AS r
            LIMIT 1;
            IF NOT FOUND THEN
              RETURN NULL;
            ELSIF change.is_plain THEN
              -- Of one row, the tokens or the length: what billing does each minute.
              noted := 0;
              IF (change.tokens, change.seconds) <> (0, 0) THEN
                noted := 1;
                INSERT INTO oblivion.usage_deltas (
                  user_id, usage_date, mode, used_turn, sessions, tokens, seconds, last_usage, has_lost_rows
                )
                VALUES (
                  change.user_id, (change."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, change.mode, change.used_turn,
                  0, change.tokens, change.seconds, NULL, false
                );
              END IF;
            ELSE
              INSERT INTO oblivion.usage_deltas (
                user_id, usage_date, mode, used_turn, sessions, tokens, seconds, last_usage, has_lost_rows
              )
              SELECT
                c.user_id, c.usage_date, c.mode, c.used_turn,
                sum(c.sign), sum(c.sign * c.tokens_used), sum(c.sign * c.seconds),
                max(c.came), coalesce(max(c.went) > max(c.came), max(c.came) IS NULL)
              FROM (
                SELECT
                  1 AS sign, a.user_id, (a."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date AS usage_date, a.mode, a.used_turn,
                  a.tokens_used, coalesce(a.duration_seconds, 0) AS seconds, a."timestamp" AS came, NULL::timestamp with time zone AS went
                FROM added AS a
                UNION ALL
                SELECT
                  -1, r.user_id, (r."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, r.mode, r.used_turn,
                  r.tokens_used, coalesce(r.duration_seconds, 0), NULL, r."timestamp"
                FROM removed AS r
              ) AS c
              GROUP BY GROUPING SETS ((c.usage_date, c.mode, c.used_turn), (c.user_id))
              HAVING (sum(c.sign), sum(c.sign * c.tokens_used), sum(c.sign * c.seconds)) <> (0, 0, 0)
                OR max(c.came) <> max(c.went);
              GET DIAGNOSTICS noted = ROW_COUNT;
            END IF;
          END IF;
          IF random() * 1000 < noted + further THEN
            PERFORM oblivion.fold_usage(10000 + noted + further);
          END IF;
          RETURN NULL;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.note_calls()
        RETURNS trigger
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        DECLARE
          noted integer;
          change pg_catalog.record;
        BEGIN
          IF TG_OP = 'INSERT' THEN
            INSERT INTO oblivion.call_deltas (
              call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
            )
            SELECT
              c.call_date, sum(c.calls), sum(c.turn_calls), sum(c.video_calls), sum(c.voice_calls),
              sum(c.credits), sum(c.credits_unknown), sum(c.ended_calls), sum(c.seconds)
            FROM added AS a
            CROSS JOIN LATERAL oblivion.call_amounts(a.start_time, a.end_time, a.mode, a.used_turn, a.credit_cost) AS c
            GROUP BY c.call_date;
          ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO oblivion.call_deltas (
              call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
            )
            SELECT
              c.call_date, -sum(c.calls), -sum(c.turn_calls), -sum(c.video_calls), -sum(c.voice_calls),
              -sum(c.credits), -sum(c.credits_unknown), -sum(c.ended_calls), -sum(c.seconds)
            FROM removed AS r
            CROSS JOIN LATERAL oblivion.call_amounts(r.start_time, r.end_time, r.mode, r.used_turn, r.credit_cost) AS c
            GROUP BY c.call_date;
          ELSE
            SELECT
              (a.end_time, a.mode, a.used_turn, a.credit_cost) IS DISTINCT FROM (r.end_time, r.mode, r.used_turn, r.credit_cost)
                AS differs,
              a.start_time = r.start_time AND NOT EXISTS (SELECT FROM added OFFSET 1) AS is_plain
            INTO change
            FROM added AS a
            CROSS JOIN removed AS r
            LIMIT 1;
            IF NOT FOUND THEN
              RETURN NULL;
            ELSIF change.is_plain AND NOT change.differs THEN
              -- A call was only seen.
              RETURN NULL;
            ELSIF change.is_plain THEN
              INSERT INTO oblivion.call_deltas (
                call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
              )
              SELECT
                n.call_date, 0, n.turn_calls - o.turn_calls, n.video_calls - o.video_calls, n.voice_calls - o.voice_calls,
                n.credits - o.credits, n.credits_unknown - o.credits_unknown, n.ended_calls - o.ended_calls,
                n.seconds - o.seconds
              FROM added AS a
              CROSS JOIN removed AS r
              CROSS JOIN LATERAL oblivion.call_amounts(a.start_time, a.end_time, a.mode, a.used_turn, a.credit_cost) AS n
              CROSS JOIN LATERAL oblivion.call_amounts(r.start_time, r.end_time, r.mode, r.used_turn, r.credit_cost) AS o;
            ELSE
              INSERT INTO oblivion.call_deltas (
                call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
              )
              SELECT
                c.call_date, sum(s.sign * c.calls), sum(s.sign * c.turn_calls), sum(s.sign * c.video_calls),
                sum(s.sign * c.voice_calls), sum(s.sign * c.credits), sum(s.sign * c.credits_unknown),
                sum(s.sign * c.ended_calls), sum(s.sign * c.seconds)
              FROM (
                SELECT 1 AS sign, a.start_time, a.end_time, a.mode, a.used_turn, a.credit_cost FROM added AS a
                UNION ALL
                SELECT -1, r.start_time, r.end_time, r.mode, r.used_turn, r.credit_cost FROM removed AS r
              ) AS s
              CROSS JOIN LATERAL oblivion.call_amounts(s.start_time, s.end_time, s.mode, s.used_turn, s.credit_cost) AS c
              GROUP BY c.call_date
              HAVING (
                sum(s.sign * c.calls), sum(s.sign * c.turn_calls), sum(s.sign * c.video_calls), sum(s.sign * c.voice_calls),
                sum(s.sign * c.credits), sum(s.sign * c.credits_unknown), sum(s.sign * c.ended_calls), sum(s.sign * c.seconds)
              ) <> (0, 0, 0, 0, 0, 0, 0, 0);
            END IF;
          END IF;
          GET DIAGNOSTICS noted = ROW_COUNT;
          IF random() * 1000 < noted THEN
            PERFORM oblivion.fold_calls(10000 + noted);
          END IF;
          RETURN NULL;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.clear_rollups()
        RETURNS trigger
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        BEGIN
          IF TG_TABLE_NAME = 'token_usage' THEN
            TRUNCATE oblivion.usage_deltas, oblivion.daily_usage, oblivion.user_usage;
          ELSE
            TRUNCATE oblivion.call_deltas, oblivion.daily_calls;
          END IF;
          RETURN NULL;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.rebuild_rollups()
        RETURNS bigint
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        DECLARE
          off bigint;
          mended bigint := 0;
        BEGIN
          IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE active_sql_transaction
              USING MESSAGE = 'rebuild_rollups() has to see what others have mended', HINT = 'Call it in READ COMMITTED';
          END IF;
          PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.rebuild_rollups', 0));
          -- Rows before their sums, as everybody locks them.
          LOCK TABLE public.token_usage, public.call_sessions IN ACCESS SHARE MODE;
          INSERT INTO oblivion.usage_deltas (usage_date, mode, used_turn, sessions, tokens, seconds, has_lost_rows)
          SELECT d.usage_date, d.mode, d.used_turn, d.sessions, d.tokens, d.seconds, false
          FROM oblivion.daily_usage_drift AS d;
          GET DIAGNOSTICS off = ROW_COUNT;
          mended := mended + off;
          INSERT INTO oblivion.usage_deltas (user_id, sessions, tokens, seconds, last_usage, has_lost_rows)
          SELECT d.user_id, d.sessions, d.tokens, 0, d.last_usage, d.has_lost_rows
          FROM oblivion.user_usage_drift AS d;
          GET DIAGNOSTICS off = ROW_COUNT;
          mended := mended + off;
          PERFORM oblivion.fold_usage(10000 + mended::integer);
          INSERT INTO oblivion.call_deltas (
            call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
          )
          SELECT
            d.call_date, d.calls, d.turn_calls, d.video_calls, d.voice_calls,
            d.credits, d.credits_unknown, d.ended_calls, d.seconds
          FROM oblivion.daily_calls_drift AS d;
          GET DIAGNOSTICS off = ROW_COUNT;
          mended := mended + off;
          PERFORM oblivion.fold_calls(10000 + off::integer);
          RETURN mended;
        END
        $function$
        """
    )
    grant_execution_to_nobody(
        "oblivion.fold_usage(integer)",
        "oblivion.fold_calls(integer)",
        "oblivion.note_usage()",
        "oblivion.note_calls()",
        "oblivion.clear_rollups()",
        "oblivion.rebuild_rollups()",
    )
    run_sql(
        "GRANT EXECUTE ON FUNCTION oblivion.call_amounts(timestamp with time zone,timestamp with time zone,text,boolean,numeric) TO PUBLIC"
    )


def guard_tables() -> None:
    """Sums are for who sees all rows; the schema is private."""
    for table in TABLES:
        run_sql(f"ALTER TABLE oblivion.{table} ENABLE ROW LEVEL SECURITY")
        run_sql(
            f"CREATE POLICY {table}_select ON oblivion.{table} FOR SELECT TO PUBLIC"
            " USING (oblivion.open_access() OR oblivion.is_service_role())"
        )
        run_sql(f"CREATE POLICY {table}_insert ON oblivion.{table} FOR INSERT TO PUBLIC WITH CHECK (false)")
        run_sql(
            f"CREATE POLICY {table}_update ON oblivion.{table} FOR UPDATE TO PUBLIC USING (false) WITH CHECK (false)"
        )
        run_sql(f"CREATE POLICY {table}_delete ON oblivion.{table} FOR DELETE TO PUBLIC USING (false)")
        run_sql(KEEP_TO_OWNER.replace("<object>", f"TABLE oblivion.{table}"))
        run_sql(f"GRANT SELECT ON TABLE oblivion.{table} TO PUBLIC")


def create_triggers() -> None:
    """What calls that."""
    run_sql(
        """
        CREATE TRIGGER note_insert AFTER INSERT ON public.call_sessions
          REFERENCING NEW TABLE AS added
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_calls()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_update AFTER UPDATE ON public.call_sessions
          REFERENCING OLD TABLE AS removed NEW TABLE AS added
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_calls()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_delete AFTER DELETE ON public.call_sessions
          REFERENCING OLD TABLE AS removed
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_calls()
        """
    )
    run_sql(
        """
        CREATE TRIGGER clear_rollups AFTER TRUNCATE ON public.call_sessions
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.clear_rollups()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_insert AFTER INSERT ON public.token_usage
          REFERENCING NEW TABLE AS added
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_usage()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_update AFTER UPDATE ON public.token_usage
          REFERENCING OLD TABLE AS removed NEW TABLE AS added
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_usage()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_delete AFTER DELETE ON public.token_usage
          REFERENCING OLD TABLE AS removed
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_usage()
        """
    )
    run_sql(
        """
        CREATE TRIGGER clear_rollups AFTER TRUNCATE ON public.token_usage
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.clear_rollups()
        """
    )


def create_views() -> None:
    """The reports, and what roll-ups lack."""
    run_sql(
        """
        CREATE OR REPLACE VIEW public.active_calls WITH (security_invoker = true) AS
        SELECT
          call_sessions.id,
          call_sessions.room_id,
          call_sessions.mode,
          call_sessions.used_turn,
          call_sessions.start_time,
              CASE
                  WHEN isfinite(call_sessions.start_time) THEN now() - call_sessions.start_time
                  ELSE NULL::interval
              END AS duration
        FROM public.call_sessions
        WHERE call_sessions.end_time IS NULL
        ORDER BY call_sessions.start_time DESC
        """
    )
    run_sql(
        """
        CREATE VIEW oblivion.daily_usage_drift WITH (security_invoker = true) AS
        SELECT
          amounts.usage_date,
          amounts.mode,
          amounts.used_turn,
          sum(amounts.sessions)::bigint AS sessions,
          sum(amounts.tokens)::bigint AS tokens,
          sum(amounts.seconds)::bigint AS seconds
        FROM ( SELECT (token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date AS usage_date,
                  token_usage.mode,
                  token_usage.used_turn,
                  count(*) AS sessions,
                  sum(token_usage.tokens_used) AS tokens,
                  COALESCE(sum(token_usage.duration_seconds), 0::bigint) AS seconds
                 FROM public.token_usage
                GROUP BY ((token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date), token_usage.mode, token_usage.used_turn
              UNION ALL
               SELECT daily_usage.usage_date,
                  daily_usage.mode,
                  daily_usage.used_turn,
                  - daily_usage.sessions,
                  - daily_usage.tokens,
                  - daily_usage.seconds
                 FROM oblivion.daily_usage
              UNION ALL
               SELECT usage_deltas.usage_date,
                  usage_deltas.mode,
                  usage_deltas.used_turn,
                  - usage_deltas.sessions,
                  - usage_deltas.tokens,
                  - usage_deltas.seconds
                 FROM oblivion.usage_deltas
                WHERE usage_deltas.usage_date IS NOT NULL) amounts
        GROUP BY amounts.usage_date, amounts.mode, amounts.used_turn
        HAVING sum(amounts.sessions) <> 0::numeric OR sum(amounts.tokens) <> 0::numeric OR sum(amounts.seconds) <> 0::numeric
        """
    )
    run_sql(
        """
        CREATE VIEW oblivion.user_usage_drift WITH (security_invoker = true) AS
        SELECT
          amounts.user_id,
          sum(amounts.sessions)::bigint AS sessions,
          sum(amounts.tokens)::bigint AS tokens,
          max(amounts.newest) AS last_usage,
          NOT bool_or(amounts.has_lost_rows) AND COALESCE(max(amounts.last_usage) > max(amounts.newest), max(amounts.newest) IS NULL) AS has_lost_rows
        FROM ( SELECT token_usage.user_id,
                  count(*) AS sessions,
                  sum(token_usage.tokens_used) AS tokens,
                  max(token_usage."timestamp") AS newest,
                  NULL::timestamp with time zone AS last_usage,
                  false AS has_lost_rows
                 FROM public.token_usage
                GROUP BY token_usage.user_id
              UNION ALL
               SELECT user_usage.user_id,
                  - user_usage.sessions,
                  - user_usage.tokens,
                  NULL::timestamp with time zone AS newest,
                  user_usage.last_usage,
                  user_usage.has_lost_rows
                 FROM oblivion.user_usage
              UNION ALL
               SELECT usage_deltas.user_id,
                  - usage_deltas.sessions,
                  - usage_deltas.tokens,
                  NULL::timestamp with time zone AS newest,
                  usage_deltas.last_usage,
                  usage_deltas.has_lost_rows
                 FROM oblivion.usage_deltas
                WHERE usage_deltas.user_id IS NOT NULL) amounts
        GROUP BY amounts.user_id
        HAVING sum(amounts.sessions) <> 0::numeric OR sum(amounts.tokens) <> 0::numeric OR NOT bool_or(amounts.has_lost_rows) AND max(amounts.newest) IS DISTINCT FROM max(amounts.last_usage)
        """
    )
    run_sql(
        """
        CREATE OR REPLACE VIEW public.daily_token_usage WITH (security_invoker = true) AS
        SELECT
          amounts.usage_date,
          amounts.mode,
          amounts.used_turn,
          sum(amounts.sessions)::bigint AS session_count,
          sum(amounts.tokens)::bigint AS total_tokens,
          sum(amounts.tokens) / sum(amounts.sessions) AS avg_tokens_per_session,
          sum(amounts.seconds) / 60.0 AS total_minutes
        FROM ( SELECT (token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date AS usage_date,
                  token_usage.mode,
                  token_usage.used_turn,
                  1::bigint AS sessions,
                  token_usage.tokens_used::bigint AS tokens,
                  COALESCE(token_usage.duration_seconds, 0)::bigint AS seconds
                 FROM public.token_usage
                WHERE NOT oblivion.open_access() AND NOT (EXISTS ( SELECT
                         FROM oblivion.sees_all))
              UNION ALL
               SELECT daily_usage.usage_date,
                  daily_usage.mode,
                  daily_usage.used_turn,
                  daily_usage.sessions,
                  daily_usage.tokens,
                  daily_usage.seconds
                 FROM oblivion.daily_usage
                WHERE oblivion.open_access() OR (EXISTS ( SELECT
                         FROM oblivion.sees_all))
              UNION ALL
               SELECT usage_deltas.usage_date,
                  usage_deltas.mode,
                  usage_deltas.used_turn,
                  usage_deltas.sessions,
                  usage_deltas.tokens,
                  usage_deltas.seconds
                 FROM oblivion.usage_deltas
                WHERE usage_deltas.usage_date IS NOT NULL AND (oblivion.open_access() OR (EXISTS ( SELECT
                         FROM oblivion.sees_all)))) amounts
        GROUP BY amounts.usage_date, amounts.mode, amounts.used_turn
        HAVING sum(amounts.sessions) <> 0::numeric
        ORDER BY amounts.usage_date DESC, amounts.mode, amounts.used_turn
        """
    )
    run_sql(
        """
        CREATE OR REPLACE VIEW public.user_token_summary WITH (security_invoker = true) AS
        SELECT
          a.user_id,
          a.tokens_remaining,
          a.subscription_tier,
          a.created_at AS account_created,
          COALESCE(u.tokens, 0::numeric)::bigint AS total_tokens_used,
          COALESCE(u.sessions, 0::numeric)::bigint AS total_sessions,
              CASE
                  WHEN u.has_lost_rows THEN ( SELECT max(t."timestamp") AS max
                     FROM public.token_usage t
                    WHERE t.user_id = a.user_id)
                  ELSE u.last_usage
              END AS last_usage
        FROM public.user_accounts a
        LEFT JOIN ( SELECT amounts.user_id,
                  sum(amounts.sessions) AS sessions,
                  sum(amounts.tokens) AS tokens,
                  max(amounts.last_usage) AS last_usage,
                  bool_or(amounts.has_lost_rows) AS has_lost_rows
                 FROM ( SELECT token_usage.user_id,
                          1::bigint AS sessions,
                          token_usage.tokens_used::bigint AS tokens,
                          token_usage."timestamp" AS last_usage,
                          false AS has_lost_rows
                         FROM public.token_usage
                        WHERE NOT oblivion.open_access() AND NOT (EXISTS ( SELECT
                                 FROM oblivion.sees_all))
                      UNION ALL
                       SELECT user_usage.user_id,
                          user_usage.sessions,
                          user_usage.tokens,
                          user_usage.last_usage,
                          user_usage.has_lost_rows
                         FROM oblivion.user_usage
                        WHERE oblivion.open_access() OR (EXISTS ( SELECT
                                 FROM oblivion.sees_all))
                      UNION ALL
                       SELECT usage_deltas.user_id,
                          usage_deltas.sessions,
                          usage_deltas.tokens,
                          usage_deltas.last_usage,
                          usage_deltas.has_lost_rows
                         FROM oblivion.usage_deltas
                        WHERE usage_deltas.user_id IS NOT NULL AND (oblivion.open_access() OR (EXISTS ( SELECT
                                 FROM oblivion.sees_all)))) amounts
                GROUP BY amounts.user_id) u ON u.user_id = a.user_id
        """
    )
    run_sql(
        """
        CREATE VIEW oblivion.daily_calls_drift WITH (security_invoker = true) AS
        SELECT
          amounts.call_date,
          sum(amounts.calls)::bigint AS calls,
          sum(amounts.turn_calls)::bigint AS turn_calls,
          sum(amounts.video_calls)::bigint AS video_calls,
          sum(amounts.voice_calls)::bigint AS voice_calls,
          sum(amounts.credits) AS credits,
          sum(amounts.credits_unknown)::bigint AS credits_unknown,
          sum(amounts.ended_calls)::bigint AS ended_calls,
          sum(amounts.seconds) AS seconds
        FROM ( SELECT a.call_date,
                  a.calls,
                  a.turn_calls,
                  a.video_calls,
                  a.voice_calls,
                  a.credits,
                  a.credits_unknown,
                  a.ended_calls,
                  a.seconds
                 FROM public.call_sessions c
                   CROSS JOIN LATERAL oblivion.call_amounts(c.start_time, c.end_time, c.mode, c.used_turn, c.credit_cost) a(call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds)
              UNION ALL
               SELECT rolled_up.call_date,
                  - rolled_up.calls,
                  - rolled_up.turn_calls,
                  - rolled_up.video_calls,
                  - rolled_up.voice_calls,
                  - rolled_up.credits,
                  - rolled_up.credits_unknown,
                  - rolled_up.ended_calls,
                  - rolled_up.seconds
                 FROM ( SELECT daily_calls.call_date,
                          daily_calls.calls,
                          daily_calls.turn_calls,
                          daily_calls.video_calls,
                          daily_calls.voice_calls,
                          daily_calls.credits,
                          daily_calls.credits_unknown,
                          daily_calls.ended_calls,
                          daily_calls.seconds
                         FROM oblivion.daily_calls
                      UNION ALL
                       SELECT call_deltas.call_date,
                          call_deltas.calls,
                          call_deltas.turn_calls,
                          call_deltas.video_calls,
                          call_deltas.voice_calls,
                          call_deltas.credits,
                          call_deltas.credits_unknown,
                          call_deltas.ended_calls,
                          call_deltas.seconds
                         FROM oblivion.call_deltas) rolled_up) amounts
        GROUP BY amounts.call_date
        HAVING sum(amounts.calls) <> 0::numeric OR sum(amounts.turn_calls) <> 0::numeric OR sum(amounts.video_calls) <> 0::numeric OR sum(amounts.voice_calls) <> 0::numeric OR sum(amounts.credits) <> 0::numeric OR sum(amounts.credits_unknown) <> 0::numeric OR sum(amounts.ended_calls) <> 0::numeric OR sum(amounts.seconds) <> 0::numeric
        """
    )
    run_sql(
        """
        CREATE OR REPLACE VIEW public.daily_billing_summary WITH (security_invoker = true) AS
        SELECT
          amounts.call_date,
          sum(amounts.calls)::bigint AS total_calls,
          sum(amounts.turn_calls)::bigint AS turn_calls,
          sum(amounts.video_calls)::bigint AS video_calls,
          sum(amounts.voice_calls)::bigint AS voice_calls,
              CASE
                  WHEN sum(amounts.credits_unknown) > 0::numeric THEN 'NaN'::numeric
                  ELSE sum(amounts.credits)
              END AS total_credits,
          sum(amounts.seconds) / (60::numeric * NULLIF(sum(amounts.ended_calls), 0::numeric)) AS avg_duration_minutes
        FROM ( SELECT a.call_date,
                  a.calls,
                  a.turn_calls,
                  a.video_calls,
                  a.voice_calls,
                  a.credits,
                  a.credits_unknown,
                  a.ended_calls,
                  a.seconds
                 FROM public.call_sessions c
                   CROSS JOIN LATERAL oblivion.call_amounts(c.start_time, c.end_time, c.mode, c.used_turn, c.credit_cost) a(call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds)
                WHERE NOT oblivion.open_access() AND NOT (EXISTS ( SELECT
                         FROM oblivion.sees_all))
              UNION ALL
               SELECT daily_calls.call_date,
                  daily_calls.calls,
                  daily_calls.turn_calls,
                  daily_calls.video_calls,
                  daily_calls.voice_calls,
                  daily_calls.credits,
                  daily_calls.credits_unknown,
                  daily_calls.ended_calls,
                  daily_calls.seconds
                 FROM oblivion.daily_calls
                WHERE oblivion.open_access() OR (EXISTS ( SELECT
                         FROM oblivion.sees_all))
              UNION ALL
               SELECT call_deltas.call_date,
                  call_deltas.calls,
                  call_deltas.turn_calls,
                  call_deltas.video_calls,
                  call_deltas.voice_calls,
                  call_deltas.credits,
                  call_deltas.credits_unknown,
                  call_deltas.ended_calls,
                  call_deltas.seconds
                 FROM oblivion.call_deltas
                WHERE oblivion.open_access() OR (EXISTS ( SELECT
                         FROM oblivion.sees_all))) amounts
        GROUP BY amounts.call_date
        HAVING sum(amounts.calls) <> 0::numeric
        ORDER BY amounts.call_date DESC
        """
    )
    for view in ("daily_usage_drift", "user_usage_drift", "daily_calls_drift"):
        run_sql(KEEP_TO_OWNER.replace("<object>", f"TABLE oblivion.{view}"))


def change_presence() -> None:
    """Heartbeats that change no index, and by whose clock a host is away."""
    run_sql("DROP FUNCTION public.host_presence(text)")
    run_sql("DROP FUNCTION oblivion.host_presence(text)")
    run_sql("ALTER TABLE public.user_presence SET (fillfactor = 60)")
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_user_presence_updated_at_trigger BEFORE INSERT OR UPDATE ON public.user_presence
          FOR EACH ROW
          EXECUTE FUNCTION public.update_user_presence_updated_at()
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.host_presence(host_id text, stale_after interval)
        RETURNS TABLE(is_available boolean, room_id text, updated_at timestamp with time zone)
        LANGUAGE plpgsql
        STABLE SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        DECLARE
          moment pg_catalog.timestamptz = clock_timestamp();
        BEGIN
          IF stale_after IS NULL OR stale_after < interval '0' THEN
            RAISE invalid_parameter_value
              USING MESSAGE = format('A host is stale after %s', coalesce(stale_after::pg_catalog.text, 'NULL')),
                HINT = 'Give a time of zero or more';
          END IF;
          RETURN QUERY
          SELECT
            p.is_available AND p.updated_at BETWEEN moment - stale_after AND moment + stale_after,
            p.room_id,
            p.updated_at
          FROM public.user_presence AS p
          WHERE p.host_id = host_presence.host_id;
        END
        $function$
        """
    )
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON FUNCTION oblivion.host_presence(text,interval) FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION oblivion.host_presence(text,interval) FROM %I CASCADE', api_role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION oblivion.host_presence(text,interval) TO %I', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.host_presence(host_id text, stale_after interval DEFAULT '00:02:00'::interval)
        RETURNS TABLE(is_available boolean, room_id text, updated_at timestamp with time zone)
        LANGUAGE sql
        STABLE
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT h.is_available,
             h.room_id,
             h.updated_at
            FROM oblivion.host_presence(host_presence.host_id, host_presence.stale_after) h(is_available, room_id, updated_at);
        END
        """
    )
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON FUNCTION public.host_presence(text,interval) FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION public.host_presence(text,interval) FROM %I CASCADE', api_role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION public.host_presence(text,interval) TO %I', api_role);
          END LOOP;
        END
        $$
        """
    )


def fill() -> None:
    """Each sum from the rows that there are."""
    run_sql(
        """
        INSERT INTO oblivion.daily_usage (usage_date, mode, used_turn, sessions, tokens, seconds)
        SELECT
          (u."timestamp" AT TIME ZONE 'UTC')::date, u.mode, u.used_turn,
          count(*), sum(u.tokens_used), coalesce(sum(u.duration_seconds), 0)
        FROM public.token_usage AS u
        GROUP BY 1, u.mode, u.used_turn
        """
    )
    run_sql(
        """
        INSERT INTO oblivion.user_usage (user_id, sessions, tokens, last_usage, has_lost_rows)
        SELECT u.user_id, count(*), sum(u.tokens_used), max(u."timestamp"), false
        FROM public.token_usage AS u
        GROUP BY u.user_id
        """
    )
    run_sql(
        """
        INSERT INTO oblivion.daily_calls (
          call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
        )
        SELECT
          a.call_date, sum(a.calls), sum(a.turn_calls), sum(a.video_calls), sum(a.voice_calls),
          sum(a.credits), sum(a.credits_unknown), sum(a.ended_calls), sum(a.seconds)
        FROM public.call_sessions AS c
        CROSS JOIN LATERAL oblivion.call_amounts(c.start_time, c.end_time, c.mode, c.used_turn, c.credit_cost) AS a
        GROUP BY a.call_date
        """
    )


def grant_execution_to_nobody(*functions: str) -> None:
    """Let only the owner execute the functions."""
    run_sql(KEEP_TO_OWNER.replace("<object>", f"FUNCTION {', '.join(functions)}"))


KEEP_TO_OWNER = """
DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON <object> FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON <object> FROM %I CASCADE', api_role);
  END LOOP;
END
$$
"""


def downgrade() -> None:
    lock_together(*LOCKED)
    keep_grants("public.daily_billing_summary", "public.daily_token_usage", "public.user_token_summary")
    drop_new()
    put_back_old()
    restore_grants()


def drop_new() -> None:
    """Roll-ups hold nothing that their rows do not say."""
    run_sql("DROP VIEW public.daily_billing_summary")
    run_sql("DROP VIEW oblivion.daily_calls_drift")
    run_sql("DROP VIEW public.user_token_summary")
    run_sql("DROP VIEW public.daily_token_usage")
    run_sql("DROP VIEW oblivion.user_usage_drift")
    run_sql("DROP VIEW oblivion.daily_usage_drift")
    run_sql("DROP TABLE oblivion.call_deltas")
    run_sql("DROP TRIGGER clear_rollups ON public.token_usage")
    run_sql("DROP TRIGGER note_delete ON public.token_usage")
    run_sql("DROP TRIGGER note_update ON public.token_usage")
    run_sql("DROP TRIGGER note_insert ON public.token_usage")
    run_sql("DROP INDEX public.idx_token_usage_session")
    run_sql("DROP TABLE oblivion.daily_calls")
    run_sql("DROP TABLE oblivion.usage_deltas")
    run_sql("DROP TABLE oblivion.user_usage")
    run_sql("DROP TABLE oblivion.daily_usage")
    run_sql("DROP TABLE oblivion.sees_all")
    run_sql("DROP FUNCTION public.host_presence(text,interval)")
    run_sql("DROP FUNCTION oblivion.host_presence(text,interval)")
    run_sql("DROP TRIGGER clear_rollups ON public.call_sessions")
    run_sql("DROP TRIGGER note_delete ON public.call_sessions")
    run_sql("DROP TRIGGER note_update ON public.call_sessions")
    run_sql("DROP TRIGGER note_insert ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.rebuild_rollups()")
    run_sql("DROP FUNCTION oblivion.clear_rollups()")
    run_sql("DROP FUNCTION oblivion.note_calls()")
    run_sql("DROP FUNCTION oblivion.note_usage()")
    run_sql("DROP FUNCTION oblivion.fold_calls(integer)")
    run_sql("DROP FUNCTION oblivion.fold_usage(integer)")
    run_sql(
        "DROP FUNCTION oblivion.call_amounts(timestamp with time zone,timestamp with time zone,text,boolean,numeric)"
    )


def put_back_old() -> None:
    """Reports and indexes as they were."""
    run_sql("ALTER TABLE public.user_presence RESET (fillfactor)")
    run_sql(
        """
        CREATE OR REPLACE VIEW public.active_calls WITH (security_invoker = true) AS
        SELECT
          call_sessions.id,
          call_sessions.room_id,
          call_sessions.mode,
          call_sessions.used_turn,
          call_sessions.start_time,
          now() - call_sessions.start_time AS duration
        FROM public.call_sessions
        WHERE call_sessions.end_time IS NULL
        ORDER BY call_sessions.start_time DESC
        """
    )
    run_sql("COMMENT ON COLUMN public.active_calls.duration IS 'How long it has been going on.'")
    run_sql(
        """
        CREATE VIEW public.daily_billing_summary WITH (security_invoker = true) AS
        SELECT
          (call_sessions.start_time AT TIME ZONE 'UTC'::text)::date AS call_date,
          count(*) AS total_calls,
          count(*) FILTER (WHERE call_sessions.used_turn) AS turn_calls,
          count(*) FILTER (WHERE call_sessions.mode = 'video'::text) AS video_calls,
          count(*) FILTER (WHERE call_sessions.mode = 'voice-only'::text) AS voice_calls,
          sum(call_sessions.credit_cost) AS total_credits,
          avg(EXTRACT(epoch FROM call_sessions.end_time - call_sessions.start_time) / 60::numeric) AS avg_duration_minutes
        FROM public.call_sessions
        GROUP BY ((call_sessions.start_time AT TIME ZONE 'UTC'::text)::date)
        ORDER BY ((call_sessions.start_time AT TIME ZONE 'UTC'::text)::date) DESC
        """
    )
    run_sql(
        """
        DO $$
        BEGIN
          REVOKE ALL ON TABLE public.daily_billing_summary FROM PUBLIC CASCADE;
          IF to_regrole('anon') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_billing_summary FROM anon CASCADE;
            IF oblivion.open_access() THEN
              GRANT SELECT ON TABLE public.daily_billing_summary TO anon;
            END IF;
          END IF;
          IF to_regrole('authenticated') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_billing_summary FROM authenticated CASCADE;
            GRANT SELECT ON TABLE public.daily_billing_summary TO authenticated;
          END IF;
          IF to_regrole('service_role') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_billing_summary FROM service_role CASCADE;
            GRANT SELECT ON TABLE public.daily_billing_summary TO service_role;
          END IF;
        END
        $$
        """
    )
    run_sql(
        """
        COMMENT ON VIEW public.daily_billing_summary IS
          'Calls by the UTC day on which they began, newest day first.'
        """
    )
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.call_date IS 'UTC day on which the calls began.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.total_calls IS 'Calls of that day.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.turn_calls IS 'Those that a TURN relay carried.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.video_calls IS 'Those with video.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.voice_calls IS 'Those with voice only.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.total_credits IS 'Sum of their credit_cost.'")
    run_sql(
        """
        COMMENT ON COLUMN public.daily_billing_summary.avg_duration_minutes IS
          'Mean length in minutes of those that ended; NULL where none did.'
        """
    )
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_user_presence_updated_at_trigger BEFORE UPDATE ON public.user_presence
          FOR EACH ROW
          EXECUTE FUNCTION public.update_user_presence_updated_at()
        """
    )
    run_sql(
        """
        COMMENT ON COLUMN public.user_presence.updated_at IS
          'When the host was last heard of; a trigger keeps it on updates.'
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.host_presence(host_id text)
        RETURNS TABLE(is_available boolean, room_id text, updated_at timestamp with time zone)
        LANGUAGE sql
        STABLE SECURITY DEFINER
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT p.is_available,
             p.room_id,
             p.updated_at
            FROM public.user_presence p
           WHERE (p.host_id = host_presence.host_id);
        END
        """
    )
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON FUNCTION oblivion.host_presence(text) FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION oblivion.host_presence(text) FROM %I CASCADE', api_role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION oblivion.host_presence(text) TO %I', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql(
        """
        COMMENT ON FUNCTION oblivion.host_presence(text) IS
          'What anybody may know of a host, past row level security.'
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.host_presence(host_id text)
        RETURNS TABLE(is_available boolean, room_id text, updated_at timestamp with time zone)
        LANGUAGE sql
        STABLE
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT h.is_available,
             h.room_id,
             h.updated_at
            FROM oblivion.host_presence(host_presence.host_id) h(is_available, room_id, updated_at);
        END
        """
    )
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON FUNCTION public.host_presence(text) FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION public.host_presence(text) FROM %I CASCADE', api_role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION public.host_presence(text) TO %I', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql(
        """
        COMMENT ON FUNCTION public.host_presence(text) IS
          'Whether a host takes calls, where, and when the host was last heard of; no row for one that is not known.'
        """
    )
    run_sql("CREATE INDEX idx_token_usage_session_id ON public.token_usage (session_id)")
    run_sql('CREATE INDEX idx_token_usage_billing ON public.token_usage (mode, used_turn, "timestamp")')
    run_sql(
        """
        CREATE VIEW public.user_token_summary WITH (security_invoker = true) AS
        SELECT
          a.user_id,
          a.tokens_remaining,
          a.subscription_tier,
          a.created_at AS account_created,
          COALESCE(sum(u.tokens_used), 0::bigint) AS total_tokens_used,
          count(u.id) AS total_sessions,
          max(u."timestamp") AS last_usage
        FROM public.user_accounts a
        LEFT JOIN public.token_usage u USING (user_id)
        GROUP BY a.user_id, a.tokens_remaining, a.subscription_tier, a.created_at
        """
    )
    run_sql(
        """
        DO $$
        BEGIN
          REVOKE ALL ON TABLE public.user_token_summary FROM PUBLIC CASCADE;
          IF to_regrole('anon') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.user_token_summary FROM anon CASCADE;
            IF oblivion.open_access() THEN
              GRANT SELECT ON TABLE public.user_token_summary TO anon;
            END IF;
          END IF;
          IF to_regrole('authenticated') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.user_token_summary FROM authenticated CASCADE;
            GRANT SELECT ON TABLE public.user_token_summary TO authenticated;
          END IF;
          IF to_regrole('service_role') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.user_token_summary FROM service_role CASCADE;
            GRANT SELECT ON TABLE public.user_token_summary TO service_role;
          END IF;
        END
        $$
        """
    )
    run_sql(
        """
        COMMENT ON VIEW public.user_token_summary IS
          'What each account has left and what it used, one row for each account.'
        """
    )
    run_sql("COMMENT ON COLUMN public.user_token_summary.user_id IS 'The account.'")
    run_sql("COMMENT ON COLUMN public.user_token_summary.tokens_remaining IS 'Tokens left to spend.'")
    run_sql("COMMENT ON COLUMN public.user_token_summary.subscription_tier IS 'free, pro or enterprise.'")
    run_sql("COMMENT ON COLUMN public.user_token_summary.account_created IS 'When the account was opened.'")
    run_sql(
        """
        COMMENT ON COLUMN public.user_token_summary.total_tokens_used IS
          'Tokens that it ever used; 0 where none were.'
        """
    )
    run_sql(
        """
        COMMENT ON COLUMN public.user_token_summary.total_sessions IS
          'Its rows of usage; 0 where there are none.'
        """
    )
    run_sql(
        """
        COMMENT ON COLUMN public.user_token_summary.last_usage IS
          'When it last used any; NULL where it never did.'
        """
    )
    run_sql(
        """
        CREATE VIEW public.daily_token_usage WITH (security_invoker = true) AS
        SELECT
          (token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date AS usage_date,
          token_usage.mode,
          token_usage.used_turn,
          count(*) AS session_count,
          sum(token_usage.tokens_used) AS total_tokens,
          avg(token_usage.tokens_used) AS avg_tokens_per_session,
          COALESCE(sum(token_usage.duration_seconds), 0::bigint)::numeric / 60.0 AS total_minutes
        FROM public.token_usage
        GROUP BY ((token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date), token_usage.mode, token_usage.used_turn
        ORDER BY ((token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date) DESC, token_usage.mode, token_usage.used_turn
        """
    )
    run_sql(
        """
        DO $$
        BEGIN
          REVOKE ALL ON TABLE public.daily_token_usage FROM PUBLIC CASCADE;
          IF to_regrole('anon') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_token_usage FROM anon CASCADE;
            IF oblivion.open_access() THEN
              GRANT SELECT ON TABLE public.daily_token_usage TO anon;
            END IF;
          END IF;
          IF to_regrole('authenticated') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_token_usage FROM authenticated CASCADE;
            GRANT SELECT ON TABLE public.daily_token_usage TO authenticated;
          END IF;
          IF to_regrole('service_role') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_token_usage FROM service_role CASCADE;
            GRANT SELECT ON TABLE public.daily_token_usage TO service_role;
          END IF;
        END
        $$
        """
    )
    run_sql("COMMENT ON VIEW public.daily_token_usage IS 'Usage by UTC day, mode and TURN, newest day first.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.usage_date IS 'UTC day on which the usage was logged.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.mode IS 'voice or video.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.used_turn IS 'Whether the TURN rate applied.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.session_count IS 'Rows of usage.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.total_tokens IS 'Sum of their tokens.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.avg_tokens_per_session IS 'Mean of their tokens.'")
    run_sql(
        """
        COMMENT ON COLUMN public.daily_token_usage.total_minutes IS
          'Sum of their lengths in minutes, unknown ones as zero.'
        """
    )
