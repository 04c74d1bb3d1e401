"""A function that python-fire makes a program."""

import fire


def train(lr=0.01, momentum=0.9, nesterov=False, epochs=8, verbose=True):
    history = []
    for epoch in range(epochs):
        loss = abs(lr - 0.05) + (1 - momentum) * 0.1 + 1.0 / (epoch + 1) - 0.01 * nesterov
        history.append(loss)
        if verbose:
            print(dict(epoch=epoch + 1, train_loss=loss, dev_loss=loss * 1.1))


if __name__ == "__main__":
    fire.Fire(train)
