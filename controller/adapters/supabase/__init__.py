"""Supabase: reads the stuck videos and tells which files are in storage."""
