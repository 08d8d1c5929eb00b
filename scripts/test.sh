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

# tests RUN ARG ...: runs vitest, which leaves its report in .cache/test-RUN.json.
tests() {
  report=.cache/test-$1.json
  rm -f "$report"
  shift
  exec vitest run --reporter=default --reporter=json --outputFile.json="$report" "$@"
}

status=0
if [ $# -gt 0 ]; then
  (tests some "$@") || status=$?
  set -- .cache/test-some.json "$status"
else
  # Clusters wait for leases most of the time: one after another, beside all else. What they tell comes last.
  (tests cluster --project cluster >.cache/test-cluster.log 2>&1 </dev/null) &
  cluster=$!
  # What a shell runs in the background does not hear Ctrl-C.
  trap 'kill "$cluster" 2>/dev/null || :' EXIT
  trap 'exit 130' INT TERM HUP
  (tests others --project '!cluster') || status=$?
  cluster_status=0
  echo 'The tests of clusters, as far as they have not ended yet, tell of themselves in .cache/test-cluster.log.'
  wait "$cluster" || cluster_status=$?
  trap - EXIT
  cat .cache/test-cluster.log
  set -- .cache/test-others.json "$status" .cache/test-cluster.json "$cluster_status"
fi
node --disable-warning=ExperimentalWarning scripts/test-summary.ts "$failed_checks" "$@"
