#!/bin/bash
# Tries the package in dist/ where systemd boots: install, command, credentials, a refused and a good
# upgrade, removal, purge, and deploy/lxc/install.sh. `make deb` first. Takes about three minutes.
#   scripts/try_deb.sh [TREE]    TREE: a tree of debootstrap to copy instead of making one
# Needs root, Debian, and the packages debootstrap, systemd-container and iproute2.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=/dev/null
. /etc/os-release
package=$(ls dist/pvemcp-deb"$VERSION_ID"-*.deb)
folder=$(mktemp -d)
machine=$folder/machine

end() {
    [[ -z ${leader:-} ]] || kill -s SIGRTMIN+4 "$leader" 2>/dev/null || true # systemd powers off
    wait || true
    rm -rf "$folder"
}
trap end EXIT

inside() {
    nsenter --target "$leader" --mount --uts --ipc --net --pid \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
}

expect() {
    local words=$1 output
    shift
    output=$(inside "$@" 2>&1 || true)
    if [[ $output != *"$words"* ]]; then
        printf 'FAILED: %s\nexpected: %s\n%s\n' "$*" "$words" "$output"
        exit 1
    fi
    printf 'ok: %s\n' "$words"
}

ready() {
    for _ in {1..60}; do
        if inside curl --silent --fail "http://$1:8811/readyz" >/dev/null; then
            printf 'ok: ready at %s\n' "$1"
            return
        fi
        sleep 1
    done
    inside journalctl --unit pvemcp --no-pager --lines 20
    exit 1
}

if [[ $# -gt 0 ]]; then
    cp -a "$1" "$machine"
else
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,adduser,python3,ca-certificates,curl,iproute2,libstdc++6 \
        "$VERSION_CODENAME" "$machine" >/dev/null
fi
cp "$package" "$machine/srv/old.deb"
cp deploy/lxc/install.sh "$machine/srv/"
dpkg-deb --raw-extract "$package" "$folder/new"
sed -i 's/^Version: .*/Version: 99.0/' "$folder/new/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip -z1 --build "$folder/new" "$machine/srv/new.deb" >/dev/null

systemd-nspawn --register=no --keep-unit --private-network --quiet --directory "$machine" --boot \
    </dev/null >"$folder/console" 2>&1 &
for _ in {1..60}; do
    leader=$(pgrep --parent $! || true)
    [[ -n $leader ]] && inside systemctl is-system-running --wait >/dev/null 2>&1 && break
    sleep 1
done
inside ip link set lo up

expect "prints a password" dpkg --install /srv/old.deb
ready 127.0.0.1
expect "One-time password of admin" pvemcp admin reset-password admin
expect "shown once" sh -c 'cd /tmp && pvemcp keys create laptop'
expect "laptop" sh -c 'cd / && pvemcp keys list'
expect "as root: sudo pvemcp keys list" setpriv --reuid=daemon --clear-groups pvemcp keys list

inside mv /var/lib/pvemcp/master.key /etc/pvemcp/credentials/MASTER_KEY
inside chown root:root /etc/pvemcp/credentials/MASTER_KEY
inside sh -c 'echo PVEMCP_HOST=:: >>/etc/pvemcp/pvemcp.env; systemctl restart pvemcp'
ready 127.0.0.1
ready '[::1]'
expect "laptop" pvemcp keys list

inside sh -c 'echo postgresql://x:y@127.0.0.1:1/x >/etc/pvemcp/credentials/DATABASE_URL'
expect "could not be backed up" dpkg --install /srv/new.deb
inside sh -c 'rm /etc/pvemcp/credentials/DATABASE_URL; systemctl restart pvemcp'
expect "before-package-" dpkg --install /srv/new.deb
ready 127.0.0.1
expect "99.0" dpkg-query --show pvemcp
expect "laptop" pvemcp keys list

expect "purge deletes them" dpkg --remove pvemcp
expect "pvemcp.sqlite3" ls /var/lib/pvemcp
expect "deleting /var/lib/pvemcp" dpkg --purge pvemcp
expect "No such file" ls /var/lib/pvemcp /etc/pvemcp

expect "One-time password of admin" bash /srv/install.sh /srv/old.deb
ready '[::1]'
expect "is installed already" bash /srv/install.sh /srv/old.deb
expect "99.0 is installed and runs" bash /srv/install.sh /srv/new.deb
expect "PVEMCP_HOST=::" grep ^PVEMCP /etc/pvemcp/pvemcp.env
echo "The package works."
