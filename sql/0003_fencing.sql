-- Fencing at the database: the schedulers' own log-ins pass through a gate that only the heir's may.
--
-- `heirflow migrate` runs this file in one transaction with search_path set to the schema. What an administrator sets up
-- for it, and why, is in docs/fencing.md.

select set_config('search_path', format('%I, pg_temp', current_schema()), true);

create table fence (
    group_name text not null,
    role       regrole not null,
    primary key (group_name, role)
);
comment on table fence is
    'roles as which a group''s schedulers log in; one stays listed when its member has gone, for its scheduler may not have';

create function is_fenced(p_role oid) returns boolean
language sql stable set search_path from current as $$
    select exists (select from pg_auth_members m join pg_roles r on r.oid = m.roleid
                    where r.rolname = 'heirflow_fenced' and m.member = p_role)
$$;
comment on function is_fenced(oid) is 'an administrator has said that Heirflow may end this role''s sessions and pass it the gate';

create function fence_fault(p_role text) returns text
language sql stable set search_path from current as $$
    select case
        when p_role is null then null
        when r.oid is null then format('fence_role: there is no role %s', p_role)
        when not is_fenced(r.oid) then format('fence_role: %s is no member of heirflow_fenced', p_role)
        when r.rolsuper then format('fence_role: %s is a superuser', p_role)
        when p_role = session_user then format('fence_role: Heirflow itself logs in as %s', p_role)
        when not exists (select from pg_roles where rolname = 'heirflow_gate') then 'there is no role heirflow_gate'
        when not pg_has_role('heirflow_gate', 'member with admin option') then
            format('%s lacks the admin option on heirflow_gate', current_user)
        when not pg_has_role('pg_signal_backend', 'usage') then format('%s lacks pg_signal_backend', current_user)
        end
      from (values (p_role)) v (name) left join pg_roles r on r.rolname = v.name
$$;
comment on function fence_fault(text) is 'why the gate could not be passed to this role; null if it can, or for none. Locks nothing.';

-- From PostgreSQL 16 on each grantor's membership is one of its own, which only who may act as that grantor can revoke;
-- before, there is but one membership.
create function knows_grantors() returns boolean
language sql stable set search_path from current as $$
    select current_setting('server_version_num')::integer >= 160000
$$;

create function gate_grantors(p_role oid) returns setof name
language sql stable set search_path from current as $$
    select pg_get_userbyid(m.grantor) from pg_auth_members m
     where m.roleid = (select oid from pg_roles where rolname = 'heirflow_gate') and m.member = p_role
       and (not knows_grantors() or pg_has_role(m.grantor, 'usage'))
$$;
comment on function gate_grantors(oid) is 'who has given the role the gate, so that we can take it away; nobody if it does not have it';

-- A membership of PostgreSQL 16 and later may be good for nothing.
create function may_act_as(p_role oid, p_other oid) returns boolean
language sql stable set search_path from current as $$
    select case when knows_grantors() then pg_has_role(p_role, p_other, 'usage') or pg_has_role(p_role, p_other, 'set')
                                           or pg_has_role(p_role, p_other, 'member with admin option')
                else pg_has_role(p_role, p_other, 'member') end
$$;

create function pass_gate(p_group text, p_role text) returns boolean
language plpgsql volatile set search_path from current as $$
declare
    v_heir oid := (select oid from pg_roles where rolname = p_role);
    v_role name;
    v_grantor name;
begin
    insert into fence
    select distinct p_group, r.oid from roster m join pg_roles r on r.rolname = m.self->>'fence_role'
     where m.group_name = p_group and is_fenced(r.oid)
        on conflict do nothing;
    for attempt in 1..20 loop
        begin
            for v_role, v_grantor in
                select r.rolname, g from fence f join pg_roles r on r.oid = f.role cross join lateral gate_grantors(r.oid) g
                 where f.group_name = p_group and r.oid is distinct from v_heir
            loop   -- whom the role has passed it on to lose it too, where that is known
                execute format('revoke heirflow_gate from %I', v_role)
                        || case when knows_grantors() then format(' granted by %I cascade', v_grantor) else '' end;
            end loop;
            if v_heir is not null and not exists (select from gate_grantors(v_heir)) then
                execute format('grant heirflow_gate to %I', p_role)
                        || case when knows_grantors() then ' with inherit true' else '' end;
            end if;
            return exists (select from fence where group_name = p_group);
        exception when internal_error or unique_violation then   -- "tuple concurrently updated": another group's accession
            if attempt = 20 then
                raise;
            end if;
            perform pg_sleep(0.01);
        end;
    end loop;
