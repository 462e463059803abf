"""What the programs that set up hosts refuse, keep and send, seen from this side: ssh is a stand-in that notes what it gets."""
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import zlib

import pytest
from conftest import SOURCE, wait_for

PROVISION = SOURCE / "provision"
FOR_ONE_HOST = ["q_first", "q_later", "db_first", "db_later", "balancer", "remove"]
GOOD = {"system": "debian 12", "root": "yes", "systemd": "yes", "address": "10.0.0.9", "name": "h", "free_mb": "5000",
        "deployment": "", "roles": "", "packages": ""}

SSH = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys, time
folder = pathlib.Path(os.environ["FAKE_SSH"])
if "-O" in sys.argv:
    sys.exit(0)
at = sys.argv.index("--")
host, command = sys.argv[at + 1], " ".join(sys.argv[at + 2:])
number = len(list(folder.glob("call-*")))
(folder / f"call-{{number}}").write_text(json.dumps(dict(argv=sys.argv, host=host, command=command)))
answer = json.loads((folder / "answers.json").read_text()).get(host, {{}})
if "error" in answer:
    sys.exit(print(answer["error"], file=sys.stderr) or 255)
if command.startswith("bash -s"):
    sys.stdin.read()
    sys.exit(print(*(f"{{name}}={{value}}" for name, value in answer["facts"].items()), sep="\\n"))
if "tar --extract" in command:
    (folder / f"stage-{{number}}").mkdir()
    subprocess.run(["tar", "--extract", "--directory", folder / f"stage-{{number}}"], check=True)
    if answer.get("hangs"):
        time.sleep(600)
    print(*answer.get("lines", []), sep="\\n", flush=True)
    sys.exit(answer.get("status", 0))
