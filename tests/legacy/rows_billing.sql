-- Balances at 0, NULL wherever it may be, a session billed twice, sessions whose name is no uuid.
INSERT INTO user_accounts (user_id, tokens_remaining, created_at, updated_at, email, subscription_tier)
VALUES
  ('spent', 0, '2026-01-01 10:00+00', '2026-01-05 10:00+00', 'spent@example.com', 'pro'),
  ('bare', 0, NULL, NULL, NULL, NULL),
  ('created alone', 7, '2026-01-02 10:00+00', NULL, NULL, 'free'),
  ('updated alone', 7, NULL, '2026-01-03 10:00+00', 'spent@example.com', 'free');
INSERT INTO token_usage (id, user_id, session_id, tokens_used, timestamp, mode, used_turn, duration_seconds)
VALUES
  ('00000000-0000-4000-8000-000000000201', 'demo_user', '00000000-0000-4000-8000-000000000001', 12,
    '2026-01-05 10:01:02+00', 'video', true, 61),
  ('00000000-0000-4000-8000-000000000202', 'demo_user', '00000000-0000-4000-8000-000000000001', 12,
    '2026-01-05 10:01:03+00', 'video', true, 61),
  ('00000000-0000-4000-8000-000000000203', 'spent', 'call-1736071200', 0, '2026-01-05 10:00+00', 'voice', false, 0),
  ('00000000-0000-4000-8000-000000000204', 'bare', '', 3, NULL, 'voice', true, NULL),
  ('00000000-0000-4000-8000-000000000205', 'updated alone', '00000000-0000-4000-8000-00000000ffff', 6,
    now(), 'video', true, 60);
