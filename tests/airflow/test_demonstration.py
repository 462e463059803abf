"""The demonstration DAGs on real Airflow give what an independent calculation gives, however often they run."""
import csv
import fractions
import itertools
import json
import pathlib

import pytest

DATA = pathlib.Path(__file__).resolve().parents[2] / "config" / "airflow" / "demo" / "data"

pytestmark = [pytest.mark.timeout(900), pytest.mark.parametrize("airflow", ["3", "2"], indirect=True)]


def expected_prices():
    trades = [row for path in DATA.glob("trades/*.csv") for row in csv.DictReader(path.open())]
    found = {}
    for key in {(trade["day"], trade["security"]) for trade in trades}:
        prices = [fractions.Fraction(trade["price"]) for trade in trades if (trade["day"], trade["security"]) == key]
        found[key] = (float(sum(prices) / len(prices)), len(prices))
    return found


def expected_ratings():
    last = {}
    for path in DATA.glob("reviews/*.jsonl"):
        for line in path.read_text().splitlines():
            last[json.loads(line)["id"]] = json.loads(line)
    valid = [review for review in last.values() if review["stars"] is not None and 1 <= review["stars"] <= 5]
    assert len(valid) < len(last), "the data hold no review that has to be left out"
    found = {}
    for key in {(review["day"], review["category"]) for review in valid}:
        stars = [review["stars"] for review in valid if (review["day"], review["category"]) == key]
        found[key] = (sum(stars) / len(stars), len(stars))
    return found


def stored(airflow, table):
    rows = airflow.query(f"select * from demo.{table}")
    return {(str(day), name): (pytest.approx(float(average), abs=1e-9), number) for day, name, average, number in rows}


def least_squares(features, target, chosen):
    """Normal equations by Gauss's elimination, without any library."""
    design = [[1.0, *(row[column] for column in chosen)] for row in features]
    size = len(chosen) + 1
    system = [[sum(row[i] * row[j] for row in design) for j in range(size)] +
              [sum(row[i] * value for row, value in zip(design, target))] for i in range(size)]
    for i in range(size):
        for j in range(size):
            if i != j:
                factor = system[j][i] / system[i][i]
                system[j] = [a - factor * b for a, b in zip(system[j], system[i])]
    return [system[i][size] / system[i][i] for i in range(size)]


def expected_error(features, target, chosen, folds=5):
    total = 0.0
    for fold in range(folds):
        seen = [i for i in range(len(target)) if i % folds != fold]
        coefficients = least_squares([features[i] for i in seen], [target[i] for i in seen], chosen)
        for i in range(fold, len(target), folds):
            guess = coefficients[0] + sum(w * features[i][column] for w, column in zip(coefficients[1:], chosen))
            total += (target[i] - guess) ** 2
    return total / len(target)


def check_choice(airflow, run):
    [[features, target]] = airflow.query("select features, target from demo.model_data where run = %s", run)
    scores = airflow.query("select features, error from demo.model_scores where run = %s", run)
    subsets = [list(some) for size in (1, 2, 3, 4) for some in itertools.combinations(range(4), size)]
    assert sorted(chosen for chosen, _ in scores) == sorted(subsets)
    for chosen, error in scores:
        assert error == pytest.approx(expected_error(features, target, chosen))
    [[chosen, coefficients, error]] = airflow.query(
        "select features, coefficients, error from demo.model_choices where run = %s", run)
    assert error == min(error for _, error in scores) and set(chosen) >= {0, 2}, "what makes the target is not among them"
    assert coefficients == pytest.approx(least_squares(features, target, chosen))


def test_the_demonstration_dags(airflow):
    for _ in range(2):
        airflow("dags", "test", "daily_prices", "2026-04-01")
        airflow("dags", "test", "product_ratings", "2026-04-01")
        airflow("dags", "test", "model_select", "2026-04-01")
        assert stored(airflow, "daily_prices") == expected_prices()
        assert stored(airflow, "product_ratings") == expected_ratings()
        for [run] in airflow.query("select run from demo.model_choices"):
            check_choice(airflow, run)
    assert airflow.query("select count(*) from demo.model_choices where error < 2") != [(0,)]
