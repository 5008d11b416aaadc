-- Gives a call of a page its meter, with the rates of its start. A call of nobody, or of an anonymous user, gets none,
-- and neither does a call without a rate: a page's INSERT never fails because of billing.
-- While the call goes on it is charged at the lower of both rates, because only its end says whether TURN was used.
CREATE OR REPLACE FUNCTION oblivion.meter_call(call uuid, payer text, mode text, started timestamptz)
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  priced CONSTANT pg_catalog.text := CASE mode WHEN 'voice-only' THEN 'voice' ELSE mode END;
BEGIN
  IF payer IS NULL OR starts_with(payer, 'anonymous_') THEN
    RETURN;
  END IF;
  INSERT INTO oblivion.call_meters (
    session_id, user_id, mode, started_at, seen_at, used_turn, tokens_per_minute, is_plain, by_page,
    direct_rate, direct_rate_from, turn_rate, turn_rate_from
  )
  SELECT
    call, payer, priced, started, started, t.tokens_per_minute < d.tokens_per_minute,
    least(d.tokens_per_minute, t.tokens_per_minute), true, true, d.tokens_per_minute, d.effective_from, t.tokens_per_minute, t.effective_from
  FROM (
    SELECT r.tokens_per_minute, r.effective_from
    FROM public.token_rates AS r
    WHERE r.mode = priced AND NOT r.used_turn AND r.effective_from <= started
    ORDER BY r.effective_from DESC
    LIMIT 1
  ) AS d
  CROSS JOIN (
    SELECT r.tokens_per_minute, r.effective_from
    FROM public.token_rates AS r
    WHERE r.mode = priced AND r.used_turn AND r.effective_from <= started
    ORDER BY r.effective_from DESC
    LIMIT 1
  ) AS t;
END
$$;

COMMENT ON FUNCTION oblivion.meter_call(uuid, text, text, timestamptz) IS
  'Meters a call that a page inserted, from the time started.';
