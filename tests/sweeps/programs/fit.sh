#!/bin/sh
# Prints as R does, and keeps a table as write.csv2 does: ./fit.sh DEGREE ITERATIONS FILE
echo '"";"iter";"r.squared"' > "$3"
i=1
while [ $i -le "$2" ]; do
    printf '[1] "fitting iteration %d of %d"\n' $i "$2"
    printf '"%d";%d;0,%d%d\n' $i $i "$1" $i >> "$3"
    i=$((i + 1))
done
