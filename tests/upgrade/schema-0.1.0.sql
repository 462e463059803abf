-- What Heirflow 0.1.0 leaves in a database. Written by tests/upgrade/keep; frozen once 0.1.0 is tagged.
--
-- PostgreSQL database dump
--



SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: heirflow; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA heirflow;


--
-- Name: abdicate(text, bigint, uuid, bigint, text, text, jsonb); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.abdicate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_reason text, p_node text DEFAULT ''::text, p_news jsonb DEFAULT '[]'::jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION abdicate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_reason text, p_node text, p_news jsonb); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.abdicate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_reason text, p_node text, p_news jsonb) IS 'ends the caller''s own term; its scheduler is dead already. Locks the throne. Harmless when repeated.';


--
-- Name: accede(text, uuid, bigint, uuid, text, bigint, uuid, bigint, bigint, bigint, boolean); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.accede(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_identity text, p_heir bigint, p_heir_incarnation uuid, p_term bigint, p_beat bigint, p_highest_term bigint, p_seniority_yields boolean) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION accede(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_identity text, p_heir bigint, p_heir_incarnation uuid, p_term bigint, p_beat bigint, p_highest_term bigint, p_seniority_yields boolean); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.accede(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_identity text, p_heir bigint, p_heir_incarnation uuid, p_term bigint, p_beat bigint, p_highest_term bigint, p_seniority_yields boolean) IS 'takes the throne if it is still exactly as observed and it is this member''s turn. Locks the throne. With "fence" in the reply, fence() comes before the scheduler''s start.';


--
-- Name: asker(); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.asker() RETURNS jsonb
    LANGUAGE sql STABLE
    AS $$
    select jsonb_build_object('asked_by', session_user, 'asked_from', host(inet_client_addr()))
$$;


--
-- Name: FUNCTION asker(); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.asker() IS 'who calls: database user and, unless it is on the server''s own host, client address';


