CREATE TABLE IF NOT EXISTS public.user_presence (
  id uuid DEFAULT gen_random_uuid() NOT NULL,
  host_id text NOT NULL,
  is_available boolean DEFAULT true NOT NULL,
  room_id text NOT NULL,
  updated_at timestamptz DEFAULT now() NOT NULL,
  room_token text,
  CONSTRAINT user_presence_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE public.user_presence IS 'Which hosts can take a call now, one row for each host.';
COMMENT ON COLUMN public.user_presence.id IS 'Identifier of the row.';
COMMENT ON COLUMN public.user_presence.host_id IS 'The host, and the conflict target of the clients'' upserts.';
COMMENT ON COLUMN public.user_presence.is_available IS 'Whether the host takes calls.';
COMMENT ON COLUMN public.user_presence.room_id IS 'Room in which a caller meets the host.';
COMMENT ON COLUMN public.user_presence.updated_at IS 'When the host was last heard of; a trigger keeps it on updates.';
COMMENT ON COLUMN public.user_presence.room_token IS 'Secret that opens the room.';
