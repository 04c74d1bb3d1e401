"""Flags of absl."""

from absl import app, flags, logging

FLAGS = flags.FLAGS
flags.DEFINE_float("learning_rate", 0.1, "Learning rate.", lower_bound=0)
flags.DEFINE_integer("num_layers", 2, "Layers.")
flags.DEFINE_enum("activation", "relu", ["relu", "tanh"], "Nonlinearity.")
flags.DEFINE_bool("use_ema", False, "Average the weights.")
flags.DEFINE_integer("num_epochs", 6, "Epochs.")
flags.DEFINE_string("workdir", "/tmp/model", "Where to write.")


def main(argv):
    del argv
    for epoch in range(1, FLAGS.num_epochs + 1):
        eval_loss = (FLAGS.learning_rate - 0.3) ** 2 + 1 / epoch + 0.01 * FLAGS.num_layers
        logging.info("epoch: %d eval_loss: %.5f (ema %s)", epoch, eval_loss, FLAGS.use_ema)


if __name__ == "__main__":
    app.run(main)
