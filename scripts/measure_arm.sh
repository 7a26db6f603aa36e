#!/usr/bin/env bash
# Measures a real Arm machine in one command:   bash scripts/measure_arm.sh [FOLDER]
#
# Writes into FOLDER (measured-HOSTNAME-DATE):
#   install.txt    what `make install` said
#   machine.txt    what the processor is and can do, its memory nodes, the kernel, the load
#   engines.txt    both embedded engines, one process per core, beside the same llama.cpp as one process
#                  with a thread per core (benchmarks/engines.py)
#   one-core.json  figures of one core, as `steelyard measure` takes them, for a pool (`figures = ...`)
#   one-node.json  the same of one memory (NUMA) node, where there are several and numactl is installed
#   all-cores.json the same of the whole machine, where it has several cores
#
# OFFERING=PROVIDER/TYPE, such as aws/c8g.2xlarge, names the whole machine, whose figures
# `steelyard plan --figures` then takes: without a name no plan can price them.
# LLAMA_SERVER="PATH [OPTIONS]" measures a llama-server of your own beside them, which tells what a build
# with i8mm and SVE is worth (docs/arm.md).
# ANY_MACHINE=1 measures what is not Arm, or is emulated, all the same.
#
# Needs what `make install` needs (Python 3.11, make, glibc 2.35: Debian 12, Ubuntu 24.04), and nothing
# else. About 15 minutes on an otherwise idle machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
  -h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' scripts/measure_arm.sh
    exit
    ;;
  -*)
    echo "measure_arm: no option $1; call bash scripts/measure_arm.sh [FOLDER], or --help" >&2
    exit 2
    ;;
esac

machine=$(uname -m)
if [ "$machine" != aarch64 ] && [ "${ANY_MACHINE:-}" != 1 ]; then
  echo "measure_arm: this is $machine, not aarch64; ANY_MACHINE=1 measures it all the same" >&2
  exit 2
fi
# Of qemu-user the kernel is the host's, which knows no such register; /proc/cpuinfo newer ones make up.
midr=/sys/devices/system/cpu/cpu0/regs/identification/midr_el1
if [ "$machine" = aarch64 ] && [ ! -e "$midr" ] && [ "${ANY_MACHINE:-}" != 1 ]; then
  echo "measure_arm: no $midr: this looks like an emulated processor, whose speed means nothing;" \
    "ANY_MACHINE=1 measures it all the same" >&2
  exit 2
fi

folder=${1:-measured-$(uname -n)-$(date +%F)}
mkdir -p "$folder"

say() { printf '[measure_arm] %s\n' "$*"; }
has() { grep -m1 -E '^(Features|flags)' /proc/cpuinfo | grep -qw "$1" && echo yes || echo no; }

{
  echo "date: $(date --utc +%FT%TZ)"
  echo "kernel: $(uname -srm)"
  [ -r "$midr" ] && echo "midr_el1: $(cat "$midr")"
  echo "glibc: $(getconf GNU_LIBC_VERSION) (openvino needs 2.35)"
  for feature in asimddp i8mm bf16 sve sve2 svei8mm svebf16; do
    echo "$feature: $(has "$feature")"
  done
  grep MemTotal /proc/meminfo
  echo "page size: $(getconf PAGESIZE) bytes"
  lscpu 2>/dev/null || head -20 /proc/cpuinfo
  for governor in /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor; do
    [ -r "$governor" ] && echo "governor: $(cat "$governor")"
  done
  echo "hugepages: $(cat /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null || true)"
  echo "load: $(cat /proc/loadavg)"
} >"$folder/machine.txt"
say "machine: $folder/machine.txt"

make install >"$folder/install.txt" 2>&1 || {
  echo "measure_arm: make install failed, see $folder/install.txt" >&2
  exit 2
}

bin=.venv/bin
say "both engines side by side"
# With the server out of the wheel of llama.cpp, too: one process with a thread per core.
own=()
if [ -n "${LLAMA_SERVER:-}" ]; then own=(--llama-server "$LLAMA_SERVER"); fi
"$bin/python" benchmarks/engines.py "${own[@]}" | tee "$folder/engines.txt"

named=()
if [ -n "${OFFERING:-}" ]; then named=(--offering "$OFFERING"); fi
cores=$(nproc)
say "one core"
alone=()
if ((cores == 1)); then alone=("${named[@]}"); fi
"$bin/steelyard" measure local --short --replicas 1 "${alone[@]}" --out "$folder/one-core.json"

nodes=$(find /sys/devices/system/node -maxdepth 1 -name 'node[0-9]*' 2>/dev/null | wc -l)
if ((nodes > 1)) && command -v numactl >/dev/null; then
  on_node=$(numactl --cpunodebind=0 nproc)
  say "one NUMA node of $nodes: $on_node cores, its own memory"
  numactl --cpunodebind=0 --membind=0 \
    "$bin/steelyard" measure local --short --replicas "$on_node" --out "$folder/one-node.json"
elif ((nodes > 1)); then
  say "$nodes NUMA nodes, and numactl is not installed: one node alone is not measured"
fi
if ((cores > 1)); then
  say "all $cores cores"
  "$bin/steelyard" measure local --short --replicas "$cores" "${named[@]}" --out "$folder/all-cores.json"
fi
say "done: $folder"