--
-- Name: assert_heir(text, bigint); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.assert_heir(p_group text, p_term bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION assert_heir(p_group text, p_term bigint); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.assert_heir(p_group text, p_term bigint) IS 'raises unless that term is current and held: for the end of a scheduler''s own transactions. Advisory, for the commit comes after. Locks nothing.';


--
-- Name: audit(text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.audit(p_group text) RETURNS jsonb
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    with told as (   -- the running term too has an end once its lease is over: its heir has stopped by then
        select e.term, e.node, e.member_id, e.began_at, e.ended_by, e.reason,
               coalesce(e.ended_at, lapsed.at) as ended_at,
               e.ended_by is not distinct from 'deposed' or lapsed.at is not null as presumed,
               e.ended_at is null and t.term is not null and lapsed.at is null as running
          from terms e
          left join throne t
            on t.group_name = e.group_name and t.term = e.term and t.member_id is not null and e.ended_at is null
          left join lateral (select t.renewed_at + t.lease_ms * interval '1 millisecond' as at) l on true
          left join lateral (select l.at where l.at < clock_timestamp()) lapsed on true
         where e.group_name = p_group
    ), judged as (   -- an end that was never written lies behind every beginning
        select told.*, lead(began_at) over line - ended_at as gap,
               coalesce(max(coalesce(ended_at, 'infinity')) over (line rows between unbounded preceding and 1 preceding)
                        > began_at, false) as too_early
          from told
        window line as (order by term)
    )
    select jsonb_build_object(
        'group', g.group_name,
        'overlaps', (select count(*) from judged where too_early),
        'terms', (select coalesce(jsonb_agg(jsonb_build_object(
            'term', term, 'node', node, 'member_id', member_id, 'began_at', began_at, 'ended_at', ended_at,
            'ended_by', ended_by, 'reason', reason, 'presumed', presumed, 'running', running,
            'gap_ms', floor(extract(epoch from gap) * 1000)::bigint,
            'overlaps', too_early) order by term), '[]') from judged))
      from throne g where g.group_name = p_group
$$;


--
-- Name: FUNCTION audit(p_group text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.audit(p_group text) IS 'every term, oldest first: how it ended, whether that is presumed (last renewal plus lease), the gap to the next, and whether it began before all earlier ones had ended (database clock). Null for an unknown group. Locks nothing.';


--
-- Name: commit_durably(); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.commit_durably() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
begin
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end $$;


--
-- Name: FUNCTION commit_durably(); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.commit_durably() IS 'the transaction''s commit waits for the disk and for a synchronous standby';


--
-- Name: estate(text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.estate(p_group text) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'path', path, 'term', term, 'node', node, 'taken_at', taken_at, 'bytes', length(content),
        'checksum', encode(checksum, 'hex'), 'mode', mode, 'copy', copy) order by path, term desc, copy desc), '[]')
      from estate where group_name = p_group
$$;


--
-- Name: FUNCTION estate(p_group text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.estate(p_group text) IS 'what is kept for the next heir, newest first, without the contents. Locks nothing.';


--
-- Name: fence(text, bigint, uuid, bigint, integer); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.fence(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_timeout_ms integer) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION fence(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_timeout_ms integer); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.fence(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_timeout_ms integer) IS 'after an accession: ends every session of the group''s schedulers, log-ins in flight included, and returns when none is left. Locks nothing.';


--
-- Name: fence_check(text, text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.fence_check(p_group text, p_role text) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION fence_check(p_group text, p_role text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.fence_check(p_group text, p_role text) IS 'what is wrong with the fencing of a group''s schedulers that log in as p_role; nothing if it holds. Locks nothing.';


--
-- Name: fence_fault(text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.fence_fault(p_role text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION fence_fault(p_role text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.fence_fault(p_role text) IS 'why the gate could not be passed to this role; null if it can, or for none. Locks nothing.';


--
-- Name: fence_leaks(name); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.fence_leaks(p_role name) RETURNS SETOF text
    LANGUAGE sql STABLE
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION fence_leaks(p_role name); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.fence_leaks(p_role name) IS 'ways in which this role could get past the gate. Locks nothing.';


--
-- Name: fetch_estate(text, jsonb); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.fetch_estate(p_group text, p_paths jsonb) RETURNS json
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
declare
    v_term bigint;
    v_copy bigint;
begin
    insert into estate_origin (group_name) select p_group
     where not exists (select from estate_origin where group_name = p_group) on conflict do nothing;
    select term, copy into v_term, v_copy from estate
     where group_name = p_group and path in (select jsonb_array_elements_text(p_paths))
     order by term desc, copy desc limit 1;
    return json_build_object(
        'origin', (select origin from estate_origin where group_name = p_group),
        'term', v_term,
        'node', (select min(node) from estate where group_name = p_group and term = v_term and copy = v_copy),
        'age_ms', (select floor(extract(epoch from clock_timestamp() - min(taken_at)) * 1000)::bigint
                     from estate where group_name = p_group and term = v_term and copy = v_copy),
        'files', (select coalesce(json_agg(json_build_object(
                         'path', path, 'mode', mode, 'checksum', encode(checksum, 'hex'),
                         'content', encode(content, 'base64')) order by path), '[]')
                    from estate where group_name = p_group and term = v_term and copy = v_copy
                     and path in (select jsonb_array_elements_text(p_paths))));
end $$;


--
-- Name: FUNCTION fetch_estate(p_group text, p_paths jsonb); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.fetch_estate(p_group text, p_paths jsonb) IS 'the newest copy of any of these files, with those that were stored with it; "term" is null if there is none. Locks nothing but, the first time, the group''s line in estate_origin.';


--
-- Name: forget(text, bigint, integer, boolean, integer); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.forget(p_group text, p_member bigint, p_days integer, p_publishes boolean, p_limit integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
declare
    v_before timestamptz := clock_timestamp() - p_days * interval '1 day';
    v_least_kept bigint;
    v_news bigint;
    v_terms bigint;
begin
    if not exists (select from throne where group_name = p_group and member_id = p_member) then
        return 0;
    end if;
    perform set_config('synchronous_commit', 'off', true);   -- lost, it is simply done again
    -- a group that nobody ever relayed for has no news to publish, only news to read here
    select least(c.last, case when p_publishes or r.claimed_at is not null then r.published + 1 end) into v_least_kept
      from news_counter c join relay r using (group_name) where c.group_name = p_group;
    -- from the oldest on and never past one that is kept, however the clock was set: the sequence stays without gaps
    with oldest as (
        select sequence, bool_and(told_at < v_before) over (order by sequence) as old
          from (select sequence, told_at from news where group_name = p_group order by sequence limit p_limit) n
    )
    delete from news n using oldest o
     where n.group_name = p_group and n.sequence = o.sequence and o.sequence < v_least_kept and o.old;
    get diagnostics v_news = row_count;
    delete from terms e
     where e.group_name = p_group and coalesce(e.ended_at, e.began_at) < v_before
       and e.term in (select term from terms where group_name = p_group order by term limit p_limit)
       and e.term < (select term from throne where group_name = p_group)
       and e.term < (select max(term) from terms where group_name = p_group);   -- the next accession counts on from it
    get diagnostics v_terms = row_count;
    return v_news + v_terms;
end $$;


--
-- Name: FUNCTION forget(p_group text, p_member bigint, p_days integer, p_publishes boolean, p_limit integer); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.forget(p_group text, p_member bigint, p_days integer, p_publishes boolean, p_limit integer) IS 'removes at most p_limit news and p_limit terms older than p_days, oldest first, and returns how many; nothing unless the caller is the heir. Keeps what is not published (p_publishes: the caller relays), the last event and the newest term. Locks only what it removes.';


--
-- Name: gate_grantors(oid); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.gate_grantors(p_role oid) RETURNS SETOF name
    LANGUAGE sql STABLE
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    select pg_get_userbyid(m.grantor) from pg_auth_members m
     where m.roleid = (select oid from pg_roles where rolname = 'heirflow_gate') and m.member = p_role
       and (not knows_grantors() or pg_has_role(m.grantor, 'usage'))
$$;


--
-- Name: FUNCTION gate_grantors(p_role oid); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.gate_grantors(p_role oid) IS 'who has given the role the gate, so that we can take it away; nobody if it does not have it';


--
-- Name: give_rights(); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.give_rights() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
declare
    v_looks constant text[] := array['news_after', 'news_last', 'group_names', 'status', 'history', 'audit', 'server_identity',
                                     'fence_check', 'assert_heir', 'member_details', 'groups', 'estate'];
    v_role text;
    v_more text[];
    v_function regprocedure;
begin
    perform pg_advisory_xact_lock(hashtextextended('heirflow rights', 0));   -- two grants at once would fail
    for v_role, v_more in values
        ('heirflow_viewer', '{}'::text[]),
        ('heirflow_operator', array['request_switchover', 'set_paused', 'set_retired', 'set_lease', 'remove_member']),
        ('heirflow_member', array['register', 'heartbeat', 'accede', 'abdicate', 'leave', 'relay_claim', 'relay_published',
                                  'hooks_next', 'fence', 'forget', 'store_estate', 'fetch_estate'])
    loop
        if not exists (select from pg_roles where rolname = v_role) then
            begin
                execute format('create role %I nologin', v_role);
            exception
                when insufficient_privilege then continue;               -- migrate tells of it
                when duplicate_object or unique_violation then null;     -- another database's migration was faster
            end;
        end if;
        if not has_schema_privilege(v_role, current_schema(), 'usage') then
            execute format('grant usage on schema %I to %I', current_schema(), v_role);
        end if;
        if not has_table_privilege(v_role, 'schema_version', 'select') then
            execute format('grant select on schema_version to %I', v_role);
        end if;
        for v_function in
            select p.oid from pg_proc p
             where p.pronamespace = (select oid from pg_namespace where nspname = current_schema())
               and p.proname = any (v_looks || v_more) and not has_function_privilege(v_role, p.oid, 'execute')
        loop
            execute format('grant execute on function %s to %I', v_function, v_role);
        end loop;
    end loop;
end $$;


--
-- Name: FUNCTION give_rights(); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.give_rights() IS 'makes the three roles, where the caller may, and gives each what it needs. For the owner alone. Locks no table.';


--
-- Name: group_names(); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.group_names() RETURNS SETOF text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    select group_name from throne order by group_name
$$;


--
-- Name: groups(); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.groups() RETURNS jsonb
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'group', t.group_name, 'term', t.term, 'paused', t.paused,
        'heir', (select r.node from roster r where r.group_name = t.group_name
                    and r.member_id = t.member_id and r.incarnation = t.incarnation limit 1),
        'members', (select count(*) from roster r where r.group_name = t.group_name and r.present),
        'live', (select count(*) from roster r where r.group_name = t.group_name and is_live(r, t, clock_timestamp())))
        order by t.group_name), '[]')
      from throne t
$$;


--
-- Name: FUNCTION groups(); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.groups() IS 'every group with its heir and its members. Locks nothing.';


--
-- Name: heartbeat(text, uuid, bigint, uuid, bigint, jsonb, jsonb); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.heartbeat(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_term bigint, p_self jsonb, p_news jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION heartbeat(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_term bigint, p_self jsonb, p_news jsonb); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.heartbeat(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_term bigint, p_self jsonb, p_news jsonb) IS 'one member lives; with a term, the heir renews its lease (locks the throne). p_news: events the member tells, each once by its id.';


--
-- Name: history(text, integer); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.history(p_group text, p_limit integer) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    select coalesce(jsonb_agg(to_jsonb(h) order by h.term desc), '[]') from (
        select term, node, member_id, began_at, ended_at, ended_by, reason,
               floor(extract(epoch from began_at - lag(ended_at) over (order by term)) * 1000)::bigint as gap_ms
          from terms where group_name = p_group order by term desc limit p_limit) h
$$;


--
-- Name: FUNCTION history(p_group text, p_limit integer); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.history(p_group text, p_limit integer) IS 'the latest terms, newest first; gap_ms is the time without an heir before the term (database clock)';


--
-- Name: hooks_next(text, bigint, uuid, bigint, bigint, uuid); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.hooks_next(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_done bigint, p_done_id uuid) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION hooks_next(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_done bigint, p_done_id uuid); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.hooks_next(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_done bigint, p_done_id uuid) IS 'for the heir: records that its hook has dealt with the event p_done and returns the next one, "body", or null if there is none; null to anybody else. Goes on where the last heir stopped; leaves out what is older than an hour. Locks nothing but its own row.';


--
-- Name: is_fenced(oid); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.is_fenced(p_role oid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    select exists (select from pg_auth_members m join pg_roles r on r.oid = m.roleid
                    where r.rolname = 'heirflow_fenced' and m.member = p_role)
$$;


--
-- Name: FUNCTION is_fenced(p_role oid); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.is_fenced(p_role oid) IS 'an administrator has said that Heirflow may end this role''s sessions and pass it the gate';


--
-- Name: member_id; Type: SEQUENCE; Schema: heirflow; Owner: -
--

CREATE SEQUENCE heirflow.member_id
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: roster; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.roster (
    group_name text NOT NULL,
    seat uuid NOT NULL,
    generation bigint NOT NULL,
    member_id bigint DEFAULT nextval('heirflow.member_id'::regclass) NOT NULL,
    incarnation uuid NOT NULL,
    node text NOT NULL,
    address text,
    registered_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    present boolean DEFAULT true NOT NULL,
    lost boolean DEFAULT false NOT NULL,
    eligible boolean NOT NULL,
    self jsonb NOT NULL
)
WITH (fillfactor='50');


--
-- Name: TABLE roster; Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON TABLE heirflow.roster IS 'one row per seat; the oldest live registrant has the lowest member_id';


--
-- Name: throne; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.throne (
    group_name text NOT NULL,
    member_id bigint,
    incarnation uuid,
    term bigint DEFAULT 0 NOT NULL,
    beat bigint DEFAULT 0 NOT NULL,
    lease_ms integer NOT NULL,
    next_lease_ms integer,
    longest_lease_ms integer,
    paused boolean DEFAULT false NOT NULL,
    identity text,
    renewed_at timestamp with time zone,
    last_seat uuid,
    named_member_id bigint,
    named_at timestamp with time zone,
    request text,
    request_target text,
    requested_by jsonb,
    CONSTRAINT throne_group_name_check CHECK ((group_name <> ''::text)),
    CONSTRAINT throne_lease_ms_check CHECK ((lease_ms >= 100)),
    CONSTRAINT throne_next_lease_ms_check CHECK ((next_lease_ms >= 100)),
    CONSTRAINT throne_request_check CHECK ((request = ANY (ARRAY['switchover'::text, 'retire'::text])))
)
WITH (fillfactor='50');


--
-- Name: TABLE throne; Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON TABLE heirflow.throne IS 'one row per group: who may run its scheduler';


--
-- Name: is_live(heirflow.roster, heirflow.throne, timestamp with time zone); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.is_live(r heirflow.roster, t heirflow.throne, at timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    select r.present
       and case when r.member_id = t.member_id and r.incarnation = t.incarnation then t.renewed_at else r.seen_at end
           between at - t.lease_ms * interval '1 millisecond' and at + t.lease_ms / 3 * interval '1 millisecond'
$$;


--
-- Name: FUNCTION is_live(r heirflow.roster, t heirflow.throne, at timestamp with time zone); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.is_live(r heirflow.roster, t heirflow.throne, at timestamp with time zone) IS 'seen within a lease; the heir: has renewed within its lease';


--
-- Name: is_retired(text, text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.is_retired(p_group text, p_node text) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    select exists (select from retirement where group_name = p_group and node = p_node)
$$;


--
-- Name: knows_grantors(); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.knows_grantors() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    select current_setting('server_version_num')::integer >= 160000
$$;


--
-- Name: leave(text, uuid, uuid, text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.leave(p_group text, p_seat uuid, p_incarnation uuid, p_reason text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION leave(p_group text, p_seat uuid, p_incarnation uuid, p_reason text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.leave(p_group text, p_seat uuid, p_incarnation uuid, p_reason text) IS 'takes a member off the roster; refused to the heir, which abdicates first. Locks the throne.';


--
-- Name: may_act_as(oid, oid); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.may_act_as(p_role oid, p_other oid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    select case when knows_grantors() then pg_has_role(p_role, p_other, 'usage') or pg_has_role(p_role, p_other, 'set')
                                           or pg_has_role(p_role, p_other, 'member with admin option')
                else pg_has_role(p_role, p_other, 'member') end
$$;


--
-- Name: may_lead(heirflow.roster, heirflow.throne, timestamp with time zone); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.may_lead(r heirflow.roster, t heirflow.throne, at timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    select r.eligible and is_live(r, t, at)
       and (r.member_id, r.incarnation) is distinct from (t.member_id, t.incarnation)
       and not is_retired(r.group_name, r.node)
$$;


--
-- Name: FUNCTION may_lead(r heirflow.roster, t heirflow.throne, at timestamp with time zone); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.may_lead(r heirflow.roster, t heirflow.throne, at timestamp with time zone) IS 'live, eligible, not retired and not already the holder';


--
-- Name: member_details(text, bigint); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.member_details(p_group text, p_member bigint) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
declare
    r roster;
begin
    select * into r from roster where group_name = p_group and member_id = p_member and present;
    if not found then
        return null;
    end if;
    return jsonb_build_object(
        'member', (select m from jsonb_array_elements(status(p_group)->'members') m where (m->>'member_id')::bigint = p_member limit 1),
        'self', r.self,
        'generation', r.generation, 'eligible', r.eligible, 'told_lost', r.lost,
        'retired_at', (select retired_at from retirement where group_name = p_group and node = r.node),
        'terms', (select coalesce(jsonb_agg(to_jsonb(e) order by e.term desc), '[]') from (
            select term, began_at, ended_at, ended_by, reason from terms
             where group_name = p_group and node = r.node order by term desc limit 5) e),
        -- there is no index by node: a node that was silent for so long has no news worth a longer search
        'events', (select coalesce(jsonb_agg(n.body order by n.sequence desc), '[]') from (
            select a.sequence, a.body
              from news_after(p_group, (select last - 20000 from news_counter where group_name = p_group), 20000) a
             where a.body->>'subject' = r.node order by a.sequence desc limit 50) n));
end $$;


--
-- Name: FUNCTION member_details(p_group text, p_member bigint); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.member_details(p_group text, p_member bigint) IS 'all that is known of one member: its line of status(), what it says of itself, its latest terms and its last 50 events. Null if it is not in the roster. Locks nothing.';


--
-- Name: named_successor(heirflow.throne, timestamp with time zone); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.named_successor(t heirflow.throne, at timestamp with time zone) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
    select r.member_id from roster r
     where t.member_id is null and r.group_name = t.group_name and r.member_id = t.named_member_id and may_lead(r, t, at)
       and at between t.named_at and t.named_at + t.lease_ms / 3 * interval '1 millisecond'
$$;


--
-- Name: FUNCTION named_successor(t heirflow.throne, at timestamp with time zone); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.named_successor(t heirflow.throne, at timestamp with time zone) IS 'the member whom an abdication named, while it takes precedence: a third of the lease. Null if there is none.';


--
-- Name: news_after(text, bigint, integer); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.news_after(p_group text, p_after bigint, p_limit integer) RETURNS TABLE(sequence bigint, event text, body jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION news_after(p_group text, p_after bigint, p_limit integer); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.news_after(p_group text, p_after bigint, p_limit integer) IS 'events after a sequence, oldest first, as CloudEvents.';


--
-- Name: news_last(text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.news_last(p_group text) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
    select last from news_counter where group_name = p_group
$$;


--
-- Name: FUNCTION news_last(p_group text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.news_last(p_group text) IS 'the group''s highest sequence; null for an unknown group';


--
-- Name: observe(text, uuid, uuid, integer); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.observe(p_group text, p_seat uuid, p_incarnation uuid, p_lease_ms integer DEFAULT 6000) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: FUNCTION observe(p_group text, p_seat uuid, p_incarnation uuid, p_lease_ms integer); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.observe(p_group text, p_seat uuid, p_incarnation uuid, p_lease_ms integer) IS 'the reply to every call: the throne as it stands and what it means to this member. Locks nothing. p_lease_ms is told for a group that does not exist.';


--
-- Name: pass_gate(text, text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.pass_gate(p_group text, p_role text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION pass_gate(p_group text, p_role text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.pass_gate(p_group text, p_role text) IS 'in an accession: from now on only p_role of the group''s schedulers may connect. True if there are any to end; see fence().';


--
-- Name: register(text, uuid, bigint, uuid, text, integer, jsonb); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.register(p_group text, p_seat uuid, p_generation bigint, p_incarnation uuid, p_node text, p_lease_ms integer, p_self jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION register(p_group text, p_seat uuid, p_generation bigint, p_incarnation uuid, p_node text, p_lease_ms integer, p_self jsonb); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.register(p_group text, p_seat uuid, p_generation bigint, p_incarnation uuid, p_node text, p_lease_ms integer, p_self jsonb) IS 'puts the seat at the end of the line, superseding its former registrant; equal generation is idempotent, a lower one refused. Locks the throne row, and founds it for a new group.';


--
-- Name: relay_claim(text, bigint, integer); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.relay_claim(p_group text, p_member bigint, p_for_ms integer) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION relay_claim(p_group text, p_member bigint, p_for_ms integer); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.relay_claim(p_group text, p_member bigint, p_for_ms integer) IS 'one member at a time relays a group''s news: the heir whenever it asks, others once a claim is p_for_ms old. Locks the relay row.';


--
-- Name: relay_published(text, bigint, bigint); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.relay_published(p_group text, p_member bigint, p_sequence bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
begin
    update relay
       set published = greatest(published, least(p_sequence, (select last from news_counter c where c.group_name = p_group))),
           claimed_at = clock_timestamp()
     where group_name = p_group and member_id = p_member;
    return found;
end $$;


--
-- Name: FUNCTION relay_published(p_group text, p_member bigint, p_sequence bigint); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.relay_published(p_group text, p_member bigint, p_sequence bigint) IS 'the broker has confirmed all news up to p_sequence; false if another member relays by now. Locks the relay row.';


--
-- Name: remove_member(text, bigint); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.remove_member(p_group text, p_member bigint) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
declare
    t throne;
    r roster;
begin
    perform commit_durably();
    select * into t from throne where group_name = p_group for update;
    select * into r from roster where group_name = p_group and member_id = p_member and present for update;
    if r.member_id is null then
        return jsonb_build_object('accepted', false, 'refused', 'there is no such member any more');
    elsif t.member_id = r.member_id and t.incarnation = r.incarnation then
        return jsonb_build_object('accepted', false, 'refused', 'it is the heir; only a takeover ends its term');
    elsif is_live(r, t, clock_timestamp()) then
        return jsonb_build_object('accepted', false, 'refused', 'it is alive');
    end if;
    update roster set present = false where group_name = p_group and seat = r.seat;
    perform tell(p_group, 'left', r.node, session_user, null, 'removed', jsonb_build_object('member_id', r.member_id));
    return jsonb_build_object('accepted', true);
end $$;


--
-- Name: FUNCTION remove_member(p_group text, p_member bigint); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.remove_member(p_group text, p_member bigint) IS 'takes a member that is neither the heir nor alive off the roster; if its wrapper comes back it registers at the end of the line. Locks the throne.';


--
-- Name: request_switchover(text, text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.request_switchover(p_group text, p_target text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION request_switchover(p_group text, p_target text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.request_switchover(p_group text, p_target text) IS 'asks the heir to hand over to a node, or to the eldest standby. Locks the throne.';


--
-- Name: server_identity(); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.server_identity() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION server_identity(); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.server_identity() IS 'system identifier, timeline and start of the answering server, and which throne table it is; fails on a standby. Takes no lock.';


--
-- Name: set_lease(text, integer); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.set_lease(p_group text, p_lease_ms integer) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION set_lease(p_group text, p_lease_ms integer); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.set_lease(p_group text, p_lease_ms integer) IS 'the lease from the next accession on. Locks the throne. False if nothing changed.';


--
-- Name: set_paused(text, boolean); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.set_paused(p_group text, p_paused boolean) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION set_paused(p_group text, p_paused boolean); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.set_paused(p_group text, p_paused boolean) IS 'while paused nobody takes over. Locks the throne. False if nothing changed.';


--
-- Name: set_retired(text, text, boolean); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.set_retired(p_group text, p_node text, p_retired boolean) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION set_retired(p_group text, p_node text, p_retired boolean); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.set_retired(p_group text, p_node text, p_retired boolean) IS 'takes a node out of the line or puts it at its end; an heir is asked to hand over first. Locks the throne.';


--
-- Name: status(text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.status(p_group text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION status(p_group text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.status(p_group text) IS 'the roster in succession order and, for each standby, why it is not the heir; null for an unknown group';


--
-- Name: store_estate(text, bigint, uuid, bigint, text, bigint, json); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.store_estate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_node text, p_copy bigint, p_files json) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'heirflow', 'pg_temp'
    AS $$
declare
    v_now timestamptz := clock_timestamp();
begin
    if not exists (select from throne where group_name = p_group and member_id = p_member
                      and incarnation = p_incarnation and term = p_term) then
        return '{"stored": false, "reason": "the term is over"}';
    end if;
    perform set_config('synchronous_commit', 'off', true);   -- an abdication or renewal that follows takes it along
    insert into estate (group_name, path, term, copy, node, checksum, mode, taken_at, content)
    select p_group, f->>'path', p_term, p_copy, p_node, decode(f->>'checksum', 'hex'), (f->>'mode')::integer, v_now,
           decode(f->>'content', 'base64')
      from json_array_elements(p_files) f;
    delete from estate e
     where e.group_name = p_group and (e.path, e.term, e.copy) in (
        select path, term, copy from (
            select path, term, copy, row_number() over (partition by path order by term desc, copy desc) as age
              from estate where group_name = p_group) r
         where age > 3);
    return jsonb_build_object('stored', true, 'origin', (select origin from estate_origin where group_name = p_group));
end $$;


--
-- Name: FUNCTION store_estate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_node text, p_copy bigint, p_files json); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.store_estate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_node text, p_copy bigint, p_files json) IS 'keeps a copy of files that belong together, and of each file the last three; refused unless the caller holds that term. The throne is looked at, not locked: a copy that overlaps with the end of its term is still one of that term, and less than any of the next; and one that arrives late, after the connection was dropped, is less than those that were taken after it, for the caller counts them. Locks only what it removes.';


--
-- Name: tell(text, text, text, text, bigint, text, jsonb, uuid); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.tell(p_group text, p_event text, p_node text, p_source text, p_term bigint, p_reason text, p_data jsonb DEFAULT '{}'::jsonb, p_id uuid DEFAULT NULL::uuid) RETURNS void
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: FUNCTION tell(p_group text, p_event text, p_node text, p_source text, p_term bigint, p_reason text, p_data jsonb, p_id uuid); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.tell(p_group text, p_event text, p_node text, p_source text, p_term bigint, p_reason text, p_data jsonb, p_id uuid) IS 'writes one event in the transaction of the change it tells; locks the group''s news counter. Once per id.';


--
-- Name: tell_all(text, text, jsonb); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.tell_all(p_group text, p_node text, p_news jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    e jsonb;
begin
    for e in select value from jsonb_array_elements(p_news) loop
        perform tell(p_group, e->>'event', coalesce(e->>'node', p_node), p_node,
                     (e->>'term')::bigint, e->>'reason', nullif(e->'data', 'null'), (e->>'id')::uuid);
    end loop;
end $$;


--
-- Name: FUNCTION tell_all(p_group text, p_node text, p_news jsonb); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.tell_all(p_group text, p_node text, p_news jsonb) IS 'events that a member tells of itself, each once by its id; locks the news counter';


--
-- Name: vacate(text, text, text, text); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.vacate(p_group text, p_ended_by text, p_reason text, p_node text) RETURNS text
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: FUNCTION vacate(p_group text, p_ended_by text, p_reason text, p_node text); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.vacate(p_group text, p_ended_by text, p_reason text, p_node text) IS 'ends the term, names the successor and wakes it; locks the throne. The caller has checked that the holder asks.';


--
-- Name: wait_ms(heirflow.throne); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.wait_ms(t heirflow.throne) RETURNS integer
    LANGUAGE sql IMMUTABLE
    AS $$
    select greatest(t.lease_ms, t.longest_lease_ms)
$$;


--
-- Name: FUNCTION wait_ms(t heirflow.throne); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.wait_ms(t heirflow.throne) IS 'how long everyone waits once another server answers: the largest of the lease in force and those to come';


--
-- Name: wake(text, bigint); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.wake(p_group text, p_member bigint) RETURNS void
    LANGUAGE sql
    AS $$
    select pg_notify('heirflow_wake', json_build_object('group', p_group, 'member_id', p_member)::text)
$$;


--
-- Name: FUNCTION wake(p_group text, p_member bigint); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.wake(p_group text, p_member bigint) IS 'a hint to one member to send its heartbeat now';


--
-- Name: why_not(heirflow.roster, heirflow.throne, timestamp with time zone); Type: FUNCTION; Schema: heirflow; Owner: -
--

CREATE FUNCTION heirflow.why_not(r heirflow.roster, t heirflow.throne, at timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    select case
        when is_retired(r.group_name, r.node) then 'retired'
        when not is_live(r, t, at) then 'not seen for a lease'
        when not r.eligible then coalesce(r.self->>'reason', 'has not registered again')
        end
$$;


--
-- Name: FUNCTION why_not(r heirflow.roster, t heirflow.throne, at timestamp with time zone); Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON FUNCTION heirflow.why_not(r heirflow.roster, t heirflow.throne, at timestamp with time zone) IS 'what keeps a standby from leading; null for nothing but its place in the line';


--
-- Name: estate; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.estate (
    group_name text NOT NULL,
    path text NOT NULL,
    term bigint NOT NULL,
    copy bigint NOT NULL,
    node text NOT NULL,
    checksum bytea,
    mode integer,
    taken_at timestamp with time zone NOT NULL,
    content bytea,
    CONSTRAINT estate_check CHECK ((sha256(content) = checksum)),
    CONSTRAINT estate_check1 CHECK ((num_nulls(content, checksum, mode) = ANY (ARRAY[0, 3]))),
    CONSTRAINT estate_content_check CHECK ((length(content) <= 16777216)),
    CONSTRAINT estate_mode_check CHECK (((mode >= 0) AND (mode <= 511)))
);


--
-- Name: TABLE estate; Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON TABLE heirflow.estate IS 'copies of the files that the next heir inherits; the newest is that of the highest term';


--
-- Name: estate_origin; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.estate_origin (
    group_name text NOT NULL,
    origin uuid DEFAULT (md5(((random())::text || (clock_timestamp())::text)))::uuid NOT NULL
);


--
-- Name: TABLE estate_origin; Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON TABLE heirflow.estate_origin IS 'tells this group from one of the same name in another database, whose terms say nothing here; nodes note it beside their files';


--
-- Name: fence; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.fence (
    group_name text NOT NULL,
    role regrole NOT NULL
);


--
-- Name: TABLE fence; Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON TABLE heirflow.fence IS 'roles as which a group''s schedulers log in; one stays listed when its member has gone, for its scheduler may not have';


--
-- Name: hooks; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.hooks (
    group_name text NOT NULL,
    sequence bigint NOT NULL
)
WITH (fillfactor='50');


--
-- Name: news; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.news (
    group_name text NOT NULL,
    sequence bigint NOT NULL,
    id uuid DEFAULT (md5(((random())::text || (clock_timestamp())::text)))::uuid NOT NULL,
    event text NOT NULL,
    node text NOT NULL,
    source text NOT NULL,
    term bigint,
    reason text,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    told_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);


--
-- Name: news_counter; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.news_counter (
    group_name text NOT NULL,
    last bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');


--
-- Name: TABLE news_counter; Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON TABLE heirflow.news_counter IS 'last sequence of each group; its row lock makes sequences gap-free and commits ordered';


--
-- Name: relay; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.relay (
    group_name text NOT NULL,
    published bigint DEFAULT 0 NOT NULL,
    member_id bigint,
    claimed_at timestamp with time zone
)
WITH (fillfactor='50');


--
-- Name: retirement; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.retirement (
    group_name text NOT NULL,
    node text NOT NULL,
    retired_at timestamp with time zone NOT NULL
);


--
-- Name: TABLE retirement; Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON TABLE heirflow.retirement IS 'nodes that an operator took out of the line; survives their restarts';


--
-- Name: schema_version; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.schema_version (
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    applied_by text DEFAULT SESSION_USER NOT NULL
);


--
-- Name: terms; Type: TABLE; Schema: heirflow; Owner: -
--

CREATE TABLE heirflow.terms (
    group_name text NOT NULL,
    term bigint NOT NULL,
    member_id bigint NOT NULL,
    node text NOT NULL,
    began_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    ended_by text,
    reason text,
    CONSTRAINT terms_ended_by_check CHECK ((ended_by = ANY (ARRAY['abdicated'::text, 'superseded'::text, 'deposed'::text])))
);


--
-- Name: COLUMN terms.ended_at; Type: COMMENT; Schema: heirflow; Owner: -
--

COMMENT ON COLUMN heirflow.terms.ended_at IS 'for a deposed heir presumed: its last renewal plus the lease, at most its successor''s beginning';


--
-- Data for Name: estate; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.estate VALUES ('tests', 'state', 1923, 1, 'ada', '\x8691647640d53190e4668a2da4477c909b8c81f8bfca09826f395b46d01f46a0', 420, '2026-11-22 16:05:40.154684+00', '\x6164610a');
INSERT INTO heirflow.estate VALUES ('tests', 'state', 1924, 1, 'bert', '\x6bf1cb70db7c90e264d9dfe0f823a0fab4e73170ff5e28f9c341d639c511ef88', 420, '2026-11-22 16:05:40.469159+00', '\x6164610a626572740a');


--
-- Data for Name: estate_origin; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.estate_origin VALUES ('tests', 'd13de9fc-8a58-e88f-1f0b-c33037a181cb');


--
-- Data for Name: fence; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.fence VALUES ('other', 'heirflow_member');


--
-- Data for Name: hooks; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.hooks VALUES ('tests', 14);


--
-- Data for Name: news; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.news VALUES ('tests', 1, '59a5d6e2-3531-9737-3f8b-56b30c147c54', 'registered', 'ada', 'ada', NULL, NULL, '{"member_id": 1}', '2026-11-22 16:05:38.40072+00');
INSERT INTO heirflow.news VALUES ('tests', 2, 'feff8886-cd7a-1fec-dcc7-0539077aa99d', 'registered', 'bert', 'bert', NULL, NULL, '{"member_id": 2}', '2026-11-22 16:05:38.435527+00');
INSERT INTO heirflow.news VALUES ('tests', 3, 'b169f270-e9a8-324b-d0a3-d242eec8b735', 'registered', 'cleo', 'cleo', NULL, NULL, '{"member_id": 3}', '2026-11-22 16:05:38.466613+00');
INSERT INTO heirflow.news VALUES ('tests', 4, 'd7711066-3a56-9084-fc01-dd3f43c18541', 'registered', 'dora', 'dora', NULL, NULL, '{"member_id": 4}', '2026-11-22 16:05:38.529672+00');
INSERT INTO heirflow.news VALUES ('tests', 5, 'a191fc93-16bc-e019-886a-bd46f8b68947', 'acceded', 'ada', 'ada', 1923, 'first', '{"member_id": 1}', '2026-11-22 16:05:39.911627+00');
INSERT INTO heirflow.news VALUES ('tests', 6, '216f5384-89d0-48de-9118-730bb0507761', 'scheduler-started', 'ada', 'ada', 1923, NULL, '{"pid": 15092, "restarts": 0}', '2026-11-22 16:05:39.970777+00');
INSERT INTO heirflow.news VALUES ('tests', 7, '60403a82-f62a-225d-17a9-f954d8eaa80f', 'abdicated', 'ada', 'ada', 1923, 'switchover', '{"asked_by": "postgres", "successor": "bert", "asked_from": "127.0.0.1"}', '2026-11-22 16:05:40.229215+00');
INSERT INTO heirflow.news VALUES ('tests', 8, '1b033d49-f70a-734e-c0dd-6ff71ababe34', 'registered', 'ada', 'ada', NULL, 'switchover', '{"member_id": 5}', '2026-11-22 16:05:40.234871+00');
INSERT INTO heirflow.news VALUES ('tests', 9, 'c47d4c3a-3cad-d04b-86cd-da0d7b74a617', 'acceded', 'bert', 'bert', 1924, 'vacant', '{"member_id": 2}', '2026-11-22 16:05:40.242306+00');
INSERT INTO heirflow.news VALUES ('tests', 10, '81566372-8c3f-4ed3-9902-69ff787b5fa1', 'estate-inherited', 'bert', 'bert', 1924, NULL, '{"from": "ada", "files": 1, "age_ms": 94, "from_term": 1923}', '2026-11-22 16:05:40.291657+00');
INSERT INTO heirflow.news VALUES ('tests', 11, '529ca02c-5c2f-4a2f-9de6-04605c9b1915', 'scheduler-started', 'bert', 'bert', 1924, NULL, '{"pid": 15143, "restarts": 0}', '2026-11-22 16:05:40.291747+00');
INSERT INTO heirflow.news VALUES ('tests', 12, '2682a8fa-6597-ed72-ba3a-afd028271a46', 'retired', 'cleo', 'postgres', 1924, NULL, '{"asked_by": "postgres", "asked_from": "127.0.0.1"}', '2026-11-22 16:05:40.356264+00');
INSERT INTO heirflow.news VALUES ('tests', 13, 'bccba376-c769-2c99-63f6-724dbf573e9c', 'left', 'dora', 'dora', NULL, 'stopped', '{"member_id": 4}', '2026-11-22 16:05:40.363797+00');
INSERT INTO heirflow.news VALUES ('tests', 14, 'e6cc6506-1a0e-e24e-27fe-ae71becde5e5', 'lease-changed', '', 'postgres', 1924, 'from the next accession on', '{"asked_by": "postgres", "lease_ms": 2000, "asked_from": "127.0.0.1"}', '2026-11-22 16:05:40.445204+00');


--
-- Data for Name: news_counter; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.news_counter VALUES ('tests', 14);


--
-- Data for Name: relay; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.relay VALUES ('tests', 0, NULL, NULL);


--
-- Data for Name: retirement; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.retirement VALUES ('tests', 'cleo', '2026-11-22 16:05:40.353051+00');


--
-- Data for Name: roster; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.roster VALUES ('tests', 'c8eafb3f-0662-4d82-a31f-7c29f87e8a5d', 1, 2, '420834ae-4252-4b31-8ce9-a0566c44d9bc', 'bert', '127.0.0.1', '2026-11-22 16:05:38.433912+00', '2026-11-22 16:05:40.289627+00', true, false, true, '{"node": "bert", "version": "0.1.0", "eligible": true, "lease_ms": 1500, "scheduler": {"pid": 15143, "state": "running", "restarts": 0, "started_at": "2026-11-22T16:05:40Z"}, "heartbeat_ms": 250, "highest_term": 1924, "schema_version": 7}');
INSERT INTO heirflow.roster VALUES ('tests', '6022f000-db94-48a7-9921-b45c21627fba', 1, 4, '9dc28592-aac7-4b97-8840-de444a6508f0', 'dora', '127.0.0.1', '2026-11-22 16:05:38.528112+00', '2026-11-22 16:05:40.242823+00', false, false, true, '{"node": "dora", "version": "0.1.0", "eligible": true, "lease_ms": 1500, "heartbeat_ms": 250, "highest_term": 1923, "schema_version": 7}');
INSERT INTO heirflow.roster VALUES ('tests', '5d962052-c2e2-408a-aada-95e45f8a9894', 2, 5, '7eba3d0f-b530-48ae-9c9b-2dc82c236253', 'ada', '127.0.0.1', '2026-11-22 16:05:40.234412+00', '2026-11-22 16:05:40.488735+00', true, false, true, '{"node": "ada", "version": "0.1.0", "eligible": true, "lease_ms": 1500, "heartbeat_ms": 250, "highest_term": 1923, "schema_version": 7, "registered_because": "switchover"}');
INSERT INTO heirflow.roster VALUES ('tests', 'd65a80a6-b975-48b1-be11-525dd1a17630', 1, 3, '3dd4cd59-b8a3-4bc9-ace7-ab3a4769ea2f', 'cleo', '127.0.0.1', '2026-11-22 16:05:38.464637+00', '2026-11-22 16:05:40.490913+00', true, false, true, '{"node": "cleo", "version": "0.1.0", "eligible": true, "lease_ms": 1500, "heartbeat_ms": 250, "highest_term": 1923, "schema_version": 7}');


--
-- Data for Name: schema_version; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.schema_version VALUES (1, '0001_succession', '2026-11-22 16:05:38.222042+00', 'postgres');
INSERT INTO heirflow.schema_version VALUES (2, '0002_audit', '2026-11-22 16:05:38.306187+00', 'postgres');
INSERT INTO heirflow.schema_version VALUES (3, '0003_fencing', '2026-11-22 16:05:38.308669+00', 'postgres');
INSERT INTO heirflow.schema_version VALUES (4, '0004_interface', '2026-11-22 16:05:38.32207+00', 'postgres');
INSERT INTO heirflow.schema_version VALUES (5, '0005_retention', '2026-11-22 16:05:38.323954+00', 'postgres');
INSERT INTO heirflow.schema_version VALUES (6, '0006_estate', '2026-11-22 16:05:38.325179+00', 'postgres');
INSERT INTO heirflow.schema_version VALUES (7, '0007_rights', '2026-11-22 16:05:38.33284+00', 'postgres');


--
-- Data for Name: terms; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.terms VALUES ('tests', 1923, 1, 'ada', '2026-11-22 16:05:39.905621+00', '2026-11-22 16:05:40.228202+00', 'abdicated', 'switchover');
INSERT INTO heirflow.terms VALUES ('tests', 1924, 2, 'bert', '2026-11-22 16:05:40.236226+00', NULL, NULL, NULL);


--
-- Data for Name: throne; Type: TABLE DATA; Schema: heirflow; Owner: -
--

INSERT INTO heirflow.throne VALUES ('tests', 2, '420834ae-4252-4b31-8ce9-a0566c44d9bc', 1924, 1, 1500, 2000, 2000, false, '7711027674359556294/00000001/1795363538.009441/16396', '2026-11-22 16:05:40.289627+00', 'c8eafb3f-0662-4d82-a31f-7c29f87e8a5d', NULL, NULL, NULL, NULL, NULL);


--
-- Name: member_id; Type: SEQUENCE SET; Schema: heirflow; Owner: -
--

SELECT pg_catalog.setval('heirflow.member_id', 5, true);


--
-- Name: estate_origin estate_origin_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.estate_origin
    ADD CONSTRAINT estate_origin_pkey PRIMARY KEY (group_name);


--
-- Name: estate estate_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.estate
    ADD CONSTRAINT estate_pkey PRIMARY KEY (group_name, path, term, copy);


--
-- Name: fence fence_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.fence
    ADD CONSTRAINT fence_pkey PRIMARY KEY (group_name, role);


--
-- Name: hooks hooks_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.hooks
    ADD CONSTRAINT hooks_pkey PRIMARY KEY (group_name);


--
-- Name: news_counter news_counter_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.news_counter
    ADD CONSTRAINT news_counter_pkey PRIMARY KEY (group_name);


--
-- Name: news news_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.news
    ADD CONSTRAINT news_pkey PRIMARY KEY (group_name, sequence);


--
-- Name: relay relay_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.relay
    ADD CONSTRAINT relay_pkey PRIMARY KEY (group_name);


--
-- Name: retirement retirement_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.retirement
    ADD CONSTRAINT retirement_pkey PRIMARY KEY (group_name, node);


--
-- Name: roster roster_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.roster
    ADD CONSTRAINT roster_pkey PRIMARY KEY (group_name, seat);


--
-- Name: schema_version schema_version_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);


--
-- Name: terms terms_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.terms
    ADD CONSTRAINT terms_pkey PRIMARY KEY (group_name, term);


--
-- Name: throne throne_pkey; Type: CONSTRAINT; Schema: heirflow; Owner: -
--

ALTER TABLE ONLY heirflow.throne
    ADD CONSTRAINT throne_pkey PRIMARY KEY (group_name);


--
-- Name: news_id; Type: INDEX; Schema: heirflow; Owner: -
--

CREATE UNIQUE INDEX news_id ON heirflow.news USING btree (id);


--
-- Name: SCHEMA heirflow; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA heirflow TO heirflow_member;
GRANT USAGE ON SCHEMA heirflow TO heirflow_operator;
GRANT USAGE ON SCHEMA heirflow TO heirflow_viewer;


--
-- Name: FUNCTION abdicate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_reason text, p_node text, p_news jsonb); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.abdicate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_reason text, p_node text, p_news jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.abdicate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_reason text, p_node text, p_news jsonb) TO heirflow_member;


--
-- Name: FUNCTION accede(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_identity text, p_heir bigint, p_heir_incarnation uuid, p_term bigint, p_beat bigint, p_highest_term bigint, p_seniority_yields boolean); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.accede(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_identity text, p_heir bigint, p_heir_incarnation uuid, p_term bigint, p_beat bigint, p_highest_term bigint, p_seniority_yields boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.accede(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_identity text, p_heir bigint, p_heir_incarnation uuid, p_term bigint, p_beat bigint, p_highest_term bigint, p_seniority_yields boolean) TO heirflow_member;


--
-- Name: FUNCTION asker(); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.asker() FROM PUBLIC;


--
-- Name: FUNCTION assert_heir(p_group text, p_term bigint); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.assert_heir(p_group text, p_term bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.assert_heir(p_group text, p_term bigint) TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.assert_heir(p_group text, p_term bigint) TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.assert_heir(p_group text, p_term bigint) TO heirflow_viewer;


--
-- Name: FUNCTION audit(p_group text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.audit(p_group text) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.audit(p_group text) TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.audit(p_group text) TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.audit(p_group text) TO heirflow_viewer;


--
-- Name: FUNCTION commit_durably(); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.commit_durably() FROM PUBLIC;


--
-- Name: FUNCTION estate(p_group text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.estate(p_group text) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.estate(p_group text) TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.estate(p_group text) TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.estate(p_group text) TO heirflow_viewer;


--
-- Name: FUNCTION fence(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_timeout_ms integer); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.fence(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_timeout_ms integer) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.fence(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_timeout_ms integer) TO heirflow_member;


--
-- Name: FUNCTION fence_check(p_group text, p_role text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.fence_check(p_group text, p_role text) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.fence_check(p_group text, p_role text) TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.fence_check(p_group text, p_role text) TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.fence_check(p_group text, p_role text) TO heirflow_viewer;


--
-- Name: FUNCTION fence_fault(p_role text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.fence_fault(p_role text) FROM PUBLIC;


--
-- Name: FUNCTION fence_leaks(p_role name); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.fence_leaks(p_role name) FROM PUBLIC;


--
-- Name: FUNCTION fetch_estate(p_group text, p_paths jsonb); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.fetch_estate(p_group text, p_paths jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.fetch_estate(p_group text, p_paths jsonb) TO heirflow_member;


--
-- Name: FUNCTION forget(p_group text, p_member bigint, p_days integer, p_publishes boolean, p_limit integer); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.forget(p_group text, p_member bigint, p_days integer, p_publishes boolean, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.forget(p_group text, p_member bigint, p_days integer, p_publishes boolean, p_limit integer) TO heirflow_member;


--
-- Name: FUNCTION gate_grantors(p_role oid); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.gate_grantors(p_role oid) FROM PUBLIC;


--
-- Name: FUNCTION give_rights(); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.give_rights() FROM PUBLIC;


--
-- Name: FUNCTION group_names(); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.group_names() FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.group_names() TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.group_names() TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.group_names() TO heirflow_viewer;


--
-- Name: FUNCTION groups(); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.groups() FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.groups() TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.groups() TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.groups() TO heirflow_viewer;


--
-- Name: FUNCTION heartbeat(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_term bigint, p_self jsonb, p_news jsonb); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.heartbeat(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_term bigint, p_self jsonb, p_news jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.heartbeat(p_group text, p_seat uuid, p_member bigint, p_incarnation uuid, p_term bigint, p_self jsonb, p_news jsonb) TO heirflow_member;


--
-- Name: FUNCTION history(p_group text, p_limit integer); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.history(p_group text, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.history(p_group text, p_limit integer) TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.history(p_group text, p_limit integer) TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.history(p_group text, p_limit integer) TO heirflow_viewer;


--
-- Name: FUNCTION hooks_next(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_done bigint, p_done_id uuid); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.hooks_next(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_done bigint, p_done_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.hooks_next(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_done bigint, p_done_id uuid) TO heirflow_member;


--
-- Name: FUNCTION is_fenced(p_role oid); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.is_fenced(p_role oid) FROM PUBLIC;


--
-- Name: FUNCTION is_live(r heirflow.roster, t heirflow.throne, at timestamp with time zone); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.is_live(r heirflow.roster, t heirflow.throne, at timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION is_retired(p_group text, p_node text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.is_retired(p_group text, p_node text) FROM PUBLIC;


--
-- Name: FUNCTION knows_grantors(); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.knows_grantors() FROM PUBLIC;


--
-- Name: FUNCTION leave(p_group text, p_seat uuid, p_incarnation uuid, p_reason text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.leave(p_group text, p_seat uuid, p_incarnation uuid, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.leave(p_group text, p_seat uuid, p_incarnation uuid, p_reason text) TO heirflow_member;


--
-- Name: FUNCTION may_act_as(p_role oid, p_other oid); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.may_act_as(p_role oid, p_other oid) FROM PUBLIC;


--
-- Name: FUNCTION may_lead(r heirflow.roster, t heirflow.throne, at timestamp with time zone); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.may_lead(r heirflow.roster, t heirflow.throne, at timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION member_details(p_group text, p_member bigint); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.member_details(p_group text, p_member bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.member_details(p_group text, p_member bigint) TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.member_details(p_group text, p_member bigint) TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.member_details(p_group text, p_member bigint) TO heirflow_viewer;


--
-- Name: FUNCTION named_successor(t heirflow.throne, at timestamp with time zone); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.named_successor(t heirflow.throne, at timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION news_after(p_group text, p_after bigint, p_limit integer); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.news_after(p_group text, p_after bigint, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.news_after(p_group text, p_after bigint, p_limit integer) TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.news_after(p_group text, p_after bigint, p_limit integer) TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.news_after(p_group text, p_after bigint, p_limit integer) TO heirflow_viewer;


--
-- Name: FUNCTION news_last(p_group text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.news_last(p_group text) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.news_last(p_group text) TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.news_last(p_group text) TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.news_last(p_group text) TO heirflow_viewer;


--
-- Name: FUNCTION observe(p_group text, p_seat uuid, p_incarnation uuid, p_lease_ms integer); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.observe(p_group text, p_seat uuid, p_incarnation uuid, p_lease_ms integer) FROM PUBLIC;


--
-- Name: FUNCTION pass_gate(p_group text, p_role text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.pass_gate(p_group text, p_role text) FROM PUBLIC;


--
-- Name: FUNCTION register(p_group text, p_seat uuid, p_generation bigint, p_incarnation uuid, p_node text, p_lease_ms integer, p_self jsonb); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.register(p_group text, p_seat uuid, p_generation bigint, p_incarnation uuid, p_node text, p_lease_ms integer, p_self jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.register(p_group text, p_seat uuid, p_generation bigint, p_incarnation uuid, p_node text, p_lease_ms integer, p_self jsonb) TO heirflow_member;


--
-- Name: FUNCTION relay_claim(p_group text, p_member bigint, p_for_ms integer); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.relay_claim(p_group text, p_member bigint, p_for_ms integer) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.relay_claim(p_group text, p_member bigint, p_for_ms integer) TO heirflow_member;


--
-- Name: FUNCTION relay_published(p_group text, p_member bigint, p_sequence bigint); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.relay_published(p_group text, p_member bigint, p_sequence bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.relay_published(p_group text, p_member bigint, p_sequence bigint) TO heirflow_member;


--
-- Name: FUNCTION remove_member(p_group text, p_member bigint); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.remove_member(p_group text, p_member bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.remove_member(p_group text, p_member bigint) TO heirflow_operator;


--
-- Name: FUNCTION request_switchover(p_group text, p_target text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.request_switchover(p_group text, p_target text) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.request_switchover(p_group text, p_target text) TO heirflow_operator;


--
-- Name: FUNCTION server_identity(); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.server_identity() FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.server_identity() TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.server_identity() TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.server_identity() TO heirflow_viewer;


--
-- Name: FUNCTION set_lease(p_group text, p_lease_ms integer); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.set_lease(p_group text, p_lease_ms integer) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.set_lease(p_group text, p_lease_ms integer) TO heirflow_operator;


--
-- Name: FUNCTION set_paused(p_group text, p_paused boolean); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.set_paused(p_group text, p_paused boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.set_paused(p_group text, p_paused boolean) TO heirflow_operator;


--
-- Name: FUNCTION set_retired(p_group text, p_node text, p_retired boolean); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.set_retired(p_group text, p_node text, p_retired boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.set_retired(p_group text, p_node text, p_retired boolean) TO heirflow_operator;


--
-- Name: FUNCTION status(p_group text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.status(p_group text) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.status(p_group text) TO heirflow_member;
GRANT ALL ON FUNCTION heirflow.status(p_group text) TO heirflow_operator;
GRANT ALL ON FUNCTION heirflow.status(p_group text) TO heirflow_viewer;


--
-- Name: FUNCTION store_estate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_node text, p_copy bigint, p_files json); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.store_estate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_node text, p_copy bigint, p_files json) FROM PUBLIC;
GRANT ALL ON FUNCTION heirflow.store_estate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_node text, p_copy bigint, p_files json) TO heirflow_member;


--
-- Name: FUNCTION tell(p_group text, p_event text, p_node text, p_source text, p_term bigint, p_reason text, p_data jsonb, p_id uuid); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.tell(p_group text, p_event text, p_node text, p_source text, p_term bigint, p_reason text, p_data jsonb, p_id uuid) FROM PUBLIC;


--
-- Name: FUNCTION tell_all(p_group text, p_node text, p_news jsonb); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.tell_all(p_group text, p_node text, p_news jsonb) FROM PUBLIC;


--
-- Name: FUNCTION vacate(p_group text, p_ended_by text, p_reason text, p_node text); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.vacate(p_group text, p_ended_by text, p_reason text, p_node text) FROM PUBLIC;


--
-- Name: FUNCTION wait_ms(t heirflow.throne); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.wait_ms(t heirflow.throne) FROM PUBLIC;


--
-- Name: FUNCTION wake(p_group text, p_member bigint); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.wake(p_group text, p_member bigint) FROM PUBLIC;


--
-- Name: FUNCTION why_not(r heirflow.roster, t heirflow.throne, at timestamp with time zone); Type: ACL; Schema: heirflow; Owner: -
--

REVOKE ALL ON FUNCTION heirflow.why_not(r heirflow.roster, t heirflow.throne, at timestamp with time zone) FROM PUBLIC;


--
-- Name: TABLE schema_version; Type: ACL; Schema: heirflow; Owner: -
--

GRANT SELECT ON TABLE heirflow.schema_version TO heirflow_member;
GRANT SELECT ON TABLE heirflow.schema_version TO heirflow_operator;
GRANT SELECT ON TABLE heirflow.schema_version TO heirflow_viewer;


--
-- PostgreSQL database dump complete
--


