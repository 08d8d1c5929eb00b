#!/bin/sh
# Makes a checkout ready to run: setup.sh [--for-tests]. Safe to repeat; says nothing when nothing is to be done.
# Needs npm of any Node.js from 18 on; the Node.js 24 we run on comes with the dependencies.
set -eu
export LC_ALL=C
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
for_tests=no
case ${1:-} in
  '') ;;
  --for-tests) for_tests=yes ;;
  *)
    echo "usage: setup.sh [--for-tests]" >&2
    exit 2
    ;;
esac

say() { echo "setup: $*" >&2; }
die() {
  say "$@"
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Tools such as genisoimage lie where not every user's PATH looks.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

mkdir -p .cache
# Two set-ups at once would delete each other's node_modules.
if have flock; then
  exec 9>.cache/setup.lock
  flock -n 9 || {
    say "waiting for another set-up of this checkout"
    flock -w 900 9 || die "another set-up has run for 15 minutes: end it, then repeat"
  }
fi

# --- dependencies -------------------------------------------------------------------------------------------------
# npm_install NPM...: with the program that is given.
npm_install() {
  "$@" install --no-save --include=dev --include=optional --no-audit --no-fund --loglevel=error >&2
}

install_dependencies() {
  stamp=node_modules/.plasmavmc-stamp
  wanted=$(sha256sum package-lock.json | cut -d ' ' -f 1)
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
  have npm || die "npm is missing: install Node.js 18 or later (https://nodejs.org), then repeat"
  # npm keeps its cache at home; where there is none, or none to write to, it goes beside the checkout's own.
  if [ ! -d "${HOME:-}" ] || [ ! -w "${HOME:-}" ]; then
    npm_config_cache=$root/.cache/npm
    export npm_config_cache
  fi
  # Not npm ci: it refuses a lock file that lacks binary packages of other platforms, which is what npm writes where the
  # registry does not carry them. Versions and hashes come from the lock file all the same, and it is left as it is.
  say "installing dependencies (npm install)"
  npm_install npm || die "npm install failed: see above; is the package registry reachable?"
  # What needs a newer Node.js than npm runs on is left out by npm without a word: the Node.js 24 that has just come brings
  # it. Debian's npm finds its own modules by a path that is built into its Node.js alone.
  if ! ls -d node_modules/@rolldown/binding-* >/dev/null 2>&1; then
    NODE_PATH=/usr/share/nodejs:/usr/lib/nodejs
    export NODE_PATH
    npm_install sh scripts/with-node.sh --no-deprecation "$(readlink -f "$(command -v npm)")" ||
      say "what needs a newer Node.js than that of npm is not there: install Node.js 22.12 or later for npm"
    unset NODE_PATH
  fi
  echo "$wanted" >"$stamp"
}

# --- programs of the system ---------------------------------------------------------------------------------------
# missing_packages: the Debian packages of what is not here, one a line.
missing_packages() {
  have qemu-system-x86_64 || echo qemu-system-x86
  have qemu-img || echo qemu-utils
  ls /usr/share/OVMF/OVMF_CODE*.fd /usr/share/edk2/*/OVMF_CODE*.fd /usr/share/edk2-ovmf/x64/OVMF_CODE*.fd \
    2>/dev/null | grep -q . || echo ovmf
  [ "$for_tests" = yes ] || return 0
  have curl || echo curl
  have openssl || echo openssl
  have isoinfo || echo genisoimage
  have strace || echo strace
  python3 -c 'import botocore.auth' 2>/dev/null || /usr/bin/python3 -c 'import botocore.auth' 2>/dev/null || echo python3-botocore
  have kubectl || echo kubernetes-client
  have etcd || echo etcd-server
  have etcdctl || echo etcd-client
  have nft || echo nftables
  have ip || echo iproute2
  have e2fsck || echo e2fsprogs
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
  have apt-get || return 1
  [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
    install -y --no-install-recommends "$@" </dev/null >.cache/apt.log 2>&1
}

install_packages() {
  missing=$(missing_packages | tr '\n' ' ')
  [ -n "$missing" ] || return 0
  if may_install; then
    say "installing $missing(apt-get)"
    # Lists may be absent or older than what the mirror still serves: fetch them only then.
    # shellcheck disable=SC2086
    apt_install $missing || {
      say "fetching package lists (apt-get update)"
      as_root apt-get -qq update </dev/null >.cache/apt.log 2>&1 && apt_install $missing
    } || {
      tail -n 5 .cache/apt.log >&2
      say "apt-get failed: see $root/.cache/apt.log"
    }
  fi
  hash -r
  missing=$(missing_packages | tr '\n' ' ')
  [ -n "$missing" ] || return 0
  say "missing, and not installable from here: $missing"
  say "  Debian, Ubuntu:  sudo apt-get install $missing"
  say "  Fedora:          sudo dnf install qemu-system-x86 qemu-img edk2-ovmf curl openssl genisoimage strace python3-botocore kubernetes-client etcd nftables iproute e2fsprogs"
  say "  Arch:            sudo pacman -S qemu-system-x86 qemu-img edk2-ovmf curl openssl cdrtools strace python-botocore kubectl etcd nftables iproute2 e2fsprogs"
  have qemu-system-x86_64 && have qemu-img || die "QEMU is needed to go on: install it, then repeat"
  say "going on without them: what needs them will fail and say so"
}

# The guest's kernel comes from the distribution's mirror, for which the package lists must be there. The lock is ours
# alone: nothing that outlives this script may hold it.
build_guest() {
  sh scripts/guest.sh .cache/guest 9>&- && return
  may_install || die "the test guest could not be built: see above"
  say "fetching package lists (apt-get update), then building the guest again"
  as_root apt-get -qq update </dev/null >&2
  sh scripts/guest.sh .cache/guest 9>&- || die "the test guest could not be built: see above"
}

# A quicker start, nothing more: without it the sources run.
bundle() {
  stamp=.cache/bundle/stamp
  [ -f "$stamp" ] && [ -z "$(find src package.json package-lock.json scripts/bundle.ts -newer "$stamp" -print -quit)" ] &&
    return
  sh scripts/with-node.sh scripts/bundle.ts >&2 9>&- || say "the program could not be packed; it runs from its sources"
}

install_dependencies
bundle
install_packages
build_guest
