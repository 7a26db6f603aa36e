#!/usr/bin/env bash
# `make test-arm64`: does Steelyard work on Arm? Under emulation (qemu-user), in a Debian userland for
# arm64: everything is imported, the core's tests run, and a real gateway answers from the embedded
# model. What it takes says nothing about the speed of an Arm machine.
#
# Needs Debian's packages qemu-user-static and debootstrap, a Debian mirror at the first run, user
# namespaces, and Linux 6.7, which lets a namespace have an emulator of its own: nothing is
# registered or mounted on the machine itself, and nobody needs to be root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

QEMU=/usr/bin/qemu-aarch64-static
ROOT=$PWD/.arm64/root
missing() {
  printf 'test-arm64: %s\n' "$*" >&2
  exit 2
}

if [ "${1:-}" != --inside ]; then
  [ -x "$QEMU" ] || missing "$QEMU is missing; install Debian's packages debootstrap and qemu-user-static"
  unshare --user --map-root-user --mount true 2>/dev/null ||
    missing "user namespaces are refused here (see sysctl kernel.unprivileged_userns_clone)"
  bash scripts/arm64_userland.sh
  exec unshare --user --map-root-user --mount --pid --fork --kill-child bash "$0" --inside "$@"
fi

mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null ||
  missing "a user namespace may not have its own binfmt_misc here; that needs Linux 6.7, this is $(uname -r)"
# ELF, 64 bits, little endian, executable or shared, machine 183 = AArch64. F opens the emulator now,
# so that it is found in the userland, too.
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":aarch64:M::$magic:$mask:$QEMU:F" >/proc/sys/fs/binfmt_misc/register
# OpenVINO looks for processors in /proc and /sys, and dies without them.
mount -t proc proc "$ROOT/proc" 2>/dev/null || mount --rbind /proc "$ROOT/proc"
mount --rbind /sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs none "$ROOT/tmp"
mount --bind "$PWD" "$ROOT/repository"
exec chroot "$ROOT" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 \
  PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1 \
  python3 /repository/scripts/arm64_inside.py "${@:2}"
