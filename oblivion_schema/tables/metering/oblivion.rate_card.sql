-- The newest rate that is in effect.
CREATE OR REPLACE FUNCTION oblivion.rate_card(
  INOUT mode text, used_turn boolean, OUT tokens_per_minute integer, OUT effective_from timestamptz
)
LANGUAGE plpgsql
STABLE
SET search_path = ''
AS $$
BEGIN
  IF mode IS NULL OR mode NOT IN ('video', 'voice', 'voice-only') THEN
    RAISE invalid_parameter_value
      USING MESSAGE = format('Unknown mode: %s', coalesce(mode, 'NULL')), HINT = 'Use video or voice-only';
  END IF;
  mode := CASE mode WHEN 'voice-only' THEN 'voice' ELSE mode END;
  SELECT r.tokens_per_minute, r.effective_from
  INTO tokens_per_minute, effective_from
  FROM public.token_rates AS r
  WHERE r.mode = rate_card.mode AND r.used_turn = rate_card.used_turn AND r.effective_from <= clock_timestamp()
  ORDER BY r.effective_from DESC
  LIMIT 1;
  IF NOT FOUND THEN
    RAISE object_not_in_prerequisite_state
      USING MESSAGE = format('No rate for %s%s', mode, CASE WHEN used_turn THEN ' over TURN' ELSE '' END),
        HINT = 'Insert one into token_rates';
  END IF;
END
$$;

COMMENT ON FUNCTION oblivion.rate_card(text, boolean) IS
  'The current rate of a mode, in tokens for each started minute.';
