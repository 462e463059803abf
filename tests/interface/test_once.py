"""--once, the command line, and what a newcomer does wrong."""
import os
import subprocess

import pytest


@pytest.fixture
def once(interface, settings):
    def run(database=None, broker=None, *options, configuration=None, **environment):
        path = configuration or settings(database, broker)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "HEIRFLOW"))}
        return subprocess.run([interface, "--config", str(path), "--once", *options], capture_output=True, text=True,
                              timeout=30, env={**clean, "LC_ALL": "C.UTF-8", "TZ": "UTC", **environment})
    return run


def one_line(result, code, *parts):
    assert result.returncode == code, result
    assert result.stdout == ""
    lines = result.stderr.strip().split("\n")
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]
    return lines[0]


def test_shows_the_roster_and_the_news(once, database, group):
    group.accede("bob")
    group.beat("bob", scheduler={"state": "running", "pid": 4711, "started_at": "2026-01-01T00:00:00Z", "restarts": 2})
    result = once(database)
    assert result.returncode == 0, result.stderr
    assert "bob heir for" in result.stdout
    lines = result.stdout.split("\n")
    assert any("♛" in line and "bob" in line and "4711" in line and line.split()[-1] == "2" for line in lines), result.stdout
    assert any("ada" in line and "next in line" in line for line in lines)
    assert any("eve" in line and "1 older in line" in line for line in lines)
    assert any("acceded" in line and "bob" in line for line in lines)
    assert "\x1b" not in result.stdout


def test_ascii_where_the_locale_knows_no_more(once, database, group):
    group.register("größe")
    result = once(database, LC_ALL="C")
    assert result.returncode == 0
    assert result.stdout.isascii() and "next in line" in result.stdout and "gr??e" in result.stdout.replace("gr?e", "gr??e")


def test_names_the_state_of_the_broker(once, database, group, rabbitmq):
    assert "● RabbitMQ" in once(database, rabbitmq).stdout
    away = once(database, {"url": "amqp://guest:secret@127.0.0.1:1", "exchange": "x"}).stdout
    assert "✗ RabbitMQ not reached" in away and "127.0.0.1:1" in away and "secret" not in away


def test_unknown_group(once, database, group):
    result = once(database, None, "--group", "nobody-knows-it")
    assert result.returncode == 0 and "nobody has registered" in result.stdout


def test_wrong_host(once):
    one_line(once("host=127.0.0.1 port=1 user=heirflow password=secret dbname=x"), 3, "127.0.0.1", "refused")


def test_wrong_password(once, own_postgres):
    own_postgres.psql("create role viewer login password 'right'")
    own_postgres.hba("host all viewer 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust",
                     "local all all trust")
    dsn = own_postgres.dsn("postgres", user="viewer", password="wr0ng-secret")
    line = one_line(once(dsn), 3, "password authentication failed")
    assert "wr0ng-secret" not in line


def test_no_rights(once, database, group, postgres):
    postgres.psql(f"drop role if exists stranger_{database.name}")
    postgres.psql(f"create role stranger_{database.name} login")
    one_line(once(postgres.dsn(database.name, user=f"stranger_{database.name}")), 3, "no right", "heirflow_viewer")
    postgres.psql(f"grant heirflow_viewer to stranger_{database.name}")
    assert once(postgres.dsn(database.name, user=f"stranger_{database.name}")).returncode == 0
    postgres.psql(f"drop role stranger_{database.name}")


def test_missing_schema(once, empty_database):
    one_line(once(empty_database), 3, 'no schema "heirflow"', "heirflow migrate")


def test_needs_a_terminal(interface, settings, database):
    result = subprocess.run([interface, "--config", str(settings(database))], capture_output=True, text=True, timeout=20)
    one_line(result, 2, "--once")


def test_help_and_version_need_nothing(interface):
    for option, part in (("--help", "q quits"), ("--version", "heirflow-interface 0")):
        result = subprocess.run([interface, option], capture_output=True, text=True, timeout=20,
                                env={"HEIRFLOW_CONFIG": "/nonexistent"})
        assert result.returncode == 0 and part in result.stdout
    assert all(len(line) <= 120 for line in result.stdout.split("\n"))


@pytest.mark.parametrize("arguments", [["--nonsense"], ["extra"], ["--config"], ["--config", "/nonexistent.json"]])
def test_usage(interface, arguments):
    result = subprocess.run([interface, *arguments, *([] if arguments == ["--config"] else ["--once"])], capture_output=True,
                            text=True, timeout=20)
    assert result.returncode == 2 and result.stderr.startswith("heirflow-interface") or "heirflow-interface:" in result.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(interface, closed):
    ended = subprocess.run(["bash", "-c", f'"$0" --once {closed}', interface], timeout=30, capture_output=True,
                           env=os.environ | {"HEIRFLOW_CONFIG": "/dev/null", "HEIRFLOW_POSTGRES": "host=127.0.0.1 port=1"})
    assert ended.returncode == 3
