-- The judge of the first release counted machines; the one after it weighs whose
-- word is trusted, and cannot read the other's evidence. What was listed comes
-- back with the next reports.

-- +goose Up
DELETE FROM evidence;
DELETE FROM verdicts;

-- +goose Down
DELETE FROM evidence;
DELETE FROM verdicts;
