"""Prints nothing of use; a table of its history in the folder that it is given."""

import argparse
import csv
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--output-dir", type=Path, required=True)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with open(args.output_dir / "history.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "lr", "train_loss", "val_loss"])
        for epoch in range(1, args.epochs + 1):
            loss = abs(args.lr - 0.1) + (1 - args.momentum) + 1 / epoch
            writer.writerow([epoch, args.lr, loss, loss * 1.2])
            file.flush()
    print("done")


if __name__ == "__main__":
    main()
