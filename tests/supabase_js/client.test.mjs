// oblivion-schema-client, on the database, in the mode that MODE names.

import assert from "node:assert/strict";
import { after, afterEach, test } from "node:test";

import { CallError, startMeteredCall } from "oblivion-schema-client";

import { data, startApi } from "./api.mjs";

const api = await startApi();
after(api.stop);

const { serviceRole } = api;
const USER = { sub: "ada" };
await data(serviceRole.from("user_accounts").insert({ user_id: "ada", tokens_remaining: 5000 }));

// What a browser has, and node has not.
const page = new EventTarget();
globalThis.addEventListener = page.addEventListener.bind(page);
globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
const fire = (target, type, more) => target.dispatchEvent(Object.assign(new Event(type), more));

/** A client whose requests of functions pass through `send(next, name)`, where `next()` is the real one. */
function clientThat(send) {
  const requests = [];
  const through = (url, init) => {
    const name = new URL(url).pathname.split("/").at(-1);
    requests.push(name);
    return send(() => fetch(url, init), name);
  };
  return { client: api.signedIn(USER, { global: { fetch: through } }), requests };
}

const options = { userId: "ada", roomId: "lobby", mode: "video" };
const open = [];
/** Start a call that is ended after its test, and that does not tick by itself. */
async function start(client, more = {}) {
  const call = await startMeteredCall(client, { ...options, every: 1e6, ...more });
  open.push(call);
  return call;
}
afterEach(async () => {
  for (const call of open.splice(0)) await call.end();
});

async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const lost = () => Promise.reject(new TypeError("Failed to fetch"));

test("a page starts, ticks, turns and ends a call", async () => {
  const states = [];
  const call = await startMeteredCall(api.signedIn(USER), {
    ...options,
    every: 20,
    onState: (state) => states.push(state),
  });
  assert.deepEqual([call.state.session_id, call.state.status], [call.id, "ok"]);
  await until(() => states.length >= 3);
  const { balance } = call.state;
  assert.equal((await call.setTurn(true)).minutes_left, Math.floor(balance / 6));
  const { session_id, ...end } = await call.end();
  assert.equal(session_id, call.id);
  assert.deepEqual(end, {
    ...{ status: "ok", charged: 0, shortfall: 0, balance, minutes_billed: 1 },
    ...{ minutes_left: Math.floor(balance / 6), credit_cost: 2 },
  });
  assert.equal((await call.end()).status, "ended");
  const receipt = await data(api.signedIn(USER).rpc("explain_call", { session_id }));
  assert.deepEqual(receipt.map(({ due, charged }) => [due, charged]), [[2, 2], [0, 0]]);
});

test("a page is told of a value when it is another one", async () => {
  const told = [];
  const tell = (name) => (value) => told.push([name, value]);
  const call = await start(api.signedIn(USER), {
    onStatus: tell("status"),
    onBalance: tell("balance"),
    onMinutesLeft: tell("minutes"),
    onOver: tell("over"),
  });
  const { balance, minutes_left } = call.state;
  assert.deepEqual(told.splice(0), [["status", "ok"], ["balance", balance], ["minutes", minutes_left]]);
  fire(page, "online");
  await until(() => told.length === 2);
  assert.deepEqual(told.splice(0), [["balance", balance - 2], ["minutes", minutes_left - 1]]);
  await call.end();
  assert.deepEqual(told, [["over", "ended"]]);
});

test("a visitor has a call that nobody pays", { skip: process.env.MODE !== "open" }, async () => {
  const call = await start(api.anon, { userId: null });
  assert.deepEqual([call.state.status, call.state.balance], ["not_billed", null]);
});

test("a start whose reply is lost is asked for again, and is the same call", async () => {
  let replies = 0;
  const { client, requests } = clientThat(async (next) => {
    const reply = await next();
    return ++replies === 1 ? lost() : reply;
  });
  const call = await start(client, { roomId: "once" });
  assert.deepEqual(requests, ["start_call", "start_call"]);
  const calls = await data(serviceRole.from("call_sessions").select("id").eq("room_id", "once"));
  assert.deepEqual(calls, [{ id: call.id }]);
});

