#!/bin/sh
# Publishes an event of an application over HTTP. Every browser of the topic gets it, and 202 means
# that it is stored.
#
#   sh examples/publish.sh                                        the tutorial's own text
#   sh examples/publish.sh all_patient_page_data '{"floor":3}'    any topic, any JSON
#
# ROWCAST_URL says where a gateway is, by default http://127.0.0.1:8888. The id makes it safe to run
# again after a time-out: the same id within two minutes stores nothing a second time.
set -eu
type=${1:-all_patient_page_data}
data=${2:-'"更新数据了,个人信息"'}
id=${ID:-$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen)}
exec curl --silent --show-error --fail-with-body --max-time 10 --retry 3 \
    --header 'content-type: application/json' \
    --data "{\"specversion\":\"1.0\",\"id\":\"$id\",\"source\":\"/examples\",\"type\":\"$type\",\"data\":$data}" \
    "${ROWCAST_URL:-http://127.0.0.1:8888}/api/events"
