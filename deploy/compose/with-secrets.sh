#!/bin/sh
# Runs a program with secrets from files: for each variable NAME_FILE in the environment, NAME becomes the file's content.
# Compose and Kubernetes mount secrets as files; nothing secret then stands in `docker inspect` or in a manifest.
set -eu
for pair in $(env | grep -E '^(DOCMILL|AWS)_[A-Z0-9_]+_FILE=' || true); do
    name=${pair%%=*}
    file=${pair#*=}
    if [ ! -r "$file" ]; then
        echo "with-secrets: $name names $file, which cannot be read" >&2
        exit 1
    fi
    export "${name%_FILE}=$(cat "$file")"
    unset "$name"
done
exec "$@"
