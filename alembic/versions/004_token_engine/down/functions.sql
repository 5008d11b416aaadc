DROP FUNCTION public.settle_calls(integer);

DROP FUNCTION public.reap_stale_calls(interval,integer,interval);

DROP FUNCTION public.refund_call(uuid,integer,text);

DROP FUNCTION public.top_up(text,integer,text);

DROP FUNCTION public.explain_call(uuid);

DROP FUNCTION public.end_call(uuid);

DROP FUNCTION public.set_call_turn(uuid,boolean);

DROP FUNCTION public.tick_call(uuid);

DROP FUNCTION public.start_call(text,text,text,boolean,text);

DROP FUNCTION public.call_quote(text,text,boolean);

DROP FUNCTION oblivion.sweep_calls(text,integer,interval,interval);

DROP FUNCTION oblivion.refund_call(uuid,integer,text);

DROP FUNCTION oblivion.top_up(text,integer,text);

DROP FUNCTION oblivion.explain_call(uuid,text);

DROP FUNCTION oblivion.start_call(text,text,text,boolean,text,text);

DROP FUNCTION oblivion.call_quote(text,text,boolean,text);

DROP FUNCTION oblivion.credit_account(text,integer,text,text,uuid,integer);

DROP FUNCTION oblivion.end_call(uuid,text);

DROP FUNCTION oblivion.tick_call(uuid,text);

DROP FUNCTION oblivion.advance_call(uuid,text,boolean,text);

DROP FUNCTION oblivion.advance_unmetered_call(uuid,text,text);

DROP FUNCTION oblivion.rate_card(text,boolean);

DROP FUNCTION oblivion.turn_call(oblivion.call_meters,boolean,integer,integer,boolean);

DROP FUNCTION oblivion.bill_call(oblivion.call_meters,timestamptz,boolean,text);

DROP FUNCTION oblivion.is_fresh(oblivion.call_meters);

DROP FUNCTION oblivion.last_moment(oblivion.call_meters);

DROP FUNCTION oblivion.page_lag(oblivion.call_meters,timestamptz);

DROP FUNCTION oblivion.final_meter(oblivion.call_meters,boolean);

DROP FUNCTION oblivion.note_outcome(oblivion.call_meters,text,timestamptz,boolean,boolean);

DROP FUNCTION oblivion.note_incident(uuid,text,text,text,text);

DROP FUNCTION oblivion.check_key(text,text);

DROP FUNCTION oblivion.may_act_for(text,text);

DROP FUNCTION oblivion.is_intruder();

DROP FUNCTION oblivion.refuse_pages();

DROP FUNCTION oblivion.is_page();
