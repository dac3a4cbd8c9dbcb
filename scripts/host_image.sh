#!/usr/bin/env bash
# Make the image of a bare Debian 12 host that boots systemd: minimal, with no Java, Kafka or Celery.
# It comes from the Debian mirrors that this machine itself uses, and hosts made of it use the same.
# Skipped when the image of this very recipe is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE=bare-host:bookworm
SUITE=bookworm
# What Ansible needs on any host, and what tells us about one.
INCLUDE=systemd,systemd-sysv,dbus,python3,python3-apt,iproute2,procps,sudo,ca-certificates
# What roles will install: downloaded only, into apt's cache, so that each host made of this image
# need not fetch it again. apt checks these files as it checks any; outdated ones are not used.
PREFETCH=(openjdk-17-jre-headless python3-venv acl
  prometheus prometheus-alertmanager prometheus-node-exporter nginx-light)

die() { printf '%s\n' "host image: $*" >&2; exit 1; }

apt_lists() {
  # The placeholders are apt's, not the shell's.
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' |
    awk -v suite="$SUITE" '$2 ~ "^" suite && $3 == "main" {print "deb", $1, $2, $3}' | sort -u
}

sources=$(apt_lists)
if [[ -z $sources ]]; then
  apt-get update >/dev/null
  sources=$(apt_lists)
fi
grep -q " $SUITE main$" <<<"$sources" ||
  die "apt on this machine knows no source of Debian 12 ($SUITE): add one to /etc/apt/sources.list.d, then run 'apt-get update'."

recipe=$(sha256sum <<<"$sources $(<"$0")" | cut -c1-16)
found=$(docker image inspect --format '{{index .Config.Labels "recipe"}}' "$IMAGE" 2>/dev/null || true)
[[ $found == "$recipe" ]] && exit 0

echo "host image: building $IMAGE with mmdebstrap (about a minute)"
mkdir -p .cache
rootfs=$(mktemp .cache/host-image.XXXXXX.tar)
trap 'rm -f "$rootfs"' EXIT

# Timers of apt's would hold the lock that roles need; gettys have no terminal to serve.
masked="apt-daily.timer apt-daily-upgrade.timer getty.target console-getty.service systemd-udevd.service"

# mmdebstrap would empty apt's cache and lists; they are what we prefetched.
mmdebstrap --quiet --variant=minbase --include="$INCLUDE" \
  --skip=cleanup/apt \
  --customize-hook="chroot \"\$1\" systemctl --quiet mask $masked" \
  --customize-hook="chroot \"\$1\" apt-get --quiet=2 clean" \
  --customize-hook="chroot \"\$1\" apt-get --quiet=2 --yes --no-install-recommends --download-only install ${PREFETCH[*]}" \
  --customize-hook="rm -f \"\$1/etc/hostname\" \"\$1/etc/resolv.conf\"; : > \"\$1/etc/machine-id\"" \
  "$SUITE" "$rootfs" - <<<"$sources" >.cache/host-image.log 2>&1 || {
  tail -n 20 .cache/host-image.log >&2
  die "mmdebstrap could not make it: its last words are above, all of them in .cache/host-image.log."
}

docker import \
  --change 'CMD ["/lib/systemd/systemd"]' \
  --change 'ENV container=docker' \
  --change "LABEL recipe=$recipe" \
  "$rootfs" "$IMAGE" >/dev/null
echo "host image: $IMAGE is ready"
