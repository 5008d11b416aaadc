-- A token; the trigger would stamp the row with the time of the test.
ALTER TABLE user_presence DISABLE TRIGGER update_user_presence_updated_at_trigger;
UPDATE user_presence SET room_token = 'secret of room' WHERE room_id = 'room' AND updated_at IS NOT NULL;
ALTER TABLE user_presence ENABLE TRIGGER update_user_presence_updated_at_trigger;
