#!/opt/airflow/current/bin/python
"""Asks a part of Airflow whether it works; exit status 0 says so. usage: airflow_probe job TYPE | web PORT | token PORT
Settings in the environment: DATABASE_DSN; for token AIRFLOW_ADMIN, AIRFLOW_ADMIN_PASSWORD, AIRFLOW_VERSION."""
import base64
import json
import os
import ssl
import sys
import urllib.request


def job(kind):
    """A recent heartbeat of this host's in Airflow's database."""
    import psycopg2
    from airflow.utils.net import get_hostname
    with psycopg2.connect(os.environ["DATABASE_DSN"]) as connection, connection.cursor() as cursor:
        cursor.execute("""select 1 from job where job_type = %s and hostname = %s and state = 'running'
                          and latest_heartbeat > now() - interval '30 seconds'""", (kind, get_hostname()))
        return cursor.fetchone()


def ask(port, path, **more):
    context = ssl.create_default_context(cafile="/etc/ssl/heirflow/ca.crt")
    request = urllib.request.Request(f"https://localhost:{port}{path}", **more)
    return urllib.request.urlopen(request, timeout=30, context=context).read()


def web(port):
    """The page answers, and reaches its database."""
    health = json.loads(ask(port, "/api/v2/monitor/health" if os.environ["AIRFLOW_VERSION"] == "3" else "/health"))
    return health["metadatabase"]["status"] == "healthy"


def token(port):
    """The user of the page may log in."""
    name, password = os.environ["AIRFLOW_ADMIN"], os.environ["AIRFLOW_ADMIN_PASSWORD"]
    if os.environ["AIRFLOW_VERSION"] == "3":
        return ask(port, "/auth/token", headers={"Content-Type": "application/json"},
                   data=json.dumps({"username": name, "password": password}).encode())
    return ask(port, "/api/v1/dags?limit=1",
               headers={"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()})


if __name__ == "__main__":
    sys.exit(0 if {"job": job, "web": web, "token": token}[sys.argv[1]](sys.argv[2]) else f"{' '.join(sys.argv[1:])}: not yet")
