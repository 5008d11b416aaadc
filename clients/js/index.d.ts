import type { Database } from "./database.js";

export type { Database, Json, Tables, TablesInsert, TablesUpdate } from "./database.js";

type Functions = Database["public"]["Functions"];

/** The answer of `start_call`, `tick_call`, `set_call_turn` and `end_call`. */
export type CallState = Functions["tick_call"]["Returns"][number];
export type CallStatus = CallState["status"];
export type CallMode = Functions["start_call"]["Args"]["mode"];
/** The answer of `call_quote`. */
export type CallQuote = Functions["call_quote"]["Returns"][number];
/** A row of `explain_call`. */
export type CallSegment = Functions["explain_call"]["Returns"][number];

/**
 * Why a call is over for this page.
 *
 * - `ended`: the page, another tab or the reaper has ended it.
 * - `unknown`: there is no such call, or it is not this user's.
 * - `slept`: the machine slept, or the browser froze the page, for longer than `staleAfter`. The page sends nothing
 *   more, because a tick or an end would bill the sleep, too: the reaper ends the call when it was last seen.
 */
export type OverReason = "ended" | "unknown" | "slept";

/** A function of the database has failed, or was not reached. Nothing has changed, as far as the page can know. */
export class CallError extends Error {
  constructor(error: { message: string; code?: string | null; details?: string | null; hint?: string | null });
  readonly name: "CallError";
  /** SQLSTATE, or a code of PostgREST (PGRST...); null if no answer came. */
  readonly code: string | null;
  readonly details: string | null;
  /** What to give instead, if the database knows. */
  readonly hint: string | null;
  /** Whether the same request would fail again: it was not repeated. */
  readonly isFinal: boolean;
}

export interface CallOptions {
  /** The user who pays; null for a visitor, whose call nobody pays. */
  userId: string | null;
  roomId: string;
  mode: CallMode;
  /** Whether a TURN relay carries the media. Default: false. */
  usedTurn?: boolean;
  /** Milliseconds from tick to tick. Default: 30,000. */
  every?: number;
  /** Milliseconds without a timer after which the page has slept. Default: 300,000, as `reap --not-seen-for 5m`. */
  staleAfter?: number;
  /** Gets each answer of the database, the first one before `startMeteredCall` returns. */
  onState?: (state: CallState) => void;
  /** Get a value when it is another one than before, and the first. */
  onStatus?: (status: CallStatus, state: CallState) => void;
  onBalance?: (balance: number | null, state: CallState) => void;
  onMinutesLeft?: (minutesLeft: number | null, state: CallState) => void;
  /** Gets the error of a tick. The call goes on, and so do its ticks. */
  onError?: (error: CallError) => void;
  /** The call is over; no tick follows. */
  onOver?: (reason: OverReason, state: CallState) => void;
}

export interface MeteredCall {
  /** `call_sessions.id`. */
  readonly id: string;
  /** The newest answer. */
  readonly state: CallState;
  /** A relay takes over, or is not needed any more. Rejects with CallError. */
  setTurn(usedTurn: boolean): Promise<CallState>;
  /** End the call. Once or often, it is billed once. If it rejects with CallError, call it again, or the reaper ends it. */
  end(): Promise<CallState>;
}

/**
 * What is used of a client of supabase-js, whatever its Database. It is no SupabaseClient: tsc tells that of an ES module
 * from that of a CommonJS module, and those of two versions.
 */
export interface Client {
  rpc(name: any, args?: any): any;
}

/** Start a metered call, and tick it until it is over. Rejects with CallError if it cannot start. */
export function startMeteredCall(supabase: Client, options: CallOptions): Promise<MeteredCall>;
