package join

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// LeaveOptions says which engine leaves.
type LeaveOptions struct {
	Config      string // as in Options
	Credentials string // as in Options
	DryRun      bool
	Out         io.Writer // nil = nowhere
}

// Leave puts the newest copy that Join kept of the engine's credentials back
// in their place.
func Leave(o LeaveOptions) error {
	if o.Config == "" {
		o.Config = DefaultConfig
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	path := o.Credentials
	if path == "" {
		var err error
		if path, err = credentialsPath(o.Config); err != nil {
			return err
		}
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	backup, err := newestBackup(path)
	if err != nil {
		return fmt.Errorf("looking for the credentials before Muster: %w", err)
	}
	if backup == "" {
		return fmt.Errorf("there is no %s%s: this engine did not join with `muster join`, or had no credentials before it; to use CrowdSec's Central API, remove %s and run `cscli capi register`", path, backupSuffix, path)
	}
	if o.DryRun {
		say(o.Out, "%s would go back to %s (dry run).\n", backup, path)
		return nil
	}
	if err := os.Rename(backup, path); err != nil {
		return fmt.Errorf("putting the old credentials back: %w (run this as root?)", err)
	}
	say(o.Out, "%s is back at %s.\n", backup, path)
	nextSteps(o.Out)
	return nil
}
