-- Changes that drift has to see: of each kind of object, in the order of oblivion_schema.catalog.KINDS, and of several.
-- Each begins with `-- <change> <kind>: <what the report names>`. Where it needs something first, `-- once:` is what is
-- set up in the database alone, `-- setup:` what is in database and metadata, and `-- then:` the change. Below the
-- first line, `-- since 18` leaves it out on older servers.

-- remove schema: oblivion
DROP SCHEMA oblivion CASCADE;

-- add table: public.extra
CREATE TABLE public.extra (id integer GENERATED ALWAYS AS IDENTITY, note text, spot integer, twice integer);

-- change table: public.token_rates
ALTER TABLE token_rates SET UNLOGGED;

-- remove table: public.token_usage
DROP TABLE token_usage CASCADE;

-- add storage parameter: fillfactor
ALTER TABLE token_rates SET (fillfactor = 70);

-- change storage parameter: fillfactor
-- setup:
ALTER TABLE token_rates SET (fillfactor = 70, autovacuum_enabled = false);
-- then:
ALTER TABLE token_rates SET (fillfactor = 80);

-- change storage parameter: fillfactor on public.user_presence
ALTER TABLE user_presence SET (fillfactor = 50);

-- remove storage parameter: fillfactor on public.user_accounts
ALTER TABLE user_accounts RESET (fillfactor);

-- remove storage parameter: fillfactor
-- setup:
ALTER TABLE token_rates SET (fillfactor = 70);
-- then:
ALTER TABLE token_rates RESET (fillfactor);

-- add storage parameter: toast.autovacuum_enabled on public.token_usage
ALTER TABLE token_usage SET (toast.autovacuum_enabled = false);

-- change storage parameter: toast.vacuum_truncate on public.token_usage
-- setup:
ALTER TABLE token_usage SET (toast.vacuum_truncate = false);
-- then:
ALTER TABLE token_usage SET (toast.vacuum_truncate = true);

-- remove storage parameter: toast.vacuum_truncate on public.token_usage
-- setup:
ALTER TABLE token_usage SET (toast.vacuum_truncate = false);
-- then:
ALTER TABLE token_usage RESET (toast.vacuum_truncate);

-- add storage parameter: fillfactor on public.token_usage_pkey
ALTER INDEX token_usage_pkey SET (fillfactor = 70);

-- change storage parameter: fillfactor on public.one_room
-- setup:
ALTER TABLE call_sessions ADD CONSTRAINT one_room UNIQUE (room_id) WITH (fillfactor = 70, deduplicate_items = off);
-- then:
ALTER INDEX one_room SET (fillfactor = 80);

-- remove storage parameter: deduplicate_items on public.one_room
-- setup:
ALTER TABLE call_sessions ADD CONSTRAINT one_room UNIQUE (room_id) WITH (fillfactor = 70, deduplicate_items = off);
-- then:
ALTER INDEX one_room RESET (deduplicate_items);

-- add setting: replica identity on public.user_presence
ALTER TABLE user_presence REPLICA IDENTITY FULL;

-- remove setting: replica identity on oblivion.usage_deltas
ALTER TABLE oblivion.usage_deltas REPLICA IDENTITY DEFAULT;

-- change setting: statistics of column mode on public.token_usage
-- setup:
ALTER TABLE token_usage ALTER mode SET STATISTICS 500, ALTER mode SET STORAGE EXTERNAL, ALTER mode SET COMPRESSION pglz;
ALTER TABLE token_usage ALTER mode SET (n_distinct = 2), CLUSTER ON token_usage_pkey;
ALTER TABLE user_presence REPLICA IDENTITY USING INDEX idx_user_presence_host_unique;
-- then:
ALTER TABLE token_usage ALTER mode SET STATISTICS 50, ALTER mode SET STORAGE MAIN, ALTER mode SET COMPRESSION DEFAULT;
ALTER TABLE token_usage ALTER mode SET (n_distinct = 3), SET WITHOUT CLUSTER;
ALTER TABLE user_presence REPLICA IDENTITY NOTHING;

-- change setting: statistics of column 1 on public.lower_email
-- setup:
CREATE INDEX lower_email ON user_accounts (lower(email), upper(email));
ALTER INDEX lower_email ALTER 1 SET STATISTICS 50, ALTER 2 SET STATISTICS 50;
-- then:
ALTER INDEX lower_email ALTER 1 SET STATISTICS 500, ALTER 2 SET STATISTICS -1;

-- remove setting: storage of column mode on public.token_usage
-- setup:
ALTER TABLE token_usage ALTER mode SET STORAGE EXTERNAL;
-- then:
ALTER TABLE token_usage ALTER mode SET STORAGE EXTENDED;

-- add column: public.call_sessions.note
ALTER TABLE call_sessions ADD note varchar(10) DEFAULT 'x' NOT NULL;

-- change column: public.call_sessions.twice
-- setup:
ALTER TABLE call_sessions ADD twice numeric GENERATED ALWAYS AS (credit_cost * 2) STORED;
-- then:
ALTER TABLE call_sessions DROP twice, ADD twice numeric GENERATED ALWAYS AS (credit_cost * 3) STORED;

-- add column: oblivion.call_meters.note
ALTER TABLE oblivion.call_meters ADD note text;

-- remove column: public.user_accounts.email
ALTER TABLE user_accounts DROP email;

-- change type: public.user_accounts.email
ALTER TABLE user_accounts ALTER email TYPE varchar(200) COLLATE "C";

-- change nullability: public.token_usage.session_id
ALTER TABLE token_usage ALTER session_id DROP NOT NULL;

