#!/bin/sh
# Writes into DIRECTORY an authority, a certificate for the receiver (DNS name `siem`) and one for the
# gateway as its client, unless they are there already. For demos: everything lies in one place.
set -eu
cd "${1:?usage: siem-keys DIRECTORY}"
[ ! -f gateway.pem ] || exit 0
umask 077

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
  -subj '/CN=plant syslog authority' -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' \
  -addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout root.key -out root.pem 2>/dev/null

issue() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
    -keyout "$1.key" -out "$1.csr" 2>/dev/null
  printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=DNS:%s\n' \
    "$2" "$1" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA root.pem -CAkey root.key -CAcreateserial -days 825 \
    -extfile "$1.ext" -out "$1.part" 2>/dev/null
  rm "$1.csr" "$1.ext"
  mv "$1.part" "$1.pem"
}
issue siem serverAuth
issue gateway clientAuth

chmod 755 .
chmod 644 ./*.pem
# The gateway's image runs as this user.
[ "$(id -u)" != 0 ] || chown 1000 gateway.key
