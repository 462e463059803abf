"""What changes things over HTTP, and what does not: it takes the token, and no other site's page gets at it."""
import json

import pytest

from processes import wait_for

TOKEN = "letmein-letmein-0123456789"
BEARER = {"Authorization": "Bearer " + TOKEN}
CHANGES = ["/switchover", "/pause", "/resume", "/terminate-scheduler"]


def untouched(database):
    return database.query("select request, paused, term from throne") == [(None, False, 1)] or \
        database.query("select request, paused from throne") == [(None, False)]


def test_pause_and_resume(guarded, database):
    answer = guarded.request("POST", "/pause", **BEARER)
    assert (answer.status, answer.json) == (200, {"accepted": True, "changed": True})
    assert database.value("select paused from throne")
    assert guarded.request("POST", "/pause", **BEARER).json == {"accepted": True, "changed": False}
    assert guarded.request("POST", "/resume", **BEARER).json == {"accepted": True, "changed": True}
    assert not database.value("select paused from throne")
    assert "pause from 127.0.0.1: accepted" in guarded.log()


def test_switchover(node, database):
    nodes = {}
    for name in ("ada", "bert", "cleo"):
        nodes[name] = node(name, database=database, token=TOKEN)
        nodes[name].wait_for_event("standby")
    wait_for(lambda: nodes["ada"].get("/heir").status == 200, 20, "the heir")
    answer = nodes["cleo"].request("POST", "/switchover", json.dumps({"to": "cleo"}), Content_Type="application/json", **BEARER)
    assert answer.status == 202 and answer.json["accepted"]
    wait_for(lambda: nodes["cleo"].get("/heir").status == 200, 20, "the chosen heir")
    wait_for(lambda: nodes["ada"].get("/standby").status == 200, 20, "the former one in the line")
    assert nodes["bert"].request("POST", "/switchover", **BEARER).status == 202
    wait_for(lambda: nodes["bert"].get("/heir").status == 200, 20, "the eldest standby as heir")
    refused = nodes["ada"].request("POST", "/switchover", json.dumps({"to": "nobody"}), **BEARER)
    assert (refused.status, refused.text) == (409, "there is no standby nobody; the standbys are ada, cleo\n")
    already = nodes["ada"].request("POST", "/switchover", json.dumps({"to": "bert"}), **BEARER)
    assert already.json == {"accepted": True, "changed": False}


def test_terminate_the_scheduler(guarded, database):
    pid = wait_for(guarded.scheduler, 10, "a scheduler")
    wait_for(lambda: guarded.request("POST", "/terminate-scheduler", **BEARER).status == 202, 20, "that it is known to run")
    wait_for(lambda: guarded.scheduler() not in (None, pid), 20, lambda: "another scheduler\n" + guarded.log())
    assert database.query("select reason from news where event = 'scheduler-exited'") == [("killed by signal 15 (SIGTERM)",)]
    assert "SIGTERM sent" in guarded.log()


def test_no_scheduler_here(node, guarded, database):
    bert = node("bert", database=database, token=TOKEN)
    wait_for(lambda: bert.get("/standby").status == 200, 20, "the standby")
    answer = bert.request("POST", "/terminate-scheduler", **BEARER)
    assert (answer.status, answer.text) == (409, "no scheduler runs on this node\n")


@pytest.mark.parametrize("path", CHANGES)
def test_off_without_a_token(heir, database, path):
    for headers in ({}, BEARER, {"Authorization": "Bearer "}, {"Authorization": ""}):
        answer = heir.request("POST", path, **headers)
        assert answer.status == 403 and "http.token is not set" in answer.text
    assert untouched(database)


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer ", "Bearer " + TOKEN[:-1], "Bearer " + TOKEN + "x",
                                   "Bearer x" + TOKEN[1:], "Basic " + TOKEN, TOKEN, "Bearer " + TOKEN.upper(), "Bearer " + "x" * 8000])
def test_wrong_tokens(guarded, database, given):
    for path in CHANGES:
        answer = guarded.request("POST", path, **({"Authorization": given} if given is not None else {}))
        assert answer.status == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert untouched(database)
    assert guarded.events().count("http-refused") >= 1
    assert TOKEN not in guarded.log()


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
                                     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}])
def test_another_sites_page(guarded, database, headers):
    for path in CHANGES:
        answer = guarded.request("POST", path, **BEARER, **headers)
        assert (answer.status, answer.text) == (403, "this came from another site's page\n")
    assert untouched(database)
    assert "Access-Control-Allow-Origin" not in guarded.request("OPTIONS", "/pause", **headers).headers


def test_this_sites_page(guarded):
    own = {"Origin": f"http://127.0.0.1:{guarded.port}", "Sec-Fetch-Site": "same-origin"}
    assert guarded.request("POST", "/pause", **BEARER, **own).status == 200


@pytest.mark.parametrize("path", CHANGES)
def test_only_by_post(guarded, database, path):
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = guarded.request(method, path, **BEARER)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST, OPTIONS")
    assert guarded.request("OPTIONS", path).status == 204
    assert untouched(database)


@pytest.mark.parametrize("body", ["{", "[]", "7", "null", '{"to": 7}', '{"to": "a", "from": "b"}', '{"form": "bert"}',
                                  '{"to": "a", "to": "b"}', "to=bert", "\x00", '{"to": "\\u0000"}'])
def test_bodies_that_say_nothing(guarded, database, body):
    assert guarded.request("POST", "/switchover", body, **BEARER).status == 400
    assert untouched(database)


def test_a_body_that_is_too_large(guarded, database):
    answer = guarded.request("POST", "/switchover", '{"to": "' + "x" * 5000 + '"}', **BEARER)
    assert (answer.status, answer.text) == (413, "at most 4096 bytes\n")
    assert untouched(database)


def test_a_member_that_is_no_operator(node, own_postgres, heirflow, command):
    for role in ("heirflow_member", "heirflow_operator", "heirflow_viewer"):
        own_postgres.psql(f"create role {role} nologin")
    own_postgres.psql("create role plain login in role heirflow_member")
    command("migrate", database=own_postgres.dsn(), expect=0)
    ada = node("ada", database=own_postgres.dsn(user="plain"), token=TOKEN)
    wait_for(lambda: ada.get("/heir").status == 200, 20, lambda: "an heir\n" + ada.log())
    assert ada.get("/status").status == 200
    answer = ada.request("POST", "/pause", **BEARER)
    assert answer.status == 403 and "grant heirflow_operator" in answer.text


def test_changes_while_the_database_is_away(node, own_database):
    ada = node("ada", database=own_database, token=TOKEN)
    wait_for(lambda: ada.get("/heir").status == 200, 20, lambda: "an heir\n" + ada.log())
    assert ada.get("/status").status == 200
    own_database.server.freeze()
    answer = ada.request("POST", "/pause", timeout=8, **BEARER)  # its connection was there, so it may have arrived
    assert answer.status == 504 and "it may yet be carried out" in answer.text
    answer = ada.request("POST", "/pause", timeout=8, **BEARER)
    assert answer.status == 503
    own_database.server.thaw()
    own_database.server.stop()
    assert ada.request("POST", "/pause", timeout=8, **BEARER).status == 503
