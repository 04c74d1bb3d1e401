# Gradient descent on (x - 3)^2: awk -f descend.awk -v lr=0.1 -v n=10
BEGIN {
    x = 0
    for (i = 1; i <= n; i++) {
        x -= lr * 2 * (x - 3)
        printf "iter %d/%d  err = %.6f\n", i, n, (x - 3) ^ 2
    }
}
