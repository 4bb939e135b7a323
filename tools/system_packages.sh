#!/bin/sh
# Install the Debian or Ubuntu packages that are missing.
#
#   tools/system_packages.sh PYTHON [test|guard]
#
# Looks for what is needed, not for packages: what is there already, wherever it
# came from, is left alone, and a machine that has all of it needs neither apt
# nor root. With `test`, also the programs that drive the examples in the tests;
# with `guard`, those that count what an event costs.
set -eu

python=$1
what=${2:-build}
missing=

need() {
    missing="$missing $1"
}

compiles() {
    echo "#include <$1>" | ${CC:-cc} -E -x c - -o /dev/null 2>/dev/null
}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')

compiles stdio.h || need libc6-dev
compiles liburing.h || need liburing-dev
[ -e "$headers/Python.h" ] || need "python$version-dev"
"$python" -c 'import ensurepip, venv' 2>/dev/null || need "python$version-venv"
case $what in
    test) programs="nc:netcat-openbsd curl:curl wrk:wrk redis-cli:redis-tools strace:strace" ;;
    guard) programs="strace:strace valgrind:valgrind" ;;
    *) programs= ;;
esac
for program in $programs; do
    command -v "${program%:*}" >/dev/null || need "${program#*:}"
done
[ -n "$missing" ] || exit 0

echo "Installing$missing"
if ! command -v apt-get >/dev/null; then
    echo "This system has no apt-get: install what matches$missing by hand." >&2
    exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
# A list that cannot be brought up to date may still be good enough.
$sudo apt-get update -q || echo "apt-get update failed; going on with the lists that are there." >&2
# shellcheck disable=SC2086  # one word a package
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
