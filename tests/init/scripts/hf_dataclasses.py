"""Dataclasses that a parser of Hugging Face's fills."""

from dataclasses import dataclass, field
from typing import Optional

try:
    from transformers import HfArgumentParser
except ImportError:
    raise SystemExit("needs transformers")


@dataclass
class ModelArguments:
    dropout: float = field(default=0.1, metadata={"help": "Dropout."})
    hidden_size: int = field(default=64)
    tie_weights: bool = field(default=False)


@dataclass
class TrainArguments:
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    num_train_epochs: int = 3
    output_dir: Optional[str] = field(default="out")
    seed: int = 42


def main():
    model_args, train_args = HfArgumentParser((ModelArguments, TrainArguments)).parse_args_into_dataclasses()
    for epoch in range(1, train_args.num_train_epochs + 1):
        loss = 1 / epoch + abs(train_args.learning_rate - 1e-4) * 100 + model_args.dropout
        print({"eval_loss": round(loss, 4), "eval_f1": 1 / (1 + loss), "epoch": float(epoch)})


if __name__ == "__main__":
    main()
