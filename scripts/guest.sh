#!/bin/sh
# Builds a tiny Linux guest: guest.sh [DIR] makes DIR/vmlinuz, DIR/vmlinux and DIR/initrd.img (DIR is .cache/guest unless
# given). The kernel is Debian's cloud kernel, unpacked and not installed; user space is one static busybox. vmlinux is
# the same kernel decompressed, which QEMU enters by its PVH note: under TCG it decompresses itself for a second.
# PLASMAVMC_GUEST_KERNEL names another kernel; its modules are then taken from /lib/modules.
set -eu
export LC_ALL=C
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../.cache/guest}
mkdir -p "$out"
out=$(cd "$out" && pwd)

say() { echo "guest: $*" >&2; }
die() {
  say "$@"
  exit 1
}

stamp=$({
  cat "$here/guest.sh" "$here/guest/init" "$here/guest/udhcpc.sh"
  echo "${PLASMAVMC_GUEST_KERNEL:-}"
} | sha256sum | cut -d ' ' -f 1)
if [ -s "$out/vmlinuz" ] && [ -s "$out/vmlinux" ] && [ -s "$out/initrd.img" ] && [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

# Beside the result, so that the last step is a rename on one file system.
work=$(mktemp -d "$out/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# download PACKAGE: unpacks it into $work/PACKAGE. Not as root's sandbox user: the folder is ours.
download() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  mkdir -p "$work/debs/$1"
  say "downloading $1"
  (cd "$work/debs/$1" && apt-get -qq -o APT::Sandbox::User=root download "$1") >&2 || return 1
  dpkg-deb -x "$work/debs/$1"/*.deb "$work/$1"
}

# kernel_release FILE: the version inside a bzImage (Linux' Documentation/arch/x86/boot.rst, kernel_version).
kernel_release() {
  offset=$(od -A n -t u2 -j 526 -N 2 "$1" | tr -d ' ')
  dd if="$1" bs=1 skip=$((offset + 512)) count=128 2>/dev/null | tr '\0' ' ' | cut -d ' ' -f 1
}

find_kernel() {
  modules=/lib/modules
  if [ -n "${PLASMAVMC_GUEST_KERNEL:-}" ]; then
    kernel=$PLASMAVMC_GUEST_KERNEL
    [ -r "$kernel" ] || die "PLASMAVMC_GUEST_KERNEL=$kernel cannot be read"
    return
  fi
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1) || package=
  if [ -n "$package" ] && download "$package"; then
    kernel=$(ls "$work/$package"/boot/vmlinuz-*)
    modules=$work/$package/lib/modules
    return
  fi
  for kernel in /boot/vmlinuz-*; do [ -f "$kernel" ] && [ -r "$kernel" ] && return; done
  die "found no kernel: run 'apt-get update' so that linux-image-cloud-amd64 can be downloaded," \
    "or set PLASMAVMC_GUEST_KERNEL to a readable x86-64 kernel image"
}

find_busybox() {
  busybox=$(command -v busybox) || busybox=
  # A dynamic busybox names its loader right after the ELF headers, and cannot run alone.
  if [ -n "$busybox" ] && ! head -c 4096 "$busybox" | grep -q ld-linux; then return; fi
  download busybox-static || die "found no static busybox: apt-get install busybox-static"
  busybox=$(ls "$work"/busybox-static/bin/busybox "$work"/busybox-static/usr/bin/busybox 2>/dev/null | head -n 1)
}

find_lz4() {
  lz4=$(command -v lz4) || { download lz4 && lz4=$work/lz4/usr/bin/lz4; }
}

# decompress BZIMAGE: the kernel's own ELF file on stdout (boot.rst as above: setup_sects, payload_offset and
# payload_length). All but gzip have the length of what was packed behind them.
decompress() {
  offset=$(($(od -A n -t u1 -j 497 -N 1 "$1") * 512 + 512 + $(od -A n -t u4 -j 584 -N 4 "$1")))
  length=$(od -A n -t u4 -j 588 -N 4 "$1")
  case $(od -A n -t x1 -j "$offset" -N 4 "$1") in
    ' 1f 8b'*) with='gzip -dc' length=$((length + 4)) ;;
    ' 02 21 4c 18') find_lz4 && with="$lz4 -dc" ;;
    ' 28 b5 2f fd') with='zstd -qdc' ;;
    ' fd 37 7a 58') with="$busybox xzcat" ;;
    *) return 1 ;;
  esac || return 1
  tail -c "+$((offset + 1))" "$1" | head -c "$((length - 4))" | $with
}

# has_pvh_entry FILE: whether it is an ELF file with the note XEN_ELFNOTE_PHYS32_ENTRY, 18 (Xen's elfnote.h).
has_pvh_entry() {
  [ "$(od -A n -t x1 -N 4 "$1")" = ' 7f 45 4c 46' ] && grep -qaP '\x04\0\0\0[\x04\x08]\0\0\0\x12\0\0\0Xen\0' "$1"
}

wanted='virtio virtio_ring virtio_pci virtio_pci_legacy_dev virtio_pci_modern_dev virtio_mmio virtio_blk virtio_net
  net_failover failover virtio_console virtio-rng rng-core virtio_balloon virtio_scsi scsi_mod scsi_common sd_mod
  crc-t10dif crct10dif_common crc64 crc64-rocksoft crc64-rocksoft_generic t10-pi sr_mod cdrom
  evdev button pvpanic pvpanic-pci pvpanic-mmio
  i6300esb iTCO_wdt isofs nls_utf8 nls_ascii ext4 jbd2 mbcache crc32c_generic libcrc32c crc16'

copy_modules() {
  to=$root/lib/modules/$release
  mkdir -p "$to"
  [ -d "$modules/$release" ] || die "kernel $release has no modules in $modules"
  for name in $wanted; do
    found=$(find "$modules/$release/" -name "$name.ko*" | head -n 1)
    case $found in
      *.ko) cp "$found" "$to/" ;;
      *.ko.xz) "$busybox" xzcat "$found" >"$to/$name.ko" ;;
      *.ko.gz) gzip -dc "$found" >"$to/$name.ko" ;;
      *.ko.zst) zstd -qdc "$found" >"$to/$name.ko" || die "cannot unpack $found: apt-get install zstd" ;;
    esac
  done
  cp "$modules/$release/modules.builtin" "$to/" 2>/dev/null || :
  "$busybox" depmod -b "$root" "$release"
}

# archive: the tree below . as a newc cpio (Linux' initramfs buffer format) on stdout. Inode numbers count up and
# times are 0, so the same input gives the same bytes.
archive() {
  inode=0
  {
    find . -mindepth 1 | sort
    echo TRAILER!!!
  } | while read -r path; do
    path=${path#./}
    inode=$((inode + 1))
    size=0
    if [ "$path" = TRAILER!!! ]; then mode=0
    elif [ -d "$path" ]; then mode=0x41ed
    else
      mode=0x81ed
      size=$(wc -c <"$path")
    fi
    printf '070701%08x%08x00000000000000000000000100000000%08x00000000000000000000000000000000%08x00000000%s\0' \
      $inode $((mode)) "$size" $((${#path} + 1)) "$path"
    pad $((110 + ${#path} + 1))
    [ "$size" = 0 ] || cat "$path"
    pad "$size"
  done
}

# pad LENGTH: zeros up to a multiple of four.
pad() {
  case $(($1 % 4)) in
    1) printf '\0\0\0' ;;
    2) printf '\0\0' ;;
    3) printf '\0' ;;
  esac
}

find_kernel
find_busybox
release=$(kernel_release "$kernel")
root=$work/root
mkdir -p "$root/bin" "$root/sbin" "$root/dev" "$root/proc" "$root/sys" "$root/mnt" "$root/seed" "$root/tmp" \
  "$root/var/run" "$root/var/log" "$root/etc/acpi/PWRF"
cp "$busybox" "$root/bin/busybox"
# The kernel itself runs /sbin/modprobe when a file system is first mounted.
printf '#!/bin/busybox sh\nexec /bin/busybox modprobe "$@"\n' >"$root/sbin/modprobe"
printf '#!/bin/busybox sh\nexec /bin/busybox poweroff -f\n' >"$root/etc/acpi/PWRF/00000080"
sed '1s|/bin/sh|/bin/busybox sh|' "$here/guest/init" >"$root/init"
sed '1s|/bin/sh|/bin/busybox sh|' "$here/guest/udhcpc.sh" >"$root/etc/udhcpc.sh"
copy_modules
(cd "$root" && archive) | gzip -n -6 >"$work/initrd.img"
cp "$kernel" "$work/vmlinuz"
if ! decompress "$kernel" >"$work/vmlinux" || ! has_pvh_entry "$work/vmlinux"; then
  say "the kernel could not be decompressed: guests boot the compressed one, which takes longer"
  cp "$kernel" "$work/vmlinux"
fi
echo "$stamp" >"$work/stamp"
rm -f "$out/stamp"
for file in vmlinuz vmlinux initrd.img stamp; do mv -f "$work/$file" "$out/$file"; done
say "kernel $release and $(wc -c <"$out/initrd.img") bytes of initial RAM disk in $out"
