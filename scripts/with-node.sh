#!/bin/sh
# Runs a script of this checkout with the pinned Node 24: sh scripts/with-node.sh FILE [ARG ...]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) arch=none ;; esac
node="$root/node_modules/node-linux-$arch/bin/node"
[ -x "$node" ] || node=node
PATH="$(dirname "$(command -v "$node")"):$root/node_modules/.bin:$PATH"
export PATH
cd "$root"
exec "$node" --disable-warning=ExperimentalWarning "$@"
