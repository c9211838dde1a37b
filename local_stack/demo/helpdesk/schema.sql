-- The helpdesk of Verdanor, a made-up maker of growing equipment. Articles are captured by Debezium, tickets by DMS.
CREATE TABLE IF NOT EXISTS public.articles (
    id bigint PRIMARY KEY,
    title text NOT NULL,
    body text NOT NULL,
    area text NOT NULL,
    status text NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS public.tickets (
    id bigint PRIMARY KEY,
    subject text NOT NULL,
    body text NOT NULL,
    status text NOT NULL,
    priority text NOT NULL,
    customer_id bigint NOT NULL,
    updated_at timestamptz NOT NULL
);
