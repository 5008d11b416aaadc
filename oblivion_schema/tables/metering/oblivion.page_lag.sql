-- In seconds, because an interval of days would add days of the session's time zone, which may have 23 or 25 hours.
-- A start that no clock shows, such as infinity, says nothing.
CREATE OR REPLACE FUNCTION oblivion.page_lag(meter oblivion.call_meters, start_time timestamptz)
RETURNS interval
LANGUAGE plpgsql
STABLE
SET search_path = ''
AS $$
BEGIN
  IF meter.by_page AND start_time BETWEEN meter.started_at - interval '100 years' AND meter.started_at + interval '100 years'
  THEN
    RETURN make_interval(secs => date_part('epoch', start_time - meter.started_at));
  END IF;
  RETURN interval '0';
END
$$;

COMMENT ON FUNCTION oblivion.page_lag(oblivion.call_meters, timestamptz) IS
  'By how much the clock of the page that inserted the call is ahead of the server''s; zero for other calls.';
