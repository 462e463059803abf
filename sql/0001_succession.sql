-- The roster, the throne, the terms and the news, and the functions through which daemons use them.
--
-- `heirflow migrate` runs this file in one transaction with search_path set to the schema; every function pins that
-- search_path. Lock order everywhere: throne, roster, news counter. A standby's heartbeat never locks the throne.
-- Functions that judge take the lock in a statement of their own and read clock_timestamp() only after it.

-- functions pin what is set here: without pg_temp at its end a caller's temporary tables would come before ours
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

create sequence member_id;

create table throne (
    group_name      text primary key check (group_name <> ''),
    member_id       bigint,                              -- the heir; null while the throne is vacant
    incarnation     uuid,
    term            bigint not null default 0,
    beat            bigint not null default 0,           -- the heir's renewals within the term
    lease_ms        integer not null check (lease_ms >= 100),
    next_lease_ms   integer check (next_lease_ms >= 100),-- becomes the lease at the next accession
    longest_lease_ms integer,                            -- of all that were to come: an accession lost by a failover may have
                                                         -- carried out any of them
    paused          boolean not null default false,
    identity        text,                                -- server of the last accession; null in a new row, equal to none
    renewed_at      timestamptz,                         -- for people and hints; decides nothing
    last_seat       uuid,                                -- the one seat that may accede while paused
    named_member_id bigint,                              -- successor named by an abdication
    named_at        timestamptz,
    request         text check (request in ('switchover', 'retire')),
    request_target  text,                                -- node a switchover should go to, null for the eldest
    requested_by    jsonb                                -- who asked, for the news
) with (fillfactor = 50);
comment on table throne is 'one row per group: who may run its scheduler';

create table roster (
    group_name    text not null,
    seat          uuid not null,                         -- one wrapper's run directory
    generation    bigint not null,                       -- grows with every registration the seat intends
    member_id     bigint not null default nextval('member_id'),
    incarnation   uuid not null,
    node          text not null,
    address       text,
    registered_at timestamptz not null,
    seen_at       timestamptz not null,                  -- orders and purges standbys, never deposes
    present       boolean not null default true,         -- false once it has left
    lost          boolean not null default false,        -- its silence has been told as news
    eligible      boolean not null,
    self          jsonb not null,                        -- what the member says of itself
    primary key (group_name, seat)
) with (fillfactor = 50);
comment on table roster is 'one row per seat; the oldest live registrant has the lowest member_id';

create table retirement (
    group_name text not null,
    node       text not null,
    retired_at timestamptz not null,
    primary key (group_name, node)
);
comment on table retirement is 'nodes that an operator took out of the line; survives their restarts';

create table terms (
    group_name text not null,
    term       bigint not null,
    member_id  bigint not null,
    node       text not null,
    began_at   timestamptz not null,
    ended_at   timestamptz,
    ended_by   text check (ended_by in ('abdicated', 'superseded', 'deposed')),
    reason     text,
    primary key (group_name, term)
);
comment on column terms.ended_at is 'for a deposed heir presumed: its last renewal plus the lease, at most its successor''s beginning';

create table news_counter (
    group_name text primary key,
    last       bigint not null default 0
) with (fillfactor = 50);
comment on table news_counter is 'last sequence of each group; its row lock makes sequences gap-free and commits ordered';

create table news (
    group_name text not null,
    sequence   bigint not null,
    id         uuid not null default md5(random()::text || clock_timestamp()::text)::uuid,
    event      text not null,
    node       text not null,                            -- whom it is about
    source     text not null,                            -- who tells it
    term       bigint,
    reason     text,
    data       jsonb not null default '{}',
    told_at    timestamptz not null default clock_timestamp(),
    primary key (group_name, sequence)
);
create unique index news_id on news (id);

create table relay (
    group_name text primary key,
    published  bigint not null default 0,                -- all news up to here have reached the broker
    member_id  bigint,                                   -- who relays at present
    claimed_at timestamptz
) with (fillfactor = 50);

create table hooks (                                      -- groups whose heirs run a hook for the events
    group_name text primary key,
    sequence   bigint not null                           -- dealt with up to here
) with (fillfactor = 50);

-- ------------------------------------------------------------------------------------------------ helpers

create function server_identity() returns text
language plpgsql volatile security definer set search_path from current as $$
begin
    if pg_is_in_recovery() then
        raise exception 'this server is a standby in recovery; Heirflow needs the primary'
            using errcode = 'read_only_sql_transaction';
    end if;
    return (select system_identifier from pg_control_system())
        || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
        || '/' || to_char(extract(epoch from pg_postmaster_start_time()), 'FM999999999999.000000')
        || '/' || pg_relation_filenode('throne');   -- a logical restore makes a new table
end $$;
comment on function server_identity() is
    'system identifier, timeline and start of the answering server, and which throne table it is; fails on a standby. '
    'Takes no lock.';

create function commit_durably() returns void
language plpgsql volatile set search_path from current as $$
begin
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end $$;
comment on function commit_durably() is 'the transaction''s commit waits for the disk and for a synchronous standby';