-- change nullability: public.call_sessions.room_id
-- since 18
ALTER TABLE call_sessions ALTER room_id DROP NOT NULL, ADD CONSTRAINT nn_not_null NOT NULL room_id NOT VALID;

-- change nullability: public.user_accounts.email
-- since 18
ALTER TABLE user_accounts ADD NOT NULL email NOT VALID;

-- add default: public.token_usage.tokens_used
ALTER TABLE token_usage ALTER tokens_used SET DEFAULT 1 + 1;

-- change default: public.user_accounts.tokens_remaining
ALTER TABLE user_accounts ALTER tokens_remaining SET DEFAULT 50;

-- remove default: public.token_usage.id
ALTER TABLE token_usage ALTER id DROP DEFAULT;

-- add identity: public.extra.id
-- setup:
CREATE TABLE public.extra (id integer NOT NULL, note text, spot integer, twice integer);
-- then:
ALTER TABLE extra ALTER id ADD GENERATED BY DEFAULT AS IDENTITY (INCREMENT 2 CACHE 5 CYCLE);

-- change identity: public.extra.id
-- setup:
CREATE TABLE public.extra (id integer GENERATED ALWAYS AS IDENTITY, note text, spot integer, twice integer);
-- then:
ALTER TABLE extra ALTER id SET GENERATED BY DEFAULT SET START 7 SET MAXVALUE 70;

-- remove identity: public.extra.id
-- setup:
CREATE TABLE public.extra (id integer GENERATED ALWAYS AS IDENTITY, note text, spot integer, twice integer);
-- then:
ALTER TABLE extra ALTER id DROP IDENTITY;

-- add primary key: extra_pkey
-- setup:
CREATE TABLE public.extra (id integer GENERATED ALWAYS AS IDENTITY, note text, spot integer, twice integer);
-- then:
ALTER TABLE extra ADD PRIMARY KEY (id);

-- change primary key: token_usage_pkey
ALTER TABLE token_usage DROP CONSTRAINT token_usage_pkey, ADD PRIMARY KEY (user_id, id);

-- remove primary key: user_accounts_pkey
ALTER TABLE user_accounts DROP CONSTRAINT user_accounts_pkey CASCADE;

-- add unique constraint: one_room
ALTER TABLE call_sessions ADD CONSTRAINT one_room UNIQUE (room_id);

-- change unique constraint: one_room
-- setup:
ALTER TABLE call_sessions ADD CONSTRAINT one_room UNIQUE (room_id);
-- then:
ALTER TABLE call_sessions DROP CONSTRAINT one_room, ADD CONSTRAINT one_room UNIQUE NULLS NOT DISTINCT (room_id)
  INCLUDE (mode) DEFERRABLE;

-- remove unique constraint: one_room
-- setup:
ALTER TABLE call_sessions ADD CONSTRAINT one_room UNIQUE (room_id);
-- then:
ALTER TABLE call_sessions DROP CONSTRAINT one_room;

-- add foreign key: payer
ALTER TABLE call_sessions ADD CONSTRAINT payer FOREIGN KEY (user_id) REFERENCES user_accounts NOT VALID;

-- change foreign key: fk_token_usage_user_id
ALTER TABLE token_usage DROP CONSTRAINT fk_token_usage_user_id,
  ADD CONSTRAINT fk_token_usage_user_id FOREIGN KEY (user_id) REFERENCES user_accounts ON DELETE RESTRICT;

-- remove foreign key: fk_token_usage_user_id
ALTER TABLE token_usage DROP CONSTRAINT fk_token_usage_user_id;

-- add check constraint: room_named
ALTER TABLE call_sessions ADD CONSTRAINT room_named CHECK (room_id <> '' AND room_id ~ '^[a-z]:\d%');

-- change check constraint: positive_tokens
ALTER TABLE user_accounts DROP CONSTRAINT positive_tokens, ADD CONSTRAINT positive_tokens CHECK (tokens_remaining > 0);

-- remove check constraint: valid_duration
ALTER TABLE token_usage DROP CONSTRAINT valid_duration;

-- add exclusion constraint: lone
-- setup:
CREATE TABLE public.extra (id integer GENERATED ALWAYS AS IDENTITY, note text, spot integer, twice integer);
-- then:
ALTER TABLE extra ADD CONSTRAINT lone EXCLUDE (spot WITH =);

-- change exclusion constraint: lone
-- setup:
CREATE TABLE public.extra (id integer GENERATED ALWAYS AS IDENTITY, note text, spot integer, twice integer);
ALTER TABLE extra ADD CONSTRAINT lone EXCLUDE (spot WITH =);
-- then:
ALTER TABLE extra DROP CONSTRAINT lone, ADD CONSTRAINT lone EXCLUDE (spot WITH =) WHERE (spot > 0);

-- remove exclusion constraint: lone
-- setup:
CREATE TABLE public.extra (id integer GENERATED ALWAYS AS IDENTITY, note text, spot integer, twice integer);
ALTER TABLE extra ADD CONSTRAINT lone EXCLUDE (spot WITH =);
-- then:
ALTER TABLE extra DROP CONSTRAINT lone;

-- add index: lower_email
CREATE INDEX lower_email ON user_accounts USING hash (lower(email)) WHERE email <> ' WHERE ';

-- change index: idx_call_sessions_active
DROP INDEX idx_call_sessions_active;
CREATE INDEX idx_call_sessions_active ON call_sessions (start_time DESC) INCLUDE (mode)
  WHERE end_time IS NULL AND used_turn;