test("what would fail again is not asked again", async () => {
  const { client, requests } = clientThat((next) => next());
  const error = await start(client, { mode: "audio" }).catch((error) => error);
  assert.ok(error instanceof CallError);
  assert.deepEqual([error.name, error.code, error.isFinal], ["CallError", "22023", true]);
  assert.match(error.hint, /voice-only/);
  assert.deepEqual(requests, ["start_call"]);
});

test("a tick that is lost is told, and the next one makes up for it", async () => {
  let isLost = true;
  const { client } = clientThat((next, name) => (name === "tick_call" && isLost ? lost() : next()));
  const errors = [];
  const call = await start(client, { every: 20, onError: (error) => errors.push(error) });
  await until(() => errors.length === 2);
  assert.ok(errors.every((error) => error instanceof CallError && error.code === null && !error.isFinal));
  isLost = false;
  await until(() => call.state.charged === 2);
});

test("an end that is lost is asked for again", async () => {
  let ends = 0;
  const { client, requests } = clientThat((next, name) => (name === "end_call" && ++ends === 1 ? lost() : next()));
  const call = await start(client);
  assert.equal((await call.end()).status, "ok");
  assert.deepEqual(requests, ["start_call", "end_call", "end_call"]);
});

test("a call that somebody else ends stops ticking", async () => {
  const { client, requests } = clientThat((next) => next());
  const over = [];
  const call = await start(client, { every: 20, onOver: (...all) => over.push(all) });
  await data(serviceRole.rpc("end_call", { session_id: call.id }));
  await until(() => over.length === 1);
  assert.deepEqual([over[0][0], over[0][1].status], ["ended", "ended"]);
  const { length } = requests;
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(requests.length, length);
});

test("a page ticks when it is seen again, and when the network is back", async () => {
  const { client, requests } = clientThat((next) => next());
  let answers = 0;
  await start(client, { onState: () => answers++ });
  for (const [target, type] of [[document, "visibilitychange"], [page, "online"], [page, "pageshow"]]) {
    const before = answers;
    fire(target, type);
    await until(() => answers > before);
  }
  document.visibilityState = "hidden";
  fire(document, "visibilitychange");
  document.visibilityState = "visible";
  assert.deepEqual(requests, ["start_call", "tick_call", "tick_call", "tick_call"]);
});

test("a page that is closed ends its call, and one that may come back does not", async () => {
  const { client, requests } = clientThat((next) => next());
  const over = [];
  await start(client, { onOver: (reason) => over.push(reason) });
  fire(page, "pagehide", { persisted: true });
  assert.deepEqual(requests, ["start_call"]);
  fire(page, "pagehide", { persisted: false });
  await until(() => over.length === 1);
  assert.deepEqual([requests, over], [["start_call", "end_call"], ["ended"]]);
});

test("a page that has slept neither ticks, turns nor ends its call: the reaper does", async (t) => {
  const { client, requests } = clientThat((next) => next());
  const over = [];
  const call = await start(client, { onOver: (reason) => over.push(reason) });
  const now = Date.now();
  t.mock.method(Date, "now", () => now + 301_000);
  fire(document, "visibilitychange");
  assert.deepEqual(over, ["slept"]);
  assert.equal(await call.end(), call.state);
  assert.equal(await call.setTurn(true), call.state);
  assert.deepEqual(requests, ["start_call"]);
});

test("an answer that a later one has overtaken changes nothing", async () => {
  let release;
  const { client } = clientThat(async (next, name) => {
    const reply = await next();
    if (name === "tick_call") await new Promise((resolve) => (release = resolve));
    return reply;
  });
  const call = await start(client);
  fire(page, "online");
  await until(() => release); // the tick has billed the first minute
  const end = await call.end();
  assert.equal(end.charged, 0);
  release();
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(call.state, end);
});
