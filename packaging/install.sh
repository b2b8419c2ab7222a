#!/bin/sh
# Installs envcas, scone, the units of LAS and CAS, and a configuration of the CAS where there is none. To be run by root, again and again as one likes.
#
#   packaging/install.sh [--group GROUP]            (default: envcas)
#
# PREFIX (default: /usr/local) is where things are to lie, and DESTDIR a folder that stands for / meanwhile, as package
# builders have it. UNITDIR is the folder of systemd's units (default: /etc/systemd/system), and CONFDIR that of the
# configuration (default: /etc/scone).
#
# envcas is installed setgid, with a group of its own that nobody is in: so the user who starts it can neither load
# code into it nor look into it, and a LAS can tell.
set -eu
umask 022

group=envcas
while [ $# -gt 0 ]; do
  case $1 in
    --group) group=${2:?--group takes a name} && shift 2 ;;
    --group=?*) group=${1#--group=} && shift ;;
    *) echo "install.sh: unknown argument $1; usage: packaging/install.sh [--group GROUP]" >&2 && exit 64 ;;
  esac
done
prefix=${PREFIX:-/usr/local}
units=${UNITDIR:-/etc/systemd/system}
configuration=${CONFDIR:-/etc/scone}
root=${DESTDIR:-}
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
dist=$here/../dist

fail() {
  echo "install.sh: $*" >&2
  exit 1
}
[ "$(id -u)" = 0 ] || fail 'run this as root'
case $prefix in
  /*[!A-Za-z0-9/._-]*) fail "PREFIX has characters that a unit file does not take: $prefix" ;;
  /*) ;;
  *) fail "PREFIX is no absolute path: $prefix" ;;
esac
for program in envcas scone; do
  [ -x "$dist/$program" ] || fail "dist/$program is not built; run: npm ci && npm run build"
done
missing=$(ldd "$dist/scone" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found$/\1/p' | tr '\n' ' ')
[ -z "$missing" ] || fail "the programs need libraries that are not installed: $missing(Debian has them in libstdc++6 and libgcc-s1)"

# Who can write to a folder on the way could put other programs there.
safe() {
  at=$1
  while :; do
    if [ -e "$at" ]; then
      [ "$(stat -L -c %u "$at")" = 0 ] || fail "$at belongs to another user than root, who could exchange what is installed"
      [ -z "$(find -H "$at" -maxdepth 0 -perm /022 ! -perm -1000)" ] || fail "others than root may write to $at, and could exchange what is installed; chmod go-w $at, or give another PREFIX"
    fi
    [ "$at" != / ] || return 0
    at=$(dirname "$at")
  done
}
if [ -z "$root" ]; then
  # As it is written, and where links on the way lead.
  for folder in "$prefix/bin" "$units" "$configuration"; do
    safe "$folder"
    safe "$(readlink -m "$folder")"
  done
fi

if getent group "$group" >/dev/null; then
  members=$(getent group "$group" | cut -d: -f4)
  [ -z "$members" ] || fail "the group $group has members ($members), who could do what its programs can; give another by --group"
  echo "The group $group is there"
else
  command -v groupadd >/dev/null || fail "there is no groupadd; make the system group $group, without members"
  groupadd --system "$group"
  echo "Made the system group $group"
fi
gid=$(getent group "$group" | cut -d: -f3)
[ "$gid" -ge 100 ] || fail "the group $group is one of the system's own (gid $gid), and envcas needs one that may do nothing; give another by --group"
# Who has it from /etc/passwd is no member of it there.
if getent passwd | cut -d: -f4 | grep -qx "$gid"; then
  fail "the group $group is the primary group of a user, who could do what its programs can; give another by --group"
fi

# To another name first: the old one may be running.
put() { # MODE OWNER:GROUP SOURCE TARGET
  rm -f "$4.new"
  install -m 0600 -o root -g root "$3" "$4.new"
  chown "$2" "$4.new"
  chmod "$1" "$4.new" # Afterwards, as chown takes the setgid bit away.
  mv -f "$4.new" "$4"
  echo "Installed $4 ($1, $2)"
}
mkdir -p -m 0755 "$root$prefix/bin" "$root$units" "$root$configuration"
put 2755 "root:$group" "$dist/envcas" "$root$prefix/bin/envcas"
put 0755 root:root "$dist/scone" "$root$prefix/bin/scone"

unit=$(mktemp)
trap 'rm -f "$unit"' EXIT
for name in envcas-las envcas-cas envcas-cas-las; do
  sed "s|@PREFIX@|$prefix|g" "$here/$name.service" >"$unit"
  put 0644 root:root "$unit" "$root$units/$name.service"
done
[ -e "$root$configuration/cas.toml" ] || put 0644 root:root "$here/cas.toml" "$root$configuration/cas.toml"

if [ -n "$root" ]; then
  echo "The group $group must exist, with the same number, where this is going to be used"
else
  if findmnt -no OPTIONS -T "$prefix/bin" 2>/dev/null | grep -qw nosuid; then
    echo "Warning: $prefix/bin is on a file system that is mounted nosuid, so setgid has no effect there" >&2
  fi
  echo 'To start the LAS: systemctl daemon-reload && systemctl enable --now envcas-las'
  echo "To start a CAS: look at $configuration/cas.toml, say what opens it (scone cas init --help), then systemctl enable --now envcas-cas-las envcas-cas"
fi
