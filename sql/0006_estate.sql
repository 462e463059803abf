-- What the next heir inherits: copies of a scheduler's small state files, the last three of each.
--
-- `heirflow migrate` runs this file in one transaction with search_path set to the schema.

select set_config('search_path', format('%I, pg_temp', current_schema()), true);

create table estate (
    group_name text not null,
    path       text not null,
    term       bigint not null,
    copy       bigint not null,                          -- counted by the heir; files that belong together have one number
    node       text not null,                            -- who stored it
    checksum   bytea,                                    -- sha256 of the content
    mode       integer check (mode between 0 and 511),
    taken_at   timestamptz not null,
    content    bytea check (length(content) <= 16777216),
    primary key (group_name, path, term, copy),
    check (sha256(content) = checksum),
    check (num_nulls(content, checksum, mode) in (0, 3)) -- 3: there was no such file
);
comment on table estate is 'copies of the files that the next heir inherits; the newest is that of the highest term';

create table estate_origin (
    group_name text primary key,
    origin     uuid not null default md5(random()::text || clock_timestamp()::text)::uuid
);
comment on table estate_origin is
    'tells this group from one of the same name in another database, whose terms say nothing here; nodes note it beside their files';

create function store_estate(p_group text, p_member bigint, p_incarnation uuid, p_term bigint, p_node text, p_copy bigint,
                             p_files json)
returns jsonb
language plpgsql volatile security definer set search_path from current as $$
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
comment on function store_estate(text, bigint, uuid, bigint, text, bigint, json) is
    'keeps a copy of files that belong together, and of each file the last three; refused unless the caller holds that term. '
    'The throne is looked at, not locked: a copy that overlaps with the end of its term is still one of that term, and less '
    'than any of the next; and one that arrives late, after the connection was dropped, is less than those that were taken '
    'after it, for the caller counts them. Locks only what it removes.';

create function fetch_estate(p_group text, p_paths jsonb) returns json
language plpgsql volatile security definer set search_path from current as $$
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
comment on function fetch_estate(text, jsonb) is
    'the newest copy of any of these files, with those that were stored with it; "term" is null if there is none. Locks '
    'nothing but, the first time, the group''s line in estate_origin.';

create function estate(p_group text) returns jsonb
language sql stable security definer set search_path from current as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'path', path, 'term', term, 'node', node, 'taken_at', taken_at, 'bytes', length(content),
        'checksum', encode(checksum, 'hex'), 'mode', mode, 'copy', copy) order by path, term desc, copy desc), '[]')
      from estate where group_name = p_group
$$;
comment on function estate(text) is 'what is kept for the next heir, newest first, without the contents. Locks nothing.';

do $$
declare
    v_role text;
begin
    revoke all on function store_estate(text, bigint, uuid, bigint, text, bigint, json), fetch_estate(text, jsonb), estate(text)
      from public;
    foreach v_role in array array['heirflow_member', 'heirflow_operator', 'heirflow_viewer'] loop
        if not exists (select from pg_roles where rolname = v_role) then   -- migrate tells of a missing one
            continue;
        end if;
        execute format('grant execute on function estate(text) to %I', v_role);
        if v_role = 'heirflow_member' then
            execute format('grant execute on function store_estate(text, bigint, uuid, bigint, text, bigint, json),
                fetch_estate(text, jsonb) to %I', v_role);
        end if;
    end loop;
end $$;
