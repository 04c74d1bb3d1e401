"""A scikit-learn script as people have it: it writes its scores as JSON."""

import json
import sys

from sklearn.datasets import load_iris
from sklearn.model_selection import cross_validate
from sklearn.tree import DecisionTreeClassifier

depth, leaf, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
X, y = load_iris(return_X_y=True)
tree = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=leaf, random_state=0)
scores = cross_validate(tree, X, y, cv=5)
with open(path, "w") as file:
    json.dump({name: values.tolist() for name, values in scores.items()}, file)
