CREATE TABLE IF NOT EXISTS public.user_presence (
  id uuid DEFAULT gen_random_uuid() NOT NULL,
  host_id text NOT NULL,
  is_available boolean DEFAULT true NOT NULL,
  room_id text NOT NULL,
  updated_at timestamptz DEFAULT now() NOT NULL,
  room_token text,
  CONSTRAINT user_presence_pkey PRIMARY KEY (id)
);
