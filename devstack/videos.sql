-- Users see their videos through policies that are of no interest here; without any, only service_role sees rows.
create table captionacc.videos (
  id uuid primary key default gen_random_uuid(),
  tenant_id text,
  display_path text,
  status text not null default 'uploading',
  storage_key text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
alter table captionacc.videos enable row level security;
