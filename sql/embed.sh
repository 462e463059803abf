#!/bin/sh
# Writes the migrations as C: embed.sh FILE.sql... OUTPUT.c
set -eu
for output; do :; done
exec >"$output"
echo '#include "migrate.h"'
echo 'const struct migration migrations[] = {'
for file; do
    [ "$file" != "$output" ] || continue
    name=$(basename "$file" .sql)
    version=$(echo "${name%%_*}" | sed 's/^0*//')
    echo "{$version, \"$name\", (const char[]){"
    od -An -v -tx1 "$file" | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'
    echo '0}},'
done
echo '{0, 0, 0}};'
