import type { Guest } from './guest.ts'

/** What is played: a name, and what is done; what it throws says why it did not hold. */
export type Play = readonly [name: string, play: (guest: Guest) => Promise<void>]

/** What plays share: short words for what they look at. Times are the guest's. */
const words = `set -eu
export PATH=$PATH:/opt/plasmavmc/bin ETCDCTL_API=3
cd /opt/plasmavmc
fail() { echo "$*"; exit 1; }
# within SECONDS COMMAND...: waits until it succeeds
within() {
  end=$(($(cut -d. -f1 /proc/uptime) + $1))
  shift
  until "$@" >/tmp/within 2>&1; do
    [ $(cut -d. -f1 /proc/uptime) -lt $end ] || { cat /tmp/within; fail "never: $*"; }
    sleep 1
  done
}
# Which QEMU it is: pid and start time.
qemu() { pid=$(pgrep -o qemu-system) && echo "$pid $(cut -d' ' -f22 /proc/$pid/stat)"; }
same() { [ "$(qemu)" = "$(cat /var/tmp/qemu)" ] || fail "it was QEMU $(cat /var/tmp/qemu), it is $(qemu)"; }
running() { plasmavmc wait vm m --for=condition=Ready --timeout 60s && plasmavmc get vm m | grep -q Running; }
main_pid() { systemctl show -P MainPID "$1"; }
guard_pid() { grep -o '"pid":[0-9]*' /run/plasmavmc/guard.json | cut -d: -f2; }
# The guard's unit is the one that holds the lease.
unit_holds() { grep -q '"held":true' /run/plasmavmc/guard.json && [ "$(guard_pid)" = "$(main_pid plasmavmc-guard)" ]; }
watchdog() { [ "$(cat /sys/class/watchdog/watchdog0/state)" = "$1" ] || fail "the watchdog is not $1"; }
machine() {
  plasmavmc apply -f - <<END
apiVersion: plasmavmc.io/v1alpha1
kind: VirtualMachine
metadata: {name: m}
spec: {machine: pc, memory: 32Mi, terminationGracePeriodSeconds: 0, recovery: {onHostLoss: Failover}}
END
  running
  qemu >/var/tmp/qemu
}
`

/** A play that is one script of the guest's shell. */
const typed = (name: string, script: string): Play => [
  name,
  async (guest) => {
    const { code, text } = await guest.sh(words + script)
    if (code !== 0) throw new Error(text || `exit code ${code}`)
  },
]

/** A play in which the guest goes down, by what is typed, and what must hold once it is up again. */
const resets = (name: string, script: string, down: (guest: Guest) => Promise<void>, then: string): Play => [
  name,
  async (guest) => {
    const before = (await guest.bootId()) ?? ''
    // Its connection ends with the guest, or is left behind: what comes of it tells nothing.
    const ended = guest.sh(words + script)
    await down(guest)
    await guest.booted(before)
    await ended
    const { code, text } = await guest.sh(words + then)
    if (code !== 0) throw new Error(text || `exit code ${code}`)
  },
]

/** Longest for a watchdog of 30 s of a guest that is slower than we, ms. */
const biteMs = 600_000
const bitten = (guest: Guest) => guest.bitten(biteMs)

