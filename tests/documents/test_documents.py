"""What the documents say can be done, can be done: their commands run, their links lead somewhere, their paths exist."""
import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess

import processes
import psycopg2
import pytest
import wrapper as wrappers
from processes import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PICTURES = "architecture.md"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

# Every block of every page but configurations, by its first line: what runs it. None: it is shown, nothing to run.
HERE = "tests/documents/test_documents.py"
BLOCKS = {
    "README.md": {
        "provision/quickstart": "tests/provision/test_quickstart.py",
        "tests/run": HERE,
        " celery-beat                                                               Sun 22 Nov  02:49:35": None,
        " celery-beat                                                               Sun 22 Nov  02:49:55": None,
        " ? help  q quit  x stop  s start  w switch  p pause  Enter details  / filter  Tab news  t theme": None,
        "meson setup build && ninja -C build && ninja -C build install": "tests/systemd/test_packages.py",
        "heirflow migrate     # creates the schema `heirflow`; safe to repeat, and from many nodes at once": HERE,
        "heirflow check       # each part: OK, or what to do about it": HERE,
        "queue q1": "tests/provision/test_deployment.py",
        "provision/all inventory      # repeat it to add hosts, or after an interruption": "tests/cluster/test_airflow.py"},
    "configuration.md": {
        "heartbeat <= lease/3": None,
        "failures * (interval_ms + timeout_ms)        (after a start: start_period_ms more)": None},
    "fencing.md": {
        "psql --set=owner=heirflow --set=database=airflow --file=fencing.sql": HERE,
        "grant connect on database airflow to airflow_web, airflow_worker;": HERE,
        "create role scheduler_ada login password '...' in role airflow_tables, heirflow_fenced;": HERE,
        "select heirflow.assert_heir('airflow-scheduler', 42);    -- $HEIRFLOW_GROUP, $HEIRFLOW_TERM": HERE},
    "http.md": {
        'curl --request POST --header "Authorization: Bearer $TOKEN" http://127.0.0.1:8470/switchover': HERE,
        "scrape_configs:": HERE},
    "install.md": dict.fromkeys([
        "provision/package", "apt install postgresql", "apt install ./heirflow_0.1.0_amd64.deb ./heirflow-interface_0.1.0_amd64.deb",
        "chmod 600 /etc/heirflow/demo.json", "heirflow migrate --config /etc/heirflow/demo.json",
        "heirflow check --config /etc/heirflow/demo.json", "heirflow status --config /etc/heirflow/demo.json",
        "apt remove heirflow heirflow-interface"], "tests/systemd/test_install.py") | {
        "[Service]": "tests/systemd/test_service.py"},
    "interface.md": {
        "heirflow-interface [--config FILE] [--group G] [--once] [--record FILE | --replay FILE]": HERE},
    "news.md": {
        "heirflow news --follow                             # a line each": HERE},
    "operating.md": {
        "heirflow switchover                  # to the next in line": HERE,
        "node-a -> node-b, term 1409 (switchover), 0.041 s without a scheduler": HERE,
        "heirflow retire --node node-b        # hands over first if it is the heir; stays so across restarts": HERE,
        "heirflow pause": HERE,
        "heirflow lease 3000": HERE,
        "heirflow status                      # the line, and for each standby what keeps it from leading": HERE,
        "systemctl reload heirflow@airflow-scheduler      # or: kill -HUP PID": "tests/systemd/test_service.py",
        "2026-11-22T05:00:00.000Z warn reloaded applied=log.level,rabbitmq.url at_next_term=scheduler.command "
        "needs_restart=lease_ms": None}}


def blocks(page):
    """Its code blocks, in their order."""
    parts = page.read_text().split("\n\n")
    indented = [part.strip("\n") for part in parts if part.strip("\n").startswith("    ")]
    return ["\n".join(line[7 if part.startswith("       ") else 4:] for line in part.splitlines()) for part in indented]


def block(name, beginning):
    found, = (text for text in blocks(ROOT / "docs" / name) if text.startswith(beginning))
    return found


def configuration(text):
    """What a block configures, or None."""
    if text.startswith('{"specversion'):
        return None
    try:
        return json.loads(text if text.startswith("{") else "{" + text + "}")
    except ValueError:
        return None


def anchors(page):
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page):
    """Lines of code blocks that call heirflow, as argument lists without the program."""
    lines = re.findall(r"^ {4}heirflow ([a-z].*)$", page.read_text(), re.MULTILINE)
    return [shlex.split(line.partition(" | ")[0], comments=True) for line in lines if line.isascii()]


@each_page
def test_links_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if "://" in target:
            continue
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            wrong.append(target)
    assert wrong == []


