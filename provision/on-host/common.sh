# shellcheck shell=bash
# What the programs that run on hosts share. They run as root in a folder of their own that is removed afterwards, find their
# settings in ./settings, tell what they do on descriptor 3, and can be run again after having stopped anywhere.

set -euo pipefail
# shellcheck source=/dev/null
. ./settings


own_state=/var/lib/heirflow-provision
changes=0
at_work="starting"
told=false
umask 022
shopt -s lastpipe # `... | put_file` counts its change
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
exec 3>&1 >./log 2>&1
trap 'finish $?' EXIT

say() { printf '%s\n' "$*" >&3; }

# What takes a while. usage: doing TEXT
doing() {
    at_work=$*
    say "$* ..."
}

# What has been changed. usage: did TEXT
did() {
    changes=$((changes + 1))
    say "$*"
}

# Ends the program: what is wrong, and what to do. usage: refuse TEXT
refuse() {
    told=true
    say "failed: $*"
    exit 1
}

# Hands a value back to provision/. usage: hand_back NAME VALUE
hand_back() { printf '=%s=%s\n' "$1" "$2" >&3; }

finish() {
    if (($1)) && ! $told; then
        say "failed while $at_work; the last of what was said there:"
        tail -n 15 ./log | sed 's/^/    /' >&3
        say "run the same again when the cause is mended: it goes on where it stopped"
    fi
}

# The last line of a program. usage: done_with WHAT
done_with() {
    if ((changes)); then
        say "$*: works"
    else
        say "$*: works, nothing had to be changed"
    fi
}

is_installed() { [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Where one was interrupted; what it cannot do, for a package that is not there, is left to apt-get. False: another is at work.
completes_installations() {
    local said
    said=$(dpkg --configure -a --force-confold 2>&1) || ! grep -E 'lock was locked|unable to (lock|access|get).*lock' <<<"$said"
}

# Installs what is missing and starts none of it. usage: install_packages PACKAGE...
install_packages() {
    local package missing=()
    for package; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    doing "installing ${missing[*]}"
    wait_for 300 "the end of another installation on this host" completes_installations
    bash ./install-quietly --fix-broken --no-remove || true
    apt-get -o DPkg::Lock::Timeout=300 --quiet update || true
    if ! bash ./install-quietly "${missing[@]}"; then
        if grep -q "No space left" ./log; then
            refuse "the disk is full: make room in /var and /usr, then run this again"
        elif grep -qE "Failed to fetch|Could not resolve|Unable to (fetch|locate)|has no installation candidate" ./log; then
            refuse "the package mirror does not give ${missing[*]}: see that apt-get update and apt-get install work on this host"
        fi
        return 1
    fi
    did "installed ${missing[*]}"
}

# Writes a file from standard input, whole or not at all, if it is to change. usage: put_file PATH OWNER MODE <CONTENT
put_file() {
    local path=$1 owner=$2 mode=$3 fresh
    fresh=$(mktemp "$(dirname "$path")/.heirflow.XXXXXX")
    cat >"$fresh"
    chown "$owner:" "$fresh"
    chmod "$mode" "$fresh"
    if cmp --quiet "$fresh" "$path" && [[ $(stat --format='%U %a' "$fresh") == "$(stat --format='%U %a' "$path")" ]]; then
        rm -f "$fresh"
    else
        sync "$fresh"
        mv -f "$fresh" "$path"
        did "wrote $path"
    fi
}

# ca.crt for everybody; it, host.crt and host.key for a service, in /etc/ssl/heirflow/NAME. usage: install_certificate NAME OWNER
install_certificate() {
    local folder=/etc/ssl/heirflow/$1 owner=$2
    install_authority
    install --directory --mode=700 --owner="$owner" "$folder"
    put_file "$folder/ca.crt" "$owner" 644 <./ca.crt
    put_file "$folder/host.key" "$owner" 600 <./host.key
    put_file "$folder/host.crt" "$owner" 644 <./host.crt
}

install_authority() {
    install --directory --mode=755 /etc/ssl/heirflow
    put_file /etc/ssl/heirflow/ca.crt root 644 <./ca.crt
}

# Until a command succeeds. usage: wait_for SECONDS WHAT COMMAND...
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    at_work="waiting for $what"
    until "$@"; do
        ((SECONDS < end)) || refuse "$what did not come about: $(tail -n 1 ./log)"
        sleep 0.5
        printf '=\n' >&3 # if nobody is there any more, this ends us
    done
}

# Whether a service was started before one of these files was written: so it is after an interrupted run, too.
# usage: is_older_than SERVICE FILE...
is_older_than() {
    local service=$1 since file
    shift
    since=$(systemctl show --property=ExecMainStartTimestamp --value "$service")
    since=${since:-$(systemctl show --property=ActiveEnterTimestamp --value "$service")} # a mount has no process
    since=$(date --date="$since" +%s)
    for file; do
        (($(stat --format=%Y "$file") <= since)) || return 0
    done
    return 1
}

# Enabled, running, and started after these files were written. usage: run_service SERVICE FILE...
run_service() {
    local service=$1
    shift
    systemctl is-enabled --quiet "$service" || systemctl enable "$service"
    if ! systemctl is-active --quiet "$service"; then
        doing "starting $service"
        systemctl reset-failed "$service" || true
        systemctl start "$service" || refuse "$service does not start: $(journalctl --unit "$service" --lines 3 --output cat | tail -n 1); see journalctl -u $service"
        did "started $service"
    elif is_older_than "$service" "$@"; then
        doing "restarting $service"
        systemctl restart "$service" || refuse "$service does not start with what is new: see journalctl -u $service"
        did "restarted $service"
    fi
}

# Ends what mounts Airflow's DAGs from an NFS server, and with it the services that read them.
unmount_dags() {
    local unit
    for unit in /etc/systemd/system/*.mount; do
        if [[ -e $unit ]] && grep -q '^Description=DAGs of Airflow$' "$unit"; then
            systemctl disable --now "$(basename "$unit")"
            rm -f "$unit" /etc/systemd/system/*.service.d/airflow-dags.conf
        fi
    done
    systemctl daemon-reload
}

has_been_claimed() { grep -qxF "$1" "$own_state/roles" 2>/dev/null; } # usage: has_been_claimed ROLE

# Written before anything else is changed, so that nobody takes the host for a free one. usage: claim_role ROLE
claim_role() {
    put_file "$own_state/deployment" root 644 <<<"$DEPLOYMENT"
    { cat "$own_state/roles" 2>/dev/null || true; echo "$1"; } | sort --unique | put_file "$own_state/roles" root 644
}

# usage: drop_role ROLE
drop_role() {
    local left
    left=$(grep -vxF "$1" "$own_state/roles" 2>/dev/null || true)
    if [[ -n $left ]]; then
        put_file "$own_state/roles" root 644 <<<"$left"
    else
        rm -f "$own_state/roles" "$own_state/deployment"
    fi
}
