// What would fail again: a wrong argument, a missing right, no rate, a request that PostgREST does not take.
const FINAL = /^(2[23]...|42...|55000|PGRST[1-9]..)$/;

export class CallError extends Error {
  name = "CallError";

  constructor({ message, code, details, hint }) {
    super(message);
    this.code = code || null;
    this.details = details || null;
    this.hint = hint || null;
    this.isFinal = FINAL.test(code);
  }
}

async function ask(supabase, name, args, tries) {
  for (let pause = 500; ; pause *= 2) {
    // A request that hangs, as some do when the network is lost, must not hold up the next.
    const { data, error } = await supabase.rpc(name, args).abortSignal(AbortSignal.timeout(10_000)).single();
    if (!error) return data;
    const failure = new CallError(error);
    if (failure.isFinal || --tries < 1) throw failure;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

export async function startMeteredCall(supabase, options) {
  const { userId, roomId, mode, usedTurn = false, every = 30_000, staleAfter = 300_000 } = options;
  const { onState, onStatus, onBalance, onMinutesLeft, onError, onOver } = options;
  const listening = new AbortController();
  let ticks;
  let state;
  let over; // why
  let [asked, heard] = [0, 0];
  let isTicking = false;
  let awakeAt = Date.now();

  function stopTicking() {
    clearInterval(ticks);
    listening.abort();
  }

  function stop(reason) {
    stopTicking();
    if (over) return;
    over = reason;
    onOver?.(over, state);
  }

  function tell(next) {
    const before = state;
    state = next;
    onState?.(state);
    if (state.status !== before?.status) onStatus?.(state.status, state);
    if (state.balance !== before?.balance) onBalance?.(state.balance, state);
    if (state.minutes_left !== before?.minutes_left) onMinutesLeft?.(state.minutes_left, state);
    if (["ended", "unknown"].includes(state.status)) stop(state.status);
  }

  async function send(name, args, tries = 5) {
    const turn = ++asked;
    const answer = await ask(supabase, name, args, tries);
    if (turn > heard) {
      heard = turn; // an older answer may still come, and tells nothing new
      queueMicrotask(() => tell(answer)); // an error of a callback is the page's, and no failure of the call
    }
    return answer;
  }

  // While the machine sleeps, or the browser freezes the page, no timer fires. A lost network stops none.
  function hasSlept() {
    if (!over && Date.now() - awakeAt > staleAfter) stop("slept");
    awakeAt = Date.now();
    return over === "slept";
  }

  // A tick that is lost or late changes no total: the next one makes up for it, and so does the end.
  async function tick() {
    if (hasSlept() || isTicking) return;
    isTicking = true;
    await send("tick_call", { session_id }, 1).catch((error) => onError?.(error));
    isTicking = false;
  }

  // The key makes a start that is asked for again, after a reply that was lost, the same call.
  const start = { user_id: userId, room_id: roomId, mode, used_turn: usedTurn, client_key: crypto.randomUUID() };
  const { session_id } = await send("start_call", start);

  async function end(tries) {
    if (hasSlept()) return state;
    stopTicking();
    const answer = await send("end_call", { session_id }, tries);
    stop("ended");
    return answer;
  }

  awakeAt = Date.now();
  ticks = setInterval(tick, every);
  // Browsers slow the timers of a hidden page down.
  const listen = (target, type, react) => target?.addEventListener?.(type, react, { signal: listening.signal });
  listen(globalThis.document, "visibilitychange", () => document.visibilityState === "visible" && tick());
  listen(globalThis, "online", tick);
  listen(globalThis, "pageshow", tick);
  listen(globalThis, "pagehide", ({ persisted }) => persisted || end(1).catch(() => {}));

  return {
    id: session_id,
    get state() {
      return state;
    },
    setTurn: async (used_turn) => (hasSlept() ? state : send("set_call_turn", { session_id, used_turn })),
    end: () => end(),
  };
}
