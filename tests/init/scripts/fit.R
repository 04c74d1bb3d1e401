# A ridge regression in R.
library(optparse)

option_list <- list(
  make_option(c("-l", "--lambda"), type = "double", default = 0.1, help = "penalty"),
  make_option("--lr", type = "double", default = 0.01),
  make_option("--epochs", type = "integer", default = 20)
)
opt <- parse_args(OptionParser(option_list = option_list))

w <- 0
for (epoch in 1:opt$epochs) {
  w <- w - opt$lr * (2 * (w - 3) + opt$lambda * w)
  cat(sprintf("epoch %d rmse %.4f\n", epoch, abs(w - 3)))
}
