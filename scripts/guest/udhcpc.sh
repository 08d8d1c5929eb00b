#!/bin/sh
# What udhcpc runs on each change of its lease.
case $1 in
  bound | renew)
    ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}"
    [ -z "$router" ] || route add default gw "${router%% *}" 2>/dev/null
    echo "nameserver ${dns%% *}" >/etc/resolv.conf
    ;;
esac
