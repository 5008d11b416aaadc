CREATE TABLE oblivion.call_meters (
  session_id uuid NOT NULL,
  user_id text,
  client_key text,
  mode text NOT NULL,
  direct_rate integer NOT NULL,
  direct_rate_from timestamp with time zone NOT NULL,
  turn_rate integer NOT NULL,
  turn_rate_from timestamp with time zone NOT NULL,
  started_at timestamp with time zone NOT NULL,
  seen_at timestamp with time zone NOT NULL,
  segment integer DEFAULT 1 NOT NULL,
  usage_id uuid,
  used_turn boolean NOT NULL,
  tokens_per_minute integer NOT NULL,
  first_minute integer DEFAULT 0 NOT NULL,
  first_second integer DEFAULT 0 NOT NULL,
  due_before bigint DEFAULT 0 NOT NULL,
  cost integer DEFAULT 0 NOT NULL,
  cost_before integer DEFAULT 0 NOT NULL,
  shortfall integer DEFAULT 0 NOT NULL,
  refunded integer DEFAULT 0 NOT NULL,
  is_plain boolean NOT NULL,
  by_page boolean DEFAULT false NOT NULL,
  settled boolean DEFAULT false NOT NULL,
  reaped boolean DEFAULT false NOT NULL,
  has_incident boolean DEFAULT false NOT NULL,
  CONSTRAINT call_meters_pkey PRIMARY KEY (session_id),
  CONSTRAINT call_meters_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.call_sessions(id) ON DELETE CASCADE
)
WITH (fillfactor = 60);

CREATE UNIQUE INDEX call_meters_client_key ON oblivion.call_meters (user_id, client_key) NULLS NOT DISTINCT
  WHERE client_key IS NOT NULL;

CREATE INDEX call_meters_unsettled ON oblivion.call_meters (session_id) WHERE NOT settled;

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.call_meters FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.call_meters FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

COMMENT ON TABLE oblivion.call_meters IS
  'Meters: what the engine stores about each metered call, which start_call() made, or a page if pages are metered.';
COMMENT ON COLUMN oblivion.call_meters.session_id IS 'The call.';
COMMENT ON COLUMN oblivion.call_meters.user_id IS
  'The user who started the call; user_id and client_key identify a repeated start.';
COMMENT ON COLUMN oblivion.call_meters.client_key IS 'Idempotency key of start_call(), given by the client.';
COMMENT ON COLUMN oblivion.call_meters.mode IS 'Mode that is priced: voice (a voice-only call) or video.';
COMMENT ON COLUMN oblivion.call_meters.direct_rate IS
  'Tokens for each started minute without TURN, fixed at the start of the call.';
COMMENT ON COLUMN oblivion.call_meters.direct_rate_from IS 'When direct_rate took effect.';
COMMENT ON COLUMN oblivion.call_meters.turn_rate IS
  'Tokens for each started minute over TURN, fixed at the start of the call.';
COMMENT ON COLUMN oblivion.call_meters.turn_rate_from IS 'When turn_rate took effect.';
COMMENT ON COLUMN oblivion.call_meters.started_at IS
  'When the call began: start_time of the call, which a trigger keeps the same; if a page inserted it, when the server '
  'saw that.';
COMMENT ON COLUMN oblivion.call_meters.seen_at IS
  'When the call was last seen, by a tick, a change of TURN or its end.';
COMMENT ON COLUMN oblivion.call_meters.segment IS 'Number of the current segment, from 1.';
COMMENT ON COLUMN oblivion.call_meters.usage_id IS
  'Id of the token_usage row of the current segment; NULL until the segment is over. If the segment cost nothing, '
  'there may be no such row.';
COMMENT ON COLUMN oblivion.call_meters.used_turn IS 'Whether the TURN rate applies to the current segment.';
COMMENT ON COLUMN oblivion.call_meters.tokens_per_minute IS 'Tokens for each started minute of the current segment.';
COMMENT ON COLUMN oblivion.call_meters.first_minute IS 'Minutes of the call before the current segment.';
COMMENT ON COLUMN oblivion.call_meters.first_second IS 'Seconds of the call before the current segment.';
COMMENT ON COLUMN oblivion.call_meters.due_before IS 'Tokens due for the minutes before the current segment.';
COMMENT ON COLUMN oblivion.call_meters.cost IS 'Tokens that the call has been billed.';
COMMENT ON COLUMN oblivion.call_meters.cost_before IS 'cost before the last bill of tick_call() or end_call().';
COMMENT ON COLUMN oblivion.call_meters.shortfall IS 'Tokens due in the current segment that the balance did not cover.';
COMMENT ON COLUMN oblivion.call_meters.refunded IS 'Tokens refunded.';
COMMENT ON COLUMN oblivion.call_meters.is_plain IS
  'Whether one statement may bill the call: it goes on, its last bill was paid in full, and no row of token_usage is '
  'there for its current segment.';
COMMENT ON COLUMN oblivion.call_meters.by_page IS
  'Whether a page inserted the call: it is charged at the lower rate while it goes on, and TURN at its end prices all of '
  'it.';
COMMENT ON COLUMN oblivion.call_meters.settled IS 'Whether the call has ended, and is billed to its end.';
COMMENT ON COLUMN oblivion.call_meters.reaped IS 'Whether the call was ended as stale; a late tick reopens it.';
COMMENT ON COLUMN oblivion.call_meters.has_incident IS 'Whether the last billing failed, so that an incident is open.';
