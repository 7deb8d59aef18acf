package enroll

import (
	"cmp"
	"context"
	"errors"
	"time"

	"muster"
)

// errUnchanged ends an update that has nothing to do.
var errUnchanged = errors.New("unchanged")

// Accept makes a machine active in an organisation; "" means the one that it
// asked to join. It moves a machine that is active elsewhere. Earlier tokens
// end. Codes: NotFound, Invalid (no organisation), Forbidden (blocked).
func (s *Service) Accept(ctx context.Context, machineID, organisation string) error {
	if organisation != "" {
		if err := s.knowMember(ctx, organisation); err != nil {
			return err
		}
	}
	_, err := s.update(ctx, machineID, func(m *muster.Machine) error {
		into := cmp.Or(organisation, m.Organisation)
		switch {
		case m.State == muster.Blocked:
			return muster.Errorf(muster.Forbidden, "machine %s is blocked: unblock it first", machineID)
		case into == "":
			return muster.Errorf(muster.Invalid, "machine %s asked for no organisation: say which one is to take it", machineID)
		case m.State == muster.Active && m.Organisation == into:
			return errUnchanged
		}
		s.join(m, into)
		return nil
	})
	return err
}

// Release refuses a pending machine's request or takes an active machine out of
// its organisation; it stays registered. Earlier tokens end. Codes: NotFound.
func (s *Service) Release(ctx context.Context, machineID string) error {
	_, err := s.update(ctx, machineID, func(m *muster.Machine) error {
		if m.Organisation == "" {
			return errUnchanged
		}
		leave(m)
		revoke(m, s.now())
		return nil
	})
	return err
}

// Block refuses a machine from now on: it cannot log in. Earlier tokens end.
// Codes: NotFound.
func (s *Service) Block(ctx context.Context, machineID string) error {
	_, err := s.update(ctx, machineID, func(m *muster.Machine) error {
		if m.State == muster.Blocked {
			return errUnchanged
		}
		m.State = muster.Blocked
		m.EnrolledAt = time.Time{}
		revoke(m, s.now())
		return nil
	})
	return err
}

// Unblock lets a machine log in again, pending, with the organisation that it
// was in or had asked for: it has influence only after Accept. Codes: NotFound.
func (s *Service) Unblock(ctx context.Context, machineID string) error {
	_, err := s.update(ctx, machineID, func(m *muster.Machine) error {
		if m.State != muster.Blocked {
			return errUnchanged
		}
		m.State = muster.Pending
		revoke(m, s.now())
		return nil
	})
	return err
}

// Rename gives a machine a name of at most 256 bytes. Codes: NotFound, Invalid.
func (s *Service) Rename(ctx context.Context, machineID, name string) error {
	name, err := cleanName(name)
	if err != nil {
		return err
	}
	_, err = s.update(ctx, machineID, func(m *muster.Machine) error {
		m.Name = name
		return nil
	})
	return err
}

// Tag replaces a machine's tags, at most 32 of 64 bytes. Codes: NotFound,
// Invalid.
func (s *Service) Tag(ctx context.Context, machineID string, tags []string) error {
	tags, err := cleanTags(tags)
	if err != nil {
		return err
	}
	_, err = s.update(ctx, machineID, func(m *muster.Machine) error {
		m.Tags = tags
		return nil
	})
	return err
}

// SetHoneypot notes whether nobody has business with a machine, so that whoever
// comes to it is up to no good; what it reports from then on counts as such.
// Codes: NotFound.
func (s *Service) SetHoneypot(ctx context.Context, machineID string, honeypot bool) error {
	_, err := s.update(ctx, machineID, func(m *muster.Machine) error {
		if m.Honeypot == honeypot {
			return errUnchanged
		}
		m.Honeypot = honeypot
		return nil
	})
	return err
}

// join makes a machine an active member.
func (s *Service) join(m *muster.Machine, organisation string) {
	m.State, m.Organisation = muster.Active, organisation
	m.EnrolledAt = s.now().UTC().Truncate(time.Microsecond)
	revoke(m, s.now())
}

// apply notes which organisation a machine asks to join. An active machine
// leaves its organisation by that.
func (s *Service) apply(m *muster.Machine, organisation string) {
	if m.State == muster.Active {
		leave(m)
		revoke(m, s.now())
	}
	m.Organisation = organisation
}

// leave ends a machine's membership or request. Blocked stays blocked.
func leave(m *muster.Machine) {
	if m.State == muster.Active {
		m.State = muster.Pending
	}
	m.Organisation, m.EnrolledAt = "", time.Time{}
}

// revoke ends all tokens that were issued until now. It always moves forward,
// even when the clock does not.
func revoke(m *muster.Machine, now time.Time) {
	from := now.UTC().Truncate(time.Microsecond)
	if !from.After(m.TokensFrom) {
		from = m.TokensFrom.Add(time.Microsecond)
	}
	m.TokensFrom = from
}

// update changes a machine in the store and in memory and tells other nodes.
func (s *Service) update(ctx context.Context, id string, change func(*muster.Machine) error) (muster.Machine, error) {
	changing := &s.directory.shard(id).changing
	changing.Lock()
	m, err := s.updateLocked(ctx, id, change)
	changing.Unlock()
	switch {
	case errors.Is(err, errUnchanged):
		return m, nil
	case err == nil:
		s.cfg.Notify(id)
	}
	return m, err
}

// updateLocked changes a machine in the store and in memory for a holder of its
// shard's changing. With errUnchanged it returns the machine as it is.
func (s *Service) updateLocked(ctx context.Context, id string, change func(*muster.Machine) error) (muster.Machine, error) {
	before := s.directory.unsavedOf(id)
	var as muster.Machine
	m, err := s.store.UpdateMachine(ctx, id, func(m *muster.Machine) error {
		as = *m
		return change(m)
	})
	switch {
	case errors.Is(err, errUnchanged):
		return as, err
	case err != nil:
		return muster.Machine{}, machineError(id, err)
	}
	if err := s.knowOrganisation(ctx, m.Organisation); err != nil {
		s.log.Warn("a machine's organisation is not known here: its plan counts as the lowest until the next comparison with the store", "machine", id, "organisation", m.Organisation, "error", err)
	}
	s.asked.forget(id)
	s.directory.put(m, before)
	if m.State != as.State || m.Organisation != as.Organisation {
		s.log.Info("machine changed its state", "machine", id, "state", string(m.State), "organisation", m.Organisation)
	}
	return m, nil
}

// machineError says what is wrong with a change of a machine.
func machineError(id string, err error) error {
	switch muster.CodeOf(err) {
	case muster.NotFound:
		return muster.Errorf(muster.NotFound, "there is no machine %q", clip(id))
	case "":
		return unavailable("the machine cannot be changed now", err)
	}
	return err
}

// knowMember is knowOrganisation for a name that must not be empty.
func (s *Service) knowMember(ctx context.Context, organisation string) error {
	if organisation == "" {
		return muster.Errorf(muster.Invalid, "the organisation is missing")
	}
	return s.knowOrganisation(ctx, organisation)
}
