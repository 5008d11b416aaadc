// Pages whose calls the engine bills. What each of these scripts sends is sent to two databases: to the one that
// PGDATABASE names, whose pages are metered, and to the one that TRUSTING names, which is open and trusts its pages.
// The answers are the same, request by request, but for balances. Then the user has paid what the calls cost, once.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";

import { code, data, startApi } from "./api.mjs";
import { billCall, endCall, read, signIn, startCall } from "./browser.mjs";

const metered = await startApi();
const trusting = await startApi(process.env.TRUSTING);
after(() => Promise.all([metered.stop(), trusting.stop()]));

const isOpen = process.env.MODE === "open";
const DAY = 24 * 3600 * 1000;
// The clock of all pages: what they send is the same to both databases.
const NOW = Date.now();
const later = (milliseconds) => new Date(NOW + milliseconds).toISOString();
const begin = (client, user, options) => startCall(client, user, { startTime: later(0), ...options });
const finish = (client, id, options) => endCall(client, id, { endTime: later(1000), ...options });

const clientOf = (api, user) => (isOpen ? api.anon : api.signedIn({ sub: user }));
const balanceOf = async (api, user) =>
  (await data(api.serviceRole.from("user_accounts").select("*").eq("user_id", user).single())).tokens_remaining;
const usageOf = (api, user) => data(api.serviceRole.from("token_usage").select("*").eq("user_id", user));
const callOf = (api, id) => data(api.serviceRole.from("call_sessions").select("*").eq("id", id).single());

/** An account with `tokens`, which the service opens. */
const open = (api, user, tokens = 50) =>
  data(api.serviceRole.from("user_accounts").insert({ user_id: user, tokens_remaining: tokens }));

const billed = (sessionId, { mode = "video", usedTurn = false, cost = 2 } = {}) =>
  ({ sessionId, cost, mode, usedTurn, durationSeconds: 1 });

/** A call from its start to its bill, as the deployed pages do it: each request once, or `times` times. */
async function call({ client, user, ask }, options = {}) {
  const { mode = "video", usedTurn = false, start = later(0), end = later(1000) } = options;
  const { cost = 2, times = 1, credit_cost } = options;
  const more = credit_cost === undefined ? {} : { credit_cost };
  const again = async (request) => {
    let answer;
    for (let i = 0; i < times; i++) answer = await ask(request(), { isAgain: i > 0 });
    return answer;
  };
  const { data: { id } } = await again(() => begin(client, user, { mode, startTime: start }));
  await again(() => finish(client, id, { endTime: end, usedTurn, ...more }));
  await again(() => billCall(client, user, billed(id, { mode, usedTurn, cost })));
  return id;
}

const account = ({ client, user }, change) => client.from("user_accounts").update(change).eq("user_id", user);
const log = ({ client, user }, row) =>
  client.from("token_usage").insert({ user_id: user, tokens_used: 2, mode: "video", used_turn: false, ...row });

