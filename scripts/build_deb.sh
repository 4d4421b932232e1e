#!/bin/sh
# Builds the Debian package for the Debian release and the architecture of this machine, in dist/.
# Needs Debian's own python3 with python3-venv, binutils and dpkg-deb; no root.
set -eu
cd "$(dirname "$0")/.."

# shellcheck source=/dev/null
. /etc/os-release
version=$(sed -n 's/^version = "\(.*\)"/\1/p' packages/server/pyproject.toml)+deb$VERSION_ID
architecture=$(dpkg --print-architecture)
minor=$(/usr/bin/python3 -c 'import sys; print(sys.version_info.minor)')
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

umask 022
root=$PWD/build/deb
rm -rf "$root"
mkdir -p "$root/DEBIAN" dist
PYTHON=/usr/bin/python3 scripts/make_environment.sh "$root/usr/lib/pvemcp" /usr/lib/pvemcp
install -D -m 0755 deploy/debian/pvemcp "$root/usr/bin/pvemcp"
install -D -m 0644 deploy/debian/pvemcp.service "$root/usr/lib/systemd/system/pvemcp.service"
install -D -m 0640 deploy/debian/pvemcp.env "$root/etc/pvemcp/pvemcp.env"
install -d -m 0700 "$root/etc/pvemcp/credentials"

documents=$root/usr/share/doc/pvemcp
install -D -m 0644 deploy/debian/copyright "$documents/copyright"
printf 'pvemcp (%s) stable; urgency=medium\n\n  * CHANGELOG.md has the changes.\n\n -- %s  %s\n' \
    "$version" 'The pvemcp authors <pvemcp@example.invalid>' "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" |
    gzip -9n >"$documents/changelog.gz"
gzip -9nc CHANGELOG.md >"$documents/CHANGELOG.md.gz"

for script in preinst postinst prerm postrm; do
    install -m 0755 "deploy/debian/$script" "$root/DEBIAN/$script"
done
echo /etc/pvemcp/pvemcp.env >"$root/DEBIAN/conffiles"
(cd "$root" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
cat >"$root/DEBIAN/control" <<CONTROL
Package: pvemcp
Version: $version
Architecture: $architecture
Maintainer: The pvemcp authors <pvemcp@example.invalid>
Section: admin
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: adduser, ca-certificates, libc6, libgcc-s1, libstdc++6, python3 (>= 3.$minor), python3 (<< 3.$((minor + 1)))
Suggests: postgresql
Description: AI server for Proxmox VE
 One MCP endpoint over all Proxmox VE clusters: tools, roles down to a single
 guest, an audit of every call, and pages for administrators. The service keeps
 its state in /var/lib/pvemcp; removal keeps the state.
CONTROL

package=dist/pvemcp-deb$VERSION_ID-$architecture.deb # the name of its download, the same in each release
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
(cd dist && sha256sum "${package#dist/}" >"${package#dist/}.sha256")
echo "$package $(du -h "$package" | cut -f1)"
