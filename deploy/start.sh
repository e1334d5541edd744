#!/bin/sh
# Entry point of both images: begin with an empty metrics folder, for the files of processes that are gone
# would be counted again, and then become the command.
set -eu
mkdir -p "$PROMETHEUS_MULTIPROC_DIR"
rm -f "$PROMETHEUS_MULTIPROC_DIR"/*.db
exec "$@"
