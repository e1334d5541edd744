#!/bin/sh
# Install what some tests need and pip cannot bring: redis-server, faketime, promtool (of Debian's `prometheus`), chromium.
#
# As root on Debian or Ubuntu (in CI also through a sudo that asks nothing) they are installed, and not left running.
# Elsewhere it says which tests will be skipped; only in CI (CI=true) is that a failure.
set -eu

missing=""
command -v redis-server >/dev/null || missing="redis-server"
command -v faketime >/dev/null || missing="${missing:+$missing }faketime"
command -v promtool >/dev/null || missing="${missing:+$missing }prometheus"
# The names of `tests/browser.py`.
command -v chromium >/dev/null || command -v google-chrome >/dev/null || command -v chromium-browser >/dev/null ||
  missing="${missing:+$missing }chromium"
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" != 0 ]; then
  if [ "${CI:-}" = true ] && sudo -n true 2>/dev/null; then as_root="sudo"; else as_root="no"; fi
fi
if [ "$as_root" = no ] || ! command -v apt-get >/dev/null; then
  echo "tests: not installed, and not installable without root and apt-get: $missing; tests that need them are skipped" >&2
  [ "${CI:-}" != true ] || exit 1
  exit 0
fi

# Debian starts a service as soon as it is installed, unless this file answers 101 ("not allowed").
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '$as_root rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
  $as_root chmod 755 "$policy"
fi

install_packages() {
  # shellcheck disable=SC2086 # a list of words
  $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install --yes --quiet --quiet --no-install-recommends $missing >"$log" 2>&1 </dev/null
}

echo "tests: installing $missing (about a minute)"
log=$(mktemp)
if ! install_packages && { $as_root apt-get update --quiet --quiet || true; } && ! install_packages; then
  cat "$log" >&2
  echo "tests: could not install $missing; tests that need them are skipped" >&2
  [ "${CI:-}" != true ] || exit 1
fi
rm -f "$log"
