"""A Hydra application with a config group, logging through `logging`."""

import logging

import hydra
from omegaconf import DictConfig

log = logging.getLogger(__name__)


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    momentum = cfg.optimizer.get("momentum", 0.0)
    for epoch in range(cfg.trainer.max_epochs):
        val_loss = (cfg.optimizer.lr - 0.1) ** 2 + 1 / (epoch + 1) + 0.1 * momentum + cfg.model.dropout
        log.info("epoch: %d, val/loss: %.4f", epoch, val_loss)
    return val_loss


if __name__ == "__main__":
    main()
