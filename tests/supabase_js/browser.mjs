// What the deployed pages send, one function for each action, through a client of supabase-js. All return its answer.

/** Action 1: a call starts. */
export function startCall(client, userId, { roomId = "room", mode = "video", startTime } = {}) {
  const clock = startTime ?? new Date().toISOString();
  return client
    .from("call_sessions")
    .insert({ room_id: roomId, user_id: userId, mode, used_turn: false, start_time: clock, credit_cost: 0 })
    .select("id")
    .single();
}

/** Action 2: a call ends. A newer page sends `credit_cost` too. */
export function endCall(client, id, { endTime = new Date().toISOString(), usedTurn = false, ...more } = {}) {
  return client
    .from("call_sessions")
    .update({ end_time: endTime, used_turn: usedTurn, ...more })
    .eq("id", id)
    .select()
    .single();
}

/** Action 3: an ended call is billed, in three requests; the answer that it stopped at, or the last. */
export async function billCall(client, userId, { sessionId, cost, mode, usedTurn, durationSeconds }) {
  const account = await client.from("user_accounts").select("tokens_remaining").eq("user_id", userId).single();
  if (account.error) return account;
  const left = Math.max(0, account.data.tokens_remaining - cost);
  const paid = await client.from("user_accounts").update({ tokens_remaining: left }).eq("user_id", userId);
  if (paid.error) return paid;
  return client.from("token_usage").insert({
    user_id: userId,
    session_id: sessionId,
    tokens_used: cost,
    mode: mode === "voice-only" ? "voice" : mode,
    used_turn: usedTurn,
    duration_seconds: durationSeconds,
  });
}

/** Action 5: a host says whether they can take a call. */
export function announce(client, hostId, isAvailable, { roomId = "room", updatedAt = new Date().toISOString() } = {}) {
  return client
    .from("user_presence")
    .upsert(
      { host_id: hostId, is_available: isAvailable, room_id: roomId, updated_at: updatedAt },
      { onConflict: "host_id" },
    )
    .select()
    .single();
}

/** Action 6: a user signs in. */
export function signIn(client, userId, email) {
  return client
    .from("user_accounts")
    .upsert({ user_id: userId, email, tokens_remaining: 100 }, { onConflict: "user_id" })
    .select()
    .single();
}

/** Action 7: a dashboard reads a table or view, all of it. */
export function read(client, relation) {
  return client.from(relation).select("*");
}
