"""An Airflow DAG: the average stars of each category of products on each day, from the review files in data/reviews, one task
a file."""
import datetime
import pathlib

import demo_calculations
from demo_store import RETRIED, counted_task, dag, store

REVIEWS = pathlib.Path(__file__).parent / "data" / "reviews"


@counted_task
def files():
    return sorted(path.name for path in REVIEWS.glob("*.jsonl"))


@counted_task
def average(name):
    for (day, category), (stars, reviews) in demo_calculations.product_ratings(REVIEWS / name).items():
        store("product_ratings", {"day": day, "category": category}, {"average_stars": stars, "reviews": reviews})


@dag(schedule="@daily", start_date=datetime.datetime(2026, 1, 1), catchup=False, tags=["demo"],
     default_args=RETRIED)
def product_ratings():
    average.expand(name=files())


product_ratings()
