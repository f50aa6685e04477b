#!/bin/sh
# Makes the secrets that docker-compose.yml needs, at random, once. Existing files are kept. Nothing has a default.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
make() { [ -s "secrets/$1" ] || printf '%s' "$2" > "secrets/$1"; }
for name in postgres_password owner_password app_password engine_password s3_secret_key pepper metrics_token; do
    make "$name" "$(random)"
done
# A letter first: NATS would read a password of digits as a number.
make nats_password "t$(random)"
make s3_access_key "docmill$(random | cut -c1-12)"
db=postgres:5432/docmill
make owner_url "postgres://docmill_owner:$(cat secrets/owner_password)@$db"
make app_url "postgres://docmill_app:$(cat secrets/app_password)@$db"
make engine_url "postgres://docmill_engine:$(cat secrets/engine_password)@$db"
make nats_url "nats://docmill:$(cat secrets/nats_password)@nats:4222"
# The containers' users differ from yours; the folder above keeps others out.
chmod 0711 secrets
chmod 0444 secrets/*
echo "secrets are in $(pwd)/secrets; keep them out of version control and of backups that others read"
