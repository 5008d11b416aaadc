-- NULL wherever it may be.
INSERT INTO user_presence (id, host_id, is_available, room_id, updated_at)
VALUES
  ('00000000-0000-4000-8000-000000000111', 'host', true, 'room', '2026-01-05 10:00+00'),
  ('00000000-0000-4000-8000-000000000112', 'timeless', NULL, 'room', NULL);
