/** Start a metered call. `onState` gets each answer of the engine; a balance that runs low is up to it. */
export async function startMeteredCall(supabase, { userId, roomId, mode, usedTurn = false, onState, every = 30_000 }) {
  async function ask(name, args, tries = 1) {
    const { data, error } = await supabase.rpc(name, args).single();
    if (!error) {
      onState?.(data);
      return data;
    }
    if (error.code === "42501" || error.code?.startsWith("22") || tries <= 1) throw error; // it would fail again
    await new Promise((resolve) => setTimeout(resolve, 500));
    return ask(name, args, tries - 1);
  }

  // The key makes a start that is asked for again, after a reply that was lost, the same call.
  const start = { user_id: userId, room_id: roomId, mode, used_turn: usedTurn, client_key: crypto.randomUUID() };
  const { session_id, status } = await ask("start_call", start, 5);
  // A tick that is lost or late changes no total: the next one makes up for it, and so does the end.
  const ticks = setInterval(async () => {
    const state = await ask("tick_call", { session_id }).catch(() => undefined);
    if (["ended", "unknown"].includes(state?.status)) clearInterval(ticks);
  }, every);
  return {
    id: session_id,
    status,
    setTurn: (used_turn) => ask("set_call_turn", { session_id, used_turn }, 5),
    end() {
      clearInterval(ticks);
      return ask("end_call", { session_id }, 5); // once or often, it is billed once
    },
  };
}