// What a page sends, what that costs its user if it is metered, and of how many calls there is usage then.
const SCRIPTS = {
  "a call": [2, 1, (page) => call(page)],
  "a voice call that ends over TURN": [2, 1, (page) => call(page, { mode: "voice-only", usedTurn: true })],
  "a call of a newer page, with its cost": [6, 1, (page) => call(page, { usedTurn: true, credit_cost: 6 * 0.1 })],
  "a call that costs less than nothing, as the page says": [2, 1, (page) => call(page, { credit_cost: -4, cost: 0 })],
  "a clock that is a day ahead": [2, 1, (page) => call(page, { start: later(DAY), end: later(DAY + 61_000) })],
  "a clock that is a day behind": [2, 1, (page) => call(page, { start: later(-DAY), end: later(-DAY + 61_000) })],
  "a clock that is set back": [2, 1, (page) => call(page, { end: later(-DAY), cost: 0 })],
  "a clock that is set forward": [2, 1, (page) => call(page, { end: later(DAY), cost: 2880 })],
  "a call whose page dies": [0, 0, ({ client, user, ask }) => ask(begin(client, user))],
  "each request once more, because its reply is lost": [2, 1, (page) => call(page, { times: 2 })],
  "two tabs that end and bill one call": [2, 1, async ({ client, user, ask }) => {
    const { data: { id } } = await ask(begin(client, user));
    const tab = async (usedTurn, isAgain) => {
      await ask(finish(client, id, { usedTurn }), { isAgain });
      await ask(billCall(client, user, billed(id, { usedTurn })));
    };
    await tab(false, false);
    await tab(true, true); // the second end says another price
  }],
  "a call that is not billed by its page": [2, 1, async ({ client, user, ask }) => {
    const { data: { id } } = await ask(begin(client, user));
    await ask(finish(client, id));
  }],
  "a bill before the end": [2, 1, async ({ client, user, ask }) => {
    const { data: { id } } = await ask(begin(client, user));
    await ask(billCall(client, user, billed(id)));
    await ask(finish(client, id));
  }],
  "an end that is undone": [2, 1, async (page) => {
    const id = await call(page);
    await page.ask(page.client.from("call_sessions").update({ used_turn: true }).eq("id", id));
    await page.ask(finish(page.client, id, { endTime: later(DAY), usedTurn: true, credit_cost: 0 }));
    await page.ask(page.client.from("call_sessions").update({ end_time: null }).eq("id", id));
  }],
  "a balance that is forged": [0, 0, async (page) => {
    for (const tokens of [999999, 0, -1, null, "many", 2 ** 31]) {
      await page.ask(account(page, { tokens_remaining: tokens }));
      await page.ask(account(page, { email: "e@example.com", tokens_remaining: tokens }).select("user_id").single());
    }
  }],
  "a sign-in with an account": [0, 0, async ({ client, user, ask }) => {
    for (let i = 0; i < 2; i++) await ask(signIn(client, user, "e@example.com"));
    const greedy = { user_id: user, email: "e@example.com", tokens_remaining: 5_000_000 };
    await ask(client.from("user_accounts").upsert(greedy, { onConflict: "user_id" }).select().single());
  }],
  "times that are none": [2, 1, async (page) => {
    for (const time of ["soon", "2026-13-01T00:00:00Z", "2026-03-01T25:00:00Z", ""]) {
      await page.ask(begin(page.client, page.user, { startTime: time || "-" }));
    }
    const { data: { id } } = await page.ask(begin(page.client, page.user));
    for (const time of ["soon", "2026-02-30T00:00:00Z"]) await page.ask(finish(page.client, id, { endTime: time }));
    await page.ask(finish(page.client, id, { usedTurn: null }));
    await page.ask(finish(page.client, id, { credit_cost: 1e9 }));
    await page.ask(finish(page.client, id));
  }],
  "a mode that is none": [0, 0, (page) => page.ask(begin(page.client, page.user, { mode: "audio" }))],
  "what dashboards read": [2, 1, async (page) => {
    await call(page);
    for (const table of ["user_accounts", "call_sessions", "token_usage", "user_token_summary"]) {
      await page.ask(read(page.client, table).eq("user_id", page.user));
    }
    await page.ask(page.client.from("daily_billing_summary").select("*").limit(1));
    await page.ask(page.client.from("daily_token_usage").select("*").limit(1));
  }],
};
// In the authenticated mode policies refuse these, whoever bills.
const OPEN_SCRIPTS = {
  "an account that is closed": [0, 0, (page) => page.ask(page.client.from("user_accounts").delete().eq("user_id", page.user))],
  "usage that is refused": [0, 0, async (page) => {
    const { data: { id: session_id } } = await page.ask(begin(page.client, page.user));
    await page.ask(log(page, { session_id, mode: "voice-only" }));
    await page.ask(log(page, { session_id, tokens_used: -2 }));
    await page.ask(log(page, { session_id, duration_seconds: -2 }));
    await page.ask(log(page, { session_id, used_turn: null }));
    await page.ask(log(page, { session_id, user_id: "nobody" }));
    await page.ask(log(page, { session_id: null }));
  }],
  "usage that is corrected and deleted": [2, 1, async (page) => {
    const session_id = await call(page);
    await page.ask(page.client.from("token_usage").update({ tokens_used: 0 }).eq("session_id", session_id));
    await page.ask(page.client.from("token_usage").delete().eq("session_id", session_id));
  }],
  "a call that is deleted": [2, 1, async ({ client, user, ask }) => {
    const { data: { id } } = await ask(begin(client, user));
    await ask(client.from("call_sessions").delete().eq("id", id));
  }],
  ...Object.fromEntries(["nobody", "anonymous_1", null, ""].map((who) => [`a call of ${JSON.stringify(who)}`, [0, 0,
    ({ client, ask }) => call({ client, user: who, ask }),
  ]])),
};

const isUuid = (value) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value);

/**
 * An answer without what two servers make differently: ids, their clock, balances. Its columns keep their order.
 * What is read, or is sent again, shows what the engine has written meanwhile, in columns that the page did not send.
 */
