"""A support vector machine that prints its score."""

import argparse

from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-C", type=float, default=1.0, help="inverse regularisation")
    parser.add_argument("--gamma", type=float, default=0.1)
    parser.add_argument("--kernel", choices=("rbf", "poly", "sigmoid"), default="rbf")
    args = parser.parse_args()
    x_train, x_test, y_train, y_test = train_test_split(*load_iris(return_X_y=True), random_state=0)
    model = SVC(C=args.C, gamma=args.gamma, kernel=args.kernel).fit(x_train, y_train)
    score = model.score(x_test, y_test)
    print("Test accuracy: " + str(round(score, 4)))


if __name__ == "__main__":
    main()
