-- Operators list sources too, with a remedy.

-- +goose Up
ALTER TABLE operator_verdicts ADD COLUMN remedy TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE operator_verdicts DROP COLUMN remedy;