function comparable({ status, error, data }, { isAgain = false }) {
  const server = new Set([
    ...["created_at", "updated_at", "timestamp", "tokens_remaining", "account_created", "last_usage"],
    ...["call_date", "usage_date"], // a user who signs in sees other days than everybody
  ]);
  const engine = Array.isArray(data) ? ["end_time", "duration_seconds", "credit_cost", "tokens_used"] : ["credit_cost"];
  if (isAgain || Array.isArray(data)) for (const name of engine) server.add(name);
  const value = (name, it) => {
    if (server.has(name) || /^(total|avg)_|_calls$|^session_count$/.test(name)) return typeof it;
    if (name === "start_time" || name === "end_time") return Date.parse(it);
    return isUuid(it) ? "uuid" : it;
  };
  const row = (it) => it && Object.entries(it).map(([name, its]) => [name, value(name, its)]);
  return { status, code: error?.code, message: error?.message, rows: Array.isArray(data) ? data.map(row) : row(data) };
}

/** The answers that a script gets from an API. */
async function play(api, user, script) {
  const answers = [];
  const ask = async (request, options = {}) => {
    const answer = await request;
    answers.push(comparable(answer, options));
    return answer;
  };
  await script({ client: clientOf(api, user), user, ask });
  return answers;
}

describe("what a page sends gets the answers that it got, and is billed once", { concurrency: 4 }, () => {
  for (const [name, [cost, calls, script]] of Object.entries({ ...SCRIPTS, ...(isOpen ? OPEN_SCRIPTS : {}) })) {
    test(name, async () => {
      const user = `the user of ${name}`;
      await Promise.all([metered, trusting].map((api) => open(api, user)));
      const expected = await play(trusting, user, script);
      assert.deepEqual(await play(metered, user, script), expected);
      assert.ok(expected.length > 0);
      assert.equal(await balanceOf(metered, user), 50 - cost);
      const usage = await usageOf(metered, user);
      assert.equal(usage.length, calls);
      assert.equal(usage.reduce((sum, { tokens_used }) => sum + tokens_used, 0), cost);
    });
  }

  test("a new account has what the column gives by default, at most", async () => {
    for (const [tokens, opened] of [[5_000_000, 100], [100, 100], [7, 7]]) {
      const user = `opened with ${tokens}`;
      const row = { user_id: user, email: "e", tokens_remaining: tokens };
      const script = ({ client, ask }) => ask(client.from("user_accounts").upsert(row).select().single());
      assert.deepEqual(await play(metered, user, script), await play(trusting, user, script));
      assert.deepEqual([await balanceOf(metered, user), await balanceOf(trusting, user)], [opened, tokens]);
    }
  });
});

