#!/bin/sh
# npm test: sets up what is missing, checks types and style, then runs every tier of tests.
# The last line is `N passed, N failed`; checks that fail count as one test.
# Arguments go to vitest: npm test -- --project unit
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
sh scripts/setup.sh --for-tests

case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) arch=none ;; esac
PATH="$root/node_modules/node-linux-$arch/bin:$root/node_modules/.bin:$PATH:/usr/sbin:/sbin"
export PATH

failed_checks=0
sh scripts/with-node.sh scripts/check.ts || failed_checks=1

results=.cache/test-results.json
rm -f "$results"
status=0
vitest run --reporter=default --reporter=json --outputFile.json="$results" "$@" || status=$?
node --disable-warning=ExperimentalWarning scripts/test-summary.ts "$results" "$status" "$failed_checks"