create function wait_ms(t throne) returns integer
language sql immutable as $$
    select greatest(t.lease_ms, t.longest_lease_ms)
$$;
comment on function wait_ms(throne) is
    'how long everyone waits once another server answers: the largest of the lease in force and those to come';

create function is_live(r roster, t throne, at timestamptz) returns boolean
language sql stable as $$
    select r.present
       and case when r.member_id = t.member_id and r.incarnation = t.incarnation then t.renewed_at else r.seen_at end
           between at - t.lease_ms * interval '1 millisecond' and at + t.lease_ms / 3 * interval '1 millisecond'
$$;
comment on function is_live(roster, throne, timestamptz) is 'seen within a lease; the heir: has renewed within its lease';

create function is_retired(p_group text, p_node text) returns boolean
language sql stable as $$
    select exists (select from retirement where group_name = p_group and node = p_node)
$$;

create function may_lead(r roster, t throne, at timestamptz) returns boolean
language sql stable as $$
    select r.eligible and is_live(r, t, at)
       and (r.member_id, r.incarnation) is distinct from (t.member_id, t.incarnation)
       and not is_retired(r.group_name, r.node)
$$;
comment on function may_lead(roster, throne, timestamptz) is 'live, eligible, not retired and not already the holder';

create function why_not(r roster, t throne, at timestamptz) returns text
language sql stable as $$
    select case
        when is_retired(r.group_name, r.node) then 'retired'
        when not is_live(r, t, at) then 'not seen for a lease'
        when not r.eligible then coalesce(r.self->>'reason', 'has not registered again')
        end
$$;
comment on function why_not(roster, throne, timestamptz) is 'what keeps a standby from leading; null for nothing but its place in the line';

create function named_successor(t throne, at timestamptz) returns bigint
language sql stable as $$
    select r.member_id from roster r
     where t.member_id is null and r.group_name = t.group_name and r.member_id = t.named_member_id and may_lead(r, t, at)
       and at between t.named_at and t.named_at + t.lease_ms / 3 * interval '1 millisecond'
$$;
comment on function named_successor(throne, timestamptz) is
    'the member whom an abdication named, while it takes precedence: a third of the lease. Null if there is none.';

create function tell(p_group text, p_event text, p_node text, p_source text, p_term bigint, p_reason text,
                     p_data jsonb default '{}', p_id uuid default null) returns void
language plpgsql volatile as $$
declare
    v_sequence bigint;
begin
    -- founds it too: after a failover that lost the group, its members may have something to tell before they register
    insert into news_counter as c (group_name, last) values (p_group, 1)
        on conflict (group_name) do update set last = c.last + 1 returning last into v_sequence;
    -- only under the counter's lock is it certain whether a repeated request has told this already
    if p_id is not null and exists (select from news where id = p_id) then
        update news_counter set last = last - 1 where group_name = p_group;
        return;
    end if;
    insert into news (group_name, sequence, id, event, node, source, term, reason, data)
    values (p_group, v_sequence, coalesce(p_id, md5(random()::text || clock_timestamp()::text)::uuid),
            p_event, p_node, p_source, p_term, p_reason, coalesce(p_data, '{}'));
    perform pg_notify('heirflow_news', p_group);
end $$;
comment on function tell(text, text, text, text, bigint, text, jsonb, uuid) is
    'writes one event in the transaction of the change it tells; locks the group''s news counter. Once per id.';

create function asker() returns jsonb
language sql stable as $$
    select jsonb_build_object('asked_by', session_user, 'asked_from', host(inet_client_addr()))
$$;
comment on function asker() is 'who calls: database user and, unless it is on the server''s own host, client address';

create function wake(p_group text, p_member bigint) returns void
language sql volatile as $$
    select pg_notify('heirflow_wake', json_build_object('group', p_group, 'member_id', p_member)::text)
$$;
comment on function wake(text, bigint) is 'a hint to one member to send its heartbeat now';

create function vacate(p_group text, p_ended_by text, p_reason text, p_node text) returns text
language plpgsql volatile as $$
declare
    t throne;
    v_now timestamptz;
    v_heir text;
    v_successor roster;
begin
    select * into t from throne where group_name = p_group for update;
    v_now := clock_timestamp();
    update terms set ended_at = v_now, ended_by = p_ended_by, reason = p_reason
     where group_name = p_group and term = t.term and ended_at is null
     returning node into v_heir;
    if not t.paused then
        select r.* into v_successor from roster r
         where r.group_name = p_group and may_lead(r, t, v_now)
         order by r.node = t.request_target desc nulls last, r.member_id limit 1;
    end if;
    -- it is to register at the end of the line; until then it stands in nobody's way
    update roster set eligible = false, seen_at = v_now, self = self - 'scheduler'
     where group_name = p_group and member_id = t.member_id and incarnation = t.incarnation;
    update throne
       set member_id = null, incarnation = null, request = null, request_target = null, requested_by = null,
           named_member_id = v_successor.member_id, named_at = v_now
     where group_name = p_group;
    perform tell(p_group, 'abdicated', coalesce(v_heir, p_node), p_node, t.term, p_reason,
                 jsonb_build_object('successor', v_successor.node)
                 || case when p_reason in ('switchover', 'retired') then coalesce(t.requested_by, '{}') else '{}' end);
    perform wake(p_group, v_successor.member_id);
    return v_successor.node;