-- change index: oblivion.call_meters_client_key
DROP INDEX oblivion.call_meters_client_key;
CREATE UNIQUE INDEX call_meters_client_key ON oblivion.call_meters (user_id, client_key) WHERE client_key IS NOT NULL;

-- change index: public.one_room
-- A foreign key of the same table needs it.
-- setup:
CREATE TABLE nests (room text, inside text);
CREATE UNIQUE INDEX one_room ON nests (room);
ALTER TABLE nests ADD FOREIGN KEY (inside) REFERENCES nests (room);
-- then:
ALTER TABLE nests DROP CONSTRAINT nests_inside_fkey;
DROP INDEX one_room;
CREATE UNIQUE INDEX one_room ON nests (room) INCLUDE (inside);
ALTER TABLE nests ADD FOREIGN KEY (inside) REFERENCES nests (room);

-- remove index: oblivion.billing_incidents_open
DROP INDEX oblivion.billing_incidents_open;

-- remove index: idx_token_usage_timestamp
DROP INDEX idx_token_usage_timestamp;

-- add function: public.price(integer,integer)
CREATE OR REPLACE FUNCTION public.price(minutes integer, rate integer DEFAULT 2) RETURNS integer
  LANGUAGE sql STABLE SET search_path = '' AS $$ SELECT minutes * rate $$;

