# Gradient descent in awk: awk -v lr=0.1 -v epochs=5 -f fit.awk
BEGIN {
    if (lr == "") lr = 0.1
    if (momentum == "") momentum = 0.5
    if (epochs == "") epochs = 9
    for (epoch = 1; epoch <= epochs; epoch++) {
        v = momentum * v - lr * 2 * (w - 3)
        w += v
        printf "epoch %d val_loss %.6f\n", epoch, (w - 3) ^ 2
    }
}