end $$;
comment on function vacate(text, text, text, text) is
    'ends the term, names the successor and wakes it; locks the throne. The caller has checked that the holder asks.';

create function observe(p_group text, p_seat uuid, p_incarnation uuid, p_lease_ms integer default 6000) returns jsonb
language plpgsql volatile as $$
declare
    t throne;
    me roster;
    heir roster;
    v_now timestamptz := clock_timestamp();
    v_identity text := server_identity();
    v_rank bigint;
    v_elders bigint;
    v_named bigint;
    v_heartbeat_ms bigint;
    v_since_beat_ms bigint;
begin
    select * into t from throne where group_name = p_group;
    if not found then   -- a failover may lose the whole group: its members are to register, and found it again
        t.lease_ms := p_lease_ms;
        t.term := 0;
        t.beat := 0;
        t.paused := false;
    end if;
    select * into me from roster where group_name = p_group and seat = p_seat and incarnation = p_incarnation and present;
    select count(*) filter (where is_live(r, t, v_now) and r.member_id is distinct from t.member_id),
           count(*) filter (where may_lead(r, t, v_now))
      into v_rank, v_elders
      from roster r where r.group_name = p_group and r.member_id < me.member_id;
    v_named := named_successor(t, v_now);
    select * into heir from roster where group_name = p_group and member_id = t.member_id;
    v_heartbeat_ms := greatest(coalesce((heir.self->>'heartbeat_ms')::bigint, t.lease_ms / 6), 1);
    v_since_beat_ms := greatest(extract(epoch from v_now - t.renewed_at) * 1000, 0)::bigint;
    return jsonb_build_object(
        'identity', v_identity,
        'home', t.identity is not distinct from v_identity and t.identity is not null,
        'heir', t.member_id, 'heir_incarnation', t.incarnation, 'heir_node', heir.node,
        'term', t.term, 'beat', t.beat,
        'lease_ms', t.lease_ms, 'accession_lease_ms', coalesce(t.next_lease_ms, t.lease_ms), 'wait_ms', wait_ms(t),
        'paused', t.paused, 'known', me.member_id is not null and t.group_name is not null, 'member_id', me.member_id,
        'retired', is_retired(p_group, me.node),
        'rank', v_rank, 'eldest', v_elders = 0,
        'named', coalesce(v_named = me.member_id, false),
        'held_back', v_named is not null and v_named is distinct from me.member_id,
        'last_seat', t.last_seat = p_seat,
        'request', case when t.member_id = me.member_id and t.incarnation = me.incarnation then t.request end,
        -- just after the heir's next expected beat, so that the observation of a lease starts as early as it can
        'beat_in_ms', case when t.member_id is not null
                      then v_heartbeat_ms - v_since_beat_ms % v_heartbeat_ms + 15 + least(v_rank * 3, v_heartbeat_ms / 3) end,
        'unpublished', (select last from news_counter where group_name = p_group)
                     - (select published from relay where group_name = p_group));
end $$;
comment on function observe(text, uuid, uuid, integer) is
    'the reply to every call: the throne as it stands and what it means to this member. Locks nothing. p_lease_ms is told '
    'for a group that does not exist.';

-- ------------------------------------------------------------------------------------------------ members

create function register(p_group text, p_seat uuid, p_generation bigint, p_incarnation uuid, p_node text,
                         p_lease_ms integer, p_self jsonb) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
    me roster;
    v_now timestamptz;
