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

in_repository() {
    [[ -e $source_folder/.git ]] && command -v git >/dev/null &&
        git -C "$source_folder" rev-parse --is-inside-work-tree >/dev/null 2>&1
}

# Every file of the project: from git where there is a repository, else whatever is no build.
project_files() {
    cd "$source_folder" || return
    if in_repository; then
        git ls-files
    else
        find . -type f -not -path '*/build*/*' -not -path './.git/*' | sed 's,^\./,,'
    fi
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

# -- A deployment: its settings, what it has drawn, its hosts. State is kept in $STATE, never beside the programs.

# shellcheck disable=SC2034  # some are for the programs that source this
host=          # the host that a program is about, as ssh knows it
dry_run=false
force=false
ssh_folder=    # of this run, for connections and what is sent over them
state_lock=
declare -A fact=()   # what check_host has seen
declare -A result=() # what a program on a host has handed back

wrong_usage() {
    say "$(basename "$0"): $*"
    exit 2
}

# Arguments of a program for one host: sets host, dry_run and force, reads the settings. Wants a function `usage`.
# usage: read_arguments "$@"
read_arguments() {
    local given=()
    # shellcheck disable=SC2034  # for the programs that source this
    while (($#)); do
        case $1 in
            --help | -h) usage && exit ;;
            --dry-run) dry_run=true ;;
            --force) force=true ;;
            -*) usage >&2 && exit 2 ;;
            *) given+=("$1") ;;
        esac
        shift
    done
    ((${#given[@]} == 1)) || { usage >&2 && exit 2; }
    host=${given[0]}
    [[ $host =~ ^[A-Za-z0-9][A-Za-z0-9.-]*$ ]] || wrong_usage "$host is no host's name or address; the user to log in as is SSH_USER in the settings"
    read_settings
}

settings_of_names=(DATABASE DB_USER REP_USER QUEUE_USER NEWS_QUEUE_USER AIRFLOW_USER AIRFLOW_ADMIN)
settings_of_secrets=(DB_PASSWORD REP_PASSWORD QUEUE_PASSWORD NEWS_QUEUE_PASSWORD AIRFLOW_ADMIN_PASSWORD)
names_taken=(all none postgres public replication root sameuser samerole template0 template1) # to PostgreSQL, or to the system
drawn_secrets=(DEPLOYMENT ERLANG_COOKIE REWIND_PASSWORD PATRONI_PASSWORD HEIRFLOW_PASSWORD AIRFLOW_FERNET AIRFLOW_JWT_SECRET AIRFLOW_SECRET_KEY)

read_settings() {
    local file=${HEIRFLOW_PROVISION_CONFIG:-$source_folder/config/provision.config} name
    [[ -r $file ]] || wrong_usage "cannot read the settings $file; HEIRFLOW_PROVISION_CONFIG names another file"
    bash -n "$file" 2>/dev/null || wrong_usage "the settings $file are no bash: $(bash -n "$file" 2>&1 | head -n 1)"
    unset "${settings_of_secrets[@]}" "${drawn_secrets[@]}" "${!SCHEDULER_@}" # what happens to be in the environment is not ours
    # shellcheck disable=SC1090  # any file may be named
    . "$file"
    for name in "${settings_of_names[@]}"; do
        [[ ${!name:-} =~ ^[a-z_][a-z0-9_]*$ ]] || wrong_usage "$name in $file: small letters, digits and _ make a name"
        [[ " ${names_taken[*]} " != *" ${!name} "* ]] || wrong_usage "$name in $file: ${!name} means something else already; take another name"
    done
    for name in DB_USER REP_USER; do
        [[ ! ${!name} =~ ^(pg_.*|heirflow.*|scheduler_.*|airflow_tables)$ ]] || wrong_usage "$name in $file: ${!name} is the name of another role; take another one"
    done
    [[ $DB_USER != "$REP_USER" ]] || wrong_usage "DB_USER and REP_USER in $file have to differ"
    for name in QUEUE_VHOST NEWS_QUEUE_VHOST; do
        [[ ${!name:-} =~ ^[A-Za-z0-9_.-]+$ ]] || wrong_usage "$name in $file: letters, digits and _.- make a name"
    done
    for name in "${settings_of_secrets[@]}"; do
        [[ ${!name:-} =~ ^[A-Za-z0-9_.~-]*$ ]] || wrong_usage "$name in $file: letters, digits and _.~- only, for it becomes part of URLs"
    done
    [[ -z $FLOATING_ADDRESS || $FLOATING_ADDRESS =~ ^[0-9.]+/[0-9]+$ ]] || wrong_usage "FLOATING_ADDRESS in $file: an address with its prefix, such as 10.0.0.100/24"
    [[ -z $DB_ADDRESS || $DB_ADDRESS =~ ^[A-Za-z0-9.-]+$ ]] || wrong_usage "DB_ADDRESS in $file: a name or an address"
    [[ $STATE == /* ]] || wrong_usage "STATE in $file: the full path of a folder"
    for name in ssh openssl tar flock; do
        command -v "$name" >/dev/null || die "this needs $name; on Debian: apt-get install $(packages_for deploy | joined ' ')"
    done
    trap end_deployment EXIT
    trap 'exit 130' INT TERM HUP
    ssh_folder=$(mktemp --directory --tmpdir heirflow-ssh.XXXXXX) # short, for sockets
    $dry_run || install --directory --mode=700 "$STATE"
    need_secret DEPLOYMENT 8
}

end_deployment() {
    local socket
    end_step
    [[ -n $ssh_folder ]] || return 0
    for socket in "$ssh_folder"/ssh-*; do
        [[ ! -S $socket ]] || ssh -o ControlPath="$socket" -O exit - 2>/dev/null || true
    done
    rm -rf "$ssh_folder"
}

# Several programs may run at once.
lock_state() {
    $dry_run || { exec {state_lock}>>"$STATE/lock" && flock "$state_lock"; }
}

unlock_state() { $dry_run || exec {state_lock}>&-; }

kept_secret() { [[ ! -r $STATE/secrets ]] || sed --quiet "s/^$1=//p" "$STATE/secrets" | tail -n 1; }

# Sets variable NAME: to what the settings say, else to what is kept, else to something new that is kept from now on.
# usage: need_secret NAME [BYTES]
need_secret() {
    local name=$1 value
    [[ -z ${!name:-} ]] || return 0
    lock_state
    value=$(kept_secret "$name")
    if [[ -z $value ]]; then
        value=$(openssl rand -hex "${2:-24}")
        $dry_run || (umask 077 && printf '%s=%s\n' "$name" "$value" >>"$STATE/secrets")
    fi
    unlock_state
    printf -v "$name" %s "$value"
}

# Lines `role host address`. Roles: database, queue, balancer, scheduler, worker, webserver.
hosts_file() { [[ ! -r $STATE/hosts ]] || cat "$STATE/hosts"; }
hosts_of() { hosts_file | awk -v role="$1" '$1 == role {print $2}'; }
addresses_of() { hosts_file | awk -v role="$1" '$1 == role {print $3}'; }
roles_of() { hosts_file | awk -v host="$1" '$2 == host {print $1}'; }
address_of() { hosts_file | awk -v host="$1" '$2 == host {print $3; exit}'; }
has_role() { roles_of "$1" | grep -qxF "$2"; }

# Addresses of the others. usage: others_with ROLE HOST
others_with() { hosts_file | awk -v role="$1" -v host="$2" '$1 == role && $2 != host {print $3}' | joined ' '; }

# What other hosts name in their settings has changed, and not all of them know. usage: note_untold ROLE
note_untold() { [[ " database queue " != *" $1 "* ]] || touch "$STATE/untold"; }

# In an order that does not depend on who came when, or files made from it would change. usage: remember_host ROLE HOST ADDRESS
remember_host() {
    local fresh
    ! hosts_file | grep -qxF "$*" || return 0
    lock_state
    note_untold "$1"
    fresh=$(hosts_file | awk -v role="$1" -v host="$2" '!($1 == role && $2 == host)' && printf '%s %s %s\n' "$@")
    sort --key=1,1 --key=2,2V <<<"$fresh" >"$STATE/hosts.new"
    mv "$STATE/hosts.new" "$STATE/hosts"
    unlock_state
}

# usage: forget_host ROLE HOST
forget_host() {
    lock_state
    note_untold "$1"
    hosts_file | awk -v role="$1" -v host="$2" '!($1 == role && $2 == host)' >"$STATE/hosts.new"
    mv "$STATE/hosts.new" "$STATE/hosts"
    unlock_state
}

# A line for each `HOST:PORT`, or joined. usage: joined SEPARATOR [PREFIX [SUFFIX]] <WORDS
joined() { awk -v between="$1" -v before="${2:-}" -v after="${3:-}" '{printf "%s%s%s%s", (NR > 1 ? between : ""), before, $0, after}'; }

# -- Certificates, by an authority of the deployment's own. Its key never leaves $STATE.

make_authority() {
    local folder=$STATE/ca
    [[ ! -s $folder/ca.crt ]] || return 0
    install --directory --mode=700 "$folder"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 7300 -subj "/CN=Heirflow deployment $DEPLOYMENT" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$folder/ca.key" -out "$folder/ca.crt.new" 2>/dev/null || die "openssl could not make the deployment's certificate authority in $folder"
    mv "$folder/ca.crt.new" "$folder/ca.crt"
}

# Names and addresses under which a host may be addressed, for its certificate. Before version 15, libpq looks for addresses
# among the names. usage: alternative_names HOST ADDRESS
alternative_names() {
    local names="DNS:localhost,IP:127.0.0.1,DNS:$1,DNS:$2,IP:$2" more
    for more in "${FLOATING_ADDRESS%/*}" "$DB_ADDRESS"; do
        [[ -z $more ]] || names+=",DNS:$more"
        [[ ! $more =~ ^[0-9.]+$ ]] || names+=",IP:$more"
    done
    echo "$names"
}

# usage: certificate_fits FILE WHAT-FOR - is by this authority, and lasts a year more
certificate_fits() {
    [[ -s $1.crt && $2 == "$(cat "$1.for" 2>/dev/null)" ]] && openssl verify -CAfile "$STATE/ca/ca.crt" "$1.crt" &&
        openssl x509 -in "$1.crt" -noout -checkend 31536000
} >/dev/null 2>&1

# Makes $STATE/ca/hosts/HOST.crt and .key unless they fit. A common name has 64 characters at most; clients look at the others.
# usage: make_certificate HOST ADDRESS USAGES
make_certificate() {
    local folder=$STATE/ca file=$STATE/ca/hosts/$1 wanted
    lock_state
    make_authority
    install --directory --mode=700 "$folder/hosts"
    wanted="subjectAltName=$(alternative_names "$1" "$2")
extendedKeyUsage=$3"
    if ! certificate_fits "$file" "$wanted"; then
        rm -f "$file.for"
        { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -subj "/CN=${1:0:64}" -keyout "$file.key" -out "$file.csr" &&
            openssl x509 -req -in "$file.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAserial "$folder/ca.srl" -CAcreateserial -sha256 -days 3650 \
                -extfile <(printf '%s\n' "$wanted") -out "$file.crt"; } 2>"$ssh_folder/errors" ||
            die "openssl could not make a certificate for $1 in $folder/hosts: $(tail -n 1 "$ssh_folder/errors")"
        printf '%s\n' "$wanted" >"$file.for"
    fi
    unlock_state
}

# -- Reaching a host

# usage: ssh_to HOST COMMAND... - one shell command line there; connections are kept for the next one
ssh_to() {
    local to=$1 key=() options=()
    shift
    [[ -z $SSH_KEY ]] || key=(-i "$SSH_KEY" -o IdentitiesOnly=yes)
    read -ra options <<<"$SSH_OPTIONS"
    ssh "${options[@]}" "${key[@]}" -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=6 \
        -o StrictHostKeyChecking=accept-new -o LogLevel=ERROR -o ControlMaster=auto -o ControlPath="$ssh_folder/ssh-%C" -o ControlPersist=300 \
        -l "$SSH_USER" -- "$to" "$@"
}

is_reachable() { ssh_to "$1" true 2>"$ssh_folder/errors" </dev/null; } # usage: is_reachable HOST

# usage: explain_ssh HOST MESSAGES-FILE - why ssh could not do it, and what to do
explain_ssh() {
    local why
    why=$(grep -v '^\s*$' "$2" | tail -n 1)
    case $(cat "$2") in
        *"Permission denied"*) die "$1 does not let $SSH_USER in: put the right SSH_USER and SSH_KEY into the settings, and the key into that user's authorized_keys there" ;;
        *"IDENTIFICATION HAS CHANGED"* | *"verification failed"*) die "$1 shows another host key than it did: if the host was made anew: ssh-keygen -R $1" ;;
        *"Could not resolve"*) die "there is no host of the name $1: correct the name, or give its address" ;;
        *) die "$1 cannot be reached by ssh (${why:-no answer}): see that it is up, and that SSH_OPTIONS in the settings suit it" ;;
    esac
}

# Before a command for ssh_to: as root, without asking for a password.
# shellcheck disable=SC2016  # for the shell there
as_root_there='$([ "$(id -u)" = 0 ] || echo sudo -n)'

# Looks at a host and changes nothing there; fills `fact`. usage: look_at HOST [PACKAGE...]
look_at() {
    local to=$1 line status=0 before=$EPOCHSECONDS
    shift
    # shellcheck disable=SC2029  # the words are for the shell there
    ssh_to "$to" "bash -s -- ${*@Q}" <"$source_folder/provision/on-host/examine" >"$ssh_folder/facts" 2>"$ssh_folder/errors" || status=$?
    ((status != 255)) || explain_ssh "$to" "$ssh_folder/errors"
    ((status == 0)) || die "$to: cannot be looked at: $(tail -n 1 "$ssh_folder/errors"); it needs bash and the usual programs of Debian"
    fact=()
    while IFS= read -r line; do
        [[ $line != *=* ]] || fact[${line%%=*}]=${line#*=}
    done <"$ssh_folder/facts"
    fact[slow]=$((before - ${fact[clock]:-$before})) fact[fast]=$((${fact[clock]:-0} - EPOCHSECONDS))
}

# Looks at a host and refuses what cannot work. usage: check_host HOST ROLE [PACKAGE...]
check_host() {
    local to=$1 role=$2
    shift 2
    look_at "$to" "$@"
    case ${fact[system]:-} in
        "debian 12" | "debian 13" | "ubuntu 22.04" | "ubuntu 24.04") ;;
        *) die "$to runs ${fact[system]:-something unknown}: it has to be Debian 12 or 13, Ubuntu 22.04 or 24.04" ;;
    esac
    [[ ${fact[root]} == yes ]] || die "$SSH_USER may not become root on $to: put '$SSH_USER ALL=(ALL) NOPASSWD: ALL' into /etc/sudoers.d/$SSH_USER there"
    [[ ${fact[systemd]} == yes ]] || die "$to does not run systemd: it has to be a machine or a container with systemd as its first process"
    [[ -n ${fact[address]} ]] || die "$to has no IPv4 address at which other hosts could reach it"
    # certificates begin now, and etcd counts seconds by the clocks of its hosts
    ((fact[slow] <= 5)) || die "the clock of $to is ${fact[slow]} s behind this machine's: let both follow a time server (systemd-timesyncd or chrony)"
    ((fact[fast] <= 5)) || die "the clock of $to is ${fact[fast]} s ahead of this machine's: let both follow a time server (systemd-timesyncd or chrony)"
    if [[ -n ${fact[deployment]} && ${fact[deployment]} != "$DEPLOYMENT" ]]; then
        die "$to belongs to another deployment (${fact[deployment]}): use its STATE, or take the host out of it with provision/remove from there"
    fi
    check_roles "$to" "$role"
    check_address "$to" "$role"
    ((fact[free_mb] >= 1000)) || die "$to has only ${fact[free_mb]} MB free in /var: make room for at least 1000 MB"
    [[ -z ${fact[packages]} ]] || die "$to cannot get ${fact[packages]}: see that the package mirrors in its /etc/apt/sources.list* can be reached (apt-get update there)"
}

# A database or a queue host that fails must not take anything else with it. usage: check_roles HOST ROLE
check_roles() {
    local other
    for other in ${fact[roles]:-} $(roles_of "$1"); do
        [[ $other != "$2" ]] || continue
        if [[ " database queue " == *" $2 "* || " database queue " == *" $other "* ]]; then
            die "$1 is a $other host already: a host that is to be a $2 needs a machine of its own; take another one, or provision/remove $1 first"
        fi
    done
}

# Members of a cluster know each other by address, and one machine is one member. usage: check_address HOST ROLE
check_address() {
    local known other
    known=$(address_of "$1")
    if [[ -n $known && $known != "${fact[address]}" && " database queue " == *" $2 "* ]]; then
        die "$1 was set up at $known, and now is reached at ${fact[address]}: reach it there again (HostName in ~/.ssh/config), or provision/remove --force $1 first"
    fi
    other=$(hosts_file | awk -v host="$1" -v address="${fact[address]}" '$2 != host && $3 == address {print $2; exit}')
    [[ -z $other ]] || die "$1 has the address ${fact[address]}, which $other has already: give one machine one name, and each an address of its own"
}

# -- Running a program on a host: new_stage, then stage_..., then run_there

stage=

# usage: new_stage [HOST]
new_stage() {
    stage=$(mktemp --directory "$ssh_folder/stage.XXXXXX")
    cp "$source_folder"/provision/on-host/{common,clusters}.sh "$source_folder/provision/install-quietly" "$stage"
    stage_settings DEPLOYMENT
    printf 'host=%q\n' "${1:-$host}" >>"$stage/settings"
}

# Variables that the program will find set. usage: stage_settings NAME...
stage_settings() {
    local name
    for name; do
        (umask 077 && printf '%s=%q\n' "$name" "${!name}" >>"$stage/settings")
    done
}

# usage: stage_file FILE [NAME]
stage_file() { cp --recursive --no-target-directory "$1" "$stage/${2:-$(basename "$1")}"; }

# usage: stage_certificate HOST ADDRESS [serverAuth|serverAuth,clientAuth] - as ca.crt, host.crt and host.key
stage_certificate() {
    make_certificate "$1" "$2" "${3:-serverAuth}"
    cp "$STATE/ca/ca.crt" "$stage/ca.crt"
    cp "$STATE/ca/hosts/$1.crt" "$stage/host.crt"
    (umask 077 && cp "$STATE/ca/hosts/$1.key" "$stage/host.key")
}

stage_authority() {
    lock_state
    make_authority
    unlock_state
    cp "$STATE/ca/ca.crt" "$stage/ca.crt"
}

# Where the stage goes: a folder of root's, one program at a time, gone afterwards.
# shellcheck disable=SC2016  # for the shell there
receive='set -eu; umask 022; cd /var/lib; mkdir -p heirflow-provision; cd heirflow-provision; rm -rf stage; mkdir -m 700 stage
trap "rm -rf /var/lib/heirflow-provision/stage" EXIT; tar --extract --no-same-owner --directory stage; cd stage; bash "./$1" </dev/null'

# usage: send_and_run HOST PROGRAM - lines `=NAME=VALUE` are results, a bare `=` is a sign of life
send_and_run() {
    local line lock=/var/lib/heirflow-provision/lock
    tar --create --directory "$stage" . |
        ssh_to "$1" "$as_root_there mkdir -p /var/lib/heirflow-provision && { $as_root_there flock --nonblock $lock true ||
            echo 'another program is at work on this host: waiting for its end'; } &&
            $as_root_there flock --close --timeout 900 $lock bash -c ${receive@Q} receive ${2@Q}" 2>"$ssh_folder/errors" |
        while IFS= read -r line; do
            case $line in
                =) ;;
                =*) printf '%s\n' "${line#=}" >>"$ssh_folder/results" ;;
                *) say "$1: $line" ;;
            esac
        done
}

# Runs provision/on-host/PROGRAM on a host as root, with the stage; shows what it says, fills `result`.
# usage: run_there HOST PROGRAM
run_there() {
    local to=$1 program=$2 status=0 line
    cp "$source_folder/provision/on-host/$program" "$stage/$program"
    : >"$ssh_folder/results"
    send_and_run "$to" "$program" &
    wait $! || status=$? # not in the foreground, where a signal to us would have to wait
    rm -rf "$stage"
    if ((status == 255)); then
        die "the connection to $to was lost ($(tail -n 1 "$ssh_folder/errors")); run this again: it goes on where it stopped"
    elif ((status)); then
        [[ ! -s $ssh_folder/errors ]] || say "$to: $(tail -n 1 "$ssh_folder/errors")"
        return 1
    fi
    result=()
    while IFS= read -r line; do
        # shellcheck disable=SC2034  # for the programs that source this
        result[${line%%=*}]=${line#*=}
    done <"$ssh_folder/results"
}

# -- How clients reach what has been set up. Paths are those on the hosts.

authority_there=/etc/ssl/heirflow/ca.crt

need_database() { [[ -n $(hosts_of database) ]] || die "there is no database yet: provision/db_first HOST"; }
need_queue() { [[ -n $(hosts_of queue) ]] || die "there is no queue host yet: provision/q_first HOST"; }

database_addresses() { if [[ -n $DB_ADDRESS ]]; then echo "$DB_ADDRESS"; else addresses_of database; fi; }

# For libpq (Heirflow, psql), without the password. usage: libpq_connection USER
libpq_connection() {
    need_database
    echo "host=$(database_addresses | joined ,) port=$(database_addresses | sed 's/.*/5432/' | joined ,) dbname=$DATABASE user=$1 target_session_attrs=read-write sslmode=verify-full sslrootcert=$authority_there connect_timeout=3"
}

# For SQLAlchemy; several hosts are parts of the query, where its version 1.4, which Airflow 2 has, takes no single one. DRIVER:
# psycopg2, or psycopg, which serves asynchronous engines as well (asyncpg knows other parameters).
# usage: sqlalchemy_connection USER PASSWORD [DRIVER]
sqlalchemy_connection() {
    local one='' several=''
    need_database
    if (($(database_addresses | wc -l) == 1)); then
        one=$(database_addresses):5432
    else
        several="$(database_addresses | joined '&' host= :5432)&"
    fi
    echo "postgresql+${3:-psycopg2}://$1:$2@$one/$DATABASE?${several}target_session_attrs=read-write&sslmode=verify-full&sslrootcert=$authority_there&connect_timeout=3"
}

# Brokers, a line each. usage: broker_urls USER PASSWORD VHOST
broker_urls() {
    local address
    need_queue
    for address in $(addresses_of queue); do
        echo "amqps://$1:$2@$address:5671/$3"
    done
}

# -- What programs for one kind of host have in common

gone= # addresses of other queue hosts, if one is to go on without them

# usage: set_up_queue_host HOST
set_up_queue_host() {
    local own_address peers='' name
    check_host "$1" queue rabbitmq-server etcd-server etcd-client openssl jq
    own_address=${fact[address]}
    [[ -n $gone ]] || peers=$(others_with queue "$1")
    if $dry_run && [[ -n $gone ]]; then
        say "$1: would go on without the queue hosts at $gone, and with an empty broker"
        return 0
    elif $dry_run; then
        say "$1: would install RabbitMQ and etcd, as ${peers:+another member with }${peers:-the first of both} (address $own_address)"
        return 0
    fi
    for name in QUEUE_PASSWORD NEWS_QUEUE_PASSWORD ERLANG_COOKIE; do
        need_secret "$name"
    done
    new_stage "$1"
    stage_settings own_address peers gone QUEUE_VHOST QUEUE_USER QUEUE_PASSWORD NEWS_QUEUE_VHOST NEWS_QUEUE_USER NEWS_QUEUE_PASSWORD ERLANG_COOKIE
    stage_certificate "$1" "$own_address" serverAuth,clientAuth
    stage_file "$source_folder/provision/on-host/broker-watch"
    run_there "$1" queue || die "$1 is no queue host yet"
    remember_host queue "$1" "$own_address"
    if [[ -n $gone ]]; then
        for name in $(hosts_of queue | grep -vxF "$1"); do
            forget_host queue "$name"
        done
    fi
    say_queue_hosts
    [[ ! -e $STATE/untold ]] || tell_others
}

# What their number is good for.
say_queue_hosts() {
    local number
    number=$(hosts_of queue | wc -l)
    case $number in
        0) ;;
        1) say "one queue host: nothing survives its loss; provision/q_later adds two more" ;;
        2) say "two queue hosts: the loss of either stops both; provision/q_later adds a third" ;;
        *) say "$number queue hosts: the loss of $(((number - 1) / 2)) does no harm" ;;
    esac
}

