"""heirflow audit on terms written by SQL."""
import json

import pytest

GROUP = "tests"


@pytest.fixture
def terms(database):
    """terms(rows) writes (node, began, ended, how), in seconds since midnight, as terms 1, 2, ...; the last may be open."""
    def write(*rows, renewed="clock_timestamp()", holds=True):
        database.query("insert into throne (group_name, lease_ms, member_id, term, renewed_at) "
                       f"values (%s, 6000, %s, %s, {renewed}) returning 1", GROUP, 7 if holds else None, len(rows))
        for number, (node, began, ended, how) in enumerate(rows, 1):
            database.query("insert into terms values (%s, %s, %s, %s, '2026-01-02T00:00:00Z'::timestamptz + %s * interval '1 s', "
                           "'2026-01-02T00:00:00Z'::timestamptz + %s * interval '1 s', %s, %s) returning 1", GROUP, number,
                           number + 6, node, began, ended, how, {"deposed": "lease lapsed", "abdicated": "shutdown"}.get(how))
    return write


def audit(command, database, expect):
    text = command("audit", "--group", GROUP, database=database, expect=expect).stdout
    return text, json.loads(command("audit", "--json", "--group", GROUP, database=database, expect=expect).stdout)


def test_terms_oldest_first_with_ends_and_gaps(command, database, terms):
    terms(("ada", 0, 10, "abdicated"), ("bob", 10.25, 20, "superseded"), ("bob", 20, 26, "deposed"), ("cleo", 27.5, None, None))
    text, told = audit(command, database, 0)
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [["1", "ada"], ["2", "bob"], ["3", "bob"], ["4", "cleo"]]
    assert lines[1].endswith("2026-01-02 00:00:00  2026-01-02 00:00:10  250 ms  abdicated: shutdown")
    assert lines[2].endswith("2026-01-02 00:00:20  0 ms    superseded")
    assert lines[3].endswith("2026-01-02 00:00:26  1 s     deposed: lease lapsed (end presumed)")
    assert lines[4].endswith("2026-01-02 00:00:27  -                    -       still heir")
    assert lines[-1] == "no overlap recorded"
    assert told["group"] == GROUP and told["overlaps"] == 0
    assert [(t["node"], t["gap_ms"], t["ended_by"], t["presumed"], t["running"], t["overlaps"]) for t in told["terms"]] == [
        ("ada", 250, "abdicated", False, False, False), ("bob", 0, "superseded", False, False, False),
        ("bob", 1500, "deposed", True, False, False), ("cleo", None, None, False, True, False)]


def test_an_overlap_is_marked_and_fails(command, database, terms):
    """The third began within the first, although after the end of the one just before it."""
    terms(("ada", 0, 30, "abdicated"), ("bob", 31, 32, "abdicated"), ("cleo", 29, 33, "abdicated"), ("dan", 33, 40, "deposed"))
    text, told = audit(command, database, 1)
    assert [("OVERLAP" in line) for line in text.splitlines()[1:5]] == [False, False, True, False]
    assert "1 overlap recorded" in text
    assert told["overlaps"] == 1 and [t["overlaps"] for t in told["terms"]] == [False, False, True, False]
    assert [t["gap_ms"] for t in told["terms"]] == [1000, -3000, 0, None]


def test_a_term_that_began_within_an_elder_than_the_last(command, database, terms):
    terms(("ada", 0, 30, "abdicated"), ("bob", 10, 12, "abdicated"), ("cleo", 15, 20, "abdicated"))
    assert [t["overlaps"] for t in audit(command, database, 1)[1]["terms"]] == [False, True, True]


def test_an_end_that_was_never_recorded_overlaps_what_follows(command, database, terms):
    terms(("ada", 0, None, None), ("bob", 5, None, None))
    text, told = audit(command, database, 1)
    assert text.splitlines()[1].endswith("end not recorded") and "OVERLAP; still heir" in text
    assert [t["overlaps"] for t in told["terms"]] == [False, True]


def test_a_running_term_ends_with_its_lease(command, database, terms):
    """Its node is lost and nobody has taken over."""
    terms(("ada", 0, None, None), renewed="'2026-01-02T00:01:00Z'")
    text, told = audit(command, database, 0)
    assert "2026-01-02 00:01:06" in text and "not renewed (end presumed)" in text
    assert told["terms"][0]["presumed"] and not told["terms"][0]["running"]


def test_a_group_without_a_term_yet(command, database, terms):
    terms(holds=False)
    text, told = audit(command, database, 0)
    assert "no term yet" in text and told["terms"] == []
