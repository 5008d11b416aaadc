// Access for signed-in users: a visitor sees prices and hosts, a user their own rows, and the service everything.
// PAGES says who bills the calls of pages. If the engine does, what a page writes for its user is let through.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { code, data, startApi } from "./api.mjs";
import { announce, billCall, endCall, read, signIn, startCall } from "./browser.mjs";

const api = await startApi();
after(api.stop);

const { anon, serviceRole } = api;
const ADA = "7d3e1c52-6d0b-4b0e-8c1e-0a4a6d0f5a01";
const BOB = "b0b6f4d9-8a2e-4c39-9f0c-5a6a7d1e2b02";
const ada = api.signedIn({ sub: ADA });

const TABLES = ["user_accounts", "call_sessions", "token_usage", "user_presence"];
const VIEWS = ["active_calls", "daily_billing_summary", "user_token_summary", "daily_token_usage"];
const BILL = { sessionId: "a", cost: 2, mode: "video", usedTurn: false, durationSeconds: 60 };
const USAGE = { session_id: "b", tokens_used: 0, mode: "video", used_turn: false };

const account = (userId) => data(serviceRole.from("user_accounts").select("*").eq("user_id", userId).single());

const isMetered = process.env.PAGES === "metered";

/** What would give tokens away is refused, or it is let through and has no effect. */
async function gainsNothing(answer) {
  if (isMetered) await data(answer);
  else assert.equal(await code(answer), "42501");
}

const calls = {}; // by user

before(async () => {
  for (const user of [ADA, BOB]) {
    await data(signIn(serviceRole, user, `${user}@example.com`));
    calls[user] = (await data(startCall(serviceRole, user))).id;
    await data(billCall(serviceRole, user, BILL));
    await data(announce(serviceRole, user, true));
  }
  for (const nobody of ["anonymous_1", "", null]) await data(startCall(serviceRole, nobody));
});

describe("anon", () => {
  for (const relation of [...TABLES, ...VIEWS]) {
    test(`may not read ${relation}`, async () => {
      assert.equal(await code(read(anon, relation)), "42501");
    });
  }

  test("may not start, end or bill a call", async () => {
    assert.equal(await code(startCall(anon, "anonymous_1")), "42501");
    assert.equal(await code(endCall(anon, calls[ADA])), "42501");
    assert.equal(await code(billCall(anon, ADA, BILL)), "42501");
    assert.equal(await code(anon.from("token_usage").insert({ user_id: ADA, ...USAGE })), "42501");
  });

  test("may not set a balance, open an account, or delete one", async () => {
    assert.equal(await code(anon.from("user_accounts").update({ tokens_remaining: 9 }).eq("user_id", ADA)), "42501");
    assert.equal(await code(signIn(anon, "new", "a@example.com")), "42501");
    assert.equal(await code(anon.from("user_accounts").delete().eq("user_id", ADA)), "42501");
    assert.equal((await account(ADA)).tokens_remaining, 98);
  });

  test("may not take over a host's presence", async () => {
    assert.equal(await code(announce(anon, ADA, false)), "42501");
  });

  test("reads the rates, and may not write them", async () => {
    assert.equal((await data(read(anon, "token_rates"))).length, 4);
    assert.equal(await code(anon.from("token_rates").update({ tokens_per_minute: 0 }).eq("mode", "video")), "42501");
  });

  test("asks for a host by name, and learns no more than where to meet them", async () => {
    const [host, ...others] = await data(anon.rpc("host_presence", { host_id: ADA }));
    assert.deepEqual(others, []);
    assert.deepEqual(Object.keys(host), ["is_available", "room_id", "updated_at"]);
    assert.deepEqual([host.is_available, host.room_id], [true, "room"]);
    assert.deepEqual(await data(anon.rpc("host_presence", { host_id: "nobody" })), []);
  });
});