# usage: set_up_database_host HOST
set_up_database_host() {
    local own_address etcd major='' alone name packages=(postgresql openssl jq)
    etcd=$(addresses_of queue | joined ' ')
    [[ -z $etcd ]] || packages+=(patroni python3-etcd etcd-client)
    alone=$(hosts_of database | grep -vxF "$1" | head -n 1 || true)
    if [[ -n $etcd && -n $alone ]] && ! has_patroni; then # another would found a database of its own
        die "PostgreSQL on $alone still runs alone: provision/db_first $alone first, which hands it over to Patroni"
    fi
    check_host "$1" database "${packages[@]}"
    own_address=${fact[address]}
    if $dry_run; then
        say "$1: would install PostgreSQL, ${etcd:+under Patroni}${etcd:-alone, for there is no queue host yet} (address $own_address)"
        return 0
    fi
    [[ ! -r $STATE/postgresql ]] || read -r major _ <"$STATE/postgresql"
    for name in REP_PASSWORD REWIND_PASSWORD PATRONI_PASSWORD; do
        need_secret "$name"
    done
    new_stage "$1"
    stage_settings own_address etcd major REP_USER REP_PASSWORD REWIND_PASSWORD PATRONI_PASSWORD
    stage_certificate "$1" "$own_address" serverAuth,clientAuth
    run_there "$1" database || die "$1 is no database host yet"
    echo "${result[major]} ${etcd:+patroni}" >"$STATE/postgresql"
    remember_host database "$1" "$own_address"
    fill_database "${result[leader]}"
    if [[ -z $etcd ]]; then
        say "PostgreSQL runs alone on $1, without Patroni: nothing takes over if it is lost. provision/q_first and q_later give it an etcd; then repeat this"
    elif (($(hosts_of database | wc -l) == 1)); then
        say "one database host: nothing takes over if it is lost; provision/db_later adds a standby"
    fi
    [[ ! -e $STATE/untold ]] || tell_others
}

