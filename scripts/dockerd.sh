#!/usr/bin/env bash
# See to it that a Docker daemon answers: started by systemd where there is one, by hand where there is none.
#   scripts/dockerd.sh        start it unless one answers
#   scripts/dockerd.sh stop   stop it if this script started it by hand and no container runs
set -euo pipefail
cd "$(dirname "$0")/.."

LOG=.cache/dockerd.log
PID_FILE=.cache/dockerd.pid
WAIT_SECONDS=60

die() { printf '%s\n' "dockerd: $*" >&2; exit 1; }

answers() { docker info >/dev/null 2>&1; }

# can CAPABILITY_NUMBER: is it in this process's effective set?
can() {
  local effective
  effective=$(sed -n 's/^CapEff:\s*//p' /proc/self/status)
  (((16#$effective >> $1) & 1))
}

# The hierarchies that systemd would have mounted.
mount_cgroups() {
  mountpoint --quiet /sys/fs/cgroup && return 0
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  local controller
  while read -r controller; do
    mkdir -p "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" 2>/dev/null ||
      rmdir "/sys/fs/cgroup/$controller"
  done < <(awk '!/^#/ && $4 == 1 {print $1}' /proc/cgroups)
  mkdir -p /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
}

stop() {
  local pid
  [[ -f $PID_FILE ]] || return 0
  pid=$(<"$PID_FILE")
  if [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]]; then
    [[ -z $(docker ps --quiet) ]] || return 0
    echo "dockerd: stopping the dockerd that was started by hand"
    kill "$pid"
  fi
  rm -f "$PID_FILE"
}

if [[ ${1:-} == stop ]]; then
  stop
  exit
fi

command -v docker >/dev/null ||
  die "Docker is not installed: run 'scripts/bootstrap.sh docker', or install Docker 20.10 or newer."
answers && exit 0

[[ -z ${DOCKER_HOST:-} ]] ||
  die "No daemon answers at DOCKER_HOST ($DOCKER_HOST): start it there, or unset DOCKER_HOST to use one here."
((EUID == 0)) ||
  die "No Docker daemon answers, and starting one needs root: run this as root, or start Docker and join its group."

if [[ -d /run/systemd/system ]] && systemctl list-unit-files docker.service >/dev/null 2>&1; then
  systemctl start docker.service || {
    journalctl --unit docker.service --lines 20 --no-pager >&2 || true
    die "systemd could not start docker.service: its journal is above."
  }
else
  can 21 || die "Docker can't run here: this machine lacks CAP_SYS_ADMIN, so no container can be made. Run on a virtual machine, or in a privileged container."
  can 12 || die "Docker can't run here: this machine lacks CAP_NET_ADMIN, so containers get no network. Run on a virtual machine, or in a privileged container."
  mount_cgroups || die "Docker can't run here: the cgroup hierarchies could not be mounted. Use a kernel with cgroups, or mount them on /sys/fs/cgroup yourself."
  echo "dockerd: no systemd here, so starting dockerd by hand (its log: $LOG)"
  mkdir -p .cache
  # A daemon that died by force leaves its pid file, and refuses to start again for it.
  if [[ -f /var/run/docker.pid ]] && ! kill -0 "$(</var/run/docker.pid)" 2>/dev/null; then
    rm -f /var/run/docker.pid
  fi
  setsid dockerd >"$LOG" 2>&1 </dev/null &
  daemon=$!
  echo "$daemon" >"$PID_FILE"
fi

for ((i = 0; i < WAIT_SECONDS * 2; i++)); do
  answers && exit 0
  if [[ -n ${daemon:-} ]] && ! kill -0 "$daemon" 2>/dev/null; then
    grep -E 'level=(error|fatal)|failed' "$LOG" | tail -n 10 >&2 || true
    die "Docker can't run here: dockerd stopped at once. Its errors are above, all it said is in $LOG."
  fi
  sleep 0.5
done
tail -n 10 "$LOG" >&2 2>/dev/null || true
die "dockerd does not answer after $WAIT_SECONDS seconds: see $LOG, or 'journalctl -u docker'."
