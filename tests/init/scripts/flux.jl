# A network in Julia.
using ArgParse

s = ArgParseSettings()
@add_arg_table s begin
    "--lr"
        arg_type = Float64
        default = 0.01
    "--epochs"
        arg_type = Int
        default = 30
end
args = parse_args(s)

for epoch in 1:args["epochs"]
    val_loss = abs(args["lr"] - 0.1) + 1 / epoch
    println("epoch $epoch: val_loss $val_loss")
end