# Other hosts name the database and queue hosts in their settings. provision/all goes through them all anyway.
tell_others() {
    [[ -n ${HEIRFLOW_PROVISION_ALL:-} ]] || "$source_folder/provision/refresh" --clients ||
        die "not every host knows of the change; when what is told above is mended: provision/refresh"
}

has_patroni() { grep -q patroni "$STATE/postgresql" 2>/dev/null; }

# Roles, database and rights, on the primary. usage: fill_database PRIMARY
fill_database() {
    local name own_address
    own_address=$(address_of "$1")
    for name in DB_PASSWORD REP_PASSWORD REWIND_PASSWORD HEIRFLOW_PASSWORD; do
        need_secret "$name"
    done
    new_stage "$1"
    stage_settings own_address DATABASE DB_USER DB_PASSWORD REP_USER REP_PASSWORD REWIND_PASSWORD HEIRFLOW_PASSWORD
    stage_file "$source_folder/config/fencing.sql"
    run_there "$1" database_contents || die "the database on $1 is not complete"
}

# The database host that accepts writes now. usage: primary_database
primary_database() {
    local candidate
    for candidate in $(hosts_of database); do
        if [[ $(psql_on "$candidate" postgres <<<"select pg_is_in_recovery()" 2>/dev/null) == f ]]; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# As the superuser, on a database host; quiet and bare output. usage: psql_on HOST DATABASE <STATEMENTS
psql_on() {
    ssh_to "$1" "cd /; $as_root_there runuser --user postgres -- psql --no-psqlrc --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 --set=VERBOSITY=terse --dbname=${2@Q}"
}

# usage: sql_on_primary [DATABASE] <STATEMENTS
sql_on_primary() {
    local primary
    need_database
    primary=$(primary_database) || die "none of the database hosts ($(hosts_of database | joined ', ')) accepts writes: see provision/status"
    psql_on "$primary" "${1:-$DATABASE}"
}
