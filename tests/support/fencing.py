"""A scheduler's database behind the gate, and schedulers whose work in it can be read afterwards."""
import itertools
import pathlib
import subprocess

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
DATABASE = "app"


def prepare(server, owner, *nodes):
    """As docs/fencing.md says: the database "app" with a table `work`, and for each node the role scheduler_NODE."""
    server.psql(f"create database {DATABASE}")
    server.psql("create role tables nologin")
    server.psql("create table work (number serial, node text, term bigint); "
                "grant insert on work to tables; grant usage on work_number_seq to tables", database=DATABASE)
    subprocess.run(["psql", "--quiet", f"--set=owner={owner}", f"--set=database={DATABASE}",
                    f"--file={SOURCE}/config/fencing.sql", server.dsn("postgres")], check=True)
    for node in nodes:
        server.psql(f"create role scheduler_{node} login in role heirflow_fenced, tables")


def ledger(server, node):
    """A scheduler's command that writes to `work`."""
    return ["/usr/bin/python3", str(SOURCE / "tests" / "support" / "ledger.py"), server.dsn(DATABASE, user=f"scheduler_{node}")]


def last_worker(server):
    rows = server.psql("select node from work order by number desc limit 1", database=DATABASE)
    return rows[0][0] if rows else None


def terms_worked(server):
    """The term of each stretch of rows, in their order: ascending if nobody wrote after a successor began."""
    rows = server.psql("select term from work order by number", database=DATABASE)
    return [term for term, _ in itertools.groupby(row[0] for row in rows)]
