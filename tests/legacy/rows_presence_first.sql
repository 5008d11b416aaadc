-- One host three times, one twice at the same time, one twice at no known time.
INSERT INTO user_presence (id, user_id, is_available, room_id, updated_at)
VALUES
  ('00000000-0000-4000-8000-000000000101', 'host', true, 'first', '2026-01-05 10:00+00'),
  ('00000000-0000-4000-8000-000000000102', 'host', false, 'newest', '2026-01-07 10:00+00'),
  ('00000000-0000-4000-8000-000000000103', 'host', true, 'no clock', NULL),
  ('00000000-0000-4000-8000-000000000104', 'tie', true, 'one', '2026-01-06 10:00+00'),
  ('00000000-0000-4000-8000-000000000105', 'tie', NULL, 'other', '2026-01-06 10:00+00'),
  ('00000000-0000-4000-8000-000000000106', 'timeless', NULL, 'one', NULL),
  ('00000000-0000-4000-8000-000000000107', 'timeless', NULL, 'other', NULL),
  ('00000000-0000-4000-8000-000000000108', 'alone', true, 'room', '2026-01-08 10:00+00');
