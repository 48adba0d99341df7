-- The roles of hosted Supabase, with its time limits, and the table of videos.
-- `{password}` is replaced by the password of the role that PostgREST logs in with, `{schemas}` by the exposed schemas.
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit password '{password}';
grant anon, authenticated, service_role to authenticator;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role service_role set statement_timeout = '8s';

do $$
declare
  name text;
begin
  foreach name in array string_to_array('{schemas}', ',') loop
    execute format('create schema if not exists %I', name);
    execute format('grant usage on schema %I to anon, authenticated, service_role', name);
    execute format('alter default privileges in schema %I grant all on tables to anon, authenticated, service_role', name);
    execute format('alter default privileges in schema %I grant all on sequences to anon, authenticated, service_role', name);
    execute format('alter default privileges in schema %I grant all on functions to anon, authenticated, service_role', name);
  end loop;
end $$;
