"""What the demonstration DAGs work out; knows nothing of Airflow or of databases."""
import collections
import csv
import decimal
import itertools
import json

import numpy

FEATURES = 4
TRUE_MODEL = {0: 2.0, 2: -3.0}  # what simulate() builds the target from; the other features mean nothing
SAMPLES = 120
FOLDS = 5


def daily_prices(path):
    """(day, security) -> (average price, trades) of a CSV file with columns day, time, security, price, quantity."""
    prices = collections.defaultdict(list)
    with open(path, newline="") as file:
        for trade in csv.DictReader(file):
            prices[trade["day"], trade["security"]].append(decimal.Decimal(trade["price"]))
    return {key: (sum(some) / len(some), len(some)) for key, some in prices.items()}


def product_ratings(path):
    """(day, category) -> (average stars, reviews) of a file with a JSON object a line. A review that comes twice counts once,
    as it came last; one without a valid number of stars does not count."""
    reviews = {}
    with open(path) as file:
        for line in file:
            review = json.loads(line)
            reviews[review["id"]] = review
    stars = collections.defaultdict(list)
    for review in reviews.values():
        if review.get("stars") in (1, 2, 3, 4, 5):
            stars[review["day"], review["category"]].append(review["stars"])
    return {key: (decimal.Decimal(sum(some)) / len(some), len(some)) for key, some in stars.items()}


def simulate(seed):
    """Features (SAMPLES x FEATURES) and target, as lists; the same for the same seed."""
    random = numpy.random.default_rng(seed)
    features = random.normal(size=(SAMPLES, FEATURES))
    target = sum(weight * features[:, column] for column, weight in TRUE_MODEL.items()) + random.normal(size=SAMPLES)
    return features.tolist(), target.tolist()


def subsets():
    """Every choice of at least one feature."""
    columns = range(FEATURES)
    return [list(some) for size in range(1, FEATURES + 1) for some in itertools.combinations(columns, size)]


def fit(features, target, chosen):
    """Least squares with an intercept, which comes first among the coefficients."""
    design = numpy.column_stack([numpy.ones(len(target)), numpy.asarray(features)[:, chosen]])
    return numpy.linalg.lstsq(design, numpy.asarray(target), rcond=None)[0]


def cross_validate(features, target, chosen):
    """Mean squared error over FOLDS folds, each predicted by a model that has not seen it."""
    features, target = numpy.asarray(features), numpy.asarray(target)
    fold_of = numpy.arange(len(target)) % FOLDS
    errors = numpy.empty(len(target))
    for fold in range(FOLDS):
        held_out = fold_of == fold
        coefficients = fit(features[~held_out], target[~held_out], chosen)
        predicted = coefficients[0] + features[held_out][:, chosen] @ coefficients[1:]
        errors[held_out] = (target[held_out] - predicted) ** 2
    return float(errors.mean())