describe("a metered page", () => {
  test("pays for each of twenty calls that end at once", async () => {
    const left = [];
    for (const api of [metered, trusting]) {
      await open(api, "busy", 100);
      const client = clientOf(api, "busy");
      const started = await Promise.all(
        Array.from({ length: 20 }, () => data(begin(client, "busy", { mode: "voice-only" }))),
      );
      await Promise.all(started.map(async ({ id }) => {
        await data(finish(client, id));
        await data(billCall(client, "busy", billed(id, { mode: "voice-only", cost: 1 })));
      }));
      left.push(await balanceOf(api, "busy"));
    }
    assert.equal(left[0], 80);
    assert.ok(left[1] >= 80, "trusted pages lose tokens so");
    assert.equal((await usageOf(metered, "busy")).length, 20);
  });

  test("pays once if two tabs end and bill a call at the same time", async () => {
    await open(metered, "twice");
    const client = clientOf(metered, "twice");
    const { id } = await data(begin(client, "twice"));
    await Promise.all([1, 2, 3].map(async () => {
      await data(finish(client, id));
      await data(billCall(client, "twice", billed(id)));
    }));
    assert.equal(await balanceOf(metered, "twice"), 48);
    assert.equal((await usageOf(metered, "twice")).length, 1);
  });

  test("gets back the row that it wrote, and the table has what is true", async () => {
    await open(metered, "writer");
    const client = clientOf(metered, "writer");
    const start = "2026-03-01T12:00:00+00:00";
    const end = "2026-03-01T12:10:01+00:00";
    const { id } = await data(begin(client, "writer", { startTime: start }));
    const row = await data(finish(client, id, { endTime: end, usedTurn: true, credit_cost: 6.6 }));
    const { created_at, updated_at, ...rest } = row;
    assert.deepEqual(rest, {
      id, room_id: "room", start_time: start, end_time: end, mode: "video", used_turn: true, credit_cost: 6.6,
      user_id: "writer",
    });
    assert.ok(Date.parse(created_at) <= Date.parse(updated_at));
    const kept = await callOf(metered, id);
    const seconds = (Date.parse(kept.end_time) - Date.parse(start)) / 1000;
    assert.ok(seconds >= 0 && seconds < 60, `${seconds} s by the server's clock, from the start by the page's`);
    assert.deepEqual([kept.start_time, kept.used_turn, kept.credit_cost], [start, true, 6]);
  });

  test("has a balance that stops at nothing, and its full cost is logged", async () => {
    await open(metered, "poor", 1);
    const client = clientOf(metered, "poor");
    const { id } = await data(begin(client, "poor"));
    await data(finish(client, id));
    assert.equal(await balanceOf(metered, "poor"), 0);
    assert.deepEqual((await usageOf(metered, "poor")).map(({ tokens_used }) => tokens_used), [2]);
  });

  test("may be changed to the functions beside old ones on the same account", async () => {
    await open(metered, "both");
    const client = clientOf(metered, "both");
    const old = await data(begin(client, "both"));
    const changed = await data(client.rpc("start_call", { user_id: "both", room_id: "r", mode: "video" }).single());
    await data(client.rpc("tick_call", { session_id: changed.session_id }).single());
    await data(finish(client, old.id));
    await data(billCall(client, "both", billed(old.id)));
    const end = await data(client.rpc("end_call", { session_id: changed.session_id }).single());
    assert.deepEqual([end.status, end.balance], ["ok", 46]);
    const again = await data(client.rpc("end_call", { session_id: old.id }).single());
    assert.deepEqual([again.status, again.balance], ["ended", 46]);
    assert.equal((await usageOf(metered, "both")).length, 2);
  });

  test("asks who bills its calls", async () => {
    assert.equal(await data(clientOf(metered, "any").rpc("page_billing")), "metered");
    assert.equal(await data(clientOf(trusting, "any").rpc("page_billing")), "trusted");
    assert.equal(await data(metered.anon.rpc("page_billing")), "metered");
  });

  test("reaches nobody else's account and calls if its user signs in", { skip: isOpen }, async () => {
    await Promise.all(["eve", "ann"].map((user) => open(metered, user)));
    const [eve, ann] = ["eve", "ann"].map((user) => clientOf(metered, user));
    const { id } = await data(begin(ann, "ann"));
    assert.equal(await code(begin(eve, "ann")), "42501");
    assert.equal(await code(finish(eve, id)), "PGRST116");
    assert.equal(await code(billCall(eve, "ann", { cost: 2 })), "PGRST116");
    assert.equal(await code(signIn(eve, "ann", "e")), "42501");
    assert.equal(await code(log({ client: eve, user: "eve" }, { session_id: id })), "42501");
    assert.equal(await code(log({ client: eve, user: "ann" }, { session_id: id })), "42501");
    assert.equal(await code(begin(metered.anon, "ann")), "42501");
    assert.equal(await balanceOf(metered, "ann"), 50);
    assert.equal((await callOf(metered, id)).end_time, null);
    assert.deepEqual(await usageOf(metered, "ann"), []);
  });

  test("is what the service is not: its writes take effect", async () => {
    const { serviceRole } = metered;
    await data(serviceRole.from("user_accounts").insert({ user_id: "rich", tokens_remaining: 5000 }));
    const page = { client: serviceRole, user: "rich" };
    await data(account(page, { tokens_remaining: 4000 }));
    assert.equal(await balanceOf(metered, "rich"), 4000);
    await data(signIn(serviceRole, "rich", "r@example.com"));
    assert.equal(await balanceOf(metered, "rich"), 100);
    // It bills its own calls, as before.
    const { id } = await data(begin(serviceRole, "rich"));
    await data(finish(serviceRole, id, { credit_cost: 0.2 }));
    await data(billCall(serviceRole, "rich", billed(id)));
    assert.equal(await balanceOf(metered, "rich"), 98);
    assert.equal((await callOf(metered, id)).credit_cost, 0.2);
    await data(serviceRole.from("token_usage").update({ tokens_used: 3 }).eq("session_id", id));
    assert.deepEqual((await usageOf(metered, "rich")).map(({ tokens_used }) => tokens_used), [3]);
    // What it corrects of a page's call, stays corrected.
    const call = await data(begin(clientOf(metered, "rich"), "rich"));
    await data(finish(clientOf(metered, "rich"), call.id));
    await data(serviceRole.from("token_usage").update({ tokens_used: 1 }).eq("session_id", call.id));
    await data(serviceRole.rpc("refund_call", { session_id: call.id, tokens: 1, key: "sorry" }).single());
    assert.equal(await balanceOf(metered, "rich"), 97);
  });
});
