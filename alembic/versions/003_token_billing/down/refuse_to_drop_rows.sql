DO $$
DECLARE
  holding text;
BEGIN
  LOCK TABLE public.user_accounts, public.token_usage, public.token_rates IN ACCESS EXCLUSIVE MODE;
  IF coalesce(current_setting('oblivion.drop_data', true), '') = 'yes' THEN
    RETURN;
  END IF;
  SELECT string_agg(name, ', ') INTO holding
  FROM (
    SELECT 'public.token_usage' AS name WHERE EXISTS (SELECT FROM public.token_usage)
    UNION ALL
    SELECT 'public.user_accounts' WHERE EXISTS (
      SELECT user_id, tokens_remaining, subscription_tier, email FROM public.user_accounts
      EXCEPT
      VALUES
        ('demo_user', 500, 'free', 'demo@oblivn.com'),
        ('test_user_1', 100, 'free', 'test1@oblivn.com'),
        ('test_user_2', 250, 'pro', 'test2@oblivn.com'),
        ('developer', 1000, 'enterprise', 'dev@oblivn.com')
    )
    UNION ALL
    SELECT 'public.token_rates' WHERE EXISTS (
      SELECT mode, used_turn, effective_from, tokens_per_minute FROM public.token_rates
      EXCEPT
      VALUES
        ('voice', false, timestamptz '1970-01-01 00:00:00+00', 1),
        ('voice', true, timestamptz '1970-01-01 00:00:00+00', 2),
        ('video', false, timestamptz '1970-01-01 00:00:00+00', 2),
        ('video', true, timestamptz '1970-01-01 00:00:00+00', 6)
    )
  ) AS tables
  WHERE NOT EXISTS (SELECT FROM oblivion.adoption_log AS l WHERE l.kind = 'table' AND l.name = tables.name);
  IF holding IS NOT NULL THEN
    RAISE EXCEPTION '% holds rows, which this downgrade would drop', holding
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Save them first, then downgrade with -x drop-data=yes';
  END IF;
END
$$;