begin
    perform server_identity();
    if (p_self->>'schema_version')::integer + 1 < (select max(version) from schema_version) then
        raise exception 'the database has schema version %, this program knows %: upgrade heirflow on this node',
            (select max(version) from schema_version), p_self->>'schema_version' using errcode = 'feature_not_supported';
    end if;
    perform commit_durably();
    insert into throne (group_name, lease_ms) values (p_group, p_lease_ms) on conflict do nothing;
    insert into news_counter (group_name) values (p_group) on conflict do nothing;
    insert into relay (group_name) values (p_group) on conflict do nothing;
    select * into t from throne where group_name = p_group for update;
    v_now := clock_timestamp();
    select * into me from roster where group_name = p_group and seat = p_seat for update;
    if me.generation > p_generation or (me.generation = p_generation and not me.present) then
        return observe(p_group, p_seat, p_incarnation) || '{"refused": "superseded"}';
    end if;
    if me.generation is distinct from p_generation then
        delete from roster where group_name = p_group and seat in (   -- before the counter is locked; never waits
            select r.seat from roster r
             where r.group_name = p_group and r.seat <> p_seat and r.seen_at < v_now - interval '1 day'
               and (r.member_id, r.incarnation) is distinct from (t.member_id, t.incarnation)
               for update skip locked);
        if t.member_id = me.member_id and t.incarnation = me.incarnation then
            perform vacate(p_group, 'superseded', 'restarted', me.node);
        end if;
        insert into roster (group_name, seat, generation, incarnation, node, address, registered_at, seen_at, eligible, self)
        values (p_group, p_seat, p_generation, p_incarnation, p_node, host(inet_client_addr()), v_now, v_now,
                coalesce((p_self->>'eligible')::boolean, true), p_self)
        on conflict (group_name, seat) do update
           set generation = excluded.generation, member_id = excluded.member_id, incarnation = excluded.incarnation,
               node = excluded.node, address = excluded.address, registered_at = v_now, seen_at = v_now,
               present = true, lost = false, eligible = excluded.eligible, self = excluded.self;
        perform tell(p_group, 'registered', p_node, p_node, null, p_self->>'registered_because',
                     jsonb_build_object('member_id', (select member_id from roster where group_name = p_group and seat = p_seat)));
        me.incarnation := p_incarnation;
    end if;
    return observe(p_group, p_seat, me.incarnation) || jsonb_build_object('incarnation', me.incarnation);
end $$;
comment on function register(text, uuid, bigint, uuid, text, integer, jsonb) is
    'puts the seat at the end of the line, superseding its former registrant; equal generation is idempotent, a lower '
    'one refused. Locks the throne row, and founds it for a new group.';

create function tell_all(p_group text, p_node text, p_news jsonb) returns void
language plpgsql volatile as $$
declare
    e jsonb;
begin
    for e in select value from jsonb_array_elements(p_news) loop
        perform tell(p_group, e->>'event', coalesce(e->>'node', p_node), p_node,
                     (e->>'term')::bigint, e->>'reason', nullif(e->'data', 'null'), (e->>'id')::uuid);
    end loop;
end $$;
comment on function tell_all(text, text, jsonb) is 'events that a member tells of itself, each once by its id; locks the news counter';

create function heartbeat(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_term bigint,
                          p_self jsonb, p_news jsonb) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
    r roster;
    v_now timestamptz;
    v_renewed boolean := false;
begin
    perform server_identity();
    if p_term is not null or jsonb_array_length(p_news) > 0 then
        perform commit_durably();
    else
        perform set_config('synchronous_commit', 'off', true);   -- seen_at may be lost, it only orders
    end if;
    if p_term is not null then
        select * into t from throne where group_name = p_group for update;
        v_now := clock_timestamp();
        v_renewed := coalesce(t.member_id = p_member and t.incarnation = p_incarnation and t.term = p_term, false);
    end if;
    if v_renewed then
        update throne set beat = beat + 1, renewed_at = v_now where group_name = p_group;
        update roster set self = p_self, seen_at = v_now
         where group_name = p_group and seat = p_seat and incarnation = p_incarnation and self is distinct from p_self;
        for r in update roster set lost = true where group_name = p_group and seat in (
                    select o.seat from roster o   -- a renewal waits for nobody: what is locked is told with the next one
                     where o.group_name = p_group and o.present and not o.lost and o.member_id <> p_member
                       and o.seen_at < v_now - t.lease_ms * interval '1 millisecond'
                       for update skip locked)
             returning * loop
            perform tell(p_group, 'lost', r.node, coalesce(p_self->>'node', ''), p_term, 'not seen for a lease',
                         jsonb_build_object('member_id', r.member_id));
        end loop;
    else
        update roster
           set seen_at = clock_timestamp(), lost = false, self = p_self,
               eligible = coalesce((p_self->>'eligible')::boolean, true)
         where group_name = p_group and seat = p_seat and incarnation = p_incarnation and present;
    end if;
    perform tell_all(p_group, coalesce(p_self->>'node', ''), p_news);
    return observe(p_group, p_seat, p_incarnation, coalesce((p_self->>'lease_ms')::integer, 6000))
        || jsonb_build_object('renewed', v_renewed);
end $$;
comment on function heartbeat(text, uuid, bigint, uuid, bigint, jsonb, jsonb) is
    'one member lives; with a term, the heir renews its lease (locks the throne). p_news: events the member tells, each once by its id.';

create function accede(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid,
                       p_identity text, p_heir bigint, p_heir_incarnation uuid, p_term bigint, p_beat bigint,
                       p_highest_term bigint, p_seniority_yields boolean) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
    me roster;
    v_now timestamptz;
    v_identity text := server_identity();
    v_refused text;
    v_named bigint;
    v_term bigint;
    v_heir text;
    v_fence boolean;