"""


class Deployment:
    def __init__(self, folder):
        self.folder, self.state, self.fake = folder, folder / "state", folder / "fake"
        (folder / "bin").mkdir()
        (folder / "tmp").mkdir()
        self.fake.mkdir()
        (folder / "bin" / "ssh").write_text(SSH)
        (folder / "bin" / "ssh").chmod(0o755)
        self.settings = folder / "provision.config"
        self.set()
        self.answer()

    def set(self, **settings):
        text = (SOURCE / "config" / "provision.config").read_text()
        lines = [f"STATE={self.state}", *(f"{name}='{value}'" for name, value in settings.items())]
        self.settings.write_text(text + "\n".join(lines) + "\n")

    def address(self, host):
        """The one that it is remembered by, or one of its own."""
        path = self.state / "hosts"
        known = {line.split()[1]: line.split()[2] for line in path.read_text().splitlines()} if path.exists() else {}
        number = zlib.crc32(host.encode()) % 65536
        return known.get(host) or (GOOD["address"] if host == "h" else f"10.1.{number // 256}.{number % 256}")

    def answer(self, host="h", facts=None, **answer):
        path = self.fake / "answers.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        known[host] = {"facts": GOOD | {"address": self.address(host)} | (facts or {}), "lines": ["works", "=major=15", f"=leader={host}"]} | answer
        path.write_text(json.dumps(known))

    def have(self, *lines):
        self.state.mkdir(mode=0o700, exist_ok=True)
        (self.state / "hosts").write_text("".join(f"{line}\n" for line in lines))
        (self.state / "postgresql").write_text("15 patroni\n")

    @property
    def environment(self):
        return os.environ | {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "FAKE_SSH": str(self.fake),
                             "HEIRFLOW_PROVISION_CONFIG": str(self.settings), "TMPDIR": str(self.folder / "tmp")}

    def run(self, program, *arguments, expect=None):
        done = subprocess.run([PROVISION / program, *arguments], env=self.environment, capture_output=True, text=True, timeout=60)
        assert expect is None or done.returncode == expect, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert list((self.folder / "tmp").iterdir()) == [], "left something behind"
        return done.stdout + done.stderr

    def bash(self, text):
        """Runs a line with lib.sh and the settings there; returns what it prints."""
        line = f". {PROVISION}/lib.sh; read_settings; {text}"
        return subprocess.run(["bash", "-euc", line], env=self.environment, capture_output=True, text=True, check=True).stdout

    def calls(self):
        return [json.loads(path.read_text()) for path in sorted(self.fake.glob("call-*"))]

    def stages(self):
        return sorted(self.fake.glob("stage-*"))


@pytest.fixture
def deployment(folder):
    return Deployment(folder)


@pytest.mark.parametrize("program", [*FOR_ONE_HOST, "status"])
def test_help_and_usage(deployment, program):
    assert "Exit status:" in deployment.run(program, "--help", expect=0)
    assert f"provision/{program}" in deployment.run(program, "--nonsense", expect=2)
    assert deployment.calls() == [] and not deployment.state.exists()


@pytest.mark.parametrize("program", FOR_ONE_HOST)
@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("admin@h",), ("-oProxyCommand=touch x",), ("h;id",)])
def test_wrong_arguments(deployment, program, arguments):
    deployment.run(program, *arguments, expect=2)
    assert deployment.calls() == [] and not deployment.state.exists()


@pytest.mark.parametrize("settings, said", [
    ({"DATABASE": "air flow"}, "DATABASE"), ({"DB_USER": "x; drop role y"}, "DB_USER"), ({"QUEUE_VHOST": "/"}, "QUEUE_VHOST"),
    ({"QUEUE_PASSWORD": "a@b/c"}, "QUEUE_PASSWORD"), ({"FLOATING_ADDRESS": "10.0.0.1"}, "such as 10.0.0.100/24"),
    ({"DB_ADDRESS": "a b"}, "DB_ADDRESS"), ({"STATE": "here"}, "STATE"), ({"DB_USER": "postgres"}, "DB_USER"),
    ({"DATABASE": "all"}, "DATABASE"), ({"DB_USER": "heirflow"}, "another role"), ({"REP_USER": "airflow"}, "have to differ")])
def test_wrong_settings(deployment, settings, said):
    deployment.set(**settings)
    assert said in deployment.run("q_first", "h", expect=2)
    assert deployment.calls() == [] and not deployment.state.exists()


def test_settings_that_cannot_be_read(deployment):
    deployment.settings.write_text("DATABASE=(\n")
    assert "no bash" in deployment.run("q_first", "h", expect=2)
    deployment.settings.unlink()
    assert "HEIRFLOW_PROVISION_CONFIG" in deployment.run("q_first", "h", expect=2)


@pytest.mark.parametrize("program, hosts, said", [
    ("q_later", [], "provision/q_first HOST comes first"),
    ("q_later", ["queue h 10.0.0.9"], "provision/q_first HOST comes first"),
    ("q_first", ["queue other 10.0.0.8"], "provision/q_later h adds another"),
    ("db_later", [], "provision/db_first HOST comes first"),
    ("db_later", ["database other 10.0.0.8"], "provision/q_first HOST, then provision/db_first other again"),
    ("db_first", ["database other 10.0.0.8"], "provision/db_later h adds another"),
    ("balancer", [], "provision/db_first HOST"),
    ("remove", ["database h 10.0.0.9"], "--force"),
    ("remove", ["queue h 10.0.0.9"], "--force")])
def test_out_of_order(deployment, program, hosts, said):
    deployment.have(*hosts)
    assert said in deployment.run(program, "h", expect=1)
    assert deployment.calls() == []
    assert (deployment.state / "hosts").read_text().split("\n")[:-1] == hosts


@pytest.mark.parametrize("error, said", [
    ("ssh: connect to host h port 22: Connection timed out", "see that it is up"),
    ("ssh: connect to host h port 22: Connection refused", "see that it is up"),
    ("admin@h: Permission denied (publickey).", "authorized_keys"),
    ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "ssh-keygen -R h"),
    ("ssh: Could not resolve hostname h: Name or service not known", "correct the name")])
@pytest.mark.parametrize("program", ["q_first", "db_first"])
def test_host_that_cannot_be_reached(deployment, program, error, said):
    deployment.answer(error=error)
    output = deployment.run(program, "h", expect=1)
    assert said in output and len(output.splitlines()) == 1
    assert deployment.stages() == [] and not (deployment.state / "hosts").exists()


@pytest.mark.parametrize("facts, said", [
    ({"system": "debian 11"}, "Debian 12 or 13, Ubuntu 22.04 or 24.04"), ({"system": "rocky 9"}, "rocky 9"),
    ({"root": "no"}, "NOPASSWD"), ({"systemd": "no"}, "systemd"), ({"address": ""}, "IPv4"),
    ({"free_mb": "120"}, "only 120 MB free"), ({"packages": "rabbitmq-server"}, "apt-get update"),
    ({"clock": "1000"}, "s behind this machine"), ({"clock": "9999999999"}, "s ahead of this machine"),
    ({"roles": "database"}, "a database host already"), ({"roles": "worker"}, "a worker host already"),
    ({"deployment": "0123456789abcdef"}, "another deployment")])
def test_host_that_will_not_do(deployment, facts, said):
    deployment.answer(facts=facts)
    output = deployment.run("q_first", "h", expect=1)
    assert said in output and len(output.splitlines()) == 1
    assert deployment.stages() == [] and not (deployment.state / "hosts").exists()


@pytest.mark.parametrize("system", ["debian 12", "debian 13", "ubuntu 22.04", "ubuntu 24.04"])
def test_systems_that_will_do(deployment, system):
    deployment.answer(facts={"system": system})
    deployment.run("q_first", "h", expect=0)
    assert (deployment.state / "hosts").read_text() == "queue h 10.0.0.9\n"


def test_queue_and_database_hosts_are_kept_apart(deployment):
    deployment.have("queue h 10.0.0.9")
    assert "a queue host already" in deployment.run("db_first", "h", expect=1)
    deployment.have("database h 10.0.0.9")
    assert "a database host already" in deployment.run("balancer", "h", expect=1)
    deployment.have("webserver h 10.0.0.9", "database d 10.0.0.8")
    deployment.run("balancer", "h", expect=0)


@pytest.mark.parametrize("program, hosts", [("q_first", []), ("q_later", ["queue q 10.0.0.8"]), ("db_first", []),
                                            ("db_later", ["database d 10.0.0.7", "queue q 10.0.0.8"]),
                                            ("balancer", ["database d 10.0.0.7"])])
def test_dry_run_touches_nothing(deployment, program, hosts):
    if hosts:
        deployment.have(*hosts)
    before = {path: path.read_bytes() for path in deployment.state.rglob("*")}
    assert "h: would install" in deployment.run(program, "--dry-run", "h", expect=0)
    assert {path: path.read_bytes() for path in deployment.state.rglob("*")} == before
    assert [call["command"].split()[:2] for call in deployment.calls()] == [["bash", "-s"]]
    assert deployment.state.exists() == bool(hosts)


def secrets_of(deployment):
    return dict(line.split("=", 1) for line in (deployment.state / "secrets").read_text().splitlines())


def test_the_inventory_of_the_manual(deployment, folder):
    """README.md: the one that it leads through is as good as it looks."""
    inventory = re.search(r"(?m)(^    (?:queue|database|scheduler|worker|webserver) \S+\n)+",
                          (SOURCE / "README.md").read_text())[0]
    hosts = inventory.split()[1::2]
    assert len(hosts) == 10
    for number, host in enumerate(hosts):
        deployment.answer(host, {"name": host, "address": f"10.0.0.{number}"})
    (folder / "inventory").write_text(inventory)
    said = deployment.run("all", "--dry-run", str(folder / "inventory"), expect=0)
    assert not [host for host in hosts if host not in said]


def test_secrets_are_drawn_once_and_kept_close(deployment):
    deployment.set(NEWS_QUEUE_PASSWORD="chosen")
    deployment.run("q_first", "h", expect=0)
    deployment.answer("d")
    deployment.run("db_first", "d", expect=0)
    drawn = secrets_of(deployment)
    assert "NEWS_QUEUE_PASSWORD" not in drawn
    assert all(len(drawn[name]) == 48 for name in ("QUEUE_PASSWORD", "ERLANG_COOKIE", "DB_PASSWORD", "HEIRFLOW_PASSWORD"))
    assert len(set(drawn.values())) == len(drawn)
    for path in [deployment.state, deployment.state / "secrets", deployment.state / "ca", *(deployment.state / "ca").rglob("*.key")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    deployment.run("q_first", "h", expect=0)
    deployment.run("db_first", "d", expect=0)
    assert secrets_of(deployment) == drawn
    staged = (deployment.stages()[0] / "settings")
    assert f"QUEUE_PASSWORD={drawn['QUEUE_PASSWORD']}" in staged.read_text() and "NEWS_QUEUE_PASSWORD=chosen" in staged.read_text()
    assert "DB_PASSWORD" not in staged.read_text(), "a queue host need not know it"
    for call in deployment.calls():
        for value in [*(value for name, value in drawn.items() if name != "DEPLOYMENT"), "chosen"]:
            assert value not in json.dumps(call), "a secret in an argument list"


def test_what_is_sent_is_for_root_alone(deployment):
    deployment.run("q_first", "h", expect=0)
    [stage] = deployment.stages()
    assert {"queue", "common.sh", "settings", "ca.crt", "host.crt", "host.key"} <= {path.name for path in stage.iterdir()}
    for name in ("settings", "host.key"):
        assert stat.S_IMODE((stage / name).stat().st_mode) == 0o600
    [call] = [call for call in deployment.calls() if "tar --extract" in call["command"]]
    assert "mkdir -m 700 stage" in call["command"] and "rm -rf /var/lib/heirflow-provision/stage" in call["command"]


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True)


def test_certificates(deployment):
    deployment.set(FLOATING_ADDRESS="10.0.0.100/24", DB_ADDRESS="db.example.org")
    deployment.run("q_first", "h", expect=0)
    folder, hosts = deployment.state / "ca", deployment.state / "ca" / "hosts"
    for usage in ("sslserver", "sslclient"):
        assert openssl("verify", "-purpose", usage, "-x509_strict", "-CAfile", folder / "ca.crt", hosts / "h.crt").returncode == 0
    for names in (["-checkip", "10.0.0.9"], ["-checkip", "10.0.0.100"], ["-checkhost", "h"], ["-checkhost", "db.example.org"],
                  ["-checkip", "127.0.0.1"]):
        assert "does match" in openssl("x509", "-in", hosts / "h.crt", "-noout", *names).stdout, names
    first = (hosts / "h.crt").read_bytes()
    deployment.run("q_first", "h", expect=0)
    assert (hosts / "h.crt").read_bytes() == first
    deployment.set(FLOATING_ADDRESS="10.0.0.101/24")
    deployment.run("q_first", "h", expect=0)
    assert (hosts / "h.crt").read_bytes() != first
    assert "does match" in openssl("x509", "-in", hosts / "h.crt", "-noout", "-checkip", "10.0.0.101").stdout
    assert openssl("verify", "-CAfile", folder / "ca.crt", hosts / "h.crt").returncode == 0


def test_any_name_gets_a_certificate_of_its_own(deployment):
    """One that is longer than a common name may be, and the name of the authority."""
    long = f"{'a' * 40}.{'b' * 40}.example.org"
    for name, program in ((long, "q_first"), ("ca", "q_later")):
        deployment.answer(name)
        deployment.run(program, name, expect=0)
    folder = deployment.state / "ca"
    for name in ("ca", long):
        assert openssl("verify", "-CAfile", folder / "ca.crt", folder / "hosts" / f"{name}.crt").returncode == 0
        assert "does match" in openssl("x509", "-in", folder / "hosts" / f"{name}.crt", "-noout", "-checkhost", name).stdout


def test_an_authority_that_was_made_anew_makes_certificates_anew(deployment):
    deployment.run("q_first", "h", expect=0)
    folder = deployment.state / "ca"
    (folder / "ca.crt").unlink()
    deployment.run("q_first", "h", expect=0)
    assert openssl("verify", "-CAfile", folder / "ca.crt", folder / "hosts" / "h.crt").returncode == 0


def test_a_certificate_that_cannot_be_made(deployment):
    (deployment.folder / "bin" / "openssl").write_text("#!/bin/sh\necho no entropy >&2; [ $1 = rand ] && exec /usr/bin/openssl \"$@\"; exit 1\n")
    (deployment.folder / "bin" / "openssl").chmod(0o755)
    assert "openssl could not make" in deployment.run("q_first", "h", expect=1)
    assert deployment.stages() == []


@pytest.mark.parametrize("program, hosts", [("q_first", ["queue h 10.0.0.77"]), ("db_first", ["database h 10.0.0.77"])])
def test_a_member_of_a_cluster_keeps_its_address(deployment, program, hosts):
    deployment.have(*hosts)
    deployment.answer(facts={"address": "10.0.0.9"})
    said = deployment.run(program, "h", expect=1)
    assert "h was set up at 10.0.0.77, and now is reached at 10.0.0.9" in said and deployment.stages() == []


def test_one_machine_is_one_host(deployment):
    deployment.have("queue q1 10.0.0.9")
    assert "10.0.0.9, which q1 has already" in deployment.run("q_later", "h", expect=1)
    assert deployment.stages() == []


def test_secrets_of_the_environment_are_nobodys(deployment, monkeypatch):
    for name in ("DEPLOYMENT", "ERLANG_COOKIE", "QUEUE_PASSWORD", "HEIRFLOW_PASSWORD"):
        monkeypatch.setenv(name, "strange")
    deployment.run("q_first", "h", expect=0)
    [stage] = deployment.stages()
    assert "strange" not in (stage / "settings").read_text()
    assert {"DEPLOYMENT", "ERLANG_COOKIE", "QUEUE_PASSWORD"} <= secrets_of(deployment).keys()


def test_a_database_that_runs_alone_is_given_to_patroni_before_another_comes(deployment):
    """Or the other one would begin a database of its own."""
    deployment.answer("d1")
    deployment.run("db_first", "d1", expect=0)
    deployment.answer("q1")
    deployment.run("q_first", "q1", expect=0)
    before = deployment.stages()
    assert "provision/db_first d1 first" in deployment.run("db_later", "h", expect=1)
    assert deployment.stages() == before
    deployment.run("db_first", "d1", expect=0)
    deployment.run("db_later", "h", expect=0)


def test_a_balancer_gets_no_key(deployment):
    deployment.have("database d 10.0.0.8", "queue q 10.0.0.7")
    deployment.run("balancer", "h", expect=0)
    [stage] = deployment.stages()
    assert not (stage / "host.key").exists() and "PASSWORD" not in (stage / "settings").read_text()
    assert "patroni=yes" in (stage / "settings").read_text()


def test_a_lost_connection(deployment):
    deployment.answer(lines=["installing something ..."], status=255)
    output = deployment.run("q_first", "h", expect=1)
    assert "h: installing something ..." in output and "run this again" in output
    assert not (deployment.state / "hosts").exists()
    deployment.answer()
    deployment.run("q_first", "h", expect=0)
    assert (deployment.state / "hosts").read_text() == "queue h 10.0.0.9\n"


def test_a_failure_on_the_host(deployment):
    deployment.answer(lines=["failed: the disk is full"], status=1)
    output = deployment.run("db_first", "h", expect=1)
    assert "h: failed: the disk is full" in output and "h is no database host yet" in output
    assert not (deployment.state / "hosts").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted(deployment, how):
    deployment.answer(hangs=True)
    process = subprocess.Popen([PROVISION / "q_first", "h"], env=deployment.environment, stderr=subprocess.DEVNULL)
    wait_for(deployment.stages, 30, "something sent")
    process.send_signal(how)
    assert process.wait(20) == 130
    wait_for(lambda: list((deployment.folder / "tmp").iterdir()) == [], 10, "its folder gone")
    assert not (deployment.state / "hosts").exists()


def test_number_of_queue_hosts(deployment):
    for number, said in ((1, "nothing survives its loss"), (2, "the loss of either stops both"), (3, "the loss of 1 does no harm")):
        deployment.answer(f"q{number}", facts={"address": f"10.0.0.{number}"})
        assert said in deployment.run("q_first" if number == 1 else "q_later", f"q{number}", expect=0)
    assert "peers=10.0.0.1\\ 10.0.0.2" in (deployment.stages()[-1] / "settings").read_text()
    known = (deployment.state / "hosts").read_text()
    deployment.run("q_first", "q1", expect=0)
    assert (deployment.state / "hosts").read_text() == known, "an order that changes makes settings that change"


def test_a_database_alone_is_said_to_be_alone(deployment):
    assert "without Patroni" in deployment.run("db_first", "h", expect=0)
    deployment.have("database h 10.0.0.9", "queue q 10.0.0.8")
    output = deployment.run("db_first", "h", expect=0)
    assert "without Patroni" not in output and "provision/db_later adds a standby" in output


def test_remove_a_host_that_is_gone(deployment):
    deployment.have("queue q1 10.0.0.1", "queue q2 10.0.0.2", "queue h 10.0.0.9")
    deployment.answer(error="ssh: connect to host h port 22: No route to host")
    deployment.answer("q1")
    assert "provision/remove --force h" in deployment.run("remove", "h", expect=1)
    assert "queue h" in (deployment.state / "hosts").read_text()
    deployment.run("remove", "--force", "h", expect=0)
    assert (deployment.state / "hosts").read_text() == "queue q1 10.0.0.1\nqueue q2 10.0.0.2\n"
    assert "gone=10.0.0.9" in (deployment.stages()[-1] / "settings").read_text()


AWAY = "ssh: connect to host: Connection timed out"


@pytest.mark.parametrize("answer, said", [({}, "can be reached, so it is not gone"), ({"error": "Permission denied"}, "switch it off"),
                                          ({"error": "ssh: connect to host q2 port 22: Connection refused"}, "switch it off")])
def test_a_queue_host_does_not_go_on_without_those_that_are_there(deployment, answer, said):
    deployment.have("queue h 10.0.0.9", "queue q2 10.0.0.2", "queue q3 10.0.0.3")
    deployment.answer("h")
    deployment.answer("q2", **answer)
    deployment.answer("q3", error=AWAY)
    assert said in deployment.run("q_first", "--force", "h", expect=1)
    assert deployment.stages() == []


def test_a_queue_host_goes_on_without_those_that_are_gone(deployment):
    deployment.have("queue h 10.0.0.9", "queue q2 10.0.0.2", "queue q3 10.0.0.3")
    deployment.answer("h")
    for name in ("q2", "q3"):
        deployment.answer(name, error=AWAY)
    assert "without the queue hosts at 10.0.0.2 10.0.0.3" in deployment.run("q_first", "--force", "--dry-run", "h", expect=0)
    assert deployment.stages() == []
    assert "one queue host" in deployment.run("q_first", "--force", "h", expect=0)
    [stage] = deployment.stages()
    settings = (stage / "settings").read_text().replace("\\", "")
    assert "gone=10.0.0.2 10.0.0.3" in settings and "peers=''" in settings
    assert (deployment.state / "hosts").read_text() == "queue h 10.0.0.9\n"


@pytest.mark.parametrize("first, again, away", [
    (["q_later", "h"], ["q_later", "h"], False), (["remove", "h"], ["remove", "h"], False), (["remove", "h"], ["refresh"], False),
    (["remove", "--force", "h"], ["remove", "--force", "h"], True)])
def test_who_was_not_told_of_a_change_is_told_by_a_second_run(deployment, first, again, away):
    deployment.have("database d1 10.0.0.1", "queue q1 10.0.0.2", *(["queue h 10.0.0.9"] if first[0] == "remove" else []))
    deployment.answer("h", **({"error": AWAY} if away else {}))
    deployment.answer("q1")
    deployment.answer("d1", status=1)
    assert "provision/refresh" in deployment.run(*first, expect=1)
    deployment.answer("d1")
    before = set(deployment.stages())
    deployment.run(*again, expect=0)

    def told():
        return [stage for stage in set(deployment.stages()) - before if "host=d1\n" in (stage / "settings").read_text()]
    assert told()
    before = set(deployment.stages())
    if first[0] == "q_later":
        deployment.run(*again, expect=0)
        assert not told(), "all know by now"


def test_two_of_five_queue_hosts_are_gone(deployment):
    """Whoever is asked to forget one has to be there."""
    deployment.have(*(f"queue q{n} 10.0.0.{n}" for n in range(1, 6)))
    for n in range(1, 6):
        deployment.answer(f"q{n}", **({"error": "ssh: connect to host: No route to host"} if n < 3 else {}))
    for name in ("q1", "q2"):
        deployment.run("remove", "--force", name, expect=0)
    assert (deployment.state / "hosts").read_text().split()[1::3] == ["q3", "q4", "q5"]
    assert len(deployment.stages()) == 2


def test_with_the_last_database_host_etcd_forgets_the_database(deployment):
    """Or the next one would wait for a primary for ever."""
    deployment.have("database h 10.0.0.9", "queue q1 10.0.0.1")
    deployment.answer(error=AWAY)
    deployment.answer("q1", error=AWAY)
    assert "none of the queue hosts" in deployment.run("remove", "--force", "h", expect=1)
    deployment.answer("q1")
    deployment.run("remove", "--force", "h", expect=0)
    assert "database=yes" in (deployment.stages()[-1] / "settings").read_text()
    deployment.answer("d9")
    deployment.run("db_first", "d9", expect=0)


def test_remove_what_does_not_belong_here(deployment):
    deployment.have("queue other 10.0.0.8")
    assert "does not belong to this deployment; its hosts are: other" in deployment.run("remove", "h", expect=1)
    deployment.answer(facts={"deployment": "somebody-else", "roles": "database"})
    assert "does not belong to this deployment" in deployment.run("remove", "h", expect=1)
    assert deployment.stages() == []


def test_remove_what_was_only_begun(deployment):
    deployment.answer(status=1)
    deployment.run("db_first", "h", expect=1)
    deployment.answer(facts={"deployment": secrets_of(deployment)["DEPLOYMENT"], "roles": "database"})
    deployment.run("remove", "--force", "h", expect=0)
    assert "roles=database" in (deployment.stages()[-1] / "settings").read_text()


def test_status_needs_hosts_and_names_unreachable_ones(deployment):
    assert "nothing has been set up yet" in deployment.run("status", expect=1)
    deployment.have("queue h 10.0.0.9")
    deployment.answer(error="ssh: connect to host h port 22: No route to host")
    output = deployment.run("status", expect=1)
    assert re.search(r"^h +10\.0\.0\.9 +BAD +host +cannot be reached: .*No route to host", output, re.MULTILINE)
    assert "its hosts are: h" in deployment.run("status", "x", expect=2)


def test_how_clients_connect(deployment):
    deployment.have("database d1 10.0.0.1", "database d2 10.0.0.2", "queue q1 10.0.0.3", "queue q2 10.0.0.4")
    assert deployment.bash("libpq_connection heirflow").strip() == (
        "host=10.0.0.1,10.0.0.2 port=5432,5432 dbname=airflow user=heirflow target_session_attrs=read-write "
        "sslmode=verify-full sslrootcert=/etc/ssl/heirflow/ca.crt connect_timeout=3")
    assert deployment.bash("sqlalchemy_connection airflow secret psycopg").strip() == (
        "postgresql+psycopg://airflow:secret@/airflow?host=10.0.0.1:5432&host=10.0.0.2:5432&target_session_attrs=read-write"
        "&sslmode=verify-full&sslrootcert=/etc/ssl/heirflow/ca.crt&connect_timeout=3")
    assert deployment.bash("broker_urls news secret heirflow").splitlines() == [
        "amqps://news:secret@10.0.0.3:5671/heirflow", "amqps://news:secret@10.0.0.4:5671/heirflow"]
    deployment.set(DB_ADDRESS="db.example.org")
    assert deployment.bash("libpq_connection heirflow").startswith("host=db.example.org port=5432 dbname=airflow")
    assert deployment.bash("sqlalchemy_connection airflow secret").startswith(
        "postgresql+psycopg2://airflow:secret@db.example.org:5432/airflow?target_session_attrs=read-write&")


def test_two_at_once_draw_the_same(deployment):
    """Two programs that both find nothing yet use one authority and the same secrets afterwards."""
    for name in ("a", "b"):
        deployment.answer(name, facts={"address": f"10.0.0.{ord(name)}"})
    processes = [subprocess.Popen([PROVISION / "db_first", name], env=deployment.environment, stderr=subprocess.DEVNULL)
                 for name in ("a", "b")]
    assert [process.wait(60) for process in processes] == [0, 0]
    lines = (deployment.state / "secrets").read_text().splitlines()
    assert len({line.split("=")[0] for line in lines}) == len(lines)
    for name in ("a", "b"):
        assert openssl("verify", "-CAfile", deployment.state / "ca" / "ca.crt", deployment.state / "ca" / "hosts" / f"{name}.crt").returncode == 0
    assert len((deployment.state / "hosts").read_text().splitlines()) == 2


def test_what_hosts_run_is_complete():
    """Each program there finds what it sources, for every stage carries both."""
    assert shutil.which("bash")
    for path in (PROVISION / "on-host").iterdir():
        for sourced in re.findall(r"^\. \./(\S+)$", path.read_text(), re.MULTILINE):
            assert sourced == "settings" or (PROVISION / "on-host" / sourced).exists(), path
        if path.suffix != ".sh":
            assert os.access(path, os.X_OK), path


ME, OTHERS = "rabbit@10.0.0.1", ["rabbit@10.0.0.2", "rabbit@10.0.0.3"]


def watch(folder, command, stand_ins):
    """Runs one command with the functions of the broker's watch; `stand_ins` are the bodies of the programs that it calls."""
    (folder / "bin").mkdir()
    for name, body in stand_ins.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    shutil.copy(PROVISION / "on-host" / "clusters.sh", folder)
    functions = (PROVISION / "on-host" / "broker-watch").read_text().removesuffix("main\n")
    (folder / "watch").write_text(f"{functions}{command}\n")
    return subprocess.run(["bash", folder / "watch", ME.split("@")[1]], env={"PATH": f"{folder}/bin:/usr/bin:/bin"},
                          capture_output=True, text=True)


