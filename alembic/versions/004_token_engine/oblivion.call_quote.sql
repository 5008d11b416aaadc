CREATE FUNCTION oblivion.call_quote(
  user_id text,
  mode text,
  used_turn boolean,
  caller text,
  OUT status text,
  OUT tokens_per_minute integer,
  OUT rate_from timestamptz,
  OUT balance integer,
  OUT minutes_left integer
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  SELECT r.tokens_per_minute, r.effective_from
  INTO tokens_per_minute, rate_from
  FROM oblivion.rate_card(mode, coalesce(used_turn, false)) AS r;
  IF NOT (oblivion.open_access() OR oblivion.may_act_for(user_id, caller)) THEN
    status := 'unknown';
    RETURN;
  END IF;
  SELECT a.tokens_remaining INTO balance
  FROM public.user_accounts AS a
  WHERE a.user_id = call_quote.user_id AND NOT starts_with(a.user_id, 'anonymous_');
  status := CASE WHEN balance IS NULL THEN 'not_billed' WHEN balance < tokens_per_minute THEN 'short' ELSE 'ok' END;
  minutes_left := balance / nullif(tokens_per_minute, 0);
END
$$;

COMMENT ON FUNCTION oblivion.call_quote(text, text, boolean, text) IS 'Implements public.call_quote(), as the owner.';
