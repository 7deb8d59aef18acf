package enroll

import (
	"context"
	"time"

	"muster"
)

// Store is what the service keeps for good. All methods are safe for
// concurrent use; writes are durable when they return. A missing thing is an
// error of code muster.NotFound. The service never retries: callers learn of a
// failing store by an error of code muster.Unavailable.
type Store interface {
	Machines
	EnrolmentKeys
	Claims
	Organisations
	Secrets
}

// Machines is the durable directory of machines.
type Machines interface {
	// CreateMachine adds m; code muster.Exists when its ID is taken.
	CreateMachine(ctx context.Context, m muster.Machine) error
	Machine(ctx context.Context, id string) (muster.Machine, error)
	// EachMachine calls yield for every machine, in any order, and ends with
	// yield's first error.
	EachMachine(ctx context.Context, yield func(muster.Machine) error) error
	// UpdateMachine reads, changes and writes one machine in one transaction and
	// returns what was written. An error of change writes nothing and is
	// returned as it is; change may be called more than once and must not call
	// the store.
	UpdateMachine(ctx context.Context, id string, change func(*muster.Machine) error) (muster.Machine, error)
	// TouchMachines writes a batch of at most 1,000 in one transaction and skips
	// machines that are unknown; see muster.MachineTouch.
	TouchMachines(ctx context.Context, touches []muster.MachineTouch) error
}

// EnrolmentKeys keeps the keys that operators hand out.
type EnrolmentKeys interface {
	CreateEnrolmentKey(ctx context.Context, k muster.EnrolmentKey) error
	EnrolmentKeyByHash(ctx context.Context, hash []byte) (muster.EnrolmentKey, error)
	// UseEnrolmentKey counts one use if the key is usable at now, atomically,
	// and returns the key; else it returns the error of EnrolmentKey.Usable.
	UseEnrolmentKey(ctx context.Context, hash []byte, now time.Time) (muster.EnrolmentKey, error)
}

// Claims keeps the open requests of machines that came without a key.
type Claims interface {
	// CreateClaim keeps c, in place of the machine's earlier claim.
	CreateClaim(ctx context.Context, c muster.Claim) error
	// Claim returns a claim, which may have expired.
	Claim(ctx context.Context, hash []byte) (muster.Claim, error)
	// DeleteClaim forgets a claim, which may be gone already.
	DeleteClaim(ctx context.Context, hash []byte) error
}

// Organisations tells whom machines belong to.
type Organisations interface {
	Organisations(ctx context.Context) ([]muster.Organisation, error)
}

// Secrets keeps the server's own keys by name, the same for all nodes.
type Secrets interface {
	// EnsureSecret stores value under name unless there is one already, and
	// returns what is stored then.
	EnsureSecret(ctx context.Context, name string, value []byte) ([]byte, error)
	// ReplaceSecret stores value under name if old is what is stored there, else
	// it returns code muster.Exists.
	ReplaceSecret(ctx context.Context, name string, old, value []byte) error
}