@each_page
def test_files_that_are_named_exist(page):
    named = set(re.findall(r"`((?:config|docs|heirflow|interface|provision|sql|tests)/[\w./-]*\w)`", page.read_text()))
    assert {path for path in named if not (ROOT / path).exists()} == set()


@each_page
def test_every_block_is_run_by_a_test(page):
    told = BLOCKS.get(page.name, {})
    if page.name == PICTURES:
        return
    assert [first for text in blocks(page) if configuration(text) is None and not text.startswith('{"specversion')
            and (first := text.splitlines()[0]) not in told] == [], "say in BLOCKS which test runs it"
    assert set(told) - {text.splitlines()[0] for text in blocks(page)} == set(), "no longer there"
    assert not [path for path in told.values() if path and not (ROOT / path).exists()]


@each_page
def test_options_that_are_shown_exist(page, heirflow):
    for command, *arguments in commands(page):
        told = subprocess.run([heirflow, command, "--help"], capture_output=True, text=True, env=wrappers.clean_environment())
        assert told.returncode == 0, f"{page.name}: heirflow {command}\n{told.stderr}"
        for option in [word.split("=")[0] for word in arguments if word.startswith("--") and word != "--"]:
            assert option in told.stdout, f"{page.name}: heirflow {command} has no {option}"


@each_page
def test_configurations_that_are_shown_are_valid(page, command, folder):
    """Nobody answers at their database, which is how far a valid one gets."""
    path, parts, whole = folder / "heirflow.json", {}, []
    for text in blocks(page):
        if text.startswith("{"):
            whole.append(configuration(text))
        else:  # some keys need others
            parts = wrappers.merge(parts, configuration(text) or {})
    for shown in filter(None, [*whole, parts]):
        path.write_text(json.dumps(shown))
        path.chmod(0o600)
        done = command("status", "--config", str(path), HEIRFLOW_POSTGRES="host=127.0.0.1 port=1 connect_timeout=1")
        assert done.returncode == 3, f"{shown}\n{done.stderr}"


@each_page
def test_suites_that_are_named_exist(page):
    there = subprocess.run([ROOT / "tests" / "run", "--list"], capture_output=True, text=True, check=True).stdout.split()
    named = {word for words in re.findall(r"tests/run ((?:[a-z]+ ?)+)[`\n]", page.read_text()) for word in words.split()}
    assert named <= {*there, "cluster"}


def test_the_interface_has_the_options_of_its_manual(build):
    told = subprocess.run([build / "interface" / "heirflow-interface", "--help"], capture_output=True, text=True).stdout
    assert block("interface.md", "heirflow-interface") in told


# -- the manuals, as they are written -----------------------------------------------------------------------------------

@pytest.fixture
def shell(heirflow, folder):
    """shell(line, **environment) starts a line of a manual as its reader would."""
    (folder / "bin").mkdir()
    (folder / "bin" / "heirflow").symlink_to(heirflow)

    def start(line, **environment):
        kept = wrappers.clean_environment(**environment)
        return subprocess.Popen(["bash", "-c", line], env=kept | {"PATH": f"{folder}/bin:{kept['PATH']}"}, text=True, cwd=ROOT / "config",
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    return start


def run(shell, text, **environment):
    process = shell("set -e\n" + text, **environment)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 0, f"{text}\n{printed}"
    return printed


def test_the_readme_sets_up_a_member(shell, empty_database, folder):
    """Its configuration, for another database and command, and its commands."""
    page = ROOT / "README.md"
    shown, = filter(None, map(configuration, blocks(page)))
    shown = wrappers.merge(shown, {"postgres": empty_database.dsn, "run_directory": str(folder), "http": {"listen": "127.0.0.1:0"},
                                   "rabbitmq": {"url": ""}, "scheduler": {"directory": str(folder), "user": "nobody",
                                                                          "command": ["sleep", "infinity"]}})
    path = folder / "heirflow.json"
    path.write_text(json.dumps(shown))
    path.chmod(0o600)
    (migrate,), (check, start) = [text.splitlines() for text in blocks(page) if text.startswith("heirflow ")]
    run(shell, migrate, HEIRFLOW_CONFIG=str(path))
    told = run(shell, check, HEIRFLOW_CONFIG=str(path))
    assert "OK" in told and "BAD" not in told
    member = shell("exec " + start, HEIRFLOW_CONFIG=str(path))
    wait_for(lambda: empty_database.query("select 1 from roster where present"), 30, "the member in the roster")
    member.terminate()
    assert member.wait(30) == 0


@pytest.fixture
def pair(wrapper, database):
    """node-a, the heir, and node-b."""
    def start(**more):
        for node in ("node-a", "node-b"):
            wrapper(node, database=database, **more.get(node, {}))
            wait_for(lambda: database.query("select 1 from roster where node = %s", node), 30)
        wait_for(lambda: database.query("select 1 from news where event = 'scheduler-started'"), 30)
    return start


def test_the_manual_of_operating_works_as_it_is_written(pair, database, heirflow):
    """Every command of it, in its order, on a group with the nodes that it names."""
    pair()
    manual = commands(ROOT / "docs" / "operating.md")
    assert {"switchover", "retire", "enlist", "pause", "resume", "lease", "status", "history", "audit"} <= {c[0] for c in manual}
    environment = wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn, HEIRFLOW_GROUP="tests")
    like = re.sub(r"[\d.]+", r"[\\d.]+", re.escape(block("operating.md", "node-a ->")).replace("\\.", "."))
    for arguments in manual:
        if "--follow" in arguments or arguments[0] == "check":
            continue  # below, and in tests/commands
        result = subprocess.run([heirflow, *arguments], capture_output=True, text=True, env=environment, timeout=60)
        assert result.returncode == 0, f"heirflow {' '.join(arguments)}\n{result.stdout}{result.stderr}"
        if arguments == ["switchover"]:
            assert re.fullmatch(like, result.stdout.strip())


