-- Where the demonstration DAGs keep what they work out. Safe to run again.
create schema if not exists demo;

create table if not exists demo.daily_prices (
    day date, security text, average_price numeric not null, trades integer not null,
    primary key (day, security));

create table if not exists demo.product_ratings (
    day date, category text, average_stars numeric not null, reviews integer not null,
    primary key (day, category));

create table if not exists demo.model_data (
    run text primary key, features double precision[] not null, target double precision[] not null);

create table if not exists demo.model_scores (
    run text, features integer[], error double precision not null,
    primary key (run, features));

create table if not exists demo.model_choices (
    run text primary key, features integer[] not null, coefficients double precision[] not null,
    error double precision not null);

-- A row for each time that a task really ran: two for one try mean that something ran it twice.
create table if not exists demo.executions (
    dag text not null, run text not null, task text not null, map_index integer not null, try integer not null,
    host text not null, started_at timestamptz not null default clock_timestamp());
