"""The demonstration's Postgres: the Airflow connection `demo`, with the tables of schema.sql."""
import contextlib
import datetime
import functools
import socket

from airflow.providers.postgres.hooks.postgres import PostgresHook

try:
    from airflow.sdk import dag, get_current_context, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.operators.python import get_current_context

__all__ = ["RETRIED", "counted_task", "dag", "rows", "run_id", "store"]

# a task whose worker or scheduler is killed under it is tried again
RETRIED = {"retries": 3, "retry_delay": datetime.timedelta(seconds=5)}


@contextlib.contextmanager
def transaction():
    """A cursor; committed at the end, or not at all."""
    with contextlib.closing(PostgresHook("demo").get_conn()) as connection:
        with connection, connection.cursor() as cursor:
            yield cursor


def rows(query, *values):
    with transaction() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()


def store(table, keys, values):
    """The one row of these keys has these values from now on: repeating it changes nothing."""
    row = keys | values
    places = ", ".join(["%s"] * len(row))
    changes = ", ".join(f"{name} = excluded.{name}" for name in values)
    with transaction() as cursor:
        cursor.execute(f"insert into demo.{table} ({', '.join(row)}) values ({places}) "
                       f"on conflict ({', '.join(keys)}) do update set {changes}", list(row.values()))


def run_id():
    return get_current_context()["run_id"]


def note_execution():
    ti = get_current_context()["ti"]
    with transaction() as cursor:
        cursor.execute("insert into demo.executions (dag, run, task, map_index, try, host) values (%s, %s, %s, %s, %s, %s)",
                       (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number, socket.gethostname()))


def counted_task(function):
    """An Airflow task that notes each of its executions in demo.executions before it does anything."""
    @functools.wraps(function)
    def counted(*arguments, **named):
        note_execution()
        return function(*arguments, **named)
    return task(counted)
