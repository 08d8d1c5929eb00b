#!/bin/sh
# Certificates for etcd on some hosts: a CA, one for each host (as a server, a peer and a client), and one for
# PlasmaVMC. Run once, anywhere; each host gets its own folder. What is there already stays.
#   sh deploy/cluster/certificates.sh FOLDER a=192.0.2.1 b=192.0.2.2 c=192.0.2.3
set -eu
umask 077
if [ $# -lt 2 ]; then
  echo "usage: sh certificates.sh FOLDER NAME=ADDRESS ..." >&2
  exit 2
fi
folder=$1
shift
days=3650
mkdir -p "$folder"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if [ ! -e "$folder/ca.key" ]; then
  key "$folder/ca.key"
  openssl req -x509 -new -key "$folder/ca.key" -sha256 -days $days -subj "/CN=etcd of PlasmaVMC" -out "$folder/ca.crt"
fi

# certificate FILE SUBJECT EXTENSIONS
certificate() {
  [ -e "$1.crt" ] && return
  key "$1.key"
  openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
  printf '%s\n' "basicConstraints=CA:FALSE" "keyUsage=digitalSignature" "$3" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -sha256 -days $days \
    -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  rm "$1.csr" "$1.ext"
}

for host in "$@"; do
  name=${host%%=*}
  address=${host#*=}
  mkdir -p "$folder/$name"
  names="subjectAltName=DNS:$name,DNS:localhost,IP:$address,IP:127.0.0.1"
  # etcd shows the same certificate to clients and, as a client itself, to its peers.
  certificate "$folder/$name/etcd" "$name" "extendedKeyUsage=serverAuth,clientAuth
$names"
  certificate "$folder/$name/plasmavmc" plasmavmc "extendedKeyUsage=clientAuth"
  cp "$folder/ca.crt" "$folder/$name/ca.crt"
  echo "$folder/$name: for $name at $address"
done
