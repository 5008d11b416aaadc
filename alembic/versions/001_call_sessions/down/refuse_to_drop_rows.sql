DO $$
BEGIN
  LOCK TABLE public.call_sessions IN ACCESS EXCLUSIVE MODE;
  IF coalesce(current_setting('oblivion.drop_data', true), '') <> 'yes'
    AND NOT EXISTS (SELECT FROM oblivion.adoption_log WHERE kind = 'table' AND name = 'public.call_sessions')
    AND EXISTS (SELECT FROM public.call_sessions)
  THEN
    RAISE EXCEPTION 'public.call_sessions holds rows, which this downgrade would drop'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Save them first, then downgrade with -x drop-data=yes';
  END IF;
END
$$;
