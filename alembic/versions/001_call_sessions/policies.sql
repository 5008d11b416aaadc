ALTER TABLE public.call_sessions ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS call_sessions_select ON public.call_sessions;

CREATE POLICY call_sessions_select ON public.call_sessions FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role() OR user_id = (SELECT oblivion.current_user_id()));

DROP POLICY IF EXISTS call_sessions_insert ON public.call_sessions;

CREATE POLICY call_sessions_insert ON public.call_sessions FOR INSERT TO public
  WITH CHECK (
    oblivion.open_access() OR oblivion.is_service_role()
    OR (user_id = (SELECT oblivion.current_user_id()) AND credit_cost = 0 AND end_time IS NULL)
  );

DROP POLICY IF EXISTS call_sessions_update ON public.call_sessions;

CREATE POLICY call_sessions_update ON public.call_sessions FOR UPDATE TO public
  USING (oblivion.open_access() OR oblivion.is_service_role())
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role());

DROP POLICY IF EXISTS call_sessions_delete ON public.call_sessions;

CREATE POLICY call_sessions_delete ON public.call_sessions FOR DELETE TO public
  USING (oblivion.open_access() OR oblivion.is_service_role());
