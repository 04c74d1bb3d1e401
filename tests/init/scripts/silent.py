"""Has arguments, and keeps its result for itself."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("data", help="folder of the data")
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()
result = (args.lr - 0.1) ** 2
