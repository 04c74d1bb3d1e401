"""Prints what a model costs beside its accuracy."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=9)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--width", type=int, default=64)
args = parser.parse_args()

print(f"params: {args.width * 10}")
for epoch in range(1, args.epochs + 1):
    accuracy = 1 - abs(args.lr - 0.2) / epoch
    milliseconds = args.width / 10
    print(f"epoch {epoch} val acc {accuracy:.4f} latency {milliseconds:.2f} ms took 0.1 s")
    print(f"epoch {epoch} throughput {1000 / milliseconds:.1f} images/s")
