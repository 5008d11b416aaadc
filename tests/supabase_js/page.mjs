// examples/page in a browser, on the API of the database: CHROMIUM is the program, PAGE the file. For time that has to pass
// for a call it prints a line, `{ call, minutes }`, and waits for an empty one.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

import { data, startApi } from "./api.mjs";

const require = createRequire(import.meta.url);
const client = require.resolve("oblivion-schema-client");
const umd = require.resolve("@supabase/supabase-js/dist/umd/supabase.js");

const api = await startApi();
const { serviceRole, anon } = api;
await data(serviceRole.from("user_accounts").insert({ user_id: "ada", tokens_remaining: 120 }));
const html = (await readFile(process.env.PAGE, "utf8"))
  .replace("https://project.example", anon.supabaseUrl)
  .replace("the public key", anon.supabaseKey);
const files = {
  "/": ["text/html", html],
  "/supabase.js": ["text/javascript", await readFile(umd)],
  "/client/index.js": ["text/javascript", await readFile(client)],
};
const site = createServer(({ url }, response) => {
  const [type, body] = files[url] ?? ["text/plain", undefined];
  response.writeHead(body ? 200 : 404, { "Content-Type": type }).end(body);
});
await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: [
    ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    ...["--disable-component-update", "--disable-sync"],
  ],
});
const page = await browser.newPage({ viewport: { width: 480, height: 640 }, deviceScaleFactor: 2 });
page.setDefaultTimeout(60_000); // longer than from tick to tick
const problems = [];
page.on("pageerror", (error) => problems.push(String(error)));
page.on("console", (message) => message.type() === "error" && problems.push(message.text()));

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const texts = async (...ids) => Promise.all(ids.map((id) => page.locator(`#${id}`).textContent()));
const shows = (id, text) => page.locator(`#${id}`).filter({ hasText: new RegExp(`^${text}$`) }).waitFor();

/** Let minutes pass for the call, and let the page tick, as it does when the network is back. */
async function pass(minutes) {
  const call = await page.locator("main").getAttribute("data-call");
  process.stdout.write(`${JSON.stringify({ call, minutes })}\n`);
  await lines.next();
  await page.evaluate(() => dispatchEvent(new Event("online")));
}

try {
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  await page.fill("[name=user]", "nobody");
  await page.click("#start");
  await shows("status", "not billed");
  assert.match(await page.locator("#message").textContent(), /no account/);
  await page.click("#end");
  await shows("status", "over");
  await page.fill("[name=user]", "ada");
  await page.click("#start");
  await shows("status", "in a call");
  assert.deepEqual(await texts("balance", "billed", "spent", "left"), ["120", "0", "0", "60"]);
  for (const [minutes, ...shown] of [[2.5, "114", "3", "6", "57"], [4, "106", "7", "14", "53"]]) {
    await pass(minutes);
    await shows("balance", shown[0]);
    assert.deepEqual(await texts("balance", "billed", "spent", "left"), shown);
  }
  await page.check("#turn");
  await shows("left", "17");
  for (const [minutes, ...shown] of [[3, "88", "10", "32", "14"], [6, "52", "16", "68", "8"]]) {
    await pass(minutes);
    await shows("balance", shown[0]);
    assert.deepEqual(await texts("balance", "billed", "spent", "left"), shown);
  }
  await page.waitForTimeout(1000); // the bar moves
  const share = await page.evaluate(() => {
    const bar = document.querySelector("#bar");
    return bar.firstElementChild.offsetWidth / bar.offsetWidth;
  });
  assert.ok(Math.abs(share - 52 / 120) < 0.01, `${share}`);
  if (process.env.OBLIVION_TEST_SCREENSHOT) await page.screenshot({ path: process.env.OBLIVION_TEST_SCREENSHOT });
  await pass(5);
  await shows("balance", "22");
  assert.equal(await page.locator("main").getAttribute("data-level"), "low");
  await page.click("#end");
  await shows("status", "over");
  assert.deepEqual(await texts("balance", "spent"), ["22", "98"]);

  // A page that is closed ends its call.
  await page.uncheck("#turn");
  await page.click("#start");
  await shows("balance", "22");
  await shows("status", "in a call");
  const calls = () => data(serviceRole.from("active_calls").select("id"));
  assert.equal((await calls()).length, 1);
  await page.goto("about:blank");
  for (let tries = 0; (await calls()).length; tries++) {
    assert.ok(tries < 50, "the call goes on");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.deepEqual(problems, []);
} catch (error) {
  console.error(problems);
  throw error;
} finally {
  await browser.close();
  site.close();
  await api.stop();
  process.stdin.destroy();
}