begin
    perform commit_durably();
    select * into t from throne where group_name = p_group for update;
    v_now := clock_timestamp();
    select * into me from roster
     where group_name = p_group and seat = p_seat and member_id = p_member and incarnation = p_incarnation and present;
    v_named := named_successor(t, v_now);
    v_refused := case
        when me.member_id is null then 'unknown'
        when (v_identity, t.member_id, t.incarnation, t.term, t.beat)
             is distinct from (p_identity, p_heir, p_heir_incarnation, p_term, p_beat) then 'changed'
        when t.member_id = p_member and t.incarnation = p_incarnation then 'held'
        when is_retired(p_group, me.node) then 'retired'
        when t.paused and t.last_seat is distinct from p_seat then 'paused'
        when t.paused or p_seniority_yields then null
        when v_named = p_member then null
        when v_named is not null then 'held-back'
        when exists (select from roster r where r.group_name = p_group and r.member_id < p_member
                        and may_lead(r, t, v_now)) then 'not-eldest'
        end;
    if v_refused is null and fence_fault(me.self->>'fence_role') is not null then
        return observe(p_group, p_seat, p_incarnation)
            || jsonb_build_object('acceded', false, 'unable', true, 'refused', fence_fault(me.self->>'fence_role'));
    elsif v_refused is not null then
        return observe(p_group, p_seat, p_incarnation) || jsonb_build_object('acceded', false, 'refused', v_refused);
    end if;
    v_term := greatest(   -- past every term that anyone remembers, and past those that a failover lost
        t.term + case when t.identity is not distinct from v_identity then 1 else 1000 + floor(random() * 1000)::bigint end,
        p_highest_term + 1,
        (select max((r.self->>'highest_term')::bigint) + 1 from roster r where r.group_name = p_group),
        (select max(term) + 1 from terms where group_name = p_group));
    if t.member_id is not null then
        update terms
           set ended_at = least(t.renewed_at + t.lease_ms * interval '1 millisecond', v_now), ended_by = 'deposed', reason = 'lease lapsed'
         where group_name = p_group and term = t.term and ended_at is null
         returning node into v_heir;
        perform tell(p_group, 'deposed', coalesce(v_heir, ''), me.node, t.term, 'lease lapsed',
                     jsonb_build_object('member_id', t.member_id));
    end if;
    update throne
       set member_id = p_member, incarnation = p_incarnation, term = v_term, beat = 0,
           lease_ms = coalesce(next_lease_ms, lease_ms), next_lease_ms = null, longest_lease_ms = null,
           identity = v_identity,
           renewed_at = v_now, last_seat = p_seat, named_member_id = null, named_at = null,
           request = null, request_target = null, requested_by = null
     where group_name = p_group;
    insert into terms (group_name, term, member_id, node, began_at) values (p_group, v_term, p_member, me.node, v_now);
    v_fence := pass_gate(p_group, me.self->>'fence_role');
    perform tell(p_group, 'acceded', me.node, me.node, v_term,
                 case when t.member_id is not null then 'takeover' when t.identity is null then 'first' else 'vacant' end,
                 jsonb_build_object('member_id', p_member));
    return observe(p_group, p_seat, p_incarnation) || jsonb_build_object('acceded', true, 'fence', v_fence);
end $$;
comment on function accede(text, uuid, bigint, uuid, text, bigint, uuid, bigint, bigint, bigint, boolean) is
    'takes the throne if it is still exactly as observed and it is this member''s turn. Locks the throne. With "fence" in the '
    'reply, fence() comes before the scheduler''s start.';

create function abdicate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_reason text,
                         p_node text default '', p_news jsonb default '[]') returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
    v_node text;
    v_successor text;
begin
    perform server_identity();
    perform commit_durably();
    select * into t from throne where group_name = p_group for update;
    perform tell_all(p_group, p_node, p_news);
    if t.member_id = p_member and t.incarnation = p_incarnation and t.term = p_term then
        select node into v_node from roster where group_name = p_group and member_id = p_member;
        v_successor := vacate(p_group, 'abdicated', p_reason, coalesce(v_node, p_node));
        return jsonb_build_object('held', true, 'successor', v_successor);
    end if;
    return jsonb_build_object('held', false);
end $$;
comment on function abdicate(text, bigint, uuid, bigint, text, text, jsonb) is
    'ends the caller''s own term; its scheduler is dead already. Locks the throne. Harmless when repeated.';

create function leave(p_group text, p_seat uuid, p_incarnation uuid, p_reason text) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
    me roster;
begin
    perform commit_durably();
    select * into t from throne where group_name = p_group for update;
    select * into me from roster where group_name = p_group and seat = p_seat and incarnation = p_incarnation and present;
    if t.member_id = me.member_id and t.incarnation = me.incarnation then
        return jsonb_build_object('left', false);
    end if;
    if me.member_id is not null then
        update roster set present = false where group_name = p_group and seat = p_seat;
        perform tell(p_group, 'left', me.node, me.node, null, p_reason, jsonb_build_object('member_id', me.member_id));
    end if;
    return jsonb_build_object('left', true);
end $$;
comment on function leave(text, uuid, uuid, text) is 'takes a member off the roster; refused to the heir, which abdicates first. Locks the throne.';

