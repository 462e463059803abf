"""hooks_next: which event the heir's hook gets next."""
import uuid


def step(member, done=None, term=None):
    """The next event of the group's hook, after `done`."""
    reply = member.call("hooks_next", "g", member.member_id, member.incarnation, term or member.view["term"],
                        done and done["data"]["sequence"], done and done["id"])
    return reply and reply["body"]


def name(body):
    return body and body["type"].removeprefix("heirflow.")


def drain(member, done=None):
    names = []
    while (body := step(member, done)) is not None:
        names.append(name(body))
        done = body
    return names


def test_the_first_heir_begins_with_its_accession_and_nobody_else_is_told(line):
    ada, bob, _ = line
    first = step(ada)
    assert name(first) == "acceded" and first["subject"] == "ada"
    assert step(ada)["id"] == first["id"], "again until it is dealt with"
    assert drain(ada, first) == []
    assert step(bob, term=ada.view["term"]) is None
    assert step(ada, term=ada.view["term"] - 1) is None


def test_the_next_heir_goes_on_where_the_last_one_stopped(line, member):
    ada, bob, _ = line
    assert drain(ada) == ["acceded"]
    member("dora")
    ada.abdicate()
    bob.beat()
    assert bob.accede()["acceded"]
    assert step(ada, term=ada.view["term"]) is None
    assert drain(bob) == ["registered", "abdicated", "acceded"]


def test_a_hook_that_is_new_begins_with_the_end_of_the_term_before(line, member):
    ada, bob, _ = line
    member("dora")
    ada.abdicate()
    bob.beat()
    assert bob.accede()["acceded"]
    assert drain(bob) == ["abdicated", "acceded"]


def test_what_is_older_than_an_hour_is_left_out_and_counted(line, database, member):
    ada, _, _ = line
    step(ada)
    member("dora")
    database.query("update news set told_at = told_at - interval '61 minutes' where sequence < 5 returning 1")
    reply = ada.call("hooks_next", "g", ada.member_id, ada.incarnation, ada.view["term"], None, None)
    assert reply["skipped"] == 1 and name(reply["body"]) == "registered" and reply["body"]["subject"] == "dora"
    assert drain(ada) == ["registered"]
    database.query("update news set told_at = told_at - interval '61 minutes' returning 1")
    assert drain(ada) == []


def test_a_number_that_a_failover_gave_to_another_event_is_not_taken_for_done(line, database, member):
    ada, _, _ = line
    first = step(ada)
    stranger = {"id": str(uuid.uuid4()), "data": {"sequence": first["data"]["sequence"]}}
    assert step(ada, stranger)["id"] == first["id"]
    assert step(ada, {"id": first["id"], "data": {"sequence": first["data"]["sequence"] + 1}})["id"] == first["id"]
    assert step(ada, first) is None
