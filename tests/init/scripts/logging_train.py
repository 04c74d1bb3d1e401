"""A parser made in a function, parents, and lines of the logging module."""

import argparse
import json
import logging
import os

logger = logging.getLogger("train")


def common():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/exp", help="folder of the run")
    return parser


def get_args():
    parser = argparse.ArgumentParser(parents=[common()])
    group = parser.add_argument_group("optimisation")
    group.add_argument("--lr", type=float, default=3e-4)
    group.add_argument("--wd", type=float, default=0.05)
    group.add_argument("--label-smoothing", type=float, default=0.1)
    group.add_argument("--nesterov", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--resume", action="store_true", help="go on from --out")
    return parser.parse_args()


def main():
    args = get_args()
    os.makedirs(args.out, exist_ok=True)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    start_epoch = 0
    state = os.path.join(args.out, "state.json")
    if args.resume and os.path.exists(state):
        with open(state) as file:
            start_epoch = json.load(file)["epoch"]
        logger.info("Resumed from epoch %d", start_epoch)
    for epoch in range(start_epoch, args.epochs):
        loss = 1 / (epoch + 1) + abs(args.lr - 1e-3) * 100 + args.wd
        logger.info(
            "Epoch %03d/%03d | Train Loss: %.4f | Val Acc@1: %.2f%% | LR: %.2e",
            epoch + 1,
            args.epochs,
            loss,
            100 / (1 + loss),
            args.lr,
        )
        with open(state, "w") as file:
            json.dump({"epoch": epoch + 1}, file)


if __name__ == "__main__":
    main()
