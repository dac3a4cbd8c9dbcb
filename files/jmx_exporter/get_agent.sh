#!/usr/bin/env bash
# Put jmx_exporter's Java agent, from Maven Central, at OUTPUT, checked: files/jmx_exporter/get_agent.sh OUTPUT
set -euo pipefail

VERSION=1.0.1
SHA256=7d61f737fd661610ccc14aea79764faa1ea94a340cbc8f0029b3d2edea3d80c1

die() { printf '%s\n' "jmx_exporter: $*" >&2; exit 1; }

output=${1:?OUTPUT: where the jar goes}
is_right() { [[ -f $1 ]] && sha256sum --check --status <<<"$SHA256  $1"; }

is_right "$output" && exit 0
command -v mvn >/dev/null || die "mvn is not installed: install Debian's package 'maven', or put the jar at $output."
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
mvn --batch-mode --quiet dependency:copy "-DoutputDirectory=$directory" -Dstyle.color=never \
  "-Dartifact=io.prometheus.jmx:jmx_prometheus_javaagent:$VERSION" >"$directory/log" 2>&1 ||
  die "Maven could not fetch the agent: $(grep -m1 ERROR "$directory/log" || tail -n1 "$directory/log")"
jar=$directory/jmx_prometheus_javaagent-$VERSION.jar
is_right "$jar" || die "the jar from Maven is not the one whose checksum is in $0: delete it from the local Maven repository and try again."
mkdir -p "$(dirname "$output")"
mv "$jar" "$output.partial" && mv "$output.partial" "$output"
