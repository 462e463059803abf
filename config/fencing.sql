-- Prepares a scheduler's database for fencing (docs/fencing.md). As a superuser, once for each database:
--
--     psql --set=owner=heirflow --set=database=airflow --file=fencing.sql
--
-- owner: the role that ran `heirflow migrate`; database: the one the scheduler writes to, on the same server.
-- Only who is granted CONNECT by name can connect to it afterwards, and schedulers only while theirs is the heir.
\set ON_ERROR_STOP on

select 'create role heirflow_gate nologin' where not exists (select from pg_roles where rolname = 'heirflow_gate') \gexec
select 'create role heirflow_fenced nologin' where not exists (select from pg_roles where rolname = 'heirflow_fenced') \gexec
grant heirflow_gate to :"owner" with admin option;
grant pg_signal_backend to :"owner";
grant connect on database :"database" to heirflow_gate;
revoke connect on database :"database" from public;
