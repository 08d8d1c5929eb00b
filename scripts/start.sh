#!/bin/sh
# npm start: sets up what is missing, then starts a one-host server with a first machine in it.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
sh "$root/scripts/setup.sh"
exec "$root/bin/plasmavmc" up "$@"
