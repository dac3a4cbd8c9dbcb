#!/bin/bash
# Stops brokers and controllers of this machine by a signal (SIGNAL, TERM by default: a controlled shutdown).
# kafka-server-stop.sh [--process-role=broker|controller | --node-id=N]   without an option: all of them
set -euo pipefail

role='' node_id=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --process-role=*) role=${1#*=}; shift ;;
    --process-role) role=${2:?kafka-server-stop.sh: --process-role wants a value}; shift 2 ;;
    --node-id=*) node_id=${1#*=}; shift ;;
    --node-id) node_id=${2:?kafka-server-stop.sh: --node-id wants a value}; shift 2 ;;
    *) echo "USAGE: $0 [--process-role=value | --node-id=value]" >&2; exit 1 ;;
  esac
done

# property_of PID NAME: a property as the process was given it, in its file or by --override.
property_of() {
  local pid=$1 property=$2 argument config='' value='' after_class=false
  while IFS= read -r -d '' argument; do
    if [[ $argument == kafka.Kafka ]]; then
      after_class=true
    elif [[ $after_class == true && -z $config ]]; then
      config=$argument
    elif [[ $argument == "$property="* ]]; then
      value=${argument#*=}
    fi
  done <"/proc/$pid/cmdline"
  [[ $config == /* ]] || config=/proc/$pid/cwd/$config
  [[ -n $value ]] || value=$(sed -n "s/^ *${property//./\\.} *[=:] *//p" "$config" | tail -n 1)
  echo "${value//[[:space:]]/}"
}

pids=()
for cmdline in /proc/[0-9]*/cmdline; do
  # A process may end while we look at it.
  { tr '\0' '\n' <"$cmdline"; } 2>/dev/null | grep -qx 'kafka\.Kafka' || continue
  pid=${cmdline#/proc/} pid=${pid%/cmdline}
  if [[ -n $role ]]; then
    [[ ,$(property_of "$pid" process.roles), == *",$role,"* ]] || continue
  fi
  if [[ -n $node_id ]]; then
    [[ $(property_of "$pid" node.id) == "$node_id" ]] || continue
  fi
  pids+=("$pid")
done

if [[ ${#pids[@]} -eq 0 ]]; then
  echo "No kafka server to stop" >&2
  exit 1
fi
kill -s "${SIGNAL:-TERM}" "${pids[@]}"