end $$;
comment on function pass_gate(text, text) is
    'in an accession: from now on only p_role of the group''s schedulers may connect. True if there are any to end; see fence().';

create function fence(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_timeout_ms integer) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
declare
    v_until timestamptz := clock_timestamp() + p_timeout_ms * interval '1 millisecond';
    v_entering integer[];
    v_sessions integer[];
    v_ended integer[] := '{}';
begin
    perform server_identity();
    -- A log-in that passed the gate before it was shut has its database locked from before its look at the gate until
    -- after it has a name among the sessions. So first the one, then the other, each in a statement of its own. Whoever
    -- has yet to lock it, perhaps never answering for its password, will see the gate shut.
    v_entering := array(select pid from pg_locks
                         where locktype = 'object' and classid = 'pg_database'::regclass and granted
                           and pid <> pg_backend_pid());
    loop
        v_entering := array(select pid from pg_locks
                             where locktype = 'object' and classid = 'pg_database'::regclass and pid = any (v_entering));
        perform pg_stat_clear_snapshot();
        v_entering := array(select unnest(v_entering)
                            except select pid from pg_stat_activity where datid is not null or usesysid is not null);
        v_sessions := array(select pid from pg_stat_activity
                             where usesysid in (select role from fence where group_name = p_group));
        if not exists (select from throne where group_name = p_group and member_id = p_member
                          and incarnation = p_incarnation and term = p_term) then   -- so none of them is a successor's
            return '{"fenced": false, "reason": "the term is over"}';
        end if;
        exit when v_entering = '{}' and v_sessions = '{}';
        if clock_timestamp() >= v_until then
            return jsonb_build_object('fenced', false, 'reason', format('sessions that do not end: %s, log-ins without a name: %s',
                                                                        cardinality(v_sessions), cardinality(v_entering)));
        end if;
        perform pg_terminate_backend(pid) from unnest(v_sessions) pid;
        v_ended := array(select unnest(v_ended) union select unnest(v_sessions));
        perform pg_sleep(0.005);
    end loop;
    return jsonb_build_object('fenced', true, 'ended', cardinality(v_ended), 'leaks', (
        select string_agg(distinct leak, '; ')
          from fence f join pg_roles r on r.oid = f.role cross join lateral fence_leaks(r.rolname) leak
         where f.group_name = p_group));
end $$;
comment on function fence(text, bigint, uuid, bigint, integer) is
    'after an accession: ends every session of the group''s schedulers, log-ins in flight included, and returns when none '
    'is left. Locks nothing.';

create function fence_leaks(p_role name) returns setof text
language sql stable set search_path from current as $$
    with role as (
        select * from pg_roles where rolname = p_role
    ), other as (   -- whom it may become, be it by SET ROLE in a database without a gate
        select role.rolname as name, r.* from role, pg_roles r
         where r.oid <> role.oid and not role.rolsuper and may_act_as(role.oid, r.oid)
    ), gated as (
        select d.* from pg_database d
         where exists (select from aclexplode(d.datacl) a where a.privilege_type = 'CONNECT'
                          and a.grantee = (select oid from pg_roles where rolname = 'heirflow_gate'))
    )
    select format('%s is a superuser', rolname) from role where rolsuper
    union all
    select format('%s may create roles', rolname) from role where rolcreaterole and not knows_grantors()   -- later they have no say over roles that they were not given
    union all
    select format('%s may become %s, a superuser', name, rolname) from other where rolsuper
    union all
    select format('%s may become %s, who may create roles', name, rolname) from other
     where rolcreaterole and not rolsuper and not knows_grantors()
    union all
    select format('%s may pass the gate as %s', name, rolname) from other
     where is_fenced(oid) or exists (select from pg_auth_members m where m.member = other.oid
                                        and m.roleid = (select oid from pg_roles where rolname = 'heirflow_gate'))
    union all
    select format('%s may pass the gate on', role.rolname) from role, pg_auth_members m
     where m.roleid = (select oid from pg_roles where rolname = 'heirflow_gate') and m.member = role.oid and m.admin_option
    union all
    select format('%s was granted heirflow_gate by %s', role.rolname, m.grantor::regrole) from role, pg_auth_members m
     where m.roleid = (select oid from pg_roles where rolname = 'heirflow_gate') and m.member = role.oid
       and pg_get_userbyid(m.grantor) not in (select gate_grantors(role.oid))
    union all
    select format('%s owns database %s', role.rolname, d.datname) from role, gated d
     where may_act_as(role.oid, d.datdba)
    union all
    select format('%s may connect to %s as %s', role.rolname, d.datname,
                  case a.grantee when 0 then 'anybody may' else a.grantee::regrole::text end)
      from role, gated d, aclexplode(d.datacl) a
     where a.privilege_type = 'CONNECT'
       and (a.grantee = 0 or a.grantee <> (select oid from pg_roles where rolname = 'heirflow_gate')
                             and pg_has_role(role.oid, a.grantee, 'usage'))
