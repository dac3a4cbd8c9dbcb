#!/bin/bash
# Runs a class of the archive: kafka-run-class.sh [-daemon] [-name NAME] [-loggc] CLASS [ARGUMENT...]
#
# Environment, as in Apache's script: JAVA_HOME, CLASSPATH, LOG_DIR, KAFKA_HEAP_OPTS, KAFKA_OPTS,
# KAFKA_JVM_PERFORMANCE_OPTS, KAFKA_LOG4J_OPTS, KAFKA_GC_LOG_OPTS, KAFKA_JMX_OPTS, JMX_PORT,
# KAFKA_DEBUG with JAVA_DEBUG_PORT. Two differences: JMX_PORT opens JMX on loopback only (open,
# unauthenticated JMX runs any code), and only for the broker, so that tools started in the same
# environment don't fight over the port.
set -euo pipefail

base_dir=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)

daemon=false name='' gc_log=false
while [[ $# -gt 0 ]]; do
  case $1 in
    -daemon) daemon=true; shift ;;
    -name) name=${2:?kafka-run-class.sh: -name wants a name}; shift 2 ;;
    -loggc) gc_log=true; shift ;;
    *) break ;;
  esac
done
if [[ $# -lt 1 ]]; then
  echo "USAGE: $0 [-daemon] [-name servicename] [-loggc] classname [opts]" >&2
  exit 1
fi

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
if ! command -v "$java" >/dev/null; then
  echo "$(basename "$0"): no Java found at '$java'; install a Java 17 runtime or set JAVA_HOME." >&2
  exit 127
fi

log_dir=${LOG_DIR:-$base_dir/logs}
# A tool logs to stderr and needs no directory; whoever chose a logging configuration has files in mind.
log4j_opts=${KAFKA_LOG4J_OPTS:-"-Dlog4j2.configurationFile=$base_dir/config/tools-log4j2.yaml"}
if [[ -n ${KAFKA_LOG4J_OPTS:-} || $daemon == true || $gc_log == true ]]; then
  mkdir -p "$log_dir"
fi

gc_opts=${KAFKA_GC_LOG_OPTS:-}
if [[ $gc_log == true && -z $gc_opts ]]; then
  gc_opts="-Xlog:gc*:file=$log_dir/${name:-kafka}-gc.log:time,tags:filecount=10,filesize=10M"
fi

jmx_opts=
if [[ $1 == kafka.Kafka ]]; then
  jmx_opts=${KAFKA_JMX_OPTS:-}
  if [[ -n ${JMX_PORT:-} ]]; then
    jmx_opts=${jmx_opts:-"-Dcom.sun.management.jmxremote.host=127.0.0.1 -Djava.rmi.server.hostname=127.0.0.1
      -Dcom.sun.management.jmxremote.authenticate=false -Dcom.sun.management.jmxremote.ssl=false"}
    jmx_opts+=" -Dcom.sun.management.jmxremote.port=$JMX_PORT -Dcom.sun.management.jmxremote.rmi.port=$JMX_PORT"
  fi
  performance_opts="-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35
    -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true"
else
  # A tool lives for a second: what counts is how soon it starts.
  performance_opts="-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Djava.awt.headless=true"
fi

kafka_opts=${KAFKA_OPTS:-}
if [[ -n ${KAFKA_DEBUG:-} ]]; then
  kafka_opts+=" -agentlib:jdwp=transport=dt_socket,server=y,suspend=${DEBUG_SUSPEND_FLAG:-n},address=${JAVA_DEBUG_PORT:-5005}"
fi

# Word splitting is wanted: each of these variables holds several options.
# shellcheck disable=SC2206
command=("$java" ${KAFKA_HEAP_OPTS:--Xmx256M} ${KAFKA_JVM_PERFORMANCE_OPTS:-$performance_opts} $gc_opts $jmx_opts
  "-Dkafka.logs.dir=$log_dir" $log4j_opts -cp "${CLASSPATH:+$CLASSPATH:}$base_dir/libs/*" $kafka_opts "$@")

if [[ $daemon == true ]]; then
  nohup "${command[@]}" >"$log_dir/${name:-kafka}.out" 2>&1 </dev/null &
else
  exec "${command[@]}"
fi
