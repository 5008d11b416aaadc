DROP FUNCTION public.open_account();

DROP FUNCTION oblivion.open_account_of_user();

DROP FUNCTION oblivion.open_account();

DROP FUNCTION oblivion.make_account(text, text, boolean);

DROP FUNCTION oblivion.allow_sign_up(integer);

DROP VIEW oblivion.callers_without_account;

DROP TABLE oblivion.sign_up;
