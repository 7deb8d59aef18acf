-- What of a verdict's reasons the publisher ranks it by.

-- +goose Up
ALTER TABLE verdicts ADD COLUMN support REAL NOT NULL DEFAULT 0;
ALTER TABLE verdicts ADD COLUMN independent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE verdicts ADD COLUMN last INTEGER NOT NULL DEFAULT 0;
UPDATE verdicts SET support = COALESCE(json_extract(reasons, '$.support'), 0),
  independent = COALESCE(json_extract(reasons, '$.independent'), 0), last = COALESCE(json_extract(reasons, '$.last'), 0);

-- +goose Down
ALTER TABLE verdicts DROP COLUMN last;
ALTER TABLE verdicts DROP COLUMN independent;
ALTER TABLE verdicts DROP COLUMN support;
