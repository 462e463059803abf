#!/opt/airflow/current/bin/python
"""Gives the user of the web page its password; makes the user if need be. Not by Airflow's own command, whose arguments everybody
sees. Settings in the environment: AIRFLOW_ADMIN, AIRFLOW_ADMIN_PASSWORD, and Airflow's own."""
import os
import sys

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

name, password = os.environ["AIRFLOW_ADMIN"], os.environ["AIRFLOW_ADMIN_PASSWORD"]
with get_application_builder() as builder:
    users = builder.sm
    user = users.find_user(username=name)
    if user:
        users.reset_password(user.id, password)
    elif not users.add_user(name, name, name, f"{name}@localhost", users.find_role("Admin"), password=password):
        sys.exit(f"the user {name} could not be made")
