"""The demonstration's Celery application: one task, sent by beat on every second, recorded by the worker in PostgreSQL."""
import os
import time

import celery
import celery.schedules
import celery.signals
import psycopg2

SOON = 0.25  # a second that is older than this when beat gets to it is missed, not made up for


class EverySecond(celery.schedules.BaseSchedule):
    """Due at the start of each wall-clock second, so that one second sent twice or not at all can be counted."""

    def is_due(self, last_run_at):
        now = time.time()
        second = int(now)
        if int(last_run_at.timestamp()) < second and now - second < SOON:
            return celery.schedules.schedstate(True, second + 1 - now)
        return celery.schedules.schedstate(False, second + 1 - now)

    def remaining_estimate(self, last_run_at):
        return 0

    def __eq__(self, other):
        return isinstance(other, EverySecond)

    def __reduce__(self):
        return EverySecond, ()


app = celery.Celery("demonstration_tasks", broker=os.environ["DEMONSTRATION_BROKER"])
app.conf.update(
    beat_schedule={"tick": {"task": "tick", "schedule": EverySecond(), "options": {"expires": 60}}},
    beat_sync_every=1,  # so that the next heir inherits what was sent last
    task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry=True,
    worker_hijack_root_logger=False, task_default_queue="demonstration", broker_heartbeat=0)

connection = None


@celery.signals.before_task_publish.connect
def sign(headers=None, **_):
    """Beat's message says for which second it is, and which of the nodes sent it."""
    headers["second"] = int(time.time())
    headers["node"] = os.environ.get("HEIRFLOW_NODE", "?")
    headers["term"] = int(os.environ.get("HEIRFLOW_TERM", "0"))


@app.task(name="tick", bind=True)
def tick(self):
    global connection
    if connection is None or connection.closed:
        connection = psycopg2.connect(os.environ["DEMONSTRATION_DATABASE"])
        connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("insert into task_run (id, second, node, term) values (%s, %s, %s, %s) on conflict do nothing",
                       (self.request.id, self.request.get("second"), self.request.get("node"), self.request.get("term")))
