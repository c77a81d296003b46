#!/usr/bin/env bash
# Checks an audit log against the checkpoint kept from the last review, prints what needs a person's eye, and keeps
# the new checkpoint. For cron on a machine that the log's writer cannot reach.
#
#   review-log.sh LOG PUBLIC_KEY KEPT     KEPT: folder of checkpoints; the newest is KEPT/latest
#
# Exit codes: 0 nothing to look at; 1 altered, or taken back; 4 there are refusals, failures or changes of keys.
set -euo pipefail

log=$1 key=$2 kept=$3
mkdir -p "$kept"
since=()
[[ -e "$kept/latest" ]] && since=(--since "$kept/latest")
cp "$log/checkpoint" "$kept/.new" # first: what is written meanwhile only adds to it
tempo log verify "$log" --key "$key" "${since[@]}"
tempo log verify "$log" --key "$key" --since "$kept/.new" >/dev/null
stamp=$(date -u +%Y%m%dT%H%M%SZ)
mv "$kept/.new" "$kept/$stamp"
kinds=(--kind integrity_failure --kind key_refused --kind key_changed --kind log_recovered)
shown=$(tempo log show "$log" --key "$key" "${kinds[@]}" --json)
count=$(python3 -c 'import json, sys; print(len(json.load(sys.stdin)["rows"]))' <<<"$shown")
ln -sf "$stamp" "$kept/latest"
if ((count)); then
  tempo log show "$log" --key "$key" "${kinds[@]}"
  exit 4
fi
