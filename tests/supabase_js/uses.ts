// What a page does with the types. tsc must take each line, and refuse each one below a @ts-expect-error.

import { createClient } from "@supabase/supabase-js";
import {
  CallError,
  startMeteredCall,
  type CallSegment,
  type CallState,
  type Database,
  type Tables,
} from "oblivion-schema-client";

const supabase = createClient<Database>("https://project.example", "key");

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
/** Whether a value has exactly the type `Expected`; `any` is no other type's equal. */
function is<Expected>() {
  return <Actual>(_value: Actual, _same: Same<Actual, Expected>) => {};
}
const session_id = crypto.randomUUID();

// -- One row of a function, by .single()

const start = await supabase
  .rpc("start_call", { user_id: "ada", room_id: "lobby", mode: "video", client_key: session_id })
  .single();
if (start.error) throw start.error;
is<CallState>()(start.data, true);
is<number | null>()(start.data.balance, true);
is<"ok" | "short" | "not_billed" | "unsettled" | "ended" | "unknown">()(start.data.status, true);

for (const name of ["tick_call", "end_call"] as const) {
  const { data } = await supabase.rpc(name, { session_id }).single();
  is<CallState | null>()(data, true);
}
const turned = await supabase.rpc("set_call_turn", { session_id, used_turn: true }).single();
is<CallState | null>()(turned.data, true);

const quote = await supabase.rpc("call_quote", { user_id: "ada", mode: "voice-only" }).single();
is<number | undefined>()(quote.data?.tokens_per_minute, true);
const account = await supabase.rpc("open_account").single();
is<"ok" | "known" | "closed" | undefined>()(account.data?.status, true);
const topUp = await supabase.rpc("top_up", { user_id: "ada", tokens: 100, key: "order 1001" }).single();
is<"ok" | "known" | undefined>()(topUp.data?.status, true);
const refund = await supabase.rpc("refund_call", { session_id, tokens: 6, key: "ticket 17" }).single();
is<"ok" | "known" | "unknown" | undefined>()(refund.data?.status, true);

// -- Several rows, and a value

const receipt = await supabase.rpc("explain_call", { session_id });
is<CallSegment[] | null>()(receipt.data, true);
const settled = await supabase.rpc("settle_calls", {});
is<number | undefined>()(settled.data?.[0]?.charged, true);
const reaped = await supabase.rpc("reap_stale_calls", { not_seen_for: "5 minutes" });
is<string | undefined>()(reaped.data?.[0]?.end_time, true);
const billing = await supabase.rpc("page_billing");
is<"trusted" | "metered" | null>()(billing.data, true);

// -- Arguments

void supabase.rpc("start_call", { user_id: null, room_id: "lobby", mode: "video" });
// @ts-expect-error room_id has no default
void supabase.rpc("start_call", { user_id: "ada", mode: "video" });
// @ts-expect-error no such argument
void supabase.rpc("start_call", { user: "ada", room_id: "lobby", mode: "video" });
// @ts-expect-error no such mode
void supabase.rpc("start_call", { user_id: "ada", room_id: "lobby", mode: "audio" });
// @ts-expect-error tokens are a number
void supabase.rpc("top_up", { user_id: "ada", tokens: "100", key: "order 1001" });
// @ts-expect-error no such function
void supabase.rpc("stop_call", { session_id });
// @ts-expect-error no such status
if (start.data.status === "paid") throw new Error();
// @ts-expect-error nobody pays, perhaps
start.data.balance.toFixed();
// @ts-expect-error no such column
start.data.tokens_left;

// -- Tables and views

const call = await supabase
  .from("call_sessions")
  .insert({ room_id: "lobby", user_id: "ada", mode: "voice-only" })
  .select()
  .single();
is<Tables<"call_sessions"> | null>()(call.data, true);
is<string | null | undefined>()(call.data?.end_time, true);
const usage = await supabase.from("token_usage").select("tokens_used, user_accounts(tokens_remaining)");
is<{ tokens_used: number; user_accounts: { tokens_remaining: number } }[] | null>()(usage.data, true);
const active = await supabase.from("active_calls").select("id, mode, duration");
is<{ id: string; mode: "video" | "voice-only"; duration: string | null }[] | null>()(active.data, true);
// @ts-expect-error a usage has the mode that is priced
void supabase.from("token_usage").insert({ user_id: "ada", session_id, tokens_used: 2, mode: "voice-only", used_turn: false });
// @ts-expect-error no such tier
void supabase.from("user_accounts").update({ subscription_tier: "gold" });
// @ts-expect-error it is always generated
void supabase.from("token_ledger").insert({ id: 1, user_id: "ada", tokens: 1, balance: 1, kind: "direct" });

// -- The client

const metered = await startMeteredCall(supabase, {
  userId: "ada",
  roomId: "lobby",
  mode: "video",
  onState: (state) => is<CallState>()(state, true),
  onStatus: (status) => is<CallState["status"]>()(status, true),
  onBalance: (balance) => is<number | null>()(balance, true),
  onMinutesLeft: (minutes) => is<number | null>()(minutes, true),
  onError: (error) => is<CallError>()(error, true),
  onOver: (reason) => is<"ended" | "unknown" | "slept">()(reason, true),
});
is<CallState>()(await metered.end(), true);
is<CallState>()(metered.state, true);
try {
  await metered.setTurn(true);
} catch (error) {
  if (error instanceof CallError) is<string | null>()(error.code, true);
}
// @ts-expect-error no such mode
void startMeteredCall(supabase, { userId: "ada", roomId: "lobby", mode: "audio" });
// @ts-expect-error a call has a room
void startMeteredCall(supabase, { userId: "ada", mode: "video" });
// @ts-expect-error the id stays
metered.id = "";
// @ts-expect-error not a client of supabase-js
void startMeteredCall({}, { userId: "ada", roomId: "lobby", mode: "video" });

// -- Beside a page's own tables, whose types `supabase gen types` writes: it loses the rows of the functions above

type Generated = {
  public: {
    Tables: { rooms: { Row: { id: string }; Insert: { id: string }; Update: { id?: string }; Relationships: [] } };
    Views: Record<never, never>;
    Functions: { tick_call: { Args: { session_id: string }; Returns: unknown } };
  };
};
type Oblivion = Database["public"];
type Public = Generated["public"];
type Mine = {
  public: {
    Tables: Omit<Public["Tables"], keyof Oblivion["Tables"]> & Oblivion["Tables"];
    Views: Omit<Public["Views"], keyof Oblivion["Views"]> & Oblivion["Views"];
    Functions: Omit<Public["Functions"], keyof Oblivion["Functions"]> & Oblivion["Functions"];
  };
};
const mine = createClient<Mine>("https://project.example", "key");
const rooms = await mine.from("rooms").select();
is<string | undefined>()(rooms.data?.[0]?.id, true);
const ticked = await mine.rpc("tick_call", { session_id }).single();
is<CallState | null>()(ticked.data, true);
void startMeteredCall(mine, { userId: "ada", roomId: "lobby", mode: "video" });
void startMeteredCall(createClient("https://project.example", "key"), { userId: "ada", roomId: "lobby", mode: "video" });