def test_the_manual_of_news_works_as_it_is_written(pair, database, shell):
    pair()
    lines = block("news.md", "heirflow news").splitlines()
    assert len(lines) == 3
    for line in [*lines, "heirflow news --follow"]:
        follower = shell(line.replace("4711", "0").replace("jq", "jq --unbuffered"), HEIRFLOW_POSTGRES=database.dsn, HEIRFLOW_GROUP="tests")
        assert follower.stdout.readline().strip(), line
        for pid in processes.descendants(follower.pid) or [follower.pid]:
            processes.send(pid, signal.SIGTERM)
        assert follower.wait(30) in (0, 128 + signal.SIGTERM, -signal.SIGTERM), follower.stdout.read()
    shown = json.loads(block("news.md", '{"specversion'))
    told = run(shell, "heirflow news --json", HEIRFLOW_POSTGRES=database.dsn, HEIRFLOW_GROUP="tests")
    event, = [event for event in map(json.loads, told.splitlines()) if event["type"] == shown["type"]]
    assert (set(event), set(event["data"])) == (set(shown), set(shown["data"]))


def test_the_manual_of_http_works_as_it_is_written(pair, database, shell):
    port, token = processes.free_port(), "letmein-letmein-0123456789"
    pair(**{"node-a": {"http": {"listen": f"127.0.0.1:{port}", "token": token}}})
    answer = json.loads(run(shell, block("http.md", "curl").replace("curl", "curl --silent --fail").replace("8470", str(port)), TOKEN=token))
    assert answer["accepted"]
    wait_for(lambda: database.query("select 1 from terms where node = 'node-b'"), 30, "the hand-over")


def test_prometheus_takes_what_the_manual_gives_it(folder):
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (Debian: prometheus)")
    (folder / "prometheus.yml").write_text(block("http.md", "scrape_configs:"))
    done = subprocess.run(["promtool", "check", "config", folder / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_manual_of_fencing_works_as_it_is_written(own_postgres, shell, migrated_template):
    for statement in ("create role heirflow login", "create database airflow owner heirflow", "create role airflow_tables nologin",
                      "create role airflow_web login", "create role airflow_worker login"):
        own_postgres.psql(statement)
    for role in ("heirflow_member", "heirflow_operator", "heirflow_viewer"):
        own_postgres.psql(f"create role {role} nologin")
    run(shell, "heirflow migrate", HEIRFLOW_POSTGRES=own_postgres.dsn("airflow", user="heirflow"))
    prepare, grant, role, guard = blocks(ROOT / "docs" / "fencing.md")
    run(shell, prepare, PGHOST=own_postgres.address, PGPORT=str(own_postgres.port), PGUSER="postgres")
    for statement in (grant, role):
        own_postgres.psql(statement)
    own_postgres.psql("grant heirflow_viewer to scheduler_ada")
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        own_postgres.connect("airflow", user="scheduler_ada")
    own_postgres.psql("grant heirflow_gate to scheduler_ada")
    own_postgres.connect("airflow", user="airflow_web").close()
    scheduler = own_postgres.connect("airflow", user="scheduler_ada")
    with scheduler.cursor() as cursor, pytest.raises(psycopg2.errors.InvalidAuthorizationSpecification):
        cursor.execute(guard)
    own_postgres.psql("insert into heirflow.throne (group_name, member_id, incarnation, term, lease_ms) "
                      "values ('airflow-scheduler', 1, gen_random_uuid(), 42, 6000)", database="airflow")
    with scheduler.cursor() as cursor:
        cursor.execute(guard)