@pytest.mark.parametrize("active, own, others, left_out", [
    (True, [ME, *OTHERS], [ME, *OTHERS], False), (True, None, OTHERS, True), (True, [ME], OTHERS, True), (False, None, OTHERS, False),
    (True, None, [ME, *OTHERS], True), (True, None, OTHERS[:1], False), (True, None, None, False)],
    ids=["all well", "the others miss it", "two parts", "stopped on purpose", "the others list it, but it waits", "no majority",
         "no answers"])
def test_which_broker_the_watch_takes_for_left_out(folder, active, own, others, left_out):
    """With stand-ins for the programs that it asks; a view is the brokers that run, None: no answer."""
    views = {ME: own} | {name: others for name in OTHERS}
    members = json.dumps({"members": [{"peerURLs": [f"https://{name.split('@')[1]}:2380"]} for name in views]})
    answers = "".join(f"*{name}*) echo '{json.dumps({'disk_nodes': [ME, *OTHERS], 'running_nodes': view})}' ;;\n"
                      for name, view in views.items() if view is not None)
    asked = watch(folder, "if is_left_out; then echo yes; else echo no; fi", {
        "systemctl": "exit 0" if active else "exit 3", "etcdctl": f"echo '{members}'",
        "rabbitmqctl": f"case $* in\n{answers}*) exit 64 ;; esac"})
    assert asked.stdout == ("yes\n" if left_out else "no\n"), asked.stderr


