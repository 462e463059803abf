-- What is older than `retention_days` is forgotten: news that are out, and terms that nothing depends on any more.
--
-- `heirflow migrate` runs this file in one transaction with search_path set to the schema.

select set_config('search_path', format('%I, pg_temp', current_schema()), true);

create function forget(p_group text, p_member bigint, p_days integer, p_publishes boolean, p_limit integer) returns bigint
language plpgsql volatile security definer set search_path from current as $$
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
comment on function forget(text, bigint, integer, boolean, integer) is
    'removes at most p_limit news and p_limit terms older than p_days, oldest first, and returns how many; nothing unless '
    'the caller is the heir. Keeps what is not published (p_publishes: the caller relays), the last event and the newest '
    'term. Locks only what it removes.';

do $$
begin
    revoke all on function forget(text, bigint, integer, boolean, integer) from public;
    if exists (select from pg_roles where rolname = 'heirflow_member') then   -- migrate tells of a missing one
        grant execute on function forget(text, bigint, integer, boolean, integer) to heirflow_member;
    end if;
end $$;