describe("a signed-in user", () => {
  test("reads their own account alone", async () => {
    assert.deepEqual((await data(read(ada, "user_accounts"))).map((row) => row.user_id), [ADA]);
  });

  test("changes their e-mail", async () => {
    const change = ada.from("user_accounts").update({ email: "ada@example.org" }).eq("user_id", ADA);
    assert.equal((await data(change.select("email").single())).email, "ada@example.org");
  });

  test("changes nobody else's e-mail", async () => {
    const change = ada.from("user_accounts").update({ email: "ada@example.org" }).eq("user_id", BOB);
    assert.deepEqual(await data(change.select("email")), []);
    assert.equal((await account(BOB)).email, `${BOB}@example.com`);
  });

  test("changes nothing else of their account", async () => {
    const more = { email: "ada@example.org", tokens_remaining: 1000 };
    for (const change of [{ tokens_remaining: 1000 }, { user_id: "eve" }, more]) {
      await gainsNothing(ada.from("user_accounts").update(change).eq("user_id", ADA));
    }
    for (const change of [{ subscription_tier: "pro" }, { ...more, subscription_tier: "pro" }]) {
      assert.equal(await code(ada.from("user_accounts").update(change).eq("user_id", ADA)), "42501");
    }
    assert.equal((await account(ADA)).tokens_remaining, 98);
  });

  test("opens, resets and deletes no account", async () => {
    await gainsNothing(signIn(ada, ADA, "ada@example.org"));
    assert.equal(await code(signIn(ada, "new", "ada@example.org")), "42501");
    assert.equal(await code(ada.from("user_accounts").delete().eq("user_id", ADA)), "42501");
    assert.equal((await account(ADA)).tokens_remaining, 98);
  });

  test("starts a call of their own, and reads it", async () => {
    const { id } = await data(startCall(ada, ADA));
    const rows = await data(read(ada, "call_sessions"));
    assert.deepEqual(new Set(rows.map((row) => row.user_id)), new Set([ADA]));
    assert.deepEqual(new Set(rows.map((row) => row.id)), new Set([id, calls[ADA]]));
  });

  test("starts no call of somebody else's, or of nobody's", async () => {
    for (const user of [BOB, "anonymous_1", null]) assert.equal(await code(startCall(ada, user)), "42501");
  });

  test("rewrites and deletes no call", async () => {
    assert.equal(await code(endCall(ada, calls[BOB], { credit_cost: -1 })), isMetered ? "PGRST116" : "42501");
    assert.equal(await code(ada.from("call_sessions").update({ user_id: ADA }).eq("id", calls[BOB])), "42501");
    if (!isMetered) assert.equal(await code(endCall(ada, calls[ADA], { credit_cost: -1 })), "42501");
    for (const user of [ADA, BOB]) {
      assert.equal(await code(ada.from("call_sessions").delete().eq("id", calls[user])), "42501");
      const row = await data(serviceRole.from("call_sessions").select("*").eq("id", calls[user]).single());
      assert.deepEqual([row.end_time, row.credit_cost], [null, 0]);
    }
  });

  test("reads their own usage, and writes none", async () => {
    assert.deepEqual((await data(read(ada, "token_usage"))).map((row) => row.user_id), [ADA]);
    assert.equal(await code(ada.from("token_usage").insert({ user_id: ADA, ...USAGE })), "42501");
    assert.equal(await code(ada.from("token_usage").delete().eq("user_id", ADA)), "42501");
  });

  test("says that they are available, first and again", async () => {
    const host = "c4b1f3a0-2d6e-4f7a-8b9c-0d1e2f3a4b03";
    const client = api.signedIn({ sub: host });
    const first = await data(announce(client, host, true, { roomId: "a" }));
    const second = await data(announce(client, host, false, { roomId: "b" }));
    assert.deepEqual([second.id, second.host_id, second.is_available, second.room_id], [first.id, host, false, "b"]);
    assert.equal((await data(anon.rpc("host_presence", { host_id: host })))[0].room_id, "b");
  });

  test("takes over nobody's presence", async () => {
    assert.equal(await code(announce(ada, BOB, false)), "42501");
    assert.equal(await code(announce(ada, "new", true)), "42501");
    assert.deepEqual(await data(ada.from("user_presence").update({ host_id: ADA }).eq("host_id", BOB).select()), []);
    assert.equal(await code(ada.from("user_presence").update({ host_id: "new" }).eq("host_id", ADA)), "42501");
    assert.equal((await data(anon.rpc("host_presence", { host_id: BOB })))[0].is_available, true);
  });

  test("asks for another host", async () => {
    assert.equal((await data(ada.rpc("host_presence", { host_id: BOB }))).length, 1);
  });

  test("reads in the views what is their own", async () => {
    const other = api.signedIn({ sub: BOB });
    const [summary, ...more] = await data(read(other, "user_token_summary"));
    assert.deepEqual(more, []);
    assert.deepEqual([summary.user_id, summary.tokens_remaining, summary.total_tokens_used], [BOB, 98, 2]);
    assert.deepEqual((await data(read(other, "active_calls"))).map((row) => row.id), [calls[BOB]]);
    assert.deepEqual((await data(read(other, "daily_billing_summary"))).map((row) => row.total_calls), [1]);
    assert.deepEqual((await data(read(other, "daily_token_usage"))).map((row) => row.total_tokens), [2]);
  });

  test("reads the rates", async () => {
    assert.equal((await data(read(ada, "token_rates"))).length, 4);
  });
});

