DO $$
BEGIN
  LOCK TABLE public.user_presence IN ACCESS EXCLUSIVE MODE;
  IF coalesce(current_setting('oblivion.drop_data', true), '') <> 'yes'
    AND NOT EXISTS (SELECT FROM oblivion.adoption_log WHERE kind = 'table' AND name = 'public.user_presence')
    AND EXISTS (SELECT FROM public.user_presence)
  THEN
    RAISE EXCEPTION 'public.user_presence holds rows, which this downgrade would drop'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Save them first, then downgrade with -x drop-data=yes';
  END IF;
END
$$;
