"""Progress bars; what matters is written between them."""

import argparse

from tqdm import tqdm, trange

parser = argparse.ArgumentParser()
parser.add_argument("-e", "--epochs", type=int, default=9)
parser.add_argument("-b", "--batch-size", type=int, default=128)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
parser.add_argument("-j", "--workers", type=int, default=2)
args = parser.parse_args()

for epoch in trange(args.epochs):
    bar = tqdm(range(0, 1024, args.batch_size), leave=False)
    for step in bar:
        loss = abs(args.lr - 0.2) + 1 / (epoch + 1)
        bar.set_postfix(loss=loss)
    tqdm.write(
        f"epoch {epoch}: val_loss = {loss:.4f}  val_acc = {1 / (1 + loss):.2%}  layers {len(args.hidden)}"
    )
