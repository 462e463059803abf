"""heirflow check: each line OK, or BAD with the remedy; one BAD is exit code 1."""
import json
import re

import pytest


@pytest.fixture
def check(command, folder):
    """check({...configuration...}) returns exit code and the lines."""
    def run(configuration, *arguments, **environment):
        path = folder / "heirflow.json"
        base = {"run_directory": str(folder / "run"), "scheduler": {"command": ["sleep", "1"]}}
        path.write_text(json.dumps(base | configuration))
        path.chmod(0o600)
        result = command("check", "--config", str(path), *arguments, **environment)
        lines = result.stdout.splitlines()
        assert all(re.match(r"(OK |BAD) [^:]+: .", line) for line in lines), result.stdout
        assert result.returncode == (1 if any(line.startswith("BAD") for line in lines) else 0), result.stdout
        assert result.stderr == ""
        return lines
    return run


def bad(lines):
    return [line for line in lines if line.startswith("BAD")]


def test_all_well(check, database, rabbitmq):
    lines = check({"postgres": database.dsn, "rabbitmq": {"url": rabbitmq.url, "exchange": rabbitmq.exchange}})
    assert bad(lines) == []
    text = "\n".join(lines)
    assert re.search(r"^OK  timings: heartbeat 1000 <= lease/3 = 2000 ms; fence_grace 3000 \+ margin 600 \+ 2\*heartbeat 2000 = "
                     r"5600 <= lease 6000 ms; worst-case gap after loss of a node 8000 ms$", text, re.M)
    assert re.search(r"^OK  containment: (namespace|user namespace|cgroup|subreaper)", text, re.M)
    assert re.search(r"^OK  command: /\S+/sleep$", text, re.M)
    assert re.search(rf"^OK  database 127.0.0.1 port {database.server.port}: primary, PostgreSQL \d+.*timeline 00000001", text, re.M)
    assert re.search(r"round trip \d+\.\d ms", text)
    assert re.search(rf"^OK  broker: .*{rabbitmq.exchange}$", text, re.M)


def test_sources_are_told(check, database):
    lines = check({}, HEIRFLOW_POSTGRES=database.dsn, HEIRFLOW_NODE="ada")
    assert re.fullmatch(r"OK  configuration: file \S+heirflow.json; environment: HEIRFLOW_NODE, HEIRFLOW_POSTGRES", lines[0])
    assert lines[1] == "OK  member: node ada of group scheduler"


def test_a_misspelt_variable_is_found(check, database):
    lines = bad(check({"postgres": database.dsn}, HEIRFLOW_LEASE="5000"))
    assert len(lines) == 1 and "HEIRFLOW_LEASE belongs to no key" in lines[0]


@pytest.mark.parametrize("scheduler, remedy", [
    ({"command": ["no-such-program"]}, '"no-such-program" is not found along PATH='),
    ({"command": ["/etc/passwd"]}, "not an executable file"),
    ({"command": ["/etc"]}, "not an executable file"),
    ({"command": ["sleep"], "user": "no-such-user"}, 'no user "no-such-user"'),
    ({"command": ["sleep"], "directory": "/no/such"}, '"scheduler.directory" /no/such: No such file'),
    ({"command": ["./here-only"], "directory": "/"}, "here-only"),
    ({"command": ["sleep"], "environment": {"PATH": "/etc"}}, "PATH=/etc"),
    ({"command": ["sleep"], "output": "/dev"}, "it is a directory"),
    ({"command": []}, "no command to run"),
])
def test_faults_of_the_command(check, command, folder, database, scheduler, remedy):
    lines = bad(check({"postgres": database.dsn, "scheduler": scheduler}))
    assert len(lines) == 1 and remedy in lines[0], lines
    if "output" not in scheduler:  # and `run` refuses it at the start; what the node lacks may come yet, a command does not
        expect = 1 if scheduler["command"] else 2
        result = command("run", "--config", str(folder / "heirflow.json"), expect=expect)
        assert remedy in result.stderr and result.stderr.count("\n") == 1


def test_the_command_is_judged_as_its_user(check, database, folder):
    program = folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    lines = bad(check({"postgres": database.dsn, "scheduler": {"command": [str(program)], "user": "nobody"}}))
    assert len(lines) == 1 and "not an executable file for user nobody" in lines[0]
    program.chmod(0o755)
    assert bad(check({"postgres": database.dsn, "scheduler": {"command": [str(program)], "user": "nobody"}})) == []


def test_the_estate_is_read_as_its_user(check, database, folder):
    state = folder / "state"
    state.mkdir()
    state.chmod(0o777)
    (state / "schedule").write_text("12345")
    scheduler = {"command": ["sleep", "1"], "user": "nobody", "directory": str(state), "estate": ["schedule", f"{state}/none"]}
    lines = check({"postgres": database.dsn, "scheduler": scheduler})
    assert bad(lines) == [] and "OK  estate: 1 file, 5 bytes, can be copied and put in place" in lines
    (state / "schedule").chmod(0o600)
    [line] = bad(check({"postgres": database.dsn, "scheduler": scheduler}))
    assert "estate: schedule: Permission denied" in line and "rights of user nobody" in line
    state.chmod(0o755)
    [line] = bad(check({"postgres": database.dsn, "scheduler": scheduler}))
    assert "estate: cannot write to the folder of schedule: Permission denied" in line
    (state / "link").symlink_to("schedule")
    [line] = bad(check({"postgres": database.dsn, "scheduler": {"command": ["sleep"], "estate": [f"{state}/link"]}}))
    assert "is a symbolic link" in line


