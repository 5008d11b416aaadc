-- Roles belong to the server: a downgrade leaves them, because other databases may use them.
DO $$
DECLARE
  api_role name;
BEGIN
  FOREACH api_role IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
    CONTINUE WHEN to_regrole(api_role) IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', api_role);
      IF api_role = 'service_role' AND current_setting('is_superuser') = 'on' THEN
        ALTER ROLE service_role BYPASSRLS;
      END IF;
    EXCEPTION
      WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
        NULL;
    END;
  END LOOP;
END
$$;
