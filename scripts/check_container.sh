#!/usr/bin/env bash
# `make container-check`: does the Containerfile build, and does what it builds serve and stop?
#
# Builds the image for real and runs it as docs/deploying.md and the restricted Pod Security profile
# want it: as its own user without capabilities, on a root file system that is read-only. A question
# to the packaged model is answered; SIGTERM ends it in time, and with success.
#
# No registry is asked: the base image is Debian 12 with its Python 3.11, made with debootstrap from
# a Debian mirror (DEBIAN_MIRROR) and kept as localhost/steelyard-base. That is not the
# python:3.11-slim-bookworm which the Containerfile names: Debian and the minor version of Python are
# the same, the way in which Python was built is not. BASE_IMAGE=... takes another, from a registry, too.
# IMAGE=... checks an image that is there, and builds none.
# The machine's pip.conf and certificates are lent to the build, for a mirror of its own.
#
# crun 1.8 refuses to start where both versions of cgroups are mounted. There the second one is hidden
# from what is started here, in a mount namespace of its own; the machine keeps it.
#
# Needs root, and Debian's packages debootstrap, buildah, podman and crun.
set -euo pipefail
unified=/sys/fs/cgroup/unified
if [ "$(id --user)" = 0 ] && mountpoint --quiet "$unified"; then
  exec unshare --mount bash -c 'umount "$1" && exec bash "$2"' - "$unified" "$0"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BASE=${BASE_IMAGE:-localhost/steelyard-base:bookworm}
built=${IMAGE:-}
IMAGE=${IMAGE:-localhost/steelyard:check}
NAME=steelyard-check
MIRROR="${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
UP_S=${UP_S:-300}
scratch=$(mktemp --directory)

say() { printf 'container-check: %s\n' "$*"; }
broken() {
  say "$*" >&2
  podman logs "$NAME" 2>/dev/null | tail -20 >&2 || true
  exit 1
}
clean() {
  podman rm --force --time 1 --volumes "$NAME" >/dev/null 2>&1 || true
  podman volume rm --force "$NAME" >/dev/null 2>&1 || true
  rm -rf "$scratch"
}
trap clean EXIT

for tool in debootstrap buildah podman crun; do
  if ! command -v "$tool" >/dev/null; then
    say "$tool is missing; install Debian's packages debootstrap, buildah, podman and crun" >&2
    exit 2
  fi
done

make_base() {
  say "making a base image of Debian 12"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    bookworm "$scratch/root" "$MIRROR" >"$scratch/debootstrap.log" 2>&1 || {
    tail -3 "$scratch/debootstrap.log" >&2
    exit 2
  }
  tar --directory "$scratch/root" --create . | podman import --quiet - "$BASE" >/dev/null
}

build() {
  local lent=() path start_s=$SECONDS size
  for path in /etc/pip.conf /etc/ssl/certs; do
    if [ -e "$path" ]; then lent+=(--volume "$path:$path:ro"); fi
  done
  say "building"
  # Docker's format: that of OCI has no HEALTHCHECK. chroot: RUN has no need of cgroups.
  buildah bud --quiet --format docker --isolation chroot --network host "${lent[@]}" \
    --build-arg "PYTHON_IMAGE=$BASE" --tag "$IMAGE" . >"$scratch/build.log" 2>&1 || {
    tail -20 "$scratch/build.log" >&2
    exit 1
  }
  size=$(podman image inspect --format '{{.Size}}' "$IMAGE")
  say "built in $((SECONDS - start_s)) s, $((size / 1000000)) MB with the base"
}

if [ -z "$built" ]; then
  if [ -z "${BASE_IMAGE:-}" ] && ! podman image exists "$BASE"; then make_base; fi
  build
fi

mkdir "$scratch/conf"
cat >"$scratch/conf/steelyard.toml" <<'TOML'
[gateway]
host = "127.0.0.1"
drain_s = 10
[store]
path = "/var/lib/steelyard/log.db"
[pools.local]
kind = "embedded"
TOML
chmod -R a+rX "$scratch"
# Podman's timer for the health check needs systemd; it is asked for below.
export DISABLE_HC_SYSTEMD=true
# Without a network it still has its loopback, which is all that is asked.
podman run --detach --name "$NAME" --runtime crun --cgroups disabled --network none \
  --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 \
  --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges \
  --tmpfs /tmp --volume "$NAME:/var/lib/steelyard" \
  --volume "$scratch/conf:/etc/steelyard:ro" "$IMAGE" >/dev/null

start_s=$SECONDS
until podman healthcheck run "$NAME" >/dev/null 2>&1; do
  [ "$(podman inspect --format '{{.State.Status}}' "$NAME")" = running ] || broken "it ended"
  ((SECONDS - start_s < UP_S)) || broken "the image's health check failed for $UP_S s"
  sleep 1
done
say "healthy after $((SECONDS - start_s)) s, as user $(podman exec "$NAME" id --user)"

podman exec --interactive "$NAME" python - <<'PYTHON' || broken "no answer"
import json
import pathlib
import urllib.request

base = "http://127.0.0.1:8080"
with urllib.request.urlopen(f"{base}/readyz", timeout=60) as ready:
    assert ready.status == 200
asked = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Name three fruits."}]}
body = json.dumps({**asked, "max_tokens": 12, "temperature": 0}).encode()
request = urllib.request.Request(
    f"{base}/v1/chat/completions", data=body, headers={"content-type": "application/json"}
)
with urllib.request.urlopen(request, timeout=120) as answer:
    print("container-check: answered", repr(json.load(answer)["choices"][0]["message"]["content"]))
try:
    pathlib.Path("/opt/steelyard/x").touch()
except OSError as error:
    print("container-check: its root file system:", error.strerror)
else:
    raise SystemExit("the root file system is not read-only")
PYTHON

podman kill --signal TERM "$NAME" >/dev/null
code=$(timeout 60 podman wait "$NAME") || broken "it did not end within a minute of SIGTERM"
[ "$code" = 0 ] || broken "SIGTERM ended it with status $code"
say "SIGTERM ended it, status 0"
say "passed"
