"""An Airflow DAG: the average price of each security on each day, from the CSV files of trades in data/trades, one task a
file."""
import datetime
import pathlib

import demo_calculations
from demo_store import RETRIED, counted_task, dag, store

TRADES = pathlib.Path(__file__).parent / "data" / "trades"


@counted_task
def files():
    return sorted(path.name for path in TRADES.glob("*.csv"))


@counted_task
def average(name):
    for (day, security), (price, trades) in demo_calculations.daily_prices(TRADES / name).items():
        store("daily_prices", {"day": day, "security": security}, {"average_price": price, "trades": trades})


@dag(schedule="@daily", start_date=datetime.datetime(2026, 1, 1), catchup=False, tags=["demo"],
     default_args=RETRIED)
def daily_prices():
    average.expand(name=files())


daily_prices()
