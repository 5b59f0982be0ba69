#!/bin/sh
# Compares protos/ with the commit that clients may already have: where this branch left origin/main, or, on main itself,
# the commit before. `check_breaking.sh BUF [COMMIT]`.
set -eu
buf=$(pwd)/$1
head=$(git rev-parse --verify --quiet HEAD) || { echo "no git history: nothing to compare with"; exit 0; }
base=${2:-$(git merge-base HEAD origin/main 2>/dev/null || true)}
if [ -z "$base" ] || [ "$base" = "$head" ]; then
    base=$(git rev-parse --verify --quiet HEAD^) || exit 0
fi
[ -n "$(git ls-tree "$base" protos)" ] || exit 0
"$buf" breaking protos --against ".git#ref=$base,subdir=protos"
