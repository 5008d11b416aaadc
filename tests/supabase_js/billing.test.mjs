// The functions of billing, as a page calls them, in the mode that MODE names. client.test.mjs plays the client.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { code, data, startApi } from "./api.mjs";

const api = await startApi();
after(api.stop);

const { anon, serviceRole } = api;
const isOpen = process.env.MODE === "open";
const ada = isOpen ? anon : api.signedIn({ sub: "ada" });
await data(serviceRole.from("user_accounts").insert([{ user_id: "ada" }, { user_id: "bob" }]));

test("arguments that have a default may be left out", async () => {
  const quote = await data(ada.rpc("call_quote", { user_id: "ada", mode: "voice-only" }).single());
  assert.deepEqual([quote.status, quote.tokens_per_minute], ["ok", 1]);
  const call = await data(ada.rpc("start_call", { user_id: "ada", room_id: "lobby", mode: "video" }).single());
  assert.equal(call.minutes_left, Math.floor(call.balance / 2));
});

test("what is refused has its SQLSTATE as the error's code", async () => {
  const start = { user_id: "ada", room_id: "lobby", mode: "audio" };
  assert.equal(await code(ada.rpc("start_call", start)), "22023");
  assert.equal(await code(ada.rpc("top_up", { user_id: "ada", tokens: 1, key: "k" })), "42501");
  if (!isOpen) {
    assert.equal(await code(ada.rpc("start_call", { ...start, mode: "video", user_id: "bob" })), "42501");
    assert.equal(await code(anon.rpc("start_call", { ...start, mode: "video" })), "42501");
  }
});

test("the service credits once for each key", async () => {
  const topUp = { user_id: "bob", tokens: 50, key: "order 7" };
  const answers = [];
  for (let i = 0; i < 2; i++) answers.push(await data(serviceRole.rpc("top_up", topUp).single()));
  assert.deepEqual(answers.map(({ status, balance }) => [status, balance]), [["ok", 150], ["known", 150]]);
});
