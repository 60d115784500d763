#!/usr/bin/env bash
# install.sh PACKAGE...: as root, installs servers to test with (Debian, Ubuntu). None of them is started, neither now
# nor when the machine starts next. What has been there before stays as it is.
set -euo pipefail
policy=/usr/sbin/policy-rc.d # asked by packages before they start anything: 101 means no
services() { (shopt -s nullglob && cd / && printf '%s\n' etc/init.d/* lib/systemd/system/*.service) | sort; }

if [[ ! -e $policy ]]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
before=$(services)
status=0
DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" || status=$?
for service in $(comm -13 <(printf '%s\n' "$before") <(services)); do
    case $service in
    *.service) if command -v systemctl >/dev/null; then systemctl disable "${service##*/}"; fi ;;
    *) update-rc.d "${service##*/}" disable ;;
    esac
done
exit "$status"
