# shellcheck shell=bash
# What the programs for Airflow's hosts share: its settings, what is sent to a host, the folder of DAGs. Sourced after lib.sh.
# shellcheck disable=SC2034,SC2153,SC2154  # for programs on hosts; what lib.sh and the settings set

dags_there= # where DAGs are on the hosts; set by read_airflow_settings

# Refuses settings that cannot be. To be called after read_arguments.
read_airflow_settings() {
    local line file=${HEIRFLOW_PROVISION_CONFIG:-$source_folder/config/provision.config}
    [[ -f $source_folder/config/airflow/airflow-$AIRFLOW_VERSION.lock ]] || wrong_usage "AIRFLOW_VERSION in $file: 3 or 2"
    [[ $AIRFLOW_HOME =~ ^/[A-Za-z0-9/._-]+$ ]] || wrong_usage "AIRFLOW_HOME in $file: the full path of a folder"
    [[ $WORKER_CONCURRENCY =~ ^[1-9][0-9]*$ ]] || wrong_usage "WORKER_CONCURRENCY in $file: how many tasks a worker runs at once"
    if [[ ! ${WEB_PORT:=8443} =~ ^[1-9][0-9]{3,4}$ ]] || ((WEB_PORT < 1024 || WEB_PORT > 65535)); then
        wrong_usage "WEB_PORT in $file: a port from 1024 to 65535, for the page's server is not root"
    fi
    [[ $LEASE_MS =~ ^[1-9][0-9]*$ ]] || wrong_usage "LEASE_MS in $file: milliseconds"
    [[ -n $EFS_IP || -z $EFS_PATH ]] || wrong_usage "EFS_PATH in $file wants EFS_IP too"
    [[ -z $EFS_IP || $EFS_PATH == /* ]] || wrong_usage "EFS_IP in $file wants EFS_PATH too: the exported folder, such as /"
    for line in "${AIRFLOW_SETTINGS[@]}"; do
        [[ $line =~ ^[A-Z][A-Z0-9_]*=[^\']*$ ]] || wrong_usage "AIRFLOW_SETTINGS in $file: \"${line%%=*}\" has to be NAME=value, without an apostrophe"
    done
    if [[ -n $EFS_IP ]]; then dags_there=$AIRFLOW_HOME/shared; else dags_there=$AIRFLOW_HOME/dags; fi
}

airflow_hosts() { hosts_file | awk '($1 == "scheduler" || $1 == "worker" || $1 == "webserver") && !seen[$2]++ {print $2}'; }

need_airflow_secrets() {
    need_secret DB_PASSWORD
    need_secret QUEUE_PASSWORD
    need_secret NEWS_QUEUE_PASSWORD
    need_secret HEIRFLOW_PASSWORD
    need_secret AIRFLOW_ADMIN_PASSWORD 12
    need_secret AIRFLOW_FERNET 32
    need_secret AIRFLOW_JWT_SECRET 64
    need_secret AIRFLOW_SECRET_KEY 32
}

# 32 bytes as Airflow wants them; they are kept as hexadecimal digits. usage: fernet_key DIGITS
fernet_key() {
    # shellcheck disable=SC2001,SC2059  # the digits are the format
    printf "$(sed 's/../\\x&/g' <<<"$1")" | base64 --wrap=0 | tr '+/' '-_'
}

# A connection that is dead is noticed within 20 s, also where no answer comes. usage: metadata_url USER PASSWORD [DRIVER]
metadata_url() {
    echo "$(sqlalchemy_connection "$1" "$2" "${3:-}")&keepalives_idle=5&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=20000"
}

# How the connection `demo` of the demonstration DAGs is written for Airflow.
demo_connection() {
    printf '{"conn_type":"postgres","host":"%s","login":"%s","password":"%s","schema":"%s","extra":{"sslmode":"verify-full","sslrootcert":"%s","target_session_attrs":"read-write","connect_timeout":3}}' \
        "$(database_addresses | joined ,)" "$DB_USER" "$DB_PASSWORD" "$DATABASE" "$authority_there"
}

# Version 4 has quorum queues instead of mirrored ones, and refuses queues that neither last nor belong to a connection.
celery_settings() {
    local more=
    if ((brokers_major >= 4)); then
        more=',"task_default_queue_type":"quorum","task_create_missing_queue_type":"quorum","control_queue_exclusive":true,"event_queue_exclusive":true'
    fi
    echo "{\"broker_heartbeat\":10,\"broker_connection_timeout\":3,\"broker_connection_max_retries\":null$more}"
}

brokers_major=

# Sets brokers_major.
need_brokers_version() {
    local one said
    for one in $(hosts_of queue); do
        said=$(ssh_to "$one" "$as_root_there rabbitmqctl --quiet version" 2>/dev/null) || continue
        [[ $said =~ ^[0-9]+ ]] && brokers_major=${BASH_REMATCH[0]} && return 0
    done
    die "none of the queue hosts ($(hosts_of queue | joined ', ')) tells the version of its RabbitMQ: see provision/status"
}

# CONNECT_RETRIES_TIMEOUT is for all brokers together, each of which has broker_connection_timeout: else a first one that says
# nothing uses it up, and a task that is to be sent counts as failed.
# /etc/airflow/airflow.env: read by systemd and by shells. In the end, what the settings say goes before ours.
airflow_settings() {
    local line
    while IFS= read -r line; do
        [[ -z $line ]] || printf "%s='%s'\n" "${line%%=*}" "${line#*=}"
    done <<END_OF_SETTINGS
PATH=/opt/airflow/current/bin:/usr/local/bin:/usr/bin:/bin
HOME=$AIRFLOW_HOME
LANG=C.UTF-8
AIRFLOW_HOME=$AIRFLOW_HOME
AIRFLOW__CORE__EXECUTOR=CeleryExecutor
AIRFLOW__CORE__LOAD_EXAMPLES=False
AIRFLOW__CORE__DAGS_FOLDER=$dags_there
AIRFLOW__CORE__FERNET_KEY=$(fernet_key "$AIRFLOW_FERNET")
AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=$(metadata_url "$DB_USER" "$DB_PASSWORD")
AIRFLOW__CELERY__RESULT_BACKEND=db+$(metadata_url "$DB_USER" "$DB_PASSWORD")
AIRFLOW__CELERY__BROKER_URL=$(broker_urls "$QUEUE_USER" "$QUEUE_PASSWORD" "$QUEUE_VHOST" | joined ';')
AIRFLOW__CELERY__SSL_ACTIVE=True
AIRFLOW__CELERY__SSL_MUTUAL_TLS=False
AIRFLOW__CELERY__SSL_CACERT=$authority_there
AIRFLOW__CELERY__SSL_KEY=
AIRFLOW__CELERY__SSL_CERT=
AIRFLOW__CELERY__WORKER_CONCURRENCY=$WORKER_CONCURRENCY
AIRFLOW__CELERY__OPERATION_TIMEOUT=30
AIRFLOW__CELERY__FLOWER_HOST=127.0.0.1
AIRFLOW__CELERY__FLOWER_BASIC_AUTH=$AIRFLOW_ADMIN:$AIRFLOW_ADMIN_PASSWORD
AIRFLOW__CELERY__EXTRA_CELERY_CONFIG=$(celery_settings)
AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__CONFIRM_PUBLISH=True
AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__CONNECT_RETRIES_TIMEOUT=20
AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL=30
AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD=30
AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT=180
AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
AIRFLOW_CONN_DEMO=$(demo_connection)
$(airflow_settings_of_version)
$(printf '%s\n' "${AIRFLOW_SETTINGS[@]}")
END_OF_SETTINGS
}

# Tasks of Airflow 3 report to an API server; each worker has one of its own, so that nothing shared can fail.
airflow_settings_of_version() {
    if ((AIRFLOW_VERSION >= 3)); then
        cat <<END_OF_SETTINGS
AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC=$(metadata_url "$DB_USER" "$DB_PASSWORD" psycopg)
AIRFLOW__CORE__AUTH_MANAGER=airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager
AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:8794/execution/
AIRFLOW__API_AUTH__JWT_SECRET=$AIRFLOW_JWT_SECRET
AIRFLOW__API__SECRET_KEY=$AIRFLOW_SECRET_KEY
AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=60
AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL=30
END_OF_SETTINGS
    else
        cat <<END_OF_SETTINGS
AIRFLOW__WEBSERVER__SECRET_KEY=$AIRFLOW_SECRET_KEY
AIRFLOW__API__AUTH_BACKENDS=airflow.providers.fab.auth_manager.api.auth.backend.basic_auth,airflow.api.auth.backend.session
AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD=60
AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL=30
END_OF_SETTINGS
    fi
}

# -- One host

# What every program for an Airflow host needs there. usage: stage_airflow ROLE HOST ADDRESS
stage_airflow() {
    local role=$1 own_address=$3 lock=$source_folder/config/airflow/airflow-$AIRFLOW_VERSION.lock lock_hash database
    lock_hash=$(sha256sum "$lock" | cut --characters=-12)
    database=$(libpq_connection "$DB_USER")
    new_stage
    stage_settings role own_address lock_hash database AIRFLOW_VERSION AIRFLOW_USER AIRFLOW_HOME AIRFLOW_ADMIN \
        AIRFLOW_ADMIN_PASSWORD DB_PASSWORD EFS_IP EFS_PATH WEB_PORT
    mkdir -p "$stage/tree/provision" "$stage/tree/config/airflow"
    stage_file "$source_folder/provision/airflow-environment" tree/provision/airflow-environment
    stage_file "$lock" "tree/config/airflow/$(basename "$lock")"
    stage_file "$source_folder/config/airflow/units" units
    stage_file "$source_folder/provision/on-host/airflow_database.py"
    stage_file "$source_folder/provision/on-host/airflow_probe.py"
    stage_file "$source_folder/provision/on-host/airflow_admin.py"
    (umask 077 && airflow_settings >"$stage/airflow.env")
    stage_certificate "$2" "$own_address" serverAuth
}

airflow_packages() { echo python3-venv openssl jq ${EFS_IP:+nfs-common}; }

# Of a host that was looked at. usage: check_python HOST
check_python() {
    [[ ${fact[system]} != "debian 13" ]] ||
        die "$1 runs Debian 13, whose Python is newer than what Airflow is locked for: take Debian 12 or Ubuntu here; queue, database and balancer hosts may have it"
}

# usage: set_up_airflow_host ROLE HOST
set_up_airflow_host() {
    local role=$1 to=$2 own_address packages
    read -ra packages < <(airflow_packages)
    [[ $role != scheduler ]] || packages+=(libpq5 librabbitmq4 libjansson4 libuv1 logrotate)
    check_host "$to" "$role" "${packages[@]}"
    check_python "$to"
    own_address=${fact[address]}
    if $dry_run; then
        say "$to: would install Airflow $AIRFLOW_VERSION and run its part of a $role (address $own_address)"
        return 0
    fi
    need_database
    need_queue
    need_brokers_version
    need_airflow_secrets
    [[ $role != scheduler ]] || need_scheduler_role "$to"
    stage_airflow "$role" "$to" "$own_address"
    [[ $role != scheduler ]] || stage_scheduler
    run_there "$to" airflow || die "$to is no $role yet"
    remember_host "$role" "$to" "$own_address"
    give_dags "$to"
}

# -- Schedulers

scheduler_role=
scheduler_password=

# As which the scheduler of a host logs in to the database. usage: scheduler_role_of HOST
scheduler_role_of() { tr 'A-Z.-' 'a-z__' <<<"scheduler_$1"; }

# Sets scheduler_role and scheduler_password and makes the role. It owns nothing, has its rights from airflow_tables, and
# comes into the database only while its host is the heir (docs/fencing.md). usage: need_scheduler_role HOST
need_scheduler_role() {
    local other secret
    scheduler_role=$(scheduler_role_of "$1")
    for other in $(hosts_of scheduler); do
        [[ $other == "$1" || $(scheduler_role_of "$other") != "$scheduler_role" ]] ||
            die "$1 and $other would have the same database role $scheduler_role: give one of them another name"
    done
    secret=${scheduler_role^^}_PASSWORD
    need_secret "$secret"
    scheduler_password=${!secret}
    sql_on_primary <<<"set log_statement to none; set log_min_error_statement to panic; set client_min_messages to warning;
        do \$\$ begin
            if not exists (select from pg_roles where rolname = '$scheduler_role') then create role $scheduler_role; end if;
        end \$\$;
        alter role $scheduler_role login password '$scheduler_password' nosuperuser nocreatedb nocreaterole;
        grant airflow_tables, heirflow_fenced to $scheduler_role" ||
        die "the role $scheduler_role could not be made in the database: see provision/status"
}

# Takes the role away again, with its sessions, for a host that is no scheduler any more. usage: drop_scheduler_role HOST
drop_scheduler_role() {
    local role
    role=$(scheduler_role_of "$1")
    sql_on_primary <<<"select pg_terminate_backend(pid) from pg_stat_activity where usename = '$role';
        revoke heirflow_gate from $role;" >/dev/null 2>&1 || true
    sql_on_primary <<<"drop role if exists $role" || die "the role $role could not be removed: DROP ROLE $role by hand"
}

# Heirflow's Debian packages: those that the settings name, else our own, built when the sources are newer.
heirflow_packages() {
    local folder=${HEIRFLOW_PACKAGES:-$STATE/packages} found
    lock_state
    found=$(find "$folder" -maxdepth 1 -name 'heirflow_*.deb' 2>/dev/null | sort | tail -n 1)
    if [[ -z ${HEIRFLOW_PACKAGES:-} ]] && { [[ -z $found ]] || sources_are_newer_than "$found"; }; then
        rm -rf "$folder"
        (unset host && "$source_folder/provision/package" --output "$folder" >&2) || die "Heirflow's packages could not be built; HEIRFLOW_PACKAGES in the settings names a folder that has them"
        touch "$folder"/*.deb
        found=$(find "$folder" -maxdepth 1 -name 'heirflow_*.deb' | sort | tail -n 1)
    fi
    unlock_state
    [[ -n $found ]] || die "there is no heirflow_*.deb in $folder, which HEIRFLOW_PACKAGES in the settings names: provision/package makes it"
    echo "$found"
    find "$folder" -maxdepth 1 -name "heirflow-interface_${found#*heirflow_}"
}

sources_are_newer_than() { [[ -n $(find "$source_folder"/{heirflow,interface,sql,meson.build,provision/debian,config/systemd} -newer "$1" -type f -print -quit 2>/dev/null) ]]; }

stage_scheduler() {
    local heirflow_connection news_urls scheduler_url scheduler_async_url package packages
    packages=$(heirflow_packages)
    heirflow_connection="$(libpq_connection heirflow) password=$HEIRFLOW_PASSWORD"
    news_urls=$(broker_urls "$NEWS_QUEUE_USER" "$NEWS_QUEUE_PASSWORD" "$NEWS_QUEUE_VHOST")
    scheduler_url=$(metadata_url "$scheduler_role" "$scheduler_password")
    scheduler_async_url=$(metadata_url "$scheduler_role" "$scheduler_password" psycopg)
    stage_settings heirflow_connection news_urls scheduler_url scheduler_async_url scheduler_role LEASE_MS
    mkdir "$stage/packages"
    for package in $packages; do
        stage_file "$package" "packages/$(basename "$package")"
    done
}

# -- All of them

one_of_each() {
    ssh_folder=$(mktemp --directory "$ssh_folder/XXXX")
    trap end_deployment EXIT
    host=$2
    "$1" "$2"
}

# Runs FUNCTION HOST for each host, each in a process of its own; fails if one fails. usage: on_each FUNCTION HOST...
on_each() {
    local function=$1 one pids=() failed=0
    shift
    for one; do
        one_of_each "$function" "$one" &
        pids+=($!)
    done
    for one in "${pids[@]}"; do
        wait "$one" || failed=1
    done
    return "$failed"
}

# -- DAGs: a version is what its content makes it, and lies in AIRFLOW_HOME/dags-versions; AIRFLOW_HOME/dags leads to it

kept_dags() { [[ ! -r $STATE/dags/version ]] || cat "$STATE/dags/version"; }

# A host that comes later gets the DAGs that the others have. usage: give_dags HOST
give_dags() {
    local version
    version=$(kept_dags)
    [[ -z $EFS_IP && -n $version ]] || return 0
    dags_version=$version
    host=$1
    if ! stage_dags_there "$1" || ! switch_dags_there "$1" >/dev/null; then
        die "$1 did not take the DAGs: run the same again"
    fi
}

dags_version=

# Checks and keeps them there, without using them yet. usage: stage_dags_there HOST
stage_dags_there() {
    new_stage
    stage_settings AIRFLOW_HOME dags_version
    stage_file "$STATE/dags/$dags_version.tar" dags.tar
    run_there "$1" dags
}

# Says which version was there before. usage: switch_dags_there HOST [VERSION]
switch_dags_there() {
    local version=${2:-$dags_version}
    # shellcheck disable=SC2029  # for the shell there
    ssh_to "$1" "$as_root_there sh -euc ${switch_dags@Q} switch ${AIRFLOW_HOME@Q} ${version@Q}"
}

# shellcheck disable=SC2016  # for the shell there
switch_dags='cd "$1"; former=$(readlink dags || echo none); [ -d "dags-versions/$2" ] || [ "$2" = none ]
if [ "$2" = none ]; then rm -f dags; mkdir -p dags; else
[ -L dags ] || rmdir dags 2>/dev/null || [ ! -e dags ] || { echo "$1/dags holds files that provision/dags did not put there: move them away" >&2; exit 1; }
ln -sfn "dags-versions/$2" dags.next; mv -fT dags.next dags; fi; echo "${former##*/}"'