$$;
comment on function fence_leaks(name) is 'ways in which this role could get past the gate. Locks nothing.';

create function fence_check(p_group text, p_role text) returns setof text
language plpgsql stable security definer set search_path from current as $$
begin
    if fence_fault(p_role) is not null then
        return next fence_fault(p_role);
        return;
    end if;
    if not exists (select from pg_database d, aclexplode(d.datacl) a
                    where a.grantee = 'heirflow_gate'::regrole and a.privilege_type = 'CONNECT') then
        return next 'heirflow_gate may connect to no database';
    end if;
    return query select fence_leaks(p_role::name);
    return query select format('%s cannot log in', p_role) from pg_roles where rolname = p_role and not rolcanlogin;
    return query select format('%s does not inherit, so the gate never opens for it', p_role) from pg_roles
                  where rolname = p_role and not rolinherit and not knows_grantors();
    return query select format('%s owns objects', p_role)
                  where exists (select from pg_shdepend where refclassid = 'pg_authid'::regclass and deptype = 'o'
                                   and refobjid = (select oid from pg_roles where rolname = p_role));
    return query select format('%s is the fence_role of several members: %s', p_role, string_agg(
                        node || case when group_name = p_group then '' else format(' (group %s)', group_name) end,
                        ', ' order by group_name <> p_group, group_name, node))
                   from (select distinct group_name, node from roster where present and self->>'fence_role' = p_role) m
                 having count(*) > 1;
end $$;
comment on function fence_check(text, text) is
    'what is wrong with the fencing of a group''s schedulers that log in as p_role; nothing if it holds. Locks nothing.';

create function assert_heir(p_group text, p_term bigint) returns void
language plpgsql volatile security definer set search_path from current as $$
declare
    t throne;
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'heirflow: a % transaction cannot see a takeover', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state', hint = 'Use READ COMMITTED.';
    end if;
    select * into t from throne where group_name = p_group;
    if t.member_id is null or t.term is distinct from p_term then
        raise exception 'heirflow: term % of group % is over', p_term, p_group
            using errcode = 'invalid_authorization_specification',
                  detail = case when t.group_name is null then 'There is no such group.'
                                when t.member_id is null then format('Term %s has ended, and no other has begun.', t.term)
                                else format('The group is at term %s.', t.term) end;
    end if;
end $$;
comment on function assert_heir(text, bigint) is
    'raises unless that term is current and held: for the end of a scheduler''s own transactions. Advisory, for the commit '
    'comes after. Locks nothing.';

do $$
declare
    v_role text;
begin
    execute format('revoke all on all functions in schema %I from public', current_schema());
    foreach v_role in array array['heirflow_member', 'heirflow_operator', 'heirflow_viewer'] loop
        if exists (select from pg_roles where rolname = v_role) then   -- migrate tells of a missing one
            execute format('grant execute on function fence_check(text, text), assert_heir(text, bigint) to %I', v_role);
            if v_role = 'heirflow_member' then
                execute format('grant execute on function fence(text, bigint, uuid, bigint, integer) to %I', v_role);
            end if;
        end if;
    end loop;
end $$;
