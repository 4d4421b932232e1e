#!/bin/bash
# Installs or updates pvemcp in this container or VM (Debian 12 or 13), as root:
#   install.sh FILE.deb                 a package that was built or downloaded
#   install.sh OWNER/REPOSITORY         the newest release of that repository on GitHub
# Run it again to update: nothing changes when that version is installed already. State and settings
# stay. An unprivileged LXC container needs the feature nesting, which Proxmox VE sets by default.
set -euo pipefail

say() { printf '%s\n' "$*"; }
fail() {
    printf 'pvemcp: %s\n' "$*" >&2
    exit 1
}

check_machine() {
    [[ $(id -u) -eq 0 ]] || fail "run this as root."
    [[ ! -e /etc/pve ]] || fail "this is a Proxmox VE node: run it inside a container or VM."
    # shellcheck source=/dev/null
    . /etc/os-release
    [[ $ID == debian && $VERSION_ID =~ ^1[23]$ ]] ||
        fail "the packages are for Debian 12 and 13; this is ${PRETTY_NAME:-unknown}."
}

# Prints the path of the package to install, downloaded and checked if need be
package() {
    local source=$1 folder=$2 name
    if [[ $source == *.deb ]]; then
        [[ -f $source ]] || fail "$source is no file."
        cp "$source" "$folder/"
        printf '%s\n' "$folder/${source##*/}"
        return
    fi
    [[ $source =~ ^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$ ]] || fail "'$source' is no OWNER/REPOSITORY and no .deb."
    command -v curl >/dev/null || { apt-get update -qq && apt-get install -y -qq curl ca-certificates; } >&2
    name="pvemcp-deb$VERSION_ID-$(dpkg --print-architecture).deb"
    (
        cd "$folder"
        for file in "$name" "$name.sha256"; do
            curl --fail --silent --show-error --location --proto =https --remote-name \
                "https://github.com/$source/releases/latest/download/$file"
        done
        sha256sum --check --quiet "$name.sha256"
    ) || fail "the newest release of $source has no valid $name."
    printf '%s\n' "$folder/$name"
}

first_steps() {
    local address
    # this machine is there for the server, so that others reach it; a reverse proxy can come later
    if grep -q '^#PVEMCP_HOST=::' /etc/pvemcp/pvemcp.env; then
        sed -i 's/^#PVEMCP_HOST=::/PVEMCP_HOST=::/' /etc/pvemcp/pvemcp.env
        systemctl restart pvemcp
    fi
    address=$(hostname -I | cut -d' ' -f1)
    say "" "Pages: http://${address:-127.0.0.1}:8811/admin"
    for _ in {1..30}; do
        if pvemcp admin reset-password admin 2>/dev/null; then
            return
        fi
        sleep 1
    done
    say "Not ready yet: pvemcp admin reset-password admin prints the first password."
}

update() {
    local installed wanted
    wanted=$(dpkg-deb --field "$1" Version)
    installed=$(dpkg-query --show --showformat '${db:Status-Status} ${Version}' pvemcp 2>/dev/null || true)
    if [[ $installed == "installed $wanted" ]]; then
        say "pvemcp $wanted is installed already."
        return
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Options::=--force-confold "$1"
    systemctl is-active --quiet pvemcp || fail "the service did not start: journalctl -u pvemcp"
    say "pvemcp $wanted is installed and runs."
    if [[ $installed != installed* ]]; then
        first_steps
    fi
}

main() {
    [[ $# -eq 1 ]] || fail "usage: install.sh FILE.deb or install.sh OWNER/REPOSITORY"
    check_machine
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    chmod 755 "$folder" # apt reads the package as another user
    file=$(package "$1" "$folder")
    update "$file"
}

main "$@"
