"""The stream that keeps pages up to date."""
import pytest

from processes import wait_for


def test_a_succession_is_told_as_it_happens(node, events, database):
    ada = node("ada", database=database)
    wait_for(lambda: ada.get("/heir").status == 200, 20, lambda: "the heir\n" + ada.log())
    bert = node("bert", database=database)
    wait_for(lambda: bert.get("/standby").status == 200, 20, "the standby")
    stream = events(bert)
    assert (stream.status, stream.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    first = stream.next()
    assert first["here"] | {"term": 0} == {"node": "bert", "group": "tests", "state": "standby", "heir": False,
                                           "scheduler": None, "term": 0, "changes": False} | {"scheduler": first["here"].get("scheduler")}
    assert first["group"]["status"]["heir"]["node"] == "ada"
    assert [m["node"] for m in first["group"]["status"]["members"]] == ["ada", "bert"]
    assert first["group"]["terms"][0]["node"] == "ada" and first["group"]["news"][-1]["type"].startswith("heirflow.")
    ada.kill()
    message = first
    while (message["group"]["status"]["heir"] or {}).get("node") != "bert":
        message = stream.next()
    assert message["group"]["terms"][0]["node"] == "bert"


def test_a_lost_database_is_told_and_found_again(node, events, own_database):
    ada = node("ada", database=own_database)
    wait_for(lambda: ada.get("/heir").status == 200, 20, lambda: "the heir\n" + ada.log())
    stream = events(ada)
    assert stream.next()["group"]
    own_database.server.freeze()
    while (message := stream.next())["group"]:
        pass
    assert message["error"] and message["here"]["node"] == "ada"
    own_database.server.thaw()
    while not (message := stream.next())["group"]:
        pass
    assert message["error"] is None


def test_only_so_many(heir, events):
    streams = [events(heir) for _ in range(32)]
    assert all(stream.next()["group"] for stream in streams)
    assert events(heir).status == 503
    streams[0].close()

    def room():
        stream = events(heir)
        stream.status == 200 or stream.close()
        return stream.status == 200
    wait_for(room, 20, "room for one more")


def test_a_page_that_does_not_read_holds_up_nobody(heir, events, database):
    deaf = [events(heir) for _ in range(8)]
    stream = events(heir)
    stream.next()
    database.query("select tell('tests', 'noise', 'ada', 'ada', 1, repeat('x', 3000)) from generate_series(1, 60)")
    for count in range(5):  # each some 200 kB: more than the kernel buffers for those that do not read
        database.query("select set_paused('tests', %s)", count % 2 == 0)
        while stream.next()["group"]["status"]["paused"] != (count % 2 == 0):
            pass
    assert heir.get("/heir", timeout=2).status == 200
    assert all(each.status == 200 for each in deaf)


def test_the_connection_is_given_back_after_the_last_page(heir, events, database):
    asking = "select count(*) from pg_stat_activity where application_name like 'heirflow-http:%'"
    stream = events(heir)
    stream.next()
    assert database.value(asking) == 1
    stream.close()
    wait_for(lambda: database.value(asking) == 0, 40, "the connection given back")


def test_leaving_ends_the_streams(heir, events):
    stream = events(heir)
    stream.next()
    heir.terminate()
    assert heir.wait(timeout=5) == 0
    while stream.next():
        pass
