"""Data and estimators for the tests of `SearchCV`; slow to import."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

__all__ = [
    "FOREST",
    "Fails",
    "FitFailedWarning",
    "GaussianNB",
    "GridSearchCV",
    "GroupKFold",
    "KFold",
    "KNeighborsClassifier",
    "LogisticRegression",
    "MinMaxScaler",
    "Pipeline",
    "Ridge",
    "StandardScaler",
    "X",
    "Y",
    "check_estimator",
    "clone",
    "cross_val_score",
    "stats",
]

X, Y = load_iris(return_X_y=True)
FOREST = RandomForestClassifier(n_estimators=4, random_state=0)


class Fails(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Cannot be fitted with a negative parameter."""

    def __init__(self, value: float = 0) -> None:
        self.value = value

    def fit(self, X: Any, y: Any) -> Fails:  # noqa: N803
        if self.value < 0:
            raise ValueError("negative")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.full(len(X), self.classes_[0])
