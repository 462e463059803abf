# shellcheck shell=bash
# What the shell programs share: saying what happens, installing Debian packages, building. Sourced, never run.

source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$(basename "$0"): $*"
    exit 1
}

# Shows that a long step goes on: dots on a terminal, a line every ten seconds elsewhere; on failure the step's output.
# usage: step "What happens" COMMAND [ARG...]
step() {
    local what=$1 log started=$SECONDS pid status=0 tick=0
    shift
    log=$(mktemp)
    printf '%s ... ' "$what" >&2
    set -m # a process group of its own, for end_step
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    set +m
    step_group=$pid
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.1
        tick=$((tick + 1))
        if [[ -t 2 ]] && ((tick % 10 == 0)); then
            printf '.' >&2
        elif ((tick % 100 == 0)); then
            printf '\n  %s: %d s so far ... ' "$what" $((SECONDS - started)) >&2
        fi
    done
    wait "$pid" || status=$?
    step_group=
    if ((status)); then
        say "failed (exit status $status):"
        tail -n 40 "$log" >&2
    else
        say "done ($((SECONDS - started)) s)"
    fi
    rm -f "$log"
    return "$status"
}

step_group=

# Ends a step that goes on, for EXIT traps. What runs as root through sudo finishes by itself.
end_step() {
    if [[ -n $step_group ]]; then
        kill -TERM -- "-$step_group" 2>/dev/null || true
        wait "$step_group" 2>/dev/null || true
    fi
}

# usage: as_root COMMAND [ARG...]
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root and there is no sudo; as root: $*"
    fi
}

# Names of the packages that provision/packages lists for one of the purposes. usage: packages_for PURPOSE...
packages_for() {
    local line package purposes purpose
    while read -r line; do
        [[ -n $line && $line != '#'* ]] || continue
        read -r package purposes <<<"$line"
        for purpose; do
            if [[ " $purposes " == *" $purpose "* ]]; then
                echo "$package"
                break
            fi
        done
    done <"$source_folder/provision/packages"
}

is_installed() { [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Installs what is missing, and neither enables nor starts a service. Debian's maintainer scripts ask policy-rc.d before
# they start anything, enable through deb-systemd-helper, and make a first PostgreSQL cluster unless told otherwise.
# usage: install_packages PURPOSE...
install_packages() {
    local package missing=()
    command -v apt-get >/dev/null || die "this installs Debian packages; elsewhere install what provision/packages names by hand"
    for package in $(packages_for "$@"); do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "Installing Debian packages that are missing: ${missing[*]}"
    say "(through apt-get; services that come with them stay off)"
    if ((EUID != 0)) && command -v sudo >/dev/null; then
        sudo --validate || die "sudo said no; as root: apt-get install ${missing[*]}"
    fi
    step "Package lists" as_root apt-get update --quiet || say "going on with the package lists that are there"
    step "Packages" as_root bash "$source_folder/provision/install-quietly" "${missing[@]}" ||
        die "the packages could not be installed; by hand: apt-get install ${missing[*]}"
}

# Builds into FOLDER, from scratch or again. usage: build_into FOLDER [MESON-OPTION...]
build_into() {
    local folder=$1
    shift
    if [[ -f $folder/build.ninja ]]; then
        meson configure "$folder" "$@" >/dev/null
    else
        meson setup "$folder" "$source_folder" "$@" || return
    fi
    ninja -C "$folder"
}
