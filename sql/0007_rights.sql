-- Who may call what. `heirflow migrate` asks for it each time, so that roles which nobody could make at first get it later.
--
-- `heirflow migrate` runs this file in one transaction with search_path set to the schema.

select set_config('search_path', format('%I, pg_temp', current_schema()), true);

create function give_rights() returns void
language plpgsql volatile set search_path from current as $$
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
comment on function give_rights() is
    'makes the three roles, where the caller may, and gives each what it needs. For the owner alone. Locks no table.';
revoke all on function give_rights() from public;
