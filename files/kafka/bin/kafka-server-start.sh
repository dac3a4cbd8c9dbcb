#!/bin/bash
# Starts a broker or controller: kafka-server-start.sh [-daemon] server.properties [--override property=value]...
set -euo pipefail

bin_dir=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
if [[ $# -lt 1 ]]; then
  echo "USAGE: $0 [-daemon] server.properties [--override property=value]*" >&2
  exit 1
fi

options=(-name kafkaServer -loggc)
if [[ $1 == -daemon ]]; then
  options=(-daemon "${options[@]}")
  shift
fi

export KAFKA_HEAP_OPTS=${KAFKA_HEAP_OPTS:-"-Xmx1G -Xms1G"}
export KAFKA_LOG4J_OPTS=${KAFKA_LOG4J_OPTS:-"-Dlog4j2.configurationFile=$bin_dir/../config/log4j2.yaml"}
exec "$bin_dir/kafka-run-class.sh" "${options[@]}" kafka.Kafka "$@"
