-- Calls that browsers left: usual ones, NULL wherever it may be, an end before its start.
INSERT INTO call_sessions
  (id, room_id, start_time, end_time, mode, used_turn, credit_cost, user_id, created_at, updated_at)
VALUES
  ('00000000-0000-4000-8000-000000000001', 'lobby', '2026-01-05 10:00+00', '2026-01-05 10:01:01+00', 'video', true,
    1.2, 'demo_user', '2026-01-05 10:00:01+00', '2026-01-05 10:01:02+00'),
  ('00000000-0000-4000-8000-000000000002', 'lobby', now(), NULL, 'voice-only', false,
    0, 'anonymous_7', now(), now()),
  ('00000000-0000-4000-8000-000000000003', 'no clock', NULL, NULL, 'video', NULL,
    NULL, NULL, NULL, NULL),
  ('00000000-0000-4000-8000-000000000004', 'start alone', '2026-01-06 10:00+00', NULL, 'video', NULL,
    NULL, NULL, NULL, NULL),
  ('00000000-0000-4000-8000-000000000005', 'end alone', NULL, '2026-01-07 10:00+00', 'video', false,
    0, 'demo_user', NULL, NULL),
  ('00000000-0000-4000-8000-000000000006', 'created alone', NULL, NULL, 'voice-only', false,
    0, 'nobody we know', '2026-01-08 10:00+00', NULL),
  ('00000000-0000-4000-8000-000000000007', 'updated alone', NULL, NULL, 'voice-only', false,
    0, 'anonymous_8', NULL, '2026-01-09 10:00+00'),
  ('00000000-0000-4000-8000-000000000008', 'clock set back', '2026-01-10 10:00+00', '2026-01-10 09:00+00', 'video',
    false, 0, 'demo_user', '2026-01-10 10:00+00', '2026-01-10 09:00+00');
