#!/bin/bash
# The two roles that Rowcast uses, with no more than they need, and the publication. Run once by
# the PostgreSQL image, when it makes its database. On a server of your own: the SQL below.
set -eu
psql --no-psqlrc -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v producer_password="$ROWCAST_PRODUCER_PASSWORD" \
    -v gateway_password="$ROWCAST_GATEWAY_PASSWORD" \
    -v database="$POSTGRES_DB" <<'SQL'
-- Reads the write-ahead log of published tables: REPLICATION lets it make its slot, SELECT read
-- what the tables are like. It can change no row.
CREATE ROLE rowcast_producer LOGIN REPLICATION PASSWORD :'producer_password';
GRANT CONNECT ON DATABASE :"database" TO rowcast_producer;
-- See when another producer last answered, so that a frozen one is replaced within seconds.
GRANT pg_read_all_stats TO rowcast_producer;
GRANT USAGE ON SCHEMA public TO rowcast_producer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO rowcast_producer;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO rowcast_producer;
-- Only a table's owner can publish it, so the owner does it here.
CREATE PUBLICATION rowcast FOR TABLE patient, visit WITH (publish_via_partition_root = true);

-- Answers browsers' queries.
CREATE ROLE rowcast_gateway LOGIN PASSWORD :'gateway_password';
ALTER ROLE rowcast_gateway SET default_transaction_read_only = on;
GRANT CONNECT ON DATABASE :"database" TO rowcast_gateway;
GRANT USAGE ON SCHEMA public TO rowcast_gateway;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO rowcast_gateway;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO rowcast_gateway;
SQL
