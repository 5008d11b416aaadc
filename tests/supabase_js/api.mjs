// The API that browsers talk to, over the database that the PG* variables name, and clients of it for each role.
//
// @supabase/lite serves PostgREST's protocol: a transaction for each request, in the role and with the claims of its
// token. Where it differs from PostgREST in what these tests look at, it is put right here.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";

import { serve } from "@hono/node-server";
import { App } from "@supabase/lite";
import { PostgresConnection } from "@supabase/lite/postgres";
import { createClient } from "@supabase/supabase-js";
import { cors } from "hono/cors";
import { ColumnNode, ColumnUpdateNode, ReferenceNode, sql, TableNode } from "kysely";

const SECRET = "signs the tokens of this run, and of no other";

// PostgREST's upsert writes all columns that were sent. lite leaves the conflict's own out, which would hide that a
// role may not update it.
const upsertAllColumns = {
  transformQuery({ node }) {
    if (node.kind !== "InsertQueryNode" || !node.onConflict?.updates) return node;
    const updates = node.columns.map(({ column: { name } }) =>
      ColumnUpdateNode.create(
        ColumnNode.create(name),
        ReferenceNode.create(ColumnNode.create(name), TableNode.create("excluded")),
      ),
    );
    return { ...node, onConflict: { ...node.onConflict, updates } };
  },
  transformResult: async ({ result }) => result,
};

class Connection extends PostgresConnection {
  constructor(database) {
    super({
      url: "",
      postgresOptions: {
        database,
        types: {
          // As PostgREST's JSON has them: 2026-03-01T12:00:00+00:00 and 0.4, not 2026-03-01 12:00:00+00 and "0.4000".
          timestamptz: { to: 1184, from: [1184], serialize: String, parse: (text) => `${text.replace(" ", "T")}:00` },
          numeric: { to: 1700, from: [1700], serialize: String, parse: Number },
        },
      },
    });
    this.kysely = this.kysely.withPlugin(upsertAllColumns);
  }

  // lite would grant all tables to all roles here, as far as its login may. What the revisions grant is tested.
  async ensureRlsContext() {
    return true;
  }

  // PostgREST gives the claims as JSON alone: what reads them one by one must fail here as it does there.
  async applyJwtSessionContext(transaction, ...context) {
    await super.applyJwtSessionContext(transaction, ...context);
    for (const claim of ["sub", "role"]) {
      await sql`SELECT set_config(${`request.jwt.claim.${claim}`}, '', true)`.execute(transaction);
    }
  }
}

// lite looks up the user of a token whose `sub` is a uuid, among those that signed in to it: here nobody does.
async function noUsersOfItsOwn(context, next) {
  context.set("authService", { repo: { findUserById: async () => undefined } });
  await next();
}

/** A signed token. `claims` may be any JSON: a token's holder does not choose them, but an issuer can be wrong. */
function token(claims) {
  const body = [{ alg: "HS256", typ: "JWT" }, { exp: Math.floor(Date.now() / 1000) + 600, ...claims }]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".");
  return `${body}.${createHmac("sha256", SECRET).update(body).digest("base64url")}`;
}

/** Start the API of a database on a free port of this machine; with what makes clients of it, and what stops it. */
export async function startApi(database = process.env.PGDATABASE) {
  // It prints each error of the database: what a test expects would bury what it does not.
  const print = console.error;
  console.error = (error, ...rest) => /^2[23]|^42501$/.test(error?.code) || print(error, ...rest);

  const connection = new Connection(database);
  // Without publishable and secret keys, the key that a client is made with is a token, as those of deployed pages are.
  const app = new App({
    connection,
    auth: { enabled: false, jwt_secret: SECRET },
    options: { server: { middlewares: [cors(), noUsersOfItsOwn] } },
  });
  const { server, port } = await new Promise((resolve) => {
    const server = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, ({ port }) => resolve({ server, port }));
  });

  function client(key, options = {}) {
    return createClient(`http://127.0.0.1:${port}`, key, {
      auth: { persistSession: false, autoRefreshToken: false },
      realtime: { transport: globalThis.WebSocket ?? class {} }, // node 20 has none, and none is opened
      ...options,
    });
  }

  return {
    anon: client(token({ role: "anon" })),
    serviceRole: client(token({ role: "service_role" })),
    /** A page whose user is signed in, with `claims` in the token: `{ sub: "ada" }`. */
    signedIn: (claims, options = {}) =>
      client(token({ role: "anon" }), {
        ...options,
        accessToken: async () => token({ role: "authenticated", aud: "authenticated", ...claims }),
      }),
    async stop() {
      server.closeAllConnections();
      server.close();
      await connection.close();
    },
  };
}

/** The data of an answer that is no error. */
export async function data(answer) {
  const { data, error } = await answer;
  assert.equal(error, null);
  return data;
}

/** The code of an answer that is an error. */
export async function code(answer) {
  const { error } = await answer;
  assert.notEqual(error, null, "it was let through");
  return error.code;
}
