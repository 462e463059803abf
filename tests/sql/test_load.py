"""Heartbeats leave no bloat: updates stay on their page."""
import json

from processes import wait_for


def test_heartbeats_are_hot(line, database):
    ada, bob, cleo = line
    for it, term in ((ada, ada.view["term"]), (bob, None), (cleo, None)):
        with it.connection.cursor() as cursor:  # a transaction each, as wrappers do, without a round trip each
            cursor.execute("do $$ begin for i in 1..1000 loop perform heartbeat(%s, %s, %s, %s, %s, %s::jsonb || jsonb_build_object("
                           "'scheduler', jsonb_build_object('state', 'running', 'pid', i / 100)), '[]'); commit; end loop; end $$",
                           (it.group, it.seat, it.member_id, it.incarnation, term, json.dumps(it.self)))
        it.connection.close()  # its statistics arrive by then
    statistics = "select relname, n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname in ('roster', 'throne')"
    wait_for(lambda: sum(row[1] for row in database.query(statistics)) >= 3000)
    for name, updates, hot in database.query(statistics):
        assert hot >= 0.99 * updates, f"{name}: {hot} of {updates}"
    pages = database.query("select relname, pg_relation_size(oid) / 8192 from pg_class where relname in ('roster', 'throne')")
    assert all(size <= 2 for _, size in pages), pages


def test_a_heartbeat_writes_the_roster_once_and_nothing_else(line, database):
    ada, bob, cleo = line
    before = database.query("select (select count(*) from news), (select beat from throne), (select last from news_counter)")
    bob.beat(), cleo.beat()
    assert database.query("select (select count(*) from news), (select beat from throne), (select last from news_counter)") \
        == before
