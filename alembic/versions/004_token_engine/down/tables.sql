ALTER TABLE public.user_accounts RESET (fillfactor);

COMMENT ON COLUMN public.call_sessions.start_time IS 'When the call began, by the client''s clock.';
COMMENT ON COLUMN public.call_sessions.credit_cost IS 'What the call cost, as the client reports it.';
COMMENT ON COLUMN public.token_usage.tokens_used IS 'Tokens that the call cost.';
COMMENT ON COLUMN public.token_usage.duration_seconds IS 'Length of the call in seconds; NULL if unknown.';

DROP TRIGGER bar_truncate ON public.call_sessions;

DROP TRIGGER bar_truncate ON public.user_presence;

DROP TRIGGER bar_truncate ON public.user_accounts;

DROP TRIGGER bar_truncate ON public.token_usage;

DROP TRIGGER bar_truncate ON public.token_rates;

DROP TRIGGER bar_truncate ON oblivion.adoption_log;

DROP FUNCTION oblivion.bar_truncate();