create function relay_claim(p_group text, p_member bigint, p_for_ms integer) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    c relay;
begin
    select * into c from relay where group_name = p_group for update;
    if c.member_id is distinct from p_member
       and not exists (select from throne where group_name = p_group and member_id = p_member)
       and abs(extract(epoch from clock_timestamp() - c.claimed_at)) * 1000 < p_for_ms then
        return jsonb_build_object('granted', false);
    end if;
    update relay set member_id = p_member, claimed_at = clock_timestamp() where group_name = p_group;
    return jsonb_build_object('granted', c.group_name is not null, 'published', c.published);
end $$;
comment on function relay_claim(text, bigint, integer) is
    'one member at a time relays a group''s news: the heir whenever it asks, others once a claim is p_for_ms old. Locks the relay row.';

create function relay_published(p_group text, p_member bigint, p_sequence bigint) returns boolean
language plpgsql volatile security definer set search_path from current as $$
begin
    update relay
       set published = greatest(published, least(p_sequence, (select last from news_counter c where c.group_name = p_group))),
           claimed_at = clock_timestamp()
     where group_name = p_group and member_id = p_member;
    return found;
end $$;
comment on function relay_published(text, bigint, bigint) is
    'the broker has confirmed all news up to p_sequence; false if another member relays by now. Locks the relay row.';

-- ------------------------------------------------------------------------------------------------ viewers

