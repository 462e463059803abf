#!/opt/airflow/current/bin/python
"""Brings Airflow's database to this version, one host at a time; nothing if it is done. Settings in the environment:
DATABASE_DSN, LOCK_HASH, and Airflow's own. Prints what it did."""
import os
import subprocess
import sys

import psycopg2

LOCK = 0x41697266  # everybody's who runs this


def value(cursor, statement, *values):
    cursor.execute(statement, values)
    row = cursor.fetchone()
    return row and row[0]


def run(*command):
    done = subprocess.run(command, stdout=sys.stderr, stderr=sys.stderr, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}")


def migrate(cursor):
    run("airflow", "db", "migrate")
    # made by whoever is first, else; but schedulers own nothing
    run(sys.executable, "-c", "from airflow.providers.celery.executors.celery_executor import app\n"
                              "app.backend.ResultSession().close()")
    cursor.execute("comment on table alembic_version is %s", (os.environ["LOCK_HASH"],))
    print("brought Airflow's database up to date")


def main():
    connection = psycopg2.connect(os.environ["DATABASE_DSN"])
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(%s)", (LOCK,))
        if value(cursor, "select obj_description(to_regclass('alembic_version'))") != os.environ["LOCK_HASH"]:
            migrate(cursor)


main()
