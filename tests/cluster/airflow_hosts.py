"""What a deployment has beside servers: hosts that install Airflow, and what its tables and Heirflow's record say of it."""
import collections
import contextlib
import hashlib
import itertools
import os
import time

import psycopg2

import machines
from cluster_hosts import SOURCE, Cluster, Node
from processes import wait_for

VERSION = os.environ.get("HEIRFLOW_TEST_AIRFLOW", "3")
LOCK = SOURCE / "config" / "airflow" / f"airflow-{VERSION}.lock"
CONFIG = ("--config", "/etc/heirflow/airflow-scheduler.json")
numbers = itertools.count(1)


def wheels():
    """What the hosts' pip installs from, in place of the internet; kept between runs."""
    folder = machines.cache() / f"wheels-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        machines.cache().mkdir(parents=True, exist_ok=True)
        making = folder.with_suffix(".new")
        machines.run("/usr/bin/python3", "-m", "venv", f"{making}.pip")
        machines.run(f"{making}.pip/bin/pip", "download", "--quiet", "--require-hashes", "--prefer-binary", "--no-deps", "--dest", making,
                     "--requirement", LOCK)
        machines.run("rm", "-rf", f"{making}.pip")
        making.rename(folder)
    return folder


class AirflowNode(Node):
    def __init__(self, cluster, host, folder):
        super().__init__(cluster, host, folder)
        (self.root / "wheels").mkdir()
        self.binds.append(f"--bind-ro={cluster.wheels}:/wheels")
        (self.root / "etc" / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\ndisable-pip-version-check = true\n")


class AirflowCluster(Cluster):
    """Wheels and Heirflow's packages are for this machine's system: only `servers` may have another one."""

    def __init__(self, image, own_image, folder, keep, servers, worker):
        super().__init__(image, folder, keep)
        self.own_image, self.servers, self.worker, self.wheels = own_image, servers, worker, wheels()

    def image_of(self, name):
        return self.image if name in self.servers else self.own_image

    def kind_of(self, name):
        return Node if name in self.servers else AirflowNode

    def sql(self, statement, *values, **who):
        with contextlib.closing(self.connect(**who)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def sessions_from(self, name):
        """Airflow's, in the database; None while nobody can say."""
        try:
            return self.sql("select pid from pg_stat_activity where client_addr = %s", self.nodes[name].address)
        except psycopg2.Error:
            return None

    def heirflow(self, name, *command, check=0):
        return self.nodes[name]("heirflow", command[0], *CONFIG, *command[1:], check=check, timeout=120).stdout

    # -- Heirflow's own record

    def recorded(self, statement, *values):
        return self.sql(statement, *values, user="heirflow", secret="HEIRFLOW_PASSWORD")

    def heir(self):
        """The node whose term it is, and the term, if a scheduler runs; None if not, or if nobody can say."""
        try:
            found = self.recorded("""select terms.node, terms.term from heirflow.terms join heirflow.throne using (group_name, term, member_id)
                where exists (select from heirflow.news where term = terms.term and event = 'scheduler-started')""")
        except psycopg2.Error:
            return None
        return found[0] if found else None

    def next_term(self, after):
        """As recorded by the database's clock, which is that of all hosts: .node, .began, .former_ended, .started (its scheduler)."""
        node, term = wait_for(lambda: (now := self.heir()) and now[1] > after and now, 180, f"a scheduler in a term after {after}", 0.5)
        [times] = self.recorded("""select extract(epoch from began_at)::float8,
                (select extract(epoch from ended_at)::float8 from heirflow.terms where term < %s order by term desc limit 1),
                (select extract(epoch from min(told_at))::float8 from heirflow.news where term = %s and event = 'scheduler-started')
            from heirflow.terms where term = %s""", term, term, term)
        return Term(node, *times)

    # -- Airflow's

    @contextlib.contextmanager
    def at_work(self):
        """While model_select runs, triggered and on its schedule; in the end .pause is how long no task began or ended at most."""
        run = f"run-{next(numbers)}"
        self.nodes[self.worker]("/usr/local/bin/airflow", "dags", "trigger", "--run-id", run, "model_select", timeout=180)
        wait_for(lambda: self.sql("select count(*) from demo.executions where run = %s", run)[0][0] >= 4, 300, "the first tasks of a run", 1)
        work = Work(self, run)
        yield work
        work.wait()

    undisturbed = 0

    def held_up(self, work):
        """How much longer than usual no task began or ended."""
        return max(0, work.pause - self.undisturbed)


Term = collections.namedtuple("Term", "node began former_ended started")


class Work:
    def __init__(self, cluster, run):
        self.cluster, self.run, self.began, self.pause = cluster, run, time.time(), None

    def state(self):
        try:
            return self.cluster.sql("select state from dag_run where dag_id = 'model_select' and run_id = %s", self.run)[0][0]
        except psycopg2.Error:
            return None

    def wait(self):
        """Its end, which has to be a good one; and that of every other run."""
        wait_for(lambda: self.state() in ("success", "failed"), 900, f"the end of {self.run}", 2)
        sql = self.cluster.sql
        assert self.state() == "success"
        assert sql("select features @> '{0,2}' from demo.model_choices where run = %s", self.run) == [(True,)]
        assert sql("select dag_id, run_id, state from dag_run where state = 'failed'") == []
        self.nothing_ran_twice()
        marks = [mark for [mark] in sql("""
            select extract(epoch from mark)::float8 from (
                select started_at from demo.executions
                union all select end_date from task_instance union all select end_date from task_instance_history
                union all select end_date from dag_run where run_id = %s) as marks (mark)
            where mark > to_timestamp(%s) and mark <= (select end_date from dag_run where run_id = %s) order by 1""",
            self.run, self.began, self.run)]
        self.pause = max(later - earlier for earlier, later in itertools.pairwise([self.began, *marks]))

    def nothing_ran_twice(self):
        """In what the tasks themselves have noted, and in Airflow's own tables."""
        sql = self.cluster.sql
        assert sql("""select dag, run, task, map_index, try, count(*) from demo.executions
                      group by dag, run, task, map_index, try having count(*) > 1""") == []
        assert sql("""select * from (
                select dag_id, run_id, task_id, map_index, try_number, start_date, max(end_date) over (
                    partition by dag_id, run_id, task_id, map_index order by try_number
                    rows between unbounded preceding and 1 preceding) as former
                from (select dag_id, run_id, task_id, map_index, try_number, start_date, end_date from task_instance union
                      select dag_id, run_id, task_id, map_index, try_number, start_date, end_date from task_instance_history) as tries) as t
            where start_date < former""") == []

    def ran_once(self):
        """What a scheduler's end must not change: no task was tried again."""
        assert self.cluster.sql("""select task, map_index, count(*) from demo.executions where run = %s
                                   group by task, map_index having count(*) > 1""", self.run) == []