def test_a_run_directory_that_is_a_file(check, database):
    lines = bad(check({"postgres": database.dsn, "run_directory": "/etc/passwd/run"}))
    assert len(lines) == 1 and "run directory: /etc/passwd/run" in lines[0]


def test_no_heir_needs_no_command(check, database):
    assert bad(check({"postgres": database.dsn, "no_heir": True, "scheduler": {}})) == []


def test_a_database_without_schema(check, empty_database):
    lines = bad(check({"postgres": empty_database.dsn}))
    assert len(lines) == 1 and "run `heirflow migrate`" in lines[0]


def test_a_member_without_rights(check, database, postgres):
    role = f"looker_{database.name}"
    postgres.psql(f"create role {role} login in role heirflow_viewer")
    lines = bad(check({"postgres": postgres.dsn(database.name, user=role)}))
    postgres.psql(f"drop role {role}")
    assert len(lines) == 1 and f'grant heirflow_member to "{role}"' in lines[0] and "accede" in lines[0]


def test_the_groups_own_lease_must_fit(check, database):
    database.query("insert into throne (group_name, lease_ms) values ('scheduler', 1000)")
    database.query("insert into news_counter (group_name) values ('scheduler')")
    assert bad(check({"postgres": database.dsn})) == []
    lines = bad(check({"postgres": database.dsn, "heartbeat_ms": 1000}))
    assert len(lines) == 1 and "heartbeat <= lease/3" in lines[0]


def test_two_servers_that_accept_writes(check, database, own_database):
    ports = f"{database.server.port},{own_database.server.port}"
    own_database.server.psql(f"alter database {own_database.name} rename to {database.name}")
    lines = bad(check({"postgres": f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname={database.name}"}))
    assert lines == ["BAD database: 2 different servers accept writes - only one may: end all but the primary"]


def test_every_host_of_a_service(check, database, folder):
    ports = f"1,{database.server.port}"
    (folder / "services").write_text(f"[here]\nhost=127.0.0.1,localhost\nport={ports}\nuser=postgres\ndbname={database.name}\n")
    lines = check({"postgres": "service=here"}, PGSERVICEFILE=str(folder / "services"))
    assert [line.split(":")[0] for line in bad(lines)] == ["BAD database 127.0.0.1 port 1"]
    assert any(line.startswith(f"OK  database localhost port {database.server.port}: primary") for line in lines)
    lines = bad(check({"postgres": "service=there"}, PGSERVICEFILE=str(folder / "services")))
    assert lines == ['BAD database: postgres: definition of service "there" not found']


def test_one_server_by_two_names(check, database):
    port = database.server.port
    assert bad(check({"postgres": f"host=127.0.0.1,localhost port={port} user=postgres dbname={database.name}"})) == []
    assert bad(check({"postgres": f"postgresql://postgres@127.0.0.1:{port},localhost:{port}/{database.name}"})) == []


def test_a_host_whose_port_is_the_usual_one(check, database):
    """In the list of ports it has an empty place."""
    lines = bad(check({"postgres": f"postgresql://postgres@localhost:{database.server.port},127.0.0.1/{database.name}"}))
    assert [line.split(":")[0] for line in lines] in ([], ["BAD database 127.0.0.1 port 5432"], ["BAD database 127.0.0.1"])


def test_a_database_and_a_broker_that_are_down(check, own_postgres, own_rabbitmq):
    own_postgres.stop()
    own_rabbitmq.stop()
    url = re.sub("//.*@", "//", own_rabbitmq.url).replace("//", "//guest:hush-hush@")
    lines = bad(check({"postgres": own_postgres.dsn(password="hush-hush"), "rabbitmq": {"url": [url, url]}}))
    assert len(lines) == 3 and not any("hush-hush" in line for line in lines)
    assert str(own_postgres.port) in lines[0] and lines[1].startswith("BAD broker: ")


def test_a_frozen_database_does_not_hold_it_up(check, own_database):
    own_database.server.freeze()
    try:
        lines = bad(check({"postgres": own_database.dsn}))
    finally:
        own_database.server.thaw()
    assert len(lines) == 1 and "database" in lines[0]


def test_a_transaction_pooler_is_named(check, command, database, pgbouncer):
    dsn = f"host=127.0.0.1 port={pgbouncer('transaction').port} user=postgres dbname={database.name}"
    lines = bad(check({"postgres": dsn}))
    assert len(lines) == 1 and "transaction pooler" in lines[0] and "use a session pool or connect directly" in lines[0]
    for name in ("migrate", "status"):
        assert "transaction pooler" in command(name, database=dsn, expect=3).stderr


def test_a_session_pooler_is_fine(check, database, pgbouncer):
    dsn = f"host=127.0.0.1 port={pgbouncer('session').port} user=postgres dbname={database.name}"
    assert bad(check({"postgres": dsn})) == []
