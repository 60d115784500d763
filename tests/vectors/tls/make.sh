#!/usr/bin/env bash
# Makes what stands beside it, for a hundred years: certificates whose revocation is known. By hand, with
# OpenSSL, and only when something else is wanted here: tests make their other certificates themselves.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
days=36500

cat >"$work/openssl.cnf" <<END
[ca]
default_ca = this
[this]
database = $work/index
serial = $work/serial
crlnumber = $work/crlnumber
new_certs_dir = $work
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[ca_extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
[server_extensions]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost
authorityKeyIdentifier = keyid
END
: >"$work/index"
echo 01 >"$work/serial"
echo 01 >"$work/crlnumber"
config=(-config "$work/openssl.cnf")

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
key "$work/ca.key"
openssl req -x509 "${config[@]}" -extensions ca_extensions -new -key "$work/ca.key" -subj "/CN=Revoking CA" \
    -days $days -out ca.pem
for name in good revoked; do
    key $name.key
    openssl req -new "${config[@]}" -key $name.key -subj "/CN=$name" -out "$work/$name.csr"
    openssl ca "${config[@]}" -batch -cert ca.pem -keyfile "$work/ca.key" -extensions server_extensions \
        -days $days -notext -in "$work/$name.csr" -out $name.pem
done
openssl ca "${config[@]}" -cert ca.pem -keyfile "$work/ca.key" -revoke revoked.pem
openssl ca "${config[@]}" -cert ca.pem -keyfile "$work/ca.key" -gencrl -crldays $days -out crl.pem
for name in good revoked; do
    openssl ocsp -index "$work/index" -CA ca.pem -rsigner ca.pem -rkey "$work/ca.key" -issuer ca.pem \
        -cert $name.pem -ndays $days -no_nonce -respout $name.ocsp
done
