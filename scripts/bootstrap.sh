#!/usr/bin/env bash
# Set up what a make target needs, from nothing: scripts/bootstrap.sh [tools] [java] [docker] [servers] [rivals]
#   tools   .venv: Ansible, the linters and the tests, the app and what it runs on, each pinned by hash
#   java    a JRE and Maven, to build the Kafka archive and to run a broker here
#   docker  docker.io and mmdebstrap, for the containers that stand in for bare hosts
#   servers what the tests use besides Kafka: Redis, kcat, OpenSSL, Chromium, Prometheus and its tools
#   rivals  RabbitMQ, for `make bench`, its test, and `make chaos-compare`
# Only what is missing is installed, and said. A second call finds nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
PYTHON=${PYTHON:-python3}

say() { printf '%s\n' "bootstrap: $*"; }
die() { printf '%s\n' "bootstrap: $*" >&2; exit 1; }

missing_packages=()

# want PACKAGE WHY COMMAND...: PACKAGE is missing unless COMMAND succeeds.
want() {
  local package=$1 why=$2
  shift 2
  "$@" >/dev/null 2>&1 && return 0
  say "missing: $package ($why)"
  missing_packages+=("$package")
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "Installing ${missing_packages[*]} needs root: run this as root, or install them yourself."
  fi
}

install_missing() {
  ((${#missing_packages[@]})) || return 0
  command -v apt-get >/dev/null ||
    die "This is not Debian: install the equivalents of ${missing_packages[*]} yourself, then run this again."
  say "installing from Debian: ${missing_packages[*]}"
  local log=.cache/bootstrap-apt.log
  mkdir -p .cache
  {
    as_root apt-get update &&
      as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends "${missing_packages[@]}"
  } >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    die "apt-get could not install ${missing_packages[*]}: its last words are above, all of them in $log."
  }
}

java_17() {
  local version
  version=$(java -version 2>&1 | sed -n '1s/.*version "\([0-9]*\).*/\1/p')
  ((${version:-0} >= 17))
}

python_3_11() { "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }

make_venv() {
  python_3_11 || die "$PYTHON is older than 3.11: name a newer one with PYTHON=/path/to/python3."
  local wanted stamp=$VENV/.stamp
  wanted=$({ "$PYTHON" --version && pwd && cat requirements.lock app/requirements.lock app/pyproject.toml; } |
    sha256sum)
  [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return 0

  say "making $VENV from requirements.lock and app/requirements.lock"
  "$PYTHON" -m venv --clear "$VENV"
  local pip=("$VENV/bin/python" -m pip --quiet --disable-pip-version-check install)
  "${pip[@]}" --require-hashes --requirement requirements.lock
  "${pip[@]}" --require-hashes --requirement app/requirements.lock
  "${pip[@]}" --no-deps --no-build-isolation --editable ./app
  "$VENV/bin/python" -m pip check >/dev/null ||
    die "The two lock files disagree ('$VENV/bin/pip check' says where): make them again with 'make lock'."
  printf '%s\n' "$wanted" >"$stamp"
}

for part in "$@"; do
  case $part in
    tools)
      want python3 "runs everything here" command -v "$PYTHON"
      want python3-venv "makes $VENV" "$PYTHON" -c 'import ensurepip, venv'
      ;;
    java)
      want openjdk-17-jre-headless "runs Kafka, and Maven" java_17
      want maven "fetches the jars of the Kafka archive" command -v mvn
      ;;
    docker)
      want docker.io "runs the containers that stand in for bare hosts" command -v dockerd
      want mmdebstrap "makes their image from Debian's packages" command -v mmdebstrap
      ;;
    servers)
      want redis-server "keeps results in the tests" command -v redis-server
      want kcat "queues tasks as a foreign producer does" command -v kcat
      want openssl "makes the tests' certificates" command -v openssl
      want chromium "shows the web page in the tests" command -v chromium
      want prometheus "checks rules, and is scraped with" command -v promtool
      want prometheus-alertmanager "checks routes" command -v amtool
      ;;
    rivals)
      want rabbitmq-server "is compared with this transport" test -x /usr/sbin/rabbitmq-server
      ;;
    *) die "unknown part '$part': it is one of tools, java, docker, servers, rivals." ;;
  esac
done

install_missing

for part in "$@"; do
  if [[ $part == tools ]]; then make_venv; fi
done
