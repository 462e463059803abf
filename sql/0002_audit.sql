-- Every term of a group in one look, for `heirflow audit`.
--
-- `heirflow migrate` runs this file in one transaction with search_path set to the schema.

select set_config('search_path', format('%I, pg_temp', current_schema()), true);

create function audit(p_group text) returns jsonb
language sql volatile security definer set search_path from current as $$
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
comment on function audit(text) is
    'every term, oldest first: how it ended, whether that is presumed (last renewal plus lease), the gap to the next, and '
    'whether it began before all earlier ones had ended (database clock). Null for an unknown group. Locks nothing.';

do $$
declare
    v_role text;
begin
    revoke all on function audit(text) from public;
    foreach v_role in array array['heirflow_member', 'heirflow_operator', 'heirflow_viewer'] loop
        if exists (select from pg_roles where rolname = v_role) then   -- migrate tells of a missing one
            execute format('grant execute on function audit(text) to %I', v_role);
        end if;
    end loop;
end $$;
