"""Old news and terms: removed from the oldest on by the heir alone, and never what somebody still needs."""
import pytest



@pytest.fixture
def told(database):
    """told(days, count=1): events that were told so long ago."""
    def tell(days, count=1):
        database.query("select tell('g', 'x', 'a', 'a', null, null) from generate_series(1, %s)", count)
        database.query("update news set told_at = told_at - %s * interval '1 day' where sequence > "
                       "(select last from news_counter) - %s returning 1", days, count)
    return tell


@pytest.fixture
def kept(database):
    return lambda: [row[0] for row in database.query("select sequence from news order by 1")]


@pytest.fixture
def heir(member, database):
    """The heir, with its own news (1 and 2) as old as anything."""
    ada = member("ada")
    ada.accede()
    database.query("update news set told_at = told_at - interval '100 days' returning 1")
    return ada


def publish(database, sequence):
    database.query("update relay set published = %s, claimed_at = clock_timestamp() returning 1", sequence)


def test_the_oldest_first_in_batches_without_a_gap(heir, told, kept, database):
    told(50, 10), told(1, 5)
    publish(database, 17)
    assert heir.call("forget", "g", heir.member_id, 30, True, 7) == 7 and kept() == list(range(8, 18))
    assert heir.call("forget", "g", heir.member_id, 30, True, 7) == 5 and kept() == list(range(13, 18))
    assert heir.call("forget", "g", heir.member_id, 30, True, 7) == 0


def test_a_clock_that_was_set_makes_no_gap(heir, told, kept, database):
    told(50, 2), told(1), told(50, 2), told(1)
    publish(database, 8)
    assert heir.call("forget", "g", heir.member_id, 30, True, 100) == 4 and kept() == [5, 6, 7, 8]


def test_unpublished_news_stay(heir, told, kept, database):
    told(50, 10)
    assert heir.call("forget", "g", heir.member_id, 30, True, 100) == 0
    publish(database, 5)
    assert heir.call("forget", "g", heir.member_id, 30, True, 100) == 5 and kept() == list(range(6, 13))
    assert heir.call("forget", "g", heir.member_id, 30, False, 100) == 0, "another member relays"


def test_without_any_relay_the_age_decides(heir, told, kept):
    told(50, 10)
    assert heir.call("forget", "g", heir.member_id, 30, False, 100) == 11 and kept() == [12]


def test_the_last_event_stays(heir, told, kept, database):
    told(50)
    publish(database, 3)
    assert heir.call("forget", "g", heir.member_id, 30, True, 100) == 2 and kept() == [3]


def test_only_the_heir_removes(heir, member, told, kept, database):
    told(50, 10)
    publish(database, 12)
    bob = member("bob")
    assert bob.call("forget", "g", bob.member_id, 30, True, 100) == 0 and len(kept()) == 13


def test_terms_go_but_the_newest_which_accessions_count_from(heir, member, database):
    database.query("update terms set began_at = began_at - interval '60 days' returning 1")
    first = heir.view["term"]
    for _ in range(3):
        heir.abdicate()
        heir.register()
        assert heir.accede()["acceded"]
    newest = heir.view["term"]
    assert newest == first + 3
    database.query("update terms set began_at = began_at - interval '60 days', ended_at = ended_at - interval '60 days' "
                   "where term < %s returning 1", newest - 1)
    heir.call("forget", "g", heir.member_id, 30, True, 100)
    assert [row[0] for row in database.query("select term from terms order by 1")] == [newest - 1, newest]
    database.query("update terms set began_at = began_at - interval '60 days', ended_at = ended_at - interval '60 days' returning 1")
    heir.abdicate()
    heir.register()
    database.query("update throne set term = 0 returning 1")  # as after a failover that lost accessions
    heir.beat()
    assert heir.accede()["acceded"] and heir.view["term"] > newest
    heir.call("forget", "g", heir.member_id, 30, True, 100)
    assert [row[0] for row in database.query("select term from terms order by 1")] == [newest, heir.view["term"]]
    assert heir.call("audit", "g")["overlaps"] == 0


def test_it_waits_for_nobody(heir, told, database):
    """A renewal, an event being told and a relay at work hold their rows; the removal goes on."""
    told(50, 10)
    publish(database, 12)
    busy = database.connect()
    busy.autocommit = False
    with busy.cursor() as cursor:
        cursor.execute("set local search_path = heirflow; select 1 from throne, news_counter, relay, roster for update")
        heir.connection.cursor().execute("set lock_timeout = 500")
        assert heir.call("forget", "g", heir.member_id, 30, True, 100) == 11
    busy.close()
