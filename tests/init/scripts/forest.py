"""A random forest: no epochs, one number at the end, in a JSON file in the current folder."""

import argparse
import json

from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

parser = argparse.ArgumentParser()
parser.add_argument("--n-estimators", type=int, default=10)
parser.add_argument("--max-depth", type=int, default=None)
parser.add_argument("--criterion", choices=["gini", "entropy"], default="gini")
parser.add_argument("--min-samples-leaf", type=int, default=1)
parser.add_argument("--random-state", type=int, default=0)
args = parser.parse_args()

model = RandomForestClassifier(**vars(args))
scores = cross_val_score(model, *load_iris(return_X_y=True), cv=3)
metrics = {"accuracy": scores.mean(), "accuracy_std": scores.std()}
with open("metrics.json", "w") as file:
    json.dump(metrics, file)
