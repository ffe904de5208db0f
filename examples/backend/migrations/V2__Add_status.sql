ALTER TABLE plan ADD COLUMN status text NOT NULL DEFAULT 'draft';