describe("a token whose claims are wrong", () => {
  for (const claims of [{}, ...["", " ", null, 7, true, [], [ADA], {}, { sub: ADA }].map((sub) => ({ sub }))]) {
    test(`shows no rows: ${JSON.stringify(claims)}`, async () => {
      const client = api.signedIn(claims);
      for (const relation of [...TABLES, ...VIEWS]) assert.deepEqual(await data(read(client, relation)), [], relation);
    });

    test(`writes no rows: ${JSON.stringify(claims)}`, async () => {
      const client = api.signedIn(claims);
      assert.equal(await code(startCall(client, ADA)), "42501");
      assert.equal(await code(startCall(client, null)), "42501");
      assert.equal(await code(announce(client, ADA, false)), "42501");
      const change = client.from("user_accounts").update({ email: "eve@example.org" }).eq("user_id", ADA);
      assert.deepEqual(await data(change.select("email")), []);
    });
  }
});

describe("service_role", () => {
  test("does all that the pages did", async () => {
    const user = "served";
    await data(signIn(serviceRole, user, "served@example.com"));
    const { id } = await data(startCall(serviceRole, user));
    const ended = await data(endCall(serviceRole, id, { usedTurn: true, credit_cost: 0.2 }));
    assert.deepEqual([ended.used_turn, ended.credit_cost], [true, 0.2]);
    await data(billCall(serviceRole, user, { ...BILL, sessionId: id }));
    assert.equal((await account(user)).tokens_remaining, 98);
    await data(announce(serviceRole, user, true));
    assert.equal((await data(announce(serviceRole, user, false))).is_available, false);
  });

  test("reads everybody's rows", async () => {
    for (const [table, column] of [
      ["user_accounts", "user_id"],
      ["call_sessions", "user_id"],
      ["token_usage", "user_id"],
      ["user_presence", "host_id"],
      ["user_token_summary", "user_id"],
    ]) {
      const found = new Set((await data(read(serviceRole, table))).map((row) => row[column]));
      assert.ok(found.has(ADA) && found.has(BOB), table);
    }
    for (const view of VIEWS) assert.notDeepEqual(await data(read(serviceRole, view)), [], view);
  });

  test("deletes an account with its usage", async () => {
    await data(signIn(serviceRole, "leaving", "leaving@example.com"));
    await data(billCall(serviceRole, "leaving", BILL));
    await data(serviceRole.from("user_accounts").delete().eq("user_id", "leaving"));
    assert.deepEqual(await data(read(serviceRole, "token_usage").eq("user_id", "leaving")), []);
  });
});
