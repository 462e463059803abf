"""ledger.py DSN: a scheduler that writes one row of work every few milliseconds, over one connection after another.
It ignores SIGTERM and everything else that speaks against it."""
import os
import signal
import sys
import time

import psycopg2

signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        connection = psycopg2.connect(sys.argv[1], connect_timeout=2)
        connection.autocommit = True
        with connection.cursor() as cursor:
            while True:
                cursor.execute("insert into work (node, term) values (%s, %s)",
                               (os.environ["HEIRFLOW_NODE"], os.environ["HEIRFLOW_TERM"]))
                time.sleep(0.005)
    except psycopg2.Error as error:
        print(f"ledger: {error}", file=sys.stderr, flush=True)
        time.sleep(0.005)
