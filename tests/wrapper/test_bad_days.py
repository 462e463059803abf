"""What goes wrong around a wrapper: each is said in one clear line and survived."""
import os
import signal
import subprocess

from conftest import wait_for


def wait_until_runs(witness, node, timeout=20):
    wait_for(lambda: witness.running_on() == node, timeout, f"the scheduler running on {node}")


def reasons(wrapper, event):
    return [line for line in wrapper.log().splitlines() if f" {event} " in line]


def test_database_down_at_the_start_is_said_once_and_waited_for(wrapper, witness, own_database):
    own_database.server.stop()
    ada = wrapper("ada", database=own_database, command=witness.command())
    ada.wait_for_event("database-away")
    own_database.server.start()
    wait_until_runs(witness, "ada")
    said = reasons(ada, "database-away")
    assert len(said) == len(set(line.split("reason=")[1] for line in said)), "one line for each cause"
    assert "refused" in said[0]


def test_transaction_ids_that_run_out_stop_no_scheduler(wrapper, witness, worn_database):
    ada = wrapper("ada", database=worn_database, command=witness.command())
    wait_until_runs(witness, "ada")
    beat = worn_database.value("select beat from throne")
    wait_for(lambda: worn_database.value("select beat from throne") >= beat + 10, 20, lambda: "renewals\n" + ada.log())
    assert len(witness.runs()) == 1 and "database-refused" not in ada.events() and "fenced" not in ada.events()
    said, = reasons(ada, "vacuum-due")
    assert "must be vacuumed within" in said
    ours = worn_database.connect()
    ours.cursor().execute("create table ours ()")
    assert "must be vacuumed within" in ours.notices[0], "each renewal was warned"
    ours.close()


def test_slow_stop_is_waited_for(wrapper, witness, database):
    command = ["sh", "-c", "trap 'while [ ! -e %s/go ]; do :; done; exit 0' TERM; " % witness.folder.parent
               + " ".join(witness.command()) + " & while :; do wait; done"]
    ada = wrapper("ada", database=database, command=command)
    ada.wait_for_event("standby")
    wrapper("bert", database=database, command=witness.command()).wait_for_event("standby")
    wait_until_runs(witness, "ada")
    ada.terminate()
    ada.wait_for_event("stopping")
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") >= beat + 10, 20, "renewals for longer than a lease")
    assert witness.running_on() == "ada"
    (witness.folder.parent / "go").touch()
    wait_until_runs(witness, "bert")
    assert not witness.overlaps()


def test_second_interrupt_does_not_wait_for_a_slow_stop(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command("--ignore-term"))
    wait_until_runs(witness, "ada")
    os.kill(ada.pid, signal.SIGINT)
    ada.wait_for_event("stopping")
    os.kill(ada.pid, signal.SIGINT)
    assert ada.wait(10) == 0
    wait_for(lambda: witness.running_on() is None, 5, "the scheduler gone")
    assert database.value("select ended_by from terms") == "abdicated"


def test_losing_the_lease_is_told(wrapper, witness, own_database):
    ada = wrapper("ada", database=own_database, command=witness.command())
    wait_until_runs(witness, "ada")
    own_database.server.stop()
    ada.wait_for_event("fenced")
    own_database.server.start()
    wait_for(lambda: own_database.query("select 1 from news where event = 'fenced'"), 20, "the news of it")


def test_leaving_while_the_database_is_away(wrapper, witness, own_database):
    ada = wrapper("ada", database=own_database, command=witness.command())
    wait_until_runs(witness, "ada")
    own_database.server.stop()
    ada.terminate()
    assert ada.wait(15) == 0
    wait_for(lambda: witness.running_on() is None, 5, "the scheduler gone")
    own_database.server.start()


def test_connection_terminated_again_and_again(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command())
    ada.wait_for_event("standby")
    wrapper("bert", database=database, command=witness.command()).wait_for_event("standby")
    wait_until_runs(witness, "ada")
    for round in range(10):
        beat = database.value("select beat from throne")
        database.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'heirflow:%'"
                       " and datname = current_database()")
        wait_for(lambda: database.value("select beat from throne") > beat, 10, "renewals going on")
    assert witness.nodes() == ["ada"]


def test_keeper_and_wrapper_killed_at_once(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command("--child", "--grandchild", "--ignore-term"))
    ada.wait_for_event("standby")
    wrapper("bert", database=database, command=witness.command()).wait_for_event("standby")
    wait_until_runs(witness, "ada")
    keeper = ada.keeper()
    os.kill(keeper, signal.SIGKILL)
    ada.kill()
    wait_until_runs(witness, "bert")
    assert not witness.overlaps()


def test_command_that_cannot_run_is_refused_at_the_start(wrapper, database, folder):
    plain = folder / "plain"
    plain.write_text("not executable")
    for command, word in ((["/nowhere/at/all"], "No such file"), ([str(plain)], "not an executable file")):
        ada = wrapper("ada", database=database, command=command)
        assert ada.wait(10) == 1
        assert word in ada.log()


def test_output_file_is_appended_to(wrapper, database, folder):
    out = folder / "scheduler.log"
    out.write_text("before\n")
    out.chmod(0o666)
    wrapper("ada", database=database, command=["sh", "-c", "echo ran; exec sleep infinity"],
            scheduler={"output": str(out)})
    wait_for(lambda: out.read_text() == "before\nran\n", 15, "the scheduler's output")


def test_flood_of_output_disturbs_no_heartbeat(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command("--flood"), scheduler={"output": "/dev/null"})
    wait_for(lambda: database.value("select coalesce(max(beat), 0) from throne") > 20, 30, "twenty renewals")
    assert "fencing" not in ada.events()


def test_json_log(wrapper, witness, database):
    import json
    ada = wrapper("ada", database=database, command=witness.command(), log={"format": "json"})
    wait_for(lambda: "scheduler-started" in ada.log(), what="the scheduler's start in the log")
    lines = [json.loads(line) for line in ada.log().splitlines()]
    assert {"starting", "standby", "heir", "scheduler-started"} <= {line["event"] for line in lines}
