-- The server's clock, which never goes back for a call. A call of a page is not billed for more than 12 hours after its
-- last sign of life: a page sends none, and anybody may end a call that nobody remembers.
CREATE OR REPLACE FUNCTION oblivion.last_moment(meter oblivion.call_meters)
RETURNS timestamptz
LANGUAGE plpgsql
STABLE
SET search_path = ''
AS $$
BEGIN
  RETURN CASE
    WHEN meter.by_page AND NOT oblivion.is_fresh(meter) THEN meter.seen_at + interval '12 hours'
    ELSE greatest(clock_timestamp(), meter.seen_at)
  END;
END
$$;

COMMENT ON FUNCTION oblivion.last_moment(oblivion.call_meters) IS 'Until when a call is billed that goes on.';
