#!/bin/sh
# Options of a shell script; the training is awk's.
lr=0.1
momentum=0.9
epochs=9
while [ $# -gt 0 ]; do
    case "$1" in
        --lr) lr="$2"; shift 2 ;;
        --momentum) momentum="$2"; shift 2 ;;
        --epochs) epochs="$2"; shift 2 ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
done
epoch=1
while [ "$epoch" -le "$epochs" ]; do
    loss=$(awk -v lr="$lr" -v m="$momentum" -v e="$epoch" 'BEGIN { print (lr - 0.2) ^ 2 + (1 - m) + 1 / e }')
    echo "epoch $epoch loss $loss"
    epoch=$((epoch + 1))
done
