#!/usr/bin/env bash
# Makes what `make test-arm64` runs in, in .arm64/: a Debian userland for arm64 with Python 3.11, and
# in it the aarch64 wheels of the lock files and this package. Nothing of it is emulated: Debian's
# packages are unpacked, not configured, and pip of the host unpacks wheels of another platform.
# Both parts are kept and made anew when their list changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

HOST_PYTHON=.venv/bin/python
HOME_DIR=.arm64
ROOT=$HOME_DIR/root
SITE=$ROOT/usr/local/lib/python3.11/dist-packages
SUITE=bookworm
MIRROR="${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
# The engine of llama.cpp needs libgomp, numpy and OpenVINO libstdc++; the rest is Python's own.
PACKAGES=python3.11,libgomp1,libstdc++6,ca-certificates,zlib1g

say() { printf 'test-arm64: %s\n' "$*"; }
missing() {
  say "$*" >&2
  exit 2
}

command -v debootstrap >/dev/null ||
  missing "debootstrap is missing; install Debian's packages debootstrap and qemu-user-static"

stamp="$SUITE $PACKAGES"
if [ "$(cat "$HOME_DIR/userland.stamp" 2>/dev/null)" != "$stamp" ]; then
  say "fetching Debian $SUITE for arm64"
  rm -rf "$ROOT" "$HOME_DIR/packages" "$HOME_DIR"/*.stamp
  mkdir -p "$ROOT" "$HOME_DIR/packages"
  # debootstrap wants to be root; in a namespace of its own everybody is.
  if ! unshare --user --map-root-user debootstrap --arch=arm64 --variant=minbase --download-only \
    --include="$PACKAGES" "$SUITE" "$PWD/$HOME_DIR/packages" "$MIRROR" \
    >"$HOME_DIR/debootstrap.log" 2>&1; then
    missing "debootstrap failed (see $HOME_DIR/debootstrap.log); it needs a Debian mirror: DEBIAN_MIRROR=..."
  fi
  for folder in bin sbin lib; do
    mkdir -p "$ROOT/usr/$folder"
    ln -s "usr/$folder" "$ROOT/$folder"
  done
  for package in "$HOME_DIR"/packages/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" |
      tar --extract --keep-directory-symlink --no-same-owner --directory "$ROOT"
  done
  ln -sf python3.11 "$ROOT/usr/bin/python3"
  echo 'root:x:0:0:root:/root:/bin/sh' >"$ROOT/etc/passwd"
  echo 'root:x:0:' >"$ROOT/etc/group"
  echo '127.0.0.1 localhost' >"$ROOT/etc/hosts"
  mkdir -p "$ROOT"/{proc,sys,dev,tmp,root,repository}
  rm -rf "$HOME_DIR/packages"
  echo "$stamp" >"$HOME_DIR/userland.stamp"
fi

stamp="$(cat requirements.lock requirements-model.lock | sha256sum)"
if [ "$(cat "$HOME_DIR/wheels.stamp" 2>/dev/null)" != "$stamp" ]; then
  say "installing the aarch64 wheels of the lock files"
  rm -rf "$SITE"
  mkdir -p "$SITE"
  "$HOST_PYTHON" scripts/arm64_wheels.py --install "$SITE"
  echo "$stamp" >"$HOME_DIR/wheels.stamp"
fi

# This package is pure Python: as it is in the working tree.
rm -rf "$SITE"/steelyard "$SITE"/steelyard-*.dist-info
"$HOST_PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
  --upgrade --target "$SITE" . 2>/dev/null
