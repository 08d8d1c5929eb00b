#!/bin/sh
# Process 1 of a host of the lab: init.sh FILE. Gives the host a boot id of its own, hides the machine's cgroups, which
# the hosts would share, says that it is up, and reaps whoever is left to it. The host is off when this is killed.
mount --bind "$1" /proc/sys/kernel/random/boot_id || exit 1
umount -l /sys/fs/cgroup 2>/dev/null
echo up
while :; do
  sleep 86400 &
  wait
done
