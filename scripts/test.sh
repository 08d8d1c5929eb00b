#!/bin/sh
# npm test: sets up what is missing, checks types and style, then runs every tier of tests.
# The last line is `N passed, N failed`; a check that fails counts as one test.
# Arguments go to vitest: npm test -- --project unit
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
sh scripts/setup.sh --for-tests

case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) arch=none ;; esac
PATH="$root/node_modules/node-linux-$arch/bin:$root/node_modules/.bin:$PATH:/usr/sbin:/sbin"
export PATH

failed_checks=0
check() {
  echo "check: $*"
  "$@" || failed_checks=$((failed_checks + 1))
}
check tsc -p .
check biome check --diagnostic-level=error .

results=.cache/test-results.json
rm -f "$results"
status=0
vitest run --reporter=default --reporter=json --outputFile.json="$results" "$@" || status=$?
node --disable-warning=ExperimentalWarning scripts/test-summary.ts "$results" "$status" "$failed_checks"
