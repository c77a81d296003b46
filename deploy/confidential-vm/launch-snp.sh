#!/usr/bin/env bash
# Starts a confidential VM on an SEV-SNP host, or says beforehand what AMD's processor will measure of it.
#
#   launch-snp.sh IMAGE             starts it (QEMU 9.1 or newer, Linux 6.11 or newer on the host, root)
#   launch-snp.sh --measure IMAGE   the launch measurement, 96 hex digits; anywhere, no hardware (pip install sev-snp-measure)
#   launch-snp.sh --dry-run IMAGE   prints the command that would start it
#
# IMAGE is a folder: ovmf.fd (built from OvmfPkg/AmdSev: it checks kernel, initrd and command line), kernel, initrd,
# cmdline (one line; with the root hash of dm-verity it vouches for the disk), disk.img (optional, read-only).
# VCPUS, CPU, MEMORY, VSOCK_CID change the defaults; the first two are part of the measurement.
set -euo pipefail

mode=start
case "${1:-}" in --measure | --dry-run) mode=${1#--}; shift ;; esac
image=${1:?a folder with ovmf.fd, kernel, initrd and cmdline}
vcpus=${VCPUS:-4} cpu=${CPU:-EPYC-v4} memory=${MEMORY:-16G} cid=${VSOCK_CID:-3}
for file in ovmf.fd kernel initrd cmdline; do
  [[ -r "$image/$file" ]] || { echo "$image/$file cannot be read" >&2; exit 2; }
done
append=$(head -n 1 "$image/cmdline")

if [[ $mode == measure ]]; then
  exec sev-snp-measure --mode snp --vcpus "$vcpus" --vcpu-type "$cpu" --ovmf "$image/ovmf.fd" \
    --kernel "$image/kernel" --initrd "$image/initrd" --append "$append"
fi

# Policy 0x30000: SMT allowed, no debugging, no migration. kernel-hashes puts kernel, initrd and command line into
# what is measured: without it only the firmware is.
command=(
  qemu-system-x86_64 -enable-kvm -nographic -no-reboot -nodefaults -serial stdio
  -machine q35,confidential-guest-support=sev0,memory-backend=ram1
  -object "memory-backend-memfd,id=ram1,size=$memory,share=true,prealloc=false"
  -object sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on
  -cpu "$cpu" -smp "$vcpus" -m "$memory"
  -bios "$image/ovmf.fd" -kernel "$image/kernel" -initrd "$image/initrd" -append "$append"
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
