-- The two roles that Rowcast uses, with no more than they need, and the publication. As a superuser,
-- once, in the database; `tables` are those of the topics, their owner stays who he is. The passwords
-- come from the environment, for a command line can be read by everybody on the machine:
--
--   export ROWCAST_PRODUCER_PASSWORD=… ROWCAST_GATEWAY_PASSWORD=…
--   psql -d care -v tables='patient, visit' -f deploy/roles.sql
--
-- With `-v strict=1` what everybody may do by default is taken from everybody in this database: create
-- tables in the schema `public` (before PostgreSQL 15), create temporary tables, and put messages into the
-- log. Other roles that need one of these are granted it by name afterwards.
--
-- Tables in another schema than `public` want its name in both GRANT USAGE lines.

\set ON_ERROR_STOP 1
\set producer_password `printf %s "$ROWCAST_PRODUCER_PASSWORD"`
\set gateway_password `printf %s "$ROWCAST_GATEWAY_PASSWORD"`
SELECT :'producer_password' <> '' AND :'gateway_password' <> '' AS given \gset
\if :given
\else
DO $$ BEGIN RAISE 'ROWCAST_PRODUCER_PASSWORD and ROWCAST_GATEWAY_PASSWORD are needed'; END $$;
\endif

BEGIN;
SELECT current_database() AS database \gset

-- The producer reads the write-ahead log of published tables, and no table: REPLICATION lets it make its
-- slot. Give it no line for `replication` in pg_hba.conf, and it can take no base backup either.
CREATE ROLE rowcast_producer LOGIN REPLICATION PASSWORD :'producer_password';
ALTER ROLE rowcast_producer SET default_transaction_read_only = on;
ALTER ROLE rowcast_producer SET idle_in_transaction_session_timeout = '60s';
GRANT CONNECT ON DATABASE :"database" TO rowcast_producer;
-- See when another producer last answered, so that a frozen one is replaced within seconds.
GRANT pg_read_all_stats TO rowcast_producer;
GRANT USAGE ON SCHEMA public TO rowcast_producer;
-- Only a table's owner can publish it, so it is done here, and the producer alters nothing.
CREATE PUBLICATION rowcast FOR TABLE :tables WITH (publish_via_partition_root = true);

-- The gateways answer browsers' queries: they read the topics' tables, no others, and for no longer than a
-- query may take. That they can write nothing is a matter of what is granted; the settings also stop a
-- function that would write with the rights of somebody else.
CREATE ROLE rowcast_gateway LOGIN PASSWORD :'gateway_password';
ALTER ROLE rowcast_gateway SET default_transaction_read_only = on;
ALTER ROLE rowcast_gateway SET statement_timeout = '10s';
ALTER ROLE rowcast_gateway SET lock_timeout = '10s';
ALTER ROLE rowcast_gateway SET idle_in_transaction_session_timeout = '10s';
GRANT CONNECT ON DATABASE :"database" TO rowcast_gateway;
GRANT USAGE ON SCHEMA public TO rowcast_gateway;
GRANT SELECT ON TABLE :tables TO rowcast_gateway;

\if :{?strict}
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE TEMPORARY ON DATABASE :"database" FROM PUBLIC;
\endif

-- A gateway marks places in the log, a producer its heartbeats: by a message, which is possible in a
-- transaction that reads only. Its arguments differ between versions of PostgreSQL.
SELECT format('GRANT EXECUTE ON FUNCTION %s TO rowcast_producer, rowcast_gateway', oid::regprocedure)
FROM pg_proc WHERE proname = 'pg_logical_emit_message' \gexec
\if :{?strict}
SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure)
FROM pg_proc WHERE proname = 'pg_logical_emit_message' \gexec
\endif
COMMIT;
