package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"

	"muster"
)

//go:embed migrations
var migrations embed.FS

// migrate brings the schema up to this release's, one transaction per step.
func migrate(ctx context.Context, pool *sql.DB, logger *slog.Logger) error {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, pool, dir, goose.WithTableName("schema_version"))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	current, target, err := provider.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("reading the schema's version: %w", err)
	case current > target:
		return muster.Errorf(muster.Invalid, "the database has schema %d and this release knows %d: run the newer release that wrote it, or restore a backup", current, target)
	case current == target:
		return nil
	}
	done, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrating the schema from %d to %d: %w", current, target, err)
	}
	for _, step := range done {
		logger.Info("schema migrated", "version", step.Source.Version, "duration", step.Duration)
	}
	return nil
}
