#!/usr/bin/env bash
# Starts a trust domain on a TDX host.
#
#   launch-tdx.sh IMAGE             starts it (QEMU 10.1 or newer, Linux 6.16 or newer on the host, root)
#   launch-tdx.sh --dry-run IMAGE   prints the command that would start it
#
# IMAGE is a folder: ovmf.fd (built for TDX), kernel, initrd, cmdline (one line; with the root hash of dm-verity it
# vouches for the disk), disk.img (optional, read-only). MRTD is of the firmware, RTMR 0 of its configuration,
# RTMR 1 and 2 of kernel, initrd and command line.
# VCPUS, MEMORY, VSOCK_CID change the defaults. QGS_PORT: vsock port of the host's quote generation service.
set -euo pipefail

mode=start
case "${1:-}" in --dry-run) mode=dry-run; shift ;; esac
image=${1:?a folder with ovmf.fd, kernel, initrd and cmdline}
vcpus=${VCPUS:-4} memory=${MEMORY:-16G} cid=${VSOCK_CID:-3} port=${QGS_PORT:-4050}
for file in ovmf.fd kernel initrd cmdline; do
  [[ -r "$image/$file" ]] || { echo "$image/$file cannot be read" >&2; exit 2; }
done

quotes='{"type":"vsock","cid":"2","port":"'$port'"}'
command=(
  qemu-system-x86_64 -accel kvm -nographic -no-reboot -nodefaults -serial stdio
  -machine q35,kernel-irqchip=split,confidential-guest-support=tdx0
  -object '{"qom-type":"tdx-guest","id":"tdx0","quote-generation-socket":'"$quotes"'}'
  -cpu host -smp "$vcpus" -m "$memory"
  -bios "$image/ovmf.fd" -kernel "$image/kernel" -initrd "$image/initrd"
  -append "$(head -n 1 "$image/cmdline")"
  -device "vhost-vsock-pci,guest-cid=$cid"
  -netdev user,id=net0 -device virtio-net-pci,netdev=net0,romfile=
)
if [[ -e "$image/disk.img" ]]; then
  command+=(-drive "file=$image/disk.img,if=virtio,format=raw,readonly=on")
fi
if [[ $mode == dry-run ]]; then
  printf '%q ' "${command[@]}"; echo
else
  exec "${command[@]}"
fi