-- change function: public.update_updated_at_column()
CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $body$
BEGIN
  -- 100 %, a:b, """ and \ 

	NEW.updated_at = clock_timestamp(); 
RETURN NEW;
END
$body$;

-- remove function: price
-- setup:
CREATE OR REPLACE FUNCTION public.price(minutes integer, rate integer DEFAULT 2) RETURNS integer
  LANGUAGE sql STABLE SET search_path = '' AS $$ SELECT minutes * rate $$;
-- then:
DROP FUNCTION price(integer, integer);

-- add trigger: watch on public.token_usage
CREATE TRIGGER watch AFTER INSERT ON token_usage REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT WHEN (current_setting('a', true) <> ' FOR EACH ' ) EXECUTE FUNCTION update_updated_at_column();

-- change trigger: update_user_accounts_updated_at
CREATE OR REPLACE TRIGGER update_user_accounts_updated_at BEFORE UPDATE OF email ON user_accounts
  FOR EACH ROW WHEN (OLD.email IS DISTINCT FROM NEW.email) EXECUTE FUNCTION update_updated_at_column();

-- change trigger: guard_metered_call on public.call_sessions
CREATE OR REPLACE TRIGGER guard_metered_call BEFORE UPDATE ON call_sessions FOR EACH ROW
  EXECUTE FUNCTION oblivion.guard_metered_call();

-- remove trigger: write_ledger on public.user_accounts
DROP TRIGGER write_ledger ON user_accounts;

-- remove trigger: update_user_accounts_updated_at
DROP TRIGGER update_user_accounts_updated_at ON user_accounts;

-- change trigger state: update_user_accounts_updated_at
ALTER TABLE user_accounts DISABLE TRIGGER update_user_accounts_updated_at;
ALTER TABLE call_sessions ENABLE ALWAYS TRIGGER update_call_sessions_updated_at;

-- add row level security: public.token_usage, forced
ALTER TABLE token_usage FORCE ROW LEVEL SECURITY;

-- remove row level security: public.token_usage
ALTER TABLE token_usage DISABLE ROW LEVEL SECURITY;

-- add policy: narrow on public.token_usage
CREATE POLICY narrow ON token_usage AS RESTRICTIVE FOR ALL TO authenticated, anon USING (user_id = current_user);

-- change policy: token_usage_select
ALTER POLICY token_usage_select ON token_usage USING (mode IN ('voice'));

-- remove policy: token_usage_delete
DROP POLICY token_usage_delete ON token_usage;

-- add view: public.voices
CREATE VIEW voices AS SELECT user_id, (SELECT max(email) FROM user_accounts) AS email FROM token_usage
  WHERE mode = 'voice';

-- change view: public.active_calls
CREATE OR REPLACE VIEW active_calls WITH (security_invoker = true)
  AS SELECT id, room_id, mode, used_turn, start_time, now() - start_time AS duration, user_id FROM call_sessions
  WHERE end_time IS NULL;

-- change view: oblivion.balance_audit
CREATE OR REPLACE VIEW oblivion.balance_audit WITH (security_invoker = true)
  AS SELECT user_id, tokens_remaining AS balance, 0::bigint AS ledger, 0::bigint AS drift, 0::bigint AS gaps
  FROM user_accounts;

-- remove view: public.active_calls
DROP VIEW active_calls;

-- change owner: view public.active_calls
ALTER VIEW active_calls OWNER TO service_role;

-- add grant: TRUNCATE on table public.token_usage to anon
GRANT TRUNCATE ON token_usage TO anon;

-- add grant: EXECUTE on function public.top_up
GRANT EXECUTE ON FUNCTION public.top_up(text, integer, text) TO anon;

-- remove grant: EXECUTE on function public.tick_call
REVOKE EXECUTE ON FUNCTION public.tick_call(uuid) FROM anon;

-- change grant: SELECT on table public.token_usage to anon
GRANT SELECT ON token_usage TO anon WITH GRANT OPTION;

-- remove grant: UPDATE on table public.token_usage to authenticated
REVOKE UPDATE ON token_usage FROM authenticated;

-- add publication: supabase_realtime of public.token_usage
-- once:
CREATE PUBLICATION supabase_realtime FOR TABLE user_presence, call_sessions, user_accounts;
-- then:
ALTER PUBLICATION supabase_realtime ADD TABLE token_usage;

-- change publication: supabase_realtime of public.user_presence
-- once:
CREATE PUBLICATION supabase_realtime FOR TABLE user_presence, call_sessions, user_accounts;
-- then:
ALTER PUBLICATION supabase_realtime DROP TABLE user_presence;
ALTER PUBLICATION supabase_realtime ADD TABLE user_presence (id, host_id) WHERE (id IS NOT NULL);

-- remove publication: supabase_realtime of public.user_presence
-- once:
CREATE PUBLICATION supabase_realtime FOR TABLE user_presence, call_sessions, user_accounts;
-- then:
ALTER PUBLICATION supabase_realtime DROP TABLE user_presence;

-- add comment: on index public.idx_call_sessions_active
COMMENT ON INDEX idx_call_sessions_active IS 'it''s 50 %:a';

-- add comment: on index public.token_usage_pkey
COMMENT ON INDEX token_usage_pkey IS 'its constraint made it';

-- add comment: on constraint token_usage_mode_not_null
-- since 18
COMMENT ON CONSTRAINT token_usage_mode_not_null ON token_usage IS 'no mode, no price';

-- remove comment: on constraint token_usage_mode_not_null
-- since 18
-- setup:
COMMENT ON CONSTRAINT token_usage_mode_not_null ON token_usage IS 'no mode, no price';
-- then:
ALTER TABLE token_usage ALTER mode DROP NOT NULL;

-- change comment: on column public.active_calls.mode
COMMENT ON COLUMN active_calls.mode IS 'other';

-- remove comment: on function public.update_updated_at_column()
COMMENT ON FUNCTION update_updated_at_column() IS NULL;

-- add reference row: video, true
INSERT INTO token_rates VALUES ('video', true, '2027-01-01 00:00+00', 7);

-- change reference row: video, true
UPDATE token_rates SET tokens_per_minute = 7 WHERE mode = 'video' AND used_turn;

-- remove reference row: voice, false
DELETE FROM token_rates WHERE mode = 'voice' AND NOT used_turn;

-- Several at once.

-- add together: public.rooms
CREATE FUNCTION room_key(room text) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = '' RETURN lower(room);
CREATE TABLE rooms (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  room text NOT NULL DEFAULT room_key('R') CONSTRAINT room_is_key CHECK (room = room_key(room)),
  owner text REFERENCES user_accounts,
  keyed text GENERATED ALWAYS AS (room_key(room)) STORED,
  "Odd name" integer DEFAULT 1
);
ALTER TABLE rooms ENABLE ROW LEVEL SECURITY;
ALTER TABLE rooms FORCE ROW LEVEL SECURITY;
CREATE POLICY rooms_select ON rooms FOR SELECT USING (room = room_key(room));
CREATE INDEX rooms_room ON rooms (room_key(room)) WHERE "Odd name" > 0;
CREATE TRIGGER stamp BEFORE UPDATE ON rooms FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
ALTER TABLE rooms DISABLE TRIGGER stamp;
CREATE VIEW rooms_seen AS SELECT room, room_key(room) AS key FROM rooms;
CREATE VIEW rooms_counted WITH (security_invoker = true, security_barrier = true) AS SELECT count(*) FROM rooms_seen;
GRANT SELECT, UPDATE ("Odd name", room) ON rooms TO anon, service_role;
GRANT SELECT ON rooms_seen TO PUBLIC;
COMMENT ON TABLE rooms IS 'Rooms';
COMMENT ON COLUMN rooms."Odd name" IS 'Odd';
COMMENT ON VIEW rooms_seen IS 'Seen';
COMMENT ON COLUMN rooms_seen.key IS 'Key';
COMMENT ON POLICY rooms_select ON rooms IS 'Policy';
COMMENT ON TRIGGER stamp ON rooms IS 'Trigger';
COMMENT ON CONSTRAINT room_is_key ON rooms IS 'Check';
COMMENT ON FUNCTION room_key(text) IS 'Key';

-- add together: public.left_one
CREATE TABLE left_one (id integer PRIMARY KEY, other integer);
CREATE TABLE right_one (id integer PRIMARY KEY, other integer REFERENCES left_one);
ALTER TABLE left_one ADD FOREIGN KEY (other) REFERENCES right_one;
CREATE POLICY lefts ON left_one FOR SELECT USING (id IN (SELECT id FROM right_one));
CREATE POLICY rights ON right_one FOR SELECT USING (id IN (SELECT id FROM left_one));

-- remove together: public.token_usage
-- The functions that return a view's rows go with it.
DROP VIEW daily_token_usage, user_token_summary, oblivion.balance_audit, oblivion.missing_openings,
  oblivion.callers_without_account, oblivion.daily_usage_drift, oblivion.user_usage_drift, oblivion.live_calls CASCADE;
DROP TABLE token_usage;
DROP TABLE user_accounts;

-- change together: public.token_usage.duration_seconds
-- A column's new name under a view, a policy, a check, an index and a trigger that need none themselves.
-- setup:
CREATE POLICY short ON token_usage FOR ALL TO anon USING (duration_seconds < 9);
CREATE INDEX long ON token_usage (duration_seconds) WHERE duration_seconds > 9;
CREATE TRIGGER stamp BEFORE UPDATE OF duration_seconds ON token_usage FOR EACH ROW
  WHEN (OLD.duration_seconds > 9) EXECUTE FUNCTION update_updated_at_column();
GRANT UPDATE (duration_seconds) ON token_usage TO anon;
-- then:
ALTER TABLE token_usage RENAME COLUMN duration_seconds TO seconds;

-- change together: public.call_sessions.room_id
-- A column's new name that the view over it takes over, and the view over that.
-- setup:
CREATE VIEW rooms AS SELECT room_id, mode FROM call_sessions;
CREATE VIEW video_rooms AS SELECT room_id FROM rooms WHERE mode = 'video';
COMMENT ON COLUMN rooms.room_id IS 'Room';
GRANT SELECT ON video_rooms TO anon;
-- then:
ALTER TABLE call_sessions RENAME COLUMN room_id TO room;
DROP VIEW video_rooms, rooms;
CREATE VIEW rooms AS SELECT room, mode FROM call_sessions;
CREATE VIEW video_rooms AS SELECT room FROM rooms WHERE mode = 'video';
COMMENT ON COLUMN rooms.room IS 'Room';
GRANT SELECT ON video_rooms TO anon;

-- change together: public.spots.id
-- A type under a view, a view over that, a policy, a check, a default, a generated column, an index and a trigger.
-- setup:
CREATE TABLE spots (id integer DEFAULT 1 CHECK (id IN (1, 2)), twice integer GENERATED ALWAYS AS (id * 2) STORED);
CREATE INDEX spots_id ON spots (id) WHERE id > 0;
ALTER TABLE spots ENABLE ROW LEVEL SECURITY;
CREATE POLICY spots_select ON spots FOR SELECT USING (id > 0 AND EXISTS (SELECT FROM call_sessions WHERE used_turn));
CREATE VIEW spots_seen AS SELECT id + 1 AS next, twice FROM spots;
CREATE VIEW spots_counted AS SELECT count(*) FROM spots_seen WHERE next > 1;
COMMENT ON VIEW spots_counted IS 'Counted';
GRANT SELECT ON spots_seen, spots_counted TO anon;
CREATE TRIGGER stamp BEFORE UPDATE OF id ON spots FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
-- then:
DROP TRIGGER stamp ON spots;
DROP VIEW spots_counted, spots_seen;
DROP POLICY spots_select ON spots;
ALTER TABLE spots DROP twice;
ALTER TABLE spots ALTER id TYPE numeric(9, 2);
ALTER TABLE spots ADD twice integer GENERATED ALWAYS AS (id * 2) STORED;
CREATE POLICY spots_select ON spots FOR SELECT USING (id > 0 AND EXISTS (SELECT FROM call_sessions WHERE used_turn));
CREATE VIEW spots_seen AS SELECT id + 1 AS next, twice FROM spots;
CREATE VIEW spots_counted AS SELECT count(*) FROM spots_seen WHERE next > 1;
COMMENT ON VIEW spots_counted IS 'Counted';
GRANT SELECT ON spots_seen, spots_counted TO anon;
CREATE TRIGGER stamp BEFORE UPDATE OF id ON spots FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- change together: public.may_see(text)
-- A function's arguments under a policy, a default, a check and a view.
-- setup:
CREATE FUNCTION may_see(who text) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = '' RETURN who <> '';
CREATE POLICY seen ON token_usage FOR ALL TO anon USING (may_see(user_id));
ALTER TABLE token_usage ALTER used_turn SET DEFAULT may_see('x'), ADD CONSTRAINT seen CHECK (may_see(user_id));
CREATE VIEW seen AS SELECT may_see(user_id) AS it FROM token_usage;
GRANT EXECUTE ON FUNCTION may_see(text) TO anon;
-- then:
DROP FUNCTION may_see(text) CASCADE;
CREATE FUNCTION may_see(who text, mode text DEFAULT 'x') RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = ''
  RETURN who <> mode;
CREATE POLICY seen ON token_usage FOR ALL TO anon USING (may_see(user_id, mode));
ALTER TABLE token_usage ALTER used_turn SET DEFAULT may_see('x'), ADD CONSTRAINT seen CHECK (may_see(user_id));
CREATE VIEW seen AS SELECT may_see(user_id) AS it FROM token_usage;
GRANT EXECUTE ON FUNCTION may_see(text, text) TO anon;

-- change together: public.may_see(text)
-- What a function gives back, and what its argument is called, under the same.
-- setup:
CREATE FUNCTION may_see(who text) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = '' RETURN who <> '';
CREATE POLICY seen ON token_usage FOR ALL TO anon USING (may_see(user_id));
CREATE VIEW seen AS SELECT may_see(user_id) AS it FROM token_usage;
-- then:
DROP FUNCTION may_see(text) CASCADE;
CREATE FUNCTION may_see(whom text) RETURNS integer LANGUAGE sql IMMUTABLE SET search_path = '' RETURN length(whom);
CREATE POLICY seen ON token_usage FOR ALL TO anon USING (may_see(user_id) > 0);
CREATE VIEW seen AS SELECT may_see(user_id) > 0 AS it FROM token_usage;

-- change together: public.first_one()
-- A function and a view that change places in who reads whom.
-- setup:
CREATE VIEW second_one AS SELECT 1 AS it;
CREATE FUNCTION first_one() RETURNS bigint LANGUAGE sql STABLE SET search_path = ''
  BEGIN ATOMIC SELECT count(*) FROM public.second_one; END;
-- then:
DROP FUNCTION first_one();
CREATE FUNCTION first_one() RETURNS bigint LANGUAGE sql STABLE SET search_path = '' RETURN 1;
CREATE OR REPLACE VIEW second_one AS SELECT first_one()::integer AS it;

-- change together: public.user_presence.room_token
-- A column's new name, with privileges on it taken and others given.
-- setup:
GRANT UPDATE (room_token), SELECT (host_id) ON user_presence TO anon;
-- then:
ALTER TABLE user_presence RENAME room_token TO secret;
REVOKE UPDATE (secret) ON user_presence FROM anon;
GRANT INSERT (secret) ON user_presence TO authenticated;

-- change together: public.user_presence.note
-- A privilege on a new column, another one taken.
-- setup:
GRANT UPDATE (room_token) ON user_presence TO anon;
-- then:
REVOKE UPDATE (room_token) ON user_presence FROM anon;
ALTER TABLE user_presence ADD note text;
GRANT SELECT (note) ON user_presence TO anon;

-- add together: UPDATE (user_id) on table public.user_token_summary to anon
-- A privilege on a column of a view.
GRANT UPDATE (user_id) ON user_token_summary TO anon;

-- remove together: public.kept
-- A table whose check and default need functions that are younger than it, and one whose check reads the table.
-- setup:
CREATE TABLE kept (a text, b text);
CREATE FUNCTION kept_ok(text) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = '' RETURN $1 <> '';
CREATE FUNCTION kept_count() RETURNS bigint LANGUAGE sql STABLE SET search_path = ''
  BEGIN ATOMIC SELECT count(*) FROM public.kept; END;
ALTER TABLE kept ADD CHECK (kept_ok(a)), ALTER b SET DEFAULT kept_count()::text;
-- then:
DROP TABLE kept CASCADE;
DROP FUNCTION kept_ok(text);

-- add together: public.priced
-- A column's default that needs a new function.
CREATE FUNCTION priced() RETURNS text LANGUAGE sql STABLE SET search_path = '' RETURN 'x';
ALTER TABLE call_sessions ADD priced text DEFAULT priced(), ADD CONSTRAINT later CHECK (priced <> '') NOT VALID;
CREATE TABLE dated (a integer CONSTRAINT fine CHECK (a > 0));
ALTER TABLE dated ADD CONSTRAINT later CHECK (a > 1) NOT VALID;

-- change together: public.whole.id
-- The types of both ends of a foreign key.
-- setup:
CREATE TABLE whole (id text PRIMARY KEY);
CREATE TABLE part (whole text REFERENCES whole);
-- then:
ALTER TABLE part DROP CONSTRAINT part_whole_fkey;
ALTER TABLE whole ALTER id TYPE integer USING id::integer;
ALTER TABLE part ALTER whole TYPE integer USING whole::integer, ADD FOREIGN KEY (whole) REFERENCES whole;

-- change together: public.shown.a
-- What a publication reads of a table.
-- once:
CREATE PUBLICATION supabase_realtime;
-- setup:
CREATE TABLE shown (a integer PRIMARY KEY, b integer);
ALTER PUBLICATION supabase_realtime ADD TABLE shown (a, b) WHERE (a > 0);
-- then:
ALTER PUBLICATION supabase_realtime DROP TABLE shown;
ALTER TABLE shown ALTER a TYPE bigint, DROP b;
ALTER PUBLICATION supabase_realtime ADD TABLE shown (a) WHERE (a > 0);

-- add together: public.odd
-- Names and literals that a statement may be broken by.
CREATE TABLE "D$$t'%" ("a$$b" text DEFAULT 'a$$b', "Wh y" text DEFAULT E'x\n y', "line
break" integer);
ALTER TABLE call_sessions ADD odd text DEFAULT E'a$$b\n  c';
CREATE VIEW "VIEW y" AS SELECT "line
break" FROM "D$$t'%";
GRANT SELECT ON "VIEW y", "D$$t'%" TO anon;
CREATE FUNCTION odd(a text DEFAULT E'x\n y') RETURNS text LANGUAGE sql IMMUTABLE SET search_path = ''
  RETURN E'a\n b\n\nAS c';
COMMENT ON TABLE "D$$t'%" IS E'$$ and\n a ''line''';

-- add together: public.kinds
-- What PostgreSQL prints differently once it has read its own print.
CREATE TABLE kinds (
  id bigint PRIMARY KEY,
  kind varchar(9),
  spot box,
  fits boolean GENERATED ALWAYS AS (kind IN ('a', 'b')) STORED,
  CONSTRAINT no_overlap EXCLUDE USING gist (spot WITH &&) WHERE (kind IN ('a', 'b'))
);
CREATE FUNCTION is_kind(kind varchar) RETURNS boolean LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT kind IN ('a', 'b'); END;

-- change together: public.spots.twice
-- A plain column becomes a generated one.
-- setup:
CREATE TABLE spots (id integer, twice integer DEFAULT 7 NOT NULL);
COMMENT ON COLUMN spots.twice IS 'Twice';
GRANT SELECT (twice) ON spots TO anon;
-- then:
ALTER TABLE spots DROP twice, ADD twice integer GENERATED ALWAYS AS (2 * id) STORED NOT NULL;
COMMENT ON COLUMN spots.twice IS 'Twice';
GRANT SELECT (twice) ON spots TO anon;

-- change together: public.spots.twice
-- A generated column becomes a plain one of another type, although its expression needs what goes.
-- setup:
CREATE FUNCTION doubled(integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN 2 * $1;
CREATE TABLE spots (id integer, twice integer GENERATED ALWAYS AS (doubled(id)) STORED);
CREATE VIEW spots_seen AS SELECT twice FROM spots;
-- then:
DROP VIEW spots_seen;
ALTER TABLE spots ALTER twice DROP EXPRESSION, ALTER twice TYPE bigint, ALTER twice SET DEFAULT 3;
CREATE VIEW spots_seen AS SELECT twice FROM spots;
DROP FUNCTION doubled(integer);

-- change together: public.spots.twice
-- A generated column on which nothing stands.
-- setup:
CREATE TABLE spots (id integer, twice integer GENERATED ALWAYS AS (2 * id) STORED NOT NULL);
-- then:
ALTER TABLE spots DROP twice, ADD twice integer GENERATED ALWAYS AS (id + id) STORED NOT NULL;

-- change together: public.spots.twice
-- A generated column on which something stands, and whose type changes.
-- setup:
CREATE TABLE spots (id integer, twice integer GENERATED ALWAYS AS (2 * id) STORED UNIQUE);
ALTER TABLE spots ALTER twice SET STATISTICS 7;
-- then:
ALTER TABLE spots DROP twice, ADD twice bigint GENERATED ALWAYS AS (2 * id) STORED UNIQUE;
ALTER TABLE spots ALTER twice SET STATISTICS 7;

-- change together: public.notes.note
-- ALTER TYPE resets storage and compression.
-- setup:
CREATE TABLE notes (note text COMPRESSION pglz);
ALTER TABLE notes ALTER note SET STORAGE EXTERNAL, ALTER note SET STATISTICS 7;
-- then:
ALTER TABLE notes ALTER note TYPE varchar(9), ALTER note SET STORAGE EXTERNAL, ALTER note SET COMPRESSION pglz;

-- change together: public.notes.note
-- Types between which PostgreSQL has no cast.
-- setup:
CREATE TABLE notes (note jsonb);
-- then:
ALTER TABLE notes ALTER note TYPE timestamptz USING NULL;

-- add together: public.notes
-- Settings that name an index.
CREATE TABLE notes (id integer PRIMARY KEY, note text NOT NULL);
CREATE UNIQUE INDEX notes_note ON notes (note);
ALTER TABLE notes REPLICA IDENTITY USING INDEX notes_note;
ALTER TABLE notes CLUSTER ON notes_pkey;

-- change together: public.notes_note
-- setup:
CREATE TABLE notes (id integer PRIMARY KEY, note text NOT NULL);
CREATE UNIQUE INDEX notes_note ON notes (note);
ALTER TABLE notes REPLICA IDENTITY USING INDEX notes_note;
ALTER TABLE notes CLUSTER ON notes_pkey;
-- then:
DROP INDEX notes_note;
ALTER TABLE notes DROP CONSTRAINT notes_pkey;
ALTER TABLE notes ADD CONSTRAINT notes_pkey PRIMARY KEY (note), ALTER id SET NOT NULL;
CREATE UNIQUE INDEX notes_note ON notes (id);
ALTER TABLE notes REPLICA IDENTITY USING INDEX notes_note;
ALTER TABLE notes CLUSTER ON notes_pkey;

-- change together: replica identity
-- setup:
CREATE TABLE notes (id integer PRIMARY KEY, note text NOT NULL);
CREATE UNIQUE INDEX notes_note ON notes (note);
ALTER TABLE notes REPLICA IDENTITY USING INDEX notes_note;
ALTER TABLE notes CLUSTER ON notes_note;
-- then:
DROP INDEX notes_note;
ALTER TABLE notes REPLICA IDENTITY FULL;

-- change together: SELECT on table public.call_sessions
-- A REVOKE on the table takes the privilege on the columns along.
-- setup:
GRANT SELECT, SELECT (room_id), UPDATE, UPDATE (id) ON call_sessions TO anon WITH GRANT OPTION;
-- then:
REVOKE SELECT ON call_sessions FROM anon;
GRANT SELECT (room_id) ON call_sessions TO anon WITH GRANT OPTION;
REVOKE GRANT OPTION FOR UPDATE ON call_sessions FROM anon;
GRANT UPDATE (id) ON call_sessions TO anon WITH GRANT OPTION;

-- add together: public.seen
-- Columns of a view, each with privileges of its own.
CREATE VIEW seen AS SELECT id, room_id, start_time FROM call_sessions;
GRANT SELECT (id), SELECT (room_id), UPDATE (id) ON seen TO anon, authenticated;

-- change together: public.seen
-- setup:
CREATE VIEW seen AS SELECT id, room_id, start_time FROM call_sessions;
GRANT SELECT (id), SELECT (room_id), UPDATE (id) ON seen TO anon, authenticated;
-- then:
DROP VIEW seen;
CREATE VIEW seen AS SELECT room_id, id FROM call_sessions;
GRANT SELECT (id), UPDATE (id) ON seen TO anon, authenticated;

-- change together: public.numbers.id
-- setup:
CREATE TABLE numbers (id integer GENERATED ALWAYS AS IDENTITY, other bigint GENERATED ALWAYS AS IDENTITY);
-- then:
DROP TABLE numbers;
CREATE TABLE numbers (
  id integer GENERATED ALWAYS AS IDENTITY (START 1000 MINVALUE 1000),
  other bigint GENERATED ALWAYS AS IDENTITY (INCREMENT -1)
);

-- change together: public.numbers.id
-- setup:
CREATE TABLE numbers (
  id bigint GENERATED ALWAYS AS IDENTITY (MAXVALUE 3000000000),
  other smallint GENERATED ALWAYS AS IDENTITY (INCREMENT -2 MINVALUE 1 MAXVALUE 9 START 5),
  third bigint GENERATED BY DEFAULT AS IDENTITY
);
-- then:
DROP TABLE numbers;
CREATE TABLE numbers (
  id integer GENERATED ALWAYS AS IDENTITY,
  other bigint GENERATED ALWAYS AS IDENTITY (INCREMENT -1 MAXVALUE 7),
  third smallint GENERATED BY DEFAULT AS IDENTITY (CYCLE CACHE 7)
);

-- change together: public.notes.note
-- A renamed column with settings.
-- setup:
CREATE TABLE notes (id integer, note text);
ALTER TABLE notes ALTER note SET STORAGE EXTERNAL, ALTER note SET STATISTICS 7;
-- then:
ALTER TABLE notes RENAME note TO remark;
ALTER TABLE notes ALTER remark SET (n_distinct = 2);
-- add together: public.kept_well
-- What CREATE TABLE says of a constraint's index and of the TOAST table, and comments on what others make.
CREATE TABLE kept_well (
  id integer CONSTRAINT kept_well_pkey PRIMARY KEY WITH (fillfactor = 70),
  note text NOT NULL,
  EXCLUDE USING hash (note WITH =) WITH (fillfactor = 60)
) WITH (fillfactor = 90, toast.autovacuum_enabled = false);
CREATE CONSTRAINT TRIGGER watch AFTER INSERT ON kept_well DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
COMMENT ON CONSTRAINT watch ON kept_well IS 'Constraint';
COMMENT ON TRIGGER watch ON kept_well IS 'Trigger';
COMMENT ON INDEX kept_well_pkey IS 'Index';
COMMENT ON CONSTRAINT kept_well_pkey ON kept_well IS 'Key';

-- add together: public.named
-- since 18
CREATE TABLE named (id integer, note text NOT NULL);
COMMENT ON CONSTRAINT named_note_not_null ON named IS 'Note';
ALTER TABLE named ADD NOT NULL id NOT VALID;
COMMENT ON CONSTRAINT named_id_not_null ON named IS 'Id';
ALTER TABLE token_usage ADD late text, ADD CHECK (late <> '') NOT ENFORCED;
ALTER TABLE token_usage ADD NOT NULL late NOT VALID;

-- change together: public.stays
-- A period in keys, and what is computed when it is read.
-- since 18
-- setup:
CREATE TABLE stays (id int4range, during daterange, days integer GENERATED ALWAYS AS (upper(during) - lower(during)) VIRTUAL);
-- then:
ALTER TABLE stays DROP days, ADD days integer GENERATED ALWAYS AS (upper(during) - lower(during) + 1) VIRTUAL;
ALTER TABLE stays ADD CONSTRAINT stays_key UNIQUE (id, during);
CREATE TABLE visits (id int4range, during daterange, FOREIGN KEY (id, during) REFERENCES stays (id, during) NOT ENFORCED);


-- change together: public.notes.id
-- A renamed identity, whose sequence has the column's name.
-- setup:
CREATE TABLE notes (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
GRANT USAGE ON SEQUENCE notes_id_seq TO anon;
-- then:
ALTER TABLE notes RENAME id TO number;
ALTER SEQUENCE notes_id_seq RENAME TO notes_number_seq;

-- remove together: public.odd
-- A view has a column of the type of a table's rows, and both go.
-- setup:
CREATE TABLE odd (id integer);
CREATE VIEW seen AS SELECT id, odd AS whole FROM odd AS odd;
CREATE TABLE others (whole odd);
-- then:
DROP TABLE others;
DROP VIEW seen;
DROP TABLE odd;

-- change together: public.odd.id
-- A renamed column in the text of a function.
-- setup:
CREATE TABLE odd (id integer);
CREATE FUNCTION odds() RETURNS SETOF integer LANGUAGE sql AS 'SELECT id FROM public.odd';
-- then:
ALTER TABLE odd RENAME id TO number;
CREATE OR REPLACE FUNCTION odds() RETURNS SETOF integer LANGUAGE sql AS 'SELECT number FROM public.odd';

-- change together: SELECT on table public.call_sessions
-- What a role may pass on, where grants depend on the mode.
GRANT SELECT ON call_sessions TO anon WITH GRANT OPTION;

-- change together: public.notes.h
-- A generated column in the place of a plain one of its type is no new name of it.
-- setup:
CREATE TABLE notes (s text, g text);
-- then:
DROP TABLE notes;
CREATE TABLE notes (s text, h text GENERATED ALWAYS AS (lower(s)) STORED);

-- change together: stamp on public.notes
-- CREATE OR REPLACE resets the state of a trigger.
-- setup:
CREATE TABLE notes (id integer, updated_at timestamptz);
CREATE TRIGGER stamp BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
ALTER TABLE notes ENABLE ALWAYS TRIGGER stamp;
-- then:
CREATE OR REPLACE TRIGGER stamp BEFORE INSERT OR UPDATE ON notes
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
ALTER TABLE notes ENABLE ALWAYS TRIGGER stamp;

-- change together: statistics of column 1 on public.lower_notes
-- Statistics of two columns of an index.
-- setup:
CREATE TABLE notes (a text, b text);
CREATE INDEX lower_notes ON notes (lower(a), lower(b));
ALTER INDEX lower_notes ALTER 1 SET STATISTICS 50, ALTER 2 SET STATISTICS 200;
-- then:
ALTER INDEX lower_notes ALTER 1 SET STATISTICS 100;

-- remove together: public.notes.note
-- A type without an equality, with a default.
-- setup:
CREATE TABLE notes (id integer, note json DEFAULT '{}');
-- then:
ALTER TABLE notes DROP note;
