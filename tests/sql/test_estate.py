"""What heirs leave: who may store it, what is kept of it, and that neither storing nor fetching holds anybody up."""
import base64
import hashlib
import itertools
import threading

import psycopg2
import pytest
from psycopg2.extras import Json

from processes import wait_for


def file(path="state", content=b"x", mode=0o640, checksum=None):
    return {"path": path, "mode": mode, "content": base64.b64encode(content).decode(),
            "checksum": checksum or hashlib.sha256(content).hexdigest()}


COPIES = itertools.count(1)


def store(member, *files, term=None, copy=None):
    return member.call("store_estate", member.group, member.member_id, member.incarnation, term or member.view["term"],
                       member.node, copy or next(COPIES), list(files or [file()]))


def fetch(member, *paths):
    return member.call("fetch_estate", member.group, list(paths or ["state"]))


def contents(reply):
    return {one["path"]: base64.b64decode(one["content"]) for one in reply["files"]}


def hand_over(ada, bob):
    assert ada.abdicate()["held"]
    bob.beat()
    assert bob.accede()["acceded"]


def test_the_next_heir_gets_what_the_last_one_left(line):
    ada, bob, cleo = line
    nothing = fetch(ada)
    assert nothing["files"] == [] and nothing["term"] is None
    assert store(ada, file(content=bytes(range(256)) * 1000, mode=0o600), file("journal", b""))["stored"]
    hand_over(ada, bob)
    reply = fetch(bob, "state", "journal", "another")
    assert contents(reply) == {"state": bytes(range(256)) * 1000, "journal": b""}
    assert (reply["term"], reply["node"], reply["origin"]) == (ada.view["term"], "ada", nothing["origin"])
    assert [one["mode"] for one in reply["files"]] == [0o640, 0o600]
    assert contents(fetch(bob, "journal")) == {"journal": b""}


def test_only_the_holder_of_the_term_it_names_may_store(line, member):
    ada, bob, cleo = line
    over = {"stored": False, "reason": "the term is over"}
    assert store(bob) == over and store(ada, term=ada.view["term"] + 1) == over
    hand_over(ada, bob)
    assert store(ada) == over and store(ada, term=bob.view["term"]) == over
    assert store(bob)["stored"]
    bob.incarnation = cleo.incarnation
    assert store(bob) == over


def test_a_term_goes_before_a_time(line, database):
    ada, bob, cleo = line
    store(ada, file(content=b"of ada"))
    hand_over(ada, bob)
    store(bob, file(content=b"of bob"))
    database.query("update estate set taken_at = now() + interval '1 day' where node = 'ada'; select 1")
    database.query("insert into estate select group_name, path, term, 9999, node, checksum, mode, taken_at, content from estate "
                   "where node = 'ada'; select 1")   # stored late, when the term was over
    assert contents(fetch(cleo)) == {"state": b"of bob"}


def test_a_store_that_arrives_late_is_older_than_what_was_taken_after_it(line):
    """As one does whose connection was dropped: the server carries on with it."""
    ada = line[0]
    assert store(ada, file(content=b"the last word"), copy=2)["stored"]
    assert store(ada, file(content=b"sent before, and late"), copy=1)["stored"]
    assert contents(fetch(ada)) == {"state": b"the last word"}


def test_that_there_was_no_such_file_is_part_of_a_copy(line, database):
    ada = line[0]
    assert store(ada, file(), {"path": "journal"})["stored"]
    state, journal = sorted(fetch(ada, "state", "journal")["files"], key=lambda one: one["path"] == "journal")
    assert state["content"] and (journal["content"], journal["checksum"], journal["mode"]) == (None, None, None)
    with pytest.raises(psycopg2.errors.CheckViolation):
        store(ada, file() | {"content": None})


def test_three_are_kept_of_each_file(line, database, member):
    ada, bob, cleo = line
    other = member("other", group="h")
    assert other.accede()["acceded"] and store(other)["stored"]
    store(ada, file("rare"))
    for i in range(5):
        store(ada, file(content=b"%d" % i))
    assert database.query("select path, array_agg(convert_from(content, 'utf8') order by copy) from estate "
                          "where group_name = 'g' group by path order by path") == [("rare", ["x"]), ("state", ["2", "3", "4"])]
    assert database.value("select count(*) from estate where group_name = 'h'") == 1
    listed = ada.call("estate", "g")
    assert [(one["path"], one["bytes"], one["node"], one["term"]) for one in listed] == \
        [("rare", 1, "ada", ada.view["term"])] + [("state", 1, "ada", ada.view["term"])] * 3
    assert "content" not in listed[0]


def test_what_is_torn_too_large_or_more_than_a_mode_is_refused(line, database):
    for bad in (file(checksum="00" * 32), file(content=bytes((16 << 20) + 1)), file(mode=0o4755)):
        with pytest.raises(psycopg2.errors.CheckViolation):
            store(line[0], file("journal"), bad)
    assert database.value("select count(*) from estate") == 0


def test_sixteen_mebibytes_are_not_too_much(line):
    content = bytes(range(256)) * 65536
    assert store(line[0], file(content=content))["stored"]
    assert contents(fetch(line[1]))["state"] == content


def test_neither_storing_nor_fetching_holds_up_a_renewal_or_a_takeover(line, database):
    """A store in a transaction that stays open, as a slow one does: the throne goes its way."""
    ada, bob, cleo = line
    with database.connect() as slow:
        slow.autocommit = False
        with slow.cursor() as cursor:
            cursor.execute("set search_path = heirflow")
            for function, values in (("store_estate", ("g", ada.member_id, ada.incarnation, ada.view["term"], "ada", 1, Json([file()]))),
                                     ("fetch_estate", ("g", Json(["state"])))):
                cursor.execute(f"select {function}({', '.join(['%s'] * len(values))})", values)
            ada.connection.cursor().execute("set lock_timeout = '2s'")
            bob.connection.cursor().execute("set lock_timeout = '2s'")
            assert ada.beat(term=ada.view["term"])["renewed"]
            hand_over(ada, bob)
        slow.commit()   # late, and of an older term
    store(bob, file(content=b"of bob"))
    assert contents(fetch(cleo)) == {"state": b"of bob"}


def test_a_locked_throne_does_not_hold_up_a_store(line, database):
    ada = line[0]
    with database.connect() as other:
        other.autocommit = False
        other.cursor().execute("select from heirflow.throne for update")
        done = []
        thread = threading.Thread(target=lambda: done.append(store(ada)))
        thread.start()
        wait_for(lambda: done, 30, "the store")
        other.rollback()
        thread.join()
    assert done[0]["stored"]
