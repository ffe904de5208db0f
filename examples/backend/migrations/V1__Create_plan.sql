CREATE TABLE plan (id uuid PRIMARY KEY, name text NOT NULL);
