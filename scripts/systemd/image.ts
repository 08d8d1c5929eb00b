import { spawn } from 'node:child_process'
import { createWriteStream, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url))
/** Image, keys and logs; kept for the next run. */
export const folder = join(root, '.cache', 'systemd')
export const key = join(folder, 'key')
export const image = join(folder, 'base.img')

/** Longest for one program, ms: Debian is fetched from a mirror. */
const programMs = 1_200_000

const debian = 'bookworm'
/** What a host has; the kernel is the full one, as the one for clouds has no watchdogs. */
const packages = [
  ...['systemd-sysv', 'dbus', 'udev', 'kmod', 'iproute2', 'procps', 'openssh-server', 'libpam-systemd'],
  ...['linux-image-amd64', 'qemu-system-x86', 'qemu-utils', 'etcd-server', 'etcd-client'],
]

/**
 * Runs a program to its end, its output in `<folder>/NAME.log`.
 * @throws Error where it fails or takes too long
 */
export function run(name: string, file: string, args: readonly string[]): Promise<void> {
  const log = createWriteStream(join(folder, `${name}.log`))
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      signal: AbortSignal.timeout(programMs),
    })
    child.stdout.pipe(log, { end: false })
    child.stderr.pipe(log, { end: false })
    child.once('error', (error) => reject(new Error(`${file}: ${error.message}: is it installed?`)))
    child.once('close', (code) => {
      log.end()
      if (code === 0) resolve()
      else reject(new Error(`${file} failed with exit code ${code}: see ${join(folder, `${name}.log`)}`))
    })
  })
}

const networkFile = '[Match]\nName=en*\n[Network]\nDHCP=yes\n'

/** What is set up in the unpacked Debian: root logs in with our key, and nothing of ours is started by itself. */
const configure = `set -eu
cd "$1"
rm -f etc/hostname
: >etc/machine-id
echo '/dev/vda / ext4 defaults 0 1' >etc/fstab
mkdir -p root/.ssh opt/plasmavmc
cp "$2.pub" root/.ssh/authorized_keys
printf '${networkFile.replaceAll('\n', '\\n')}' >etc/systemd/network/10-user.network
units=etc/systemd/system
ln -sf /lib/systemd/system/systemd-networkd.service $units/multi-user.target.wants/
rm -f $units/multi-user.target.wants/etcd.service
for one in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer; do ln -sf /dev/null $units/$one; done
cp boot/vmlinuz-* "$(dirname "$2")/vmlinuz"
cp boot/initrd.img-* "$(dirname "$2")/initrd.img"
`

/**
 * Makes a disk with Debian and this checkout, its dependencies among it. Debian is fetched once; the checkout is put in
 * anew each time. Takes root, mmdebstrap and e2fsprogs.
 * @throws Error that names what failed, and its log
 */
export async function makeImage(say: (text: string) => void): Promise<void> {
  mkdirSync(folder, { recursive: true })
  const [tree, tar] = [join(folder, 'root'), join(folder, 'debian.tar')]
  if (!existsSync(key)) await run('key', 'ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
  if (!existsSync(tar)) {
    say('fetching Debian: some minutes')
    const include = `--include=${packages.join(',')}`
    // In one step, so that half of it is never taken for all.
    await run('debian', 'mmdebstrap', ['--variant=minbase', include, debian, `${tar}.part`, '--format=tar'])
    await run('debian-moved', 'mv', [`${tar}.part`, tar])
  }
  say('making the disk')
  rmSync(tree, { recursive: true, force: true })
  mkdirSync(tree)
  await run('unpack', 'tar', ['-xf', tar, '-C', tree])
  const script = join(folder, 'configure.sh')
  writeFileSync(script, configure)
  await run('configure', 'sh', [script, tree, key])
  const parts = ['bin', 'src', 'deploy', 'scripts', 'package.json', 'package-lock.json', 'node_modules']
  await run('bundle', 'sh', ['scripts/with-node.sh', 'scripts/bundle.ts'])
  const to = join(tree, 'opt', 'plasmavmc')
  await run('copy', 'cp', ['-aL', ...parts, to])
  await run('copy-bundle', 'cp', ['-a', '--parents', '.cache/bundle', to])
  rmSync(image, { force: true })
  await run('disk-made', 'truncate', ['-s', '6G', image])
  await run('disk', 'mke2fs', ['-q', '-t', 'ext4', '-d', tree, image])
  rmSync(tree, { recursive: true, force: true })
}