create function news_after(p_group text, p_after bigint, p_limit integer)
returns table (sequence bigint, event text, body jsonb)
language sql stable security definer set search_path from current as $$
    select n.sequence, n.event, jsonb_build_object(
        'specversion', '1.0', 'id', n.id, 'source', '/heirflow/' || n.group_name || '/' || n.source,
        'type', 'heirflow.' || n.event, 'subject', coalesce(nullif(n.node, ''), n.group_name),
        'time', to_char(n.told_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'datacontenttype', 'application/json',
        'data', n.data || jsonb_build_object('term', n.term, 'sequence', n.sequence, 'reason', n.reason))
      from news n
     where n.group_name = p_group and n.sequence > p_after
     order by n.sequence
     limit p_limit
$$;
comment on function news_after(text, bigint, integer) is 'events after a sequence, oldest first, as CloudEvents.';

create function hooks_next(p_group text, p_member bigint, p_incarnation uuid, p_term bigint,
                           p_done bigint, p_done_id uuid) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    v_oldest timestamptz := clock_timestamp() - interval '1 hour';
    v_after bigint;
    v_skip bigint;
    n news;
begin
    if not exists (select from throne where group_name = p_group and member_id = p_member
                      and incarnation = p_incarnation and term = p_term) then
        return null;
    end if;
    perform set_config('synchronous_commit', 'off', true);   -- lost, an event is dealt with once more
    -- by its id as well: a failover may have lost the event and given its number to another
    update hooks h set sequence = p_done
     where h.group_name = p_group and h.sequence < p_done
       and exists (select from news where group_name = p_group and sequence = p_done and id = p_done_id);
    select sequence into v_after from hooks where group_name = p_group;
    if not found then   -- the first one begins with its own accession and what led to it
        select sequence - 1 into v_after from news
         where group_name = p_group and event = 'acceded' and term = p_term order by sequence desc limit 1;
        v_after := coalesce((select max(sequence) - 1 from news
                              where group_name = p_group and event in ('abdicated', 'deposed')
                                and sequence between v_after - 100 and v_after and told_at >= v_oldest),
                            v_after, (select last from news_counter where group_name = p_group));
        insert into hooks (group_name, sequence) values (p_group, v_after) on conflict do nothing;
    end if;
    select * into n from news where group_name = p_group and sequence > v_after order by sequence limit 1;
    if n.told_at < v_oldest then
        select max(sequence) into v_skip from news
         where group_name = p_group and sequence > v_after and told_at < v_oldest;
        update hooks set sequence = v_skip where group_name = p_group and sequence < v_skip;
        select * into n from news where group_name = p_group and sequence > v_skip order by sequence limit 1;
    end if;
    return jsonb_build_object('skipped', coalesce(v_skip - v_after, 0),
                              'body', (select body from news_after(p_group, n.sequence - 1, 1)));
end $$;
comment on function hooks_next(text, bigint, uuid, bigint, bigint, uuid) is
    'for the heir: records that its hook has dealt with the event p_done and returns the next one, "body", or null if there '
    'is none; null to anybody else. Goes on where the last heir stopped; leaves out what is older than an hour. Locks '
    'nothing but its own row.';

create function news_last(p_group text) returns bigint
language sql stable security definer set search_path from current as $$
    select last from news_counter where group_name = p_group
$$;
comment on function news_last(text) is 'the group''s highest sequence; null for an unknown group';

create function group_names() returns setof text
language sql stable security definer set search_path from current as $$
    select group_name from throne order by group_name
$$;

create function status(p_group text) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
    v_now timestamptz := clock_timestamp();
    v_members jsonb;
begin
    select * into t from throne where group_name = p_group;
    if not found then
        return null;
    end if;
    with line as (
        select r.*, r.member_id is not distinct from t.member_id and r.incarnation = t.incarnation as is_heir,
               is_retired(p_group, r.node) as is_retired, is_live(r, t, v_now) as is_live,
               why_not(r, t, v_now) as why_not, may_lead(r, t, v_now) as may_lead
          from roster r where r.group_name = p_group and r.present
    ), ranked as (
        select l.*, row_number() over (order by is_heir desc, is_retired, is_live desc, member_id) as rank,
               count(*) filter (where may_lead) over (order by member_id rows between unbounded preceding and 1 preceding) as elders
          from line l
    )
    select coalesce(jsonb_agg(jsonb_build_object(
        'member_id', m.member_id, 'node', m.node, 'rank', m.rank,
        'role', case when m.is_heir then 'heir' when m.is_retired then 'retired' else 'standby' end,
        'reason', case
            when m.is_heir then case when not m.is_live then 'lease lapsed' end
            when m.why_not is not null then m.why_not
            when t.paused then 'paused'
            when m.elders = 0 then 'next in line'
            else m.elders || ' older in line' end,
        'live', m.is_live,
        'registered_at', m.registered_at,
        'seen_ms_ago', floor(extract(epoch from v_now - case when m.is_heir then t.renewed_at else m.seen_at end) * 1000)::bigint,
        'address', m.address, 'version', m.self->>'version', 'lease_ms', (m.self->>'lease_ms')::bigint,
        -- what a member last said of its scheduler is true for as long as its lease lasts
        'scheduler', case when m.is_heir and m.is_live then m.self->'scheduler' end) order by m.rank), '[]')
      into v_members from ranked m;
    return jsonb_build_object(
        'group', t.group_name, 'term', t.term, 'paused', t.paused, 'lease_ms', t.lease_ms, 'wait_ms', wait_ms(t),
        'timeline', split_part(t.identity, '/', 2),
        'acceded_at', (select began_at from terms where group_name = p_group and term = t.term and ended_at is null),
        'heir', (select jsonb_build_object('node', r.node, 'member_id', r.member_id) from roster r
                  where r.group_name = p_group and r.member_id = t.member_id),
        'unpublished', (select last from news_counter where group_name = p_group)
                     - (select published from relay where group_name = p_group),
        'members', v_members);
end $$;
comment on function status(text) is 'the roster in succession order and, for each standby, why it is not the heir; null for an unknown group';

create function history(p_group text, p_limit integer) returns jsonb
language sql stable security definer set search_path from current as $$
    select coalesce(jsonb_agg(to_jsonb(h) order by h.term desc), '[]') from (
        select term, node, member_id, began_at, ended_at, ended_by, reason,
               floor(extract(epoch from began_at - lag(ended_at) over (order by term)) * 1000)::bigint as gap_ms
          from terms where group_name = p_group order by term desc limit p_limit) h
$$;
comment on function history(text, integer) is
    'the latest terms, newest first; gap_ms is the time without an heir before the term (database clock)';

-- ------------------------------------------------------------------------------------------------ operators

create function request_switchover(p_group text, p_target text) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
    v_now timestamptz;
    v_heir text;
    v_why text;
begin
    perform commit_durably();
    select * into t from throne where group_name = p_group for update;
    v_now := clock_timestamp();
    select node into v_heir from roster r
     where r.group_name = p_group and r.member_id = t.member_id and r.incarnation = t.incarnation;
    if t.group_name is null then
        return jsonb_build_object('accepted', false, 'refused', 'there is no such group');
    elsif p_target = v_heir then
        return jsonb_build_object('accepted', false, 'refused', v_heir || ' is the heir already', 'already', true);
    elsif t.member_id is null then
        return jsonb_build_object('accepted', false, 'refused', 'the group has no heir');
    elsif t.paused then
        return jsonb_build_object('accepted', false, 'refused', 'the group is paused');
    elsif not exists (select from roster r where r.group_name = p_group and may_lead(r, t, v_now)
                         and r.node = coalesce(p_target, r.node)) then
        select why_not(r, t, v_now) into v_why from roster r
         where r.group_name = p_group and r.present and r.node = p_target order by r.member_id limit 1;
        return jsonb_build_object('accepted', false, 'refused', case
            when p_target is null then 'no standby can lead'
            when v_why is null then 'there is no standby ' || p_target || coalesce('; the standbys are ' ||
                (select string_agg(r.node, ', ' order by r.member_id) from roster r
                  where r.group_name = p_group and r.present and r.node <> v_heir), '')
            else p_target || ' cannot lead: ' || v_why end);
    end if;
    update throne set request = 'switchover', request_target = p_target, requested_by = asker() where group_name = p_group;
    perform wake(p_group, t.member_id);
    return jsonb_build_object('accepted', true, 'term', t.term, 'heir', v_heir);
end $$;
comment on function request_switchover(text, text) is 'asks the heir to hand over to a node, or to the eldest standby. Locks the throne.';

create function set_paused(p_group text, p_paused boolean) returns boolean
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
begin
    perform commit_durably();
    select * into t from throne where group_name = p_group for update;
    if t.paused is not distinct from p_paused or t.group_name is null then
        return false;
    end if;
    update throne
       set paused = p_paused, request_target = null,
           request = case when p_paused then null   -- asked for again on resuming, if the heir's node is retired
                          when is_retired(p_group, (select node from roster r where r.group_name = p_group
                                                       and r.member_id = t.member_id and r.incarnation = t.incarnation))
                          then 'retire' end
     where group_name = p_group;
    perform tell(p_group, case when p_paused then 'paused' else 'resumed' end, '', session_user, t.term, null, asker());
    return true;
end $$;
comment on function set_paused(text, boolean) is 'while paused nobody takes over. Locks the throne. False if nothing changed.';

create function set_retired(p_group text, p_node text, p_retired boolean) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
    v_heir boolean;
    v_changed bigint;
    v_member bigint;
begin
    perform commit_durably();
    select * into t from throne where group_name = p_group for update;
    if t.group_name is null then
        return jsonb_build_object('accepted', false, 'refused', 'there is no such group');
    end if;
    v_heir := exists (select from roster where group_name = p_group and node = p_node
                         and member_id = t.member_id and incarnation = t.incarnation);
    if p_retired and v_heir and t.paused then
        return jsonb_build_object('accepted', false, 'refused', 'the group is paused');
    end if;
    if p_retired then
        insert into retirement values (p_group, p_node, clock_timestamp()) on conflict do nothing;
    else
        delete from retirement where group_name = p_group and node = p_node;
    end if;
    get diagnostics v_changed = row_count;
    if p_retired and v_heir then
        update throne set request = 'retire', request_target = null, requested_by = asker() where group_name = p_group;
        perform wake(p_group, t.member_id);
    elsif v_heir then
        update throne set request = null where group_name = p_group and request = 'retire';
    elsif not p_retired and v_changed > 0 then
        for v_member in update roster set present = false where group_name = p_group and node = p_node and present
                        returning member_id loop
            perform wake(p_group, v_member);   -- unknown by now, so it registers at the end of the line
        end loop;
    end if;
    if v_changed > 0 then
        perform tell(p_group, case when p_retired then 'retired' else 'enlisted' end, p_node, session_user, t.term, null, asker());
    end if;
    return jsonb_build_object('accepted', true, 'changed', v_changed > 0, 'term', t.term, 'heir', v_heir);
end $$;
comment on function set_retired(text, text, boolean) is
    'takes a node out of the line or puts it at its end; an heir is asked to hand over first. Locks the throne.';

create function set_lease(p_group text, p_lease_ms integer) returns boolean
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
begin
    perform commit_durably();
    select * into t from throne where group_name = p_group for update;
    if t.group_name is null or coalesce(t.next_lease_ms, t.lease_ms) = p_lease_ms then
        return false;
    end if;
    update throne
       set next_lease_ms = p_lease_ms, longest_lease_ms = greatest(longest_lease_ms, p_lease_ms)
     where group_name = p_group;
    perform tell(p_group, 'lease-changed', '', session_user, t.term, 'from the next accession on',
                 asker() || jsonb_build_object('lease_ms', p_lease_ms));
    return true;
end $$;
comment on function set_lease(text, integer) is 'the lease from the next accession on. Locks the throne. False if nothing changed.';

-- ------------------------------------------------------------------------------------------------ rights

do $$
declare
    v_role text;
begin
    execute format('revoke all on all functions in schema %I from public', current_schema());
    foreach v_role in array array['heirflow_member', 'heirflow_operator', 'heirflow_viewer'] loop
        if not exists (select from pg_roles where rolname = v_role) then
            begin
                execute format('create role %I nologin', v_role);
            exception when insufficient_privilege then continue;     -- migrate tells of it
            when duplicate_object or unique_violation then null;   -- another database's migration was faster
            end;
        end if;
        execute format('grant usage on schema %I to %I', current_schema(), v_role);
        execute format('grant select on schema_version to %I', v_role);
        execute format('grant execute on function news_after(text, bigint, integer), news_last(text), group_names(),
            status(text), history(text, integer), server_identity() to %I', v_role);
        if v_role = 'heirflow_member' then
            execute format('grant execute on function register(text, uuid, bigint, uuid, text, integer, jsonb),
                heartbeat(text, uuid, bigint, uuid, bigint, jsonb, jsonb),
                accede(text, uuid, bigint, uuid, text, bigint, uuid, bigint, bigint, bigint, boolean),
                abdicate(text, bigint, uuid, bigint, text, text, jsonb), leave(text, uuid, uuid, text),
                relay_claim(text, bigint, integer), relay_published(text, bigint, bigint),
                hooks_next(text, bigint, uuid, bigint, bigint, uuid) to %I', v_role);
        elsif v_role = 'heirflow_operator' then
            execute format('grant execute on function request_switchover(text, text), set_paused(text, boolean),
                set_retired(text, text, boolean), set_lease(text, integer) to %I', v_role);
        end if;
    end loop;
end $$;