@pytest.mark.parametrize("state, killed", [("deactivating", True), ("activating", False)])
def test_the_watch_kills_a_broker_that_does_not_stop(folder, state, killed):
    """With stand-ins of systemctl, which notes what it is asked for, and of sleep."""
    watch(folder, "restart", {
        "sleep": "exit 0", "systemctl": f'echo "$1" >>{folder}/asked; [ "$1" != show ] || echo {state}'}).check_returncode()
    assert (folder / "asked").read_text().split() == ["restart", "show"] + ["kill"] * killed


def test_the_hook_for_aws(folder):
    """With stand-ins for AWS's programs and what an instance is told of itself."""
    told = {"mac": "0e:49:61:0f:c3:11", "placement/region": "eu-central-1",
            "network/interfaces/macs/0e:49:61:0f:c3:11/interface-id": "eni-0123"}
    programs = folder / "bin"
    programs.mkdir()
    answers = "".join(f'*"X-aws-ec2-metadata-token: TOKEN http://169.254.169.254/latest/meta-data/{key}") echo {value} ;;\n'
                      for key, value in told.items())
    bodies = {"curl": f'case $* in *"--request PUT"*/latest/api/token) echo TOKEN ;;\n{answers}*) exit 22 ;; esac\n',
              "aws": f'echo "aws $*" >>{folder}/calls\n',
              "ip": f'if [ "$2" = link ]; then echo "1: lo: <UP> link/loopback 00:00:00:00:00:00"; '
                    f'echo "2: ens5@if3: <UP> link/ether 0e:49:61:0f:c3:11"; else echo "ip $*" >>{folder}/calls; fi\n'}
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}")
        (programs / name).chmod(0o755)
    hook = PROVISION.parent / "config" / "balancer" / "aws-address"
    subprocess.run([hook, "10.0.0.100"], check=True, env={"PATH": f"{programs}:/usr/bin:/bin"})
    assert (folder / "calls").read_text().splitlines() == [
        "aws ec2 assign-private-ip-addresses --region eu-central-1 --allow-reassignment --network-interface-id eni-0123"
        " --private-ip-addresses 10.0.0.100", "ip address replace 10.0.0.100/32 dev ens5"]
    (programs / "aws").write_text("#!/bin/sh\nexit 254\n")
    assert subprocess.run([hook, "10.0.0.100"], env={"PATH": f"{programs}:/usr/bin:/bin"}).returncode == 254
