# shellcheck shell=bash
# etcd and RabbitMQ as their members on a host see them. Sourced after common.sh.

# With the certificate that this host has. usage: etcd_at ADDRESSES COMMAND...
etcd_at() {
    local endpoints folder=/etc/ssl/heirflow/etcd
    endpoints=$(sed -E 's,[^ ]+,https://&:2379,g; s, +,\,,g' <<<"$1")
    shift
    ETCDCTL_API=3 etcdctl --endpoints="$endpoints" --cacert=$folder/ca.crt --cert=$folder/host.crt --key=$folder/host.key \
        --dial-timeout=3s --command-timeout=10s "$@"
}

# What Patroni keeps there, by whichever interface (provision/on-host/database says why). usage: forget_patroni ADDRESSES
forget_patroni() {
    local endpoints folder=/etc/ssl/heirflow/etcd
    endpoints=$(sed -E 's,[^ ]+,https://&:2379,g; s, +,\,,g' <<<"$1")
    etcd_at "$1" del --prefix /heirflow/heirflow/ || return
    ETCDCTL_API=2 etcdctl --endpoints="$endpoints" --ca-file=$folder/ca.crt --cert-file=$folder/host.crt --key-file=$folder/host.key \
        --timeout=5s --total-timeout=10s rm --recursive /heirflow/heirflow || (($? == 4)) # there is nothing
}

# `ID, started|unstarted, NAME, PEERS, CLIENTS, IS-LEARNER`, or nothing if that address is no member. usage: etcd_member ADDRESS ADDRESSES
etcd_member() {
    local members
    members=$(etcd_at "$2" member list) || return
    grep -F "https://$1:2380" <<<"$members" || true
}

if_gone="start the other queue hosts first, or, if most of them are gone for good, provision/q_first --force for one that is left"

# usage: forget_etcd_member ADDRESS PEERS
forget_etcd_member() {
    local member
    member=$(etcd_member "$1" "$2") || refuse "etcd at $2 has no majority of its members: $if_gone"
    [[ -n $member ]] || return 0
    etcd_at "$2" member remove "${member%%,*}" || refuse "etcd does not let go of its member at $1: $if_gone"
    did "took the member at $1 out of etcd"
}

# As JSON, the members of the cluster in a broker's view. usage: brokers_known_to NODE
brokers_known_to() { rabbitmqctl --node "$1" --timeout 20 --quiet cluster_status --formatter json | jq --raw-output '.disk_nodes[]'; }

# Its application has to be stopped. usage: forget_broker ADDRESS PEERS
forget_broker() {
    local peer known
    for peer in $2; do
        known=$(brokers_known_to "rabbit@$peer") || continue
        grep -qxF "rabbit@$1" <<<"$known" || return 0
        rabbitmqctl --quiet --node "rabbit@$peer" forget_cluster_node "rabbit@$1"
        did "took the broker at $1 out of the RabbitMQ cluster"
        return 0
    done
    refuse "no RabbitMQ answers at $2: $if_gone"
}