/** deploy/systemd/README.md as it is written, then its guard, then a watchdog; each builds on those before it. */
export const plays: readonly Play[] = [
  typed('units are valid', 'systemd-analyze verify deploy/systemd/*.service'),
  typed(
    'a start is over when the server serves',
    `cp deploy/systemd/plasmavmc.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable --now plasmavmc
plasmavmc get hosts`,
  ),
  typed(
    'a machine runs in a scope with limits',
    `machine
grep -q '^0::/plasmavmc.slice/plasmavmc-.*\\.scope$' /proc/$(pgrep -o qemu-system)/cgroup || fail 'no scope'
systemctl show 'plasmavmc-*.scope' -p MemoryMax | grep -q '=[0-9]' || fail 'no limit'`,
  ),
  typed('it runs on: restart', 'systemctl restart plasmavmc && same && running'),
  typed(
    'it runs on: stop, start',
    'systemctl stop plasmavmc && same && systemctl start plasmavmc && same && running',
  ),
  typed(
    'it runs on: server killed',
    'kill -9 $(main_pid plasmavmc) && within 60 plasmavmc get hosts && same && running',
  ),
  resets(
    'after a reboot it runs again, and did not crash',
    'systemctl reboot',
    async () => {},
    `within 120 running
qemu >/var/tmp/qemu
[ "$(plasmavmc get vm m -o jsonpath={.status.restarts})" = 1 ] || fail "$(plasmavmc get vm m)"
! journalctl -b -1 -u plasmavmc | grep -i crash`,
  ),
  typed(
    'on etcd: the guard of the unit takes the place of the server’s',
    `systemctl stop plasmavmc
systemctl kill -s KILL 'plasmavmc-*.scope'
rm -r /var/lib/plasmavmc
systemctl start etcd
printf '%s\\n' PLASMAVMC_STORE=etcd PLASMAVMC_ETCD_ENDPOINTS=127.0.0.1:2379 >/etc/default/plasmavmc
systemctl start plasmavmc
machine
cp deploy/systemd/plasmavmc-guard.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable --now etcd plasmavmc-guard
within 60 unit_holds
same
[ "$(cat /proc/$(guard_pid)/oom_score_adj) $(cut -d' ' -f19 /proc/$(guard_pid)/stat)" = '-900 -10' ] || fail 'not favoured'`,
  ),
  typed('guard killed', 'kill -9 $(main_pid plasmavmc-guard) && sleep 5 && within 60 unit_holds && same'),
  typed('server killed: the lease is held', 'kill -9 $(main_pid plasmavmc) && sleep 5 && unit_holds && same'),
  typed(
    'a watchdog that is used is no watchdog, and it is said',
    `systemctl start plasmavmc && echo PLASMAVMC_FENCING=watchdog >>/etc/default/plasmavmc
plasmavmc stop m && within 60 sh -c '! pgrep qemu-system'
systemctl stop plasmavmc plasmavmc-guard
exec 3>/dev/watchdog
systemctl start plasmavmc-guard
within 30 sh -c "journalctl -u plasmavmc-guard | grep \\"/dev/watchdog can't be opened: EBUSY\\""
echo V >&3`,
  ),
  typed(
    'the watchdog is armed by the guard',
    `within 30 unit_holds
watchdog active
systemctl start plasmavmc
plasmavmc start m && running && qemu >/var/tmp/qemu
kill -9 $(main_pid plasmavmc-guard) && sleep 2 && watchdog active && within 60 unit_holds && same`,
  ),
  resets(
    'guard and server hang: it bites',
    'kill -STOP $(main_pid plasmavmc) $(main_pid plasmavmc-guard)',
    bitten,
    'within 180 running && qemu >/var/tmp/qemu && watchdog active',
  ),
  resets(
    'the lease is taken, the machine can’t be stopped: it bites',
    `mkdir /tmp/frozen && mount -t cgroup -o freezer none /tmp/frozen && mkdir /tmp/frozen/m
pgrep -o qemu-system >/tmp/frozen/m/cgroup.procs
echo FROZEN >/tmp/frozen/m/freezer.state
lease=$(etcdctl get --prefix /plasmavmc --keys-only | grep leases/plasmavmc-system/host-)
etcdctl get --print-value-only $lease | sed 's/"holderIdentity":"[^"]*"/"holderIdentity":"fenced"/' | etcdctl put $lease`,
    bitten,
    'within 180 running',
  ),
  typed(
    'stopped in order, the watchdog is disarmed',
    `plasmavmc delete vm m && within 60 sh -c '! pgrep qemu-system'
systemctl stop plasmavmc plasmavmc-guard
watchdog inactive`,
  ),
  typed(
    'it is removed',
    `systemctl disable --now plasmavmc plasmavmc-guard
rm -r /etc/systemd/system/plasmavmc*.service /var/lib/plasmavmc /run/plasmavmc
systemctl daemon-reload
! pgrep -f plasmavmc/.cache`,
  ),
]
