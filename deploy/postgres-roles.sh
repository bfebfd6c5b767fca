#!/bin/bash
# roles.sql for the demo's tables. Run once by the PostgreSQL image, when it makes its database.
set -eu
psql --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v tables='patient, visit' -f /etc/rowcast/roles.sql
