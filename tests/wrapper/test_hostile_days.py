"""What a hostile reader of the code came up with: restores, leases nobody fits, texts the database refuses, full pipes."""
import json
import os
import subprocess

import conftest
import wrapper as wrappers
from conftest import wait_for


def wait_until_runs(witness, node, timeout=30):
    wait_for(lambda: witness.running_on() == node, timeout, f"the scheduler running on {node}")


def test_logical_restore_while_the_group_runs(wrapper, witness, database):
    members = {}
    for node in ("ada", "cleo", "bert"):
        members[node] = wrapper(node, database=database, command=witness.command("--ignore-term"), lease_ms=3000,
                                scheduler={"stop_timeout_ms": 300})
        members[node].wait_for_event("standby")
    wait_until_runs(witness, "ada")
    dump = subprocess.run([conftest.servers.Postgres.program("pg_dump"), "--clean", "--if-exists", "--schema=heirflow",
                           database.dsn], check=True, capture_output=True).stdout
    assert database.value("select request_switchover('tests', 'bert')")["accepted"]
    wait_until_runs(witness, "bert")
    members["ada"].wait_for_event("standby", count=2)
    before = len(witness.runs())
    subprocess.run(["psql", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", database.dsn], input=dump,
                   check=True, capture_output=True)
    wait_for(lambda: len(witness.runs()) > before, 30, "a scheduler after the restore")
    assert not witness.overlaps()
    terms = [int(run.term) for run in witness.runs()]
    assert len(set(terms)) == len(terms), "no term twice"


def test_rows_put_back_by_hand(wrapper, witness, database):
    for node in ("ada", "bert"):
        wrapper(node, database=database, command=witness.command("--ignore-term"), lease_ms=2000).wait_for_event("standby")
    wait_until_runs(witness, "ada")
    database.query("update throne set member_id = null, incarnation = null, term = term - 1, beat = 3")
    wait_for(lambda: len(witness.runs()) == 2, 30, "a scheduler again")
    assert not witness.overlaps()


def test_throne_row_deleted(wrapper, witness, database):
    for node in ("ada", "bert"):
        wrapper(node, database=database, command=witness.command()).wait_for_event("standby")
    wait_until_runs(witness, "ada")
    database.query("delete from throne")
    wait_for(lambda: len(witness.runs()) == 2, 30, "a scheduler again")
    assert not witness.overlaps()


def test_all_rows_of_a_group_gone_while_its_only_member_has_news(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command(), lease_ms=2000)
    wait_until_runs(witness, "ada")
    database.query("truncate throne, roster, terms, news, news_counter, relay")
    ada.wait_for_event("fenced")
    wait_for(lambda: len(witness.runs()) == 2, 30, "a scheduler again")
    wait_for(lambda: database.query("select 1 from news where event = 'fenced'"), 10, "what it had to tell")
    assert not witness.overlaps()


def test_a_lease_that_fits_nobody_stops_nobody(wrapper, witness, database):
    members = {}
    for node in ("ada", "bert"):
        members[node] = wrapper(node, database=database, command=witness.command(), lease_ms=3000, heartbeat_ms=600)
        members[node].wait_for_event("standby")
    wait_until_runs(witness, "ada")
    database.value("select set_lease('tests', 1500)")
    members["ada"].wait_for_event("lease-unfit")
    members["bert"].wait_for_event("lease-unfit")
    assert witness.running_on() == "ada"
    database.value("select set_lease('tests', 3000)")
    members["ada"].terminate()
    wait_until_runs(witness, "bert")
    assert not witness.overlaps()


def test_told_to_quit_while_its_accession_is_stuck(wrapper, own_database):
    server = own_database.server
    ada = wrapper("ada", database=own_database, lease_ms=3000)
    ada.wait_for_event("standby")
    server.psql("alter system set synchronous_standby_names = 'nobody'")
    server.psql("select pg_reload_conf()")
    ada.wait_for_event("acceding")
    ada.terminate()
    ada.wait_for_event("leaving")
    server.psql("alter system reset synchronous_standby_names")
    server.psql("select pg_reload_conf()")
    assert ada.wait(30) == 0
    assert ada.events().count("leaving") < 10


def test_text_that_is_no_utf8_loses_no_event(wrapper, database, folder):
    for extra in ("", "b"):  # one of the two is cut inside a character
        script = folder / (extra + "ä" * 60)
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        wrapper("ada" + extra, group="g" + extra, database=database, command=[str(script)],
                scheduler={"restart": {"limit": 0}}).wait_for_event("abdicated")
        assert database.value("select count(*) from news where event = 'scheduler-exited' and group_name = %s", "g" + extra) == 1


def test_text_that_the_database_cannot_store_blocks_nothing(wrapper, postgres, heirflow, witness, folder):
    name = f"latin_{os.getpid()}"
    postgres.psql(f"create database {name} template template0 encoding 'LATIN1' locale 'C'")
    try:
        database = conftest.Database(postgres, name)
        conftest.migrate(heirflow, database)
        script = folder / "日本"
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        ada = wrapper("ada", database=database, command=[str(script)], scheduler={"restart": {"limit": 0}})
        ada.wait_for_event("abdicated")
        assert "news-lost" in ada.events()
        bert = wrapper("bert", database=database, command=witness.command())
        wait_until_runs(witness, "bert")
        for member in (ada, bert):
            member.terminate()
            member.wait()
    finally:
        conftest.drop_database(postgres, name)


def test_without_namespaces_the_scheduler_cannot_read_our_secrets(heirflow, database, folder):
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    found = shared / "found"
    look = (f"cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c PLANTED > {found}.new; mv {found}.new {found};"
            " exec sleep infinity")
    configuration = shared / "heirflow.json"
    configuration.write_text(json.dumps({"group": "g", "node": "ada", "run_directory": str(shared / "run"), "lease_ms": 1000,
                                         "scheduler": {"command": ["sh", "-c", look]}}))
    environment = wrappers.clean_environment(HEIRFLOW_CONFIG=str(configuration), HEIRFLOW_CONTAINMENT="subreaper",
                                             HEIRFLOW_POSTGRES=database.dsn + " password=PLANTED")
    drop = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    process = subprocess.Popen([*drop, heirflow, "run"], env=environment, stdin=subprocess.DEVNULL, cwd="/",
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(found.exists, 20, "the scheduler's search")
        assert found.read_text().strip() == "0"
    finally:
        process.terminate()
        process.wait()


def test_an_adopted_lease_shortens_the_deadlines(wrapper, witness, database):
    import socket
    wrapper("ada", database=database, command=witness.command()).wait_for_event("standby")
    wait_until_runs(witness, "ada")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        port = str(database.server.port)
        dsn = database.dsn.replace(f"port={port}", f"port={port},{silent.getsockname()[1]}")
        dsn = dsn.replace("host=127.0.0.1", "host=127.0.0.1,127.0.0.1")
        bert = wrapper("bert", database=dsn, command=witness.command(), lease_ms=30000)
        bert.wait_for_event("lease-adopted")
        database.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'heirflow:tests:bert%'")
        bert.wait_for_event("database-connected", count=2, timeout=8)


def test_standard_error_that_nobody_reads(wrapper, heirflow, database, folder):
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    ada = wrapper("ada", database=database, start=False)
    ada.config_path.write_text(json.dumps(ada.configuration))
    process = subprocess.Popen([heirflow, "run", "--config", str(ada.config_path)], stderr=write, stdout=subprocess.DEVNULL,
                               env=wrappers.clean_environment(), stdin=subprocess.DEVNULL)
    os.close(write)
    wait_for(lambda: database.value("select coalesce(max(beat), 0) from throne") > 3, 20, "its reign")
    process.terminate()
    assert process.wait(20) == 0
    os.close(read)
