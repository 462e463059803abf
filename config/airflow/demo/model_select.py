"""An Airflow DAG: which features explain the target? Simulates data, cross-validates a linear regression on every choice of
features, each in a task of its own, and reports the best. What is passed on goes through Postgres, so that any worker may do
any step."""
import datetime
import os
import zlib

import demo_calculations
from demo_store import RETRIED, counted_task, dag, rows, run_id, store

SCHEDULE = os.environ.get("DEMO_SCHEDULE", "*/10 * * * *")


def data():
    return rows("select features, target from demo.model_data where run = %s", run_id())[0]


@counted_task
def simulate():
    features, target = demo_calculations.simulate(zlib.crc32(run_id().encode()))
    store("model_data", {"run": run_id()}, {"features": features, "target": target})


@counted_task
def candidates():
    return demo_calculations.subsets()


@counted_task
def evaluate(chosen):
    store("model_scores", {"run": run_id(), "features": chosen},
            {"error": demo_calculations.cross_validate(*data(), chosen)})


@counted_task
def report():
    scores = rows("select features, error from demo.model_scores where run = %s order by error, features", run_id())
    chosen, error = scores[0]
    coefficients = demo_calculations.fit(*data(), chosen).tolist()
    store("model_choices", {"run": run_id()}, {"features": chosen, "coefficients": coefficients, "error": error})
    print(f"best of {len(scores)}: features {chosen}, mean squared error {error:.3f}, coefficients {coefficients}")


@dag(schedule=SCHEDULE, start_date=datetime.datetime(2026, 1, 1), catchup=False, max_active_runs=4, tags=["demo"],
     default_args=RETRIED)
def model_select():
    chosen = candidates()
    simulate() >> chosen
    evaluate.expand(chosen=chosen) >> report()


model_select()
