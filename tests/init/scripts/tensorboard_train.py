"""Scalars for TensorBoard."""

import argparse

from torch.utils.tensorboard import SummaryWriter

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1e-2)
parser.add_argument("--epochs", type=int, default=9)
parser.add_argument("--logdir", default="runs")
args = parser.parse_args()

writer = SummaryWriter(args.logdir)
for epoch in range(1, args.epochs + 1):
    writer.add_scalar("Loss/train", abs(args.lr - 0.1) + 1 / epoch, epoch)
    writer.add_scalar("Loss/val", abs(args.lr - 0.1) + 1.5 / epoch, epoch)
writer.close()
