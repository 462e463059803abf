-- What the interface asks beyond the roster: all about one member, an overview of the groups, and the removal of the dead.
--
-- `heirflow migrate` runs this file in one transaction with search_path set to the schema.

select set_config('search_path', format('%I, pg_temp', current_schema()), true);

create function member_details(p_group text, p_member bigint) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
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
comment on function member_details(text, bigint) is
    'all that is known of one member: its line of status(), what it says of itself, its latest terms and its last 50 events. '
    'Null if it is not in the roster. Locks nothing.';

create function groups() returns jsonb
language sql volatile security definer set search_path from current as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'group', t.group_name, 'term', t.term, 'paused', t.paused,
        'heir', (select r.node from roster r where r.group_name = t.group_name
                    and r.member_id = t.member_id and r.incarnation = t.incarnation limit 1),
        'members', (select count(*) from roster r where r.group_name = t.group_name and r.present),
        'live', (select count(*) from roster r where r.group_name = t.group_name and is_live(r, t, clock_timestamp())))
        order by t.group_name), '[]')
      from throne t
$$;
comment on function groups() is 'every group with its heir and its members. Locks nothing.';

create function remove_member(p_group text, p_member bigint) returns jsonb
language plpgsql volatile security definer set search_path from current as $$
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
comment on function remove_member(text, bigint) is
    'takes a member that is neither the heir nor alive off the roster; if its wrapper comes back it registers at the end of '
    'the line. Locks the throne.';

do $$
declare
    v_role text;
begin
    revoke all on function member_details(text, bigint), groups(), remove_member(text, bigint) from public;
    foreach v_role in array array['heirflow_member', 'heirflow_operator', 'heirflow_viewer'] loop
        if not exists (select from pg_roles where rolname = v_role) then   -- migrate tells of a missing one
            continue;
        end if;
        execute format('grant execute on function member_details(text, bigint), groups() to %I', v_role);
        if v_role = 'heirflow_operator' then
            execute format('grant execute on function remove_member(text, bigint) to %I', v_role);
        end if;
    end loop;
end $$;
