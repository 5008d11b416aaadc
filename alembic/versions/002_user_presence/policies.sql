ALTER TABLE public.user_presence ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS user_presence_select ON public.user_presence;

CREATE POLICY user_presence_select ON public.user_presence FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role() OR host_id = (SELECT oblivion.current_user_id()));

DROP POLICY IF EXISTS user_presence_insert ON public.user_presence;

CREATE POLICY user_presence_insert ON public.user_presence FOR INSERT TO public
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role() OR host_id = (SELECT oblivion.current_user_id()));

DROP POLICY IF EXISTS user_presence_update ON public.user_presence;

CREATE POLICY user_presence_update ON public.user_presence FOR UPDATE TO public
  USING (oblivion.open_access() OR oblivion.is_service_role() OR host_id = (SELECT oblivion.current_user_id()))
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role() OR host_id = (SELECT oblivion.current_user_id()));

DROP POLICY IF EXISTS user_presence_delete ON public.user_presence;

CREATE POLICY user_presence_delete ON public.user_presence FOR DELETE TO public
  USING (oblivion.open_access() OR oblivion.is_service_role() OR host_id = (SELECT oblivion.current_user_id()));
