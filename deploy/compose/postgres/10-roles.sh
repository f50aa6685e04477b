#!/bin/sh
# Runs once, when the database volume is empty: the three roles, the database and the extension.
# docmill_owner owns the schema and migrates; docmill_app is bound by row-level security; docmill_engine moves jobs.
set -eu
secret() { cat "/run/secrets/$1"; }
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    -v owner="$(secret owner_password)" -v app="$(secret app_password)" -v engine="$(secret engine_password)" <<'SQL'
CREATE ROLE docmill_owner LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD :'owner';
CREATE ROLE docmill_app LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD :'app';
CREATE ROLE docmill_engine LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD :'engine';
CREATE DATABASE docmill OWNER docmill_owner;
REVOKE ALL ON DATABASE docmill FROM PUBLIC;
GRANT CONNECT ON DATABASE docmill TO docmill_app, docmill_engine;
SQL
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname docmill -c 'CREATE EXTENSION vector'
