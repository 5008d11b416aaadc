// Open access: the database lets everybody in, and every page goes on doing what it does. PAGES says who bills for it.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";

import { code, data, startApi } from "./api.mjs";
import { announce, billCall, endCall, read, signIn, startCall } from "./browser.mjs";

const api = await startApi();
after(api.stop);

const START = "2026-03-01T12:00:00+00:00";
const END = "2026-03-01T12:01:01+00:00";
const VIEWS = {
  active_calls: "id room_id mode used_turn start_time duration",
  daily_billing_summary:
    "call_date total_calls turn_calls video_calls voice_calls total_credits avg_duration_minutes",
  user_token_summary:
    "user_id tokens_remaining subscription_tier account_created total_tokens_used total_sessions last_usage",
  daily_token_usage: "usage_date mode used_turn session_count total_tokens avg_tokens_per_session total_minutes",
};

const utcDay = (moment) => new Date(moment).toISOString().slice(0, 10);

for (const [role, client] of [
  ["anon", api.anon],
  ["authenticated", api.signedIn({ sub: "d0f1c7a2-7f43-4c5c-9a57-1f2f9f3c1b11" })],
  ["service_role", api.serviceRole],
]) {
  const user = `${role}_user`;
  // The engine bills the calls of pages, and a balance that a page writes has no effect. The service is no page.
  const isMetered = process.env.PAGES === "metered" && role !== "service_role";

  /** The account's tokens set to `tokens` by the service; it is opened where there is none. */
  const open = async (name, tokens) => {
    await data(signIn(client, name, `${name}@example.com`));
    await data(api.serviceRole.from("user_accounts").update({ tokens_remaining: tokens }).eq("user_id", name));
  };
  const balance = async (name) =>
    (await data(client.from("user_accounts").select("tokens_remaining").eq("user_id", name).single())).tokens_remaining;
  const usage = (name) => data(client.from("token_usage").select("*").eq("user_id", name));

  describe(role, () => {
    test("a call that starts gives its id, and no more", async () => {
      const call = await data(startCall(client, user, { roomId: `${role} starts` }));
      assert.deepEqual(Object.keys(call), ["id"]);
      const row = await data(client.from("call_sessions").select("*").eq("id", call.id).single());
      assert.equal(row.room_id, `${role} starts`);
      assert.deepEqual([row.user_id, row.mode, row.used_turn, row.credit_cost], [user, "video", false, 0]);
      assert.deepEqual([row.end_time, row.created_at], [null, row.updated_at]);
    });

    test("a call that ends gives all of its columns, at the page's clock", async () => {
      const { id } = await data(startCall(client, user, { mode: "voice-only", startTime: START }));
      const row = await data(endCall(client, id, { endTime: END, usedTurn: true }));
      assert.deepEqual(Object.keys(row), [
        ...["id", "room_id", "start_time", "end_time", "mode", "used_turn", "credit_cost", "user_id"],
        ...["created_at", "updated_at"],
      ]);
      assert.deepEqual([row.start_time, row.end_time, row.used_turn, row.credit_cost], [START, END, true, 0]);
    });

    test("a newer page writes the cost of a call with its end", async () => {
      const { id } = await data(startCall(client, user, { startTime: START }));
      const row = await data(endCall(client, id, { endTime: END, usedTurn: true, credit_cost: 12 * 0.1 }));
      assert.equal(row.credit_cost, 1.2);
    });

    test("a call is billed by reading the balance, writing it back, and logging the cost", async () => {
      await open(user, 50);
      const { id } = await data(startCall(client, user, { mode: "voice-only", startTime: START }));
      await data(endCall(client, id, { endTime: END, usedTurn: true }));
      const bill = { sessionId: id, cost: 4, mode: "voice-only", usedTurn: true, durationSeconds: 61 };
      await data(billCall(client, user, bill));
      const cost = isMetered ? 2 : 4; // of the one minute that has started, or of the two that the page says
      assert.equal(await balance(user), 50 - cost);
      const [row, ...others] = await usage(user);
      assert.deepEqual(others, []);
      assert.deepEqual([row.session_id, row.tokens_used, row.mode, row.used_turn], [id, cost, "voice", true]);
      assert.equal(row.duration_seconds === 61, !isMetered);
    });

    test("a balance stops at nothing, and the full cost is logged", async () => {
      await open(`${user}_poor`, 3);
      const bill = { sessionId: "a", cost: 12, mode: "video", usedTurn: true, durationSeconds: 61 };
      await data(billCall(client, `${user}_poor`, bill));
      assert.equal(await balance(`${user}_poor`), isMetered ? 3 : 0);
      assert.deepEqual((await usage(`${user}_poor`)).map((row) => row.tokens_used), [12]);
    });

    test("a call of an unknown account ends unbilled", async () => {
      const bill = { sessionId: "a", cost: 2, mode: "video", usedTurn: false, durationSeconds: 9 };
      assert.equal(await code(billCall(client, "nobody", bill)), "PGRST116");
      const row = { user_id: "nobody", session_id: "a", tokens_used: 2, mode: "video", used_turn: false };
      assert.equal(await code(client.from("token_usage").insert(row)), "23503");
    });

    test("a second tab bills the same call again, if pages are trusted", async () => {
      await open(`${user}_twice`, 50);
      const bill = { sessionId: "a", cost: 2, mode: "video", usedTurn: false, durationSeconds: 9 };
      await data(billCall(client, `${user}_twice`, bill));
      await data(billCall(client, `${user}_twice`, bill));
      assert.equal(await balance(`${user}_twice`), isMetered ? 50 : 46);
      assert.equal((await usage(`${user}_twice`)).length, 2);
    });

    test("presence is upserted on the host, and its row is given back", async () => {
      const first = await data(announce(client, user, true, { roomId: "a", updatedAt: START }));
      assert.deepEqual([first.host_id, first.is_available, first.room_id], [user, true, "a"]);
      assert.ok(Date.parse(first.updated_at) > Date.parse(START), "the server's clock stamps it");
      const second = await data(announce(client, user, false, { roomId: "b", updatedAt: START }));
      assert.deepEqual([second.id, second.is_available, second.room_id], [first.id, false, "b"]);
      assert.ok(Date.parse(second.updated_at) > Date.parse(first.updated_at), "and each update");
    });

    test("a sign-in opens the account, and resets its balance", async () => {
      const opened = await data(signIn(client, `${user}_new`, "a@example.com"));
      assert.deepEqual([opened.tokens_remaining, opened.subscription_tier], [100, "free"]);
      await data(client.from("user_accounts").update({ tokens_remaining: 3 }).eq("user_id", `${user}_new`));
      const again = await data(signIn(client, `${user}_new`, "b@example.com"));
      assert.deepEqual([again.tokens_remaining, again.email], [100, "b@example.com"]);
    });

    test("dashboards read the tables and the views whole", async () => {
      const { id } = await data(startCall(client, user, { roomId: `${role} reads` }));
      await open(`${user}_read`, 50);
      const bill = { sessionId: id, cost: 2, mode: "video", usedTurn: false, durationSeconds: 60 };
      await data(billCall(client, `${user}_read`, bill));
      await data(announce(client, `${user}_read`, true));
      for (const table of ["call_sessions", "token_usage", "token_rates", "user_accounts", "user_presence"]) {
        assert.notDeepEqual(await data(read(client, table)), [], table);
      }
      for (const [view, columns] of Object.entries(VIEWS)) {
        const [row] = await data(read(client, view));
        assert.equal(Object.keys(row).join(" "), columns);
      }
      const active = await data(client.from("active_calls").select("*").eq("id", id).single());
      assert.equal(active.room_id, `${role} reads`);
    });

    test("dashboards read one day, and one user", async () => {
      await open(`${user}_day`, 50);
      const { id } = await data(startCall(client, `${user}_day`, { mode: "voice-only" }));
      await data(endCall(client, id, { usedTurn: true }));
      const bill = { sessionId: id, cost: 2, mode: "voice-only", usedTurn: true, durationSeconds: 60 };
      await data(billCall(client, `${user}_day`, bill));
      const { start_time: start } = await data(client.from("call_sessions").select("*").eq("id", id).single());
      const onDay = client.from("daily_billing_summary").select("*").eq("call_date", utcDay(start));
      const calls = await data(onDay.single());
      assert.ok(calls.voice_calls >= 1);
      const [{ timestamp }] = await usage(`${user}_day`);
      const group = { usage_date: utcDay(timestamp), mode: "voice", used_turn: true };
      const used = await data(client.from("daily_token_usage").select("*").match(group).single());
      assert.ok(used.total_tokens >= 2);
      const summary = await data(client.from("user_token_summary").select("*").eq("user_id", `${user}_day`).single());
      assert.deepEqual([summary.tokens_remaining, summary.total_tokens_used, summary.total_sessions], [48, 2, 1]);
    });

    test("rates are read, and only the service writes them", async () => {
      assert.equal((await data(read(client, "token_rates"))).length, 4);
      const rate = { mode: "video", used_turn: false, effective_from: "2100-01-01", tokens_per_minute: 3 };
      if (role === "service_role") {
        await data(client.from("token_rates").insert(rate));
        await data(client.from("token_rates").delete().eq("effective_from", "2100-01-01"));
      } else {
        assert.equal(await code(client.from("token_rates").insert(rate)), "42501");
        assert.equal(await code(client.from("token_rates").delete().eq("mode", "video")), "42501");
      }
    });

    test("a host is asked for by name", async () => {
      await data(announce(client, `${user}_host`, true, { roomId: "there" }));
      const [host] = await data(client.rpc("host_presence", { host_id: `${user}_host` }));
      assert.deepEqual([host.is_available, host.room_id, "room_token" in host], [true, "there", false]);
    });
  });
}
