#!/usr/bin/env bash
# supabase-js 2.119.1 and TypeScript 7.0.2: a page of one line compiles with skipLibCheck alone.
#
# auth-js declares PublicKeyCredentialFuture, which extends the DOM's PublicKeyCredential. In the DOM of TypeScript 7.0.2
# the types of its toJSON() differ from those that auth-js gives it (TS2430); with TypeScript 5.9.3 there is no error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" @supabase/supabase-js@2.119.1 @types/node@24 \
  old@npm:typescript@5.9.3 new@npm:typescript@7.0.2
cd "$folder"
echo 'import { createClient } from "@supabase/supabase-js"; createClient("http://localhost", "key");' >page.ts
compile() {
  local compiler=$1
  shift
  node "node_modules/$compiler/bin/tsc" --strict --noEmit --target es2022 --lib es2022,dom --module esnext \
    --moduleResolution bundler --types node "$@" page.ts
}
for compiler in old new; do node "node_modules/$compiler/bin/tsc" --version; done
compile old
compile new --skipLibCheck
if compile new >errors; then exit 1; fi
grep -o '^node_modules.*TS2430: Interface .PublicKeyCredentialFuture' errors
[ "$(grep -c '^[^ ]*error\|: error' errors)" = 1 ]
