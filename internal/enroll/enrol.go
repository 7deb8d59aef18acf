package enroll

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"muster"
)

// Enrolment is a machine's request to join an organisation: with a key, or
// with Auto and without a key, to be claimed by a person.
type Enrolment struct {
	Key, Name string
	Tags      []string
	Overwrite bool // may leave the organisation that it is in
	Auto      bool
}

// Enrolled is the outcome of an enrolment.
type Enrolled struct {
	Already      bool // it is enrolled and nothing was changed; clients expect status 200, else 201
	State        muster.MachineState
	ClaimURL     string // set when the machine waits to be claimed
	ClaimExpires time.Time
}

// Bounds of what describes a machine, in bytes and numbers. Host names, the
// usual names, have at most 253.
const (
	maxName = 256
	maxTag  = 64
	maxTags = 32
)

// claimLifetime is how long a claim's link works.
const claimLifetime = time.Hour

// Enrol leads a machine towards an organisation: active at once when the key
// accepts by itself, else pending with that organisation until Accept. A key's
// use is spent only when the machine was not yet there. An active machine
// without Overwrite is left alone, whatever organisation the key is for. Codes:
// Forbidden (no valid key, or blocked), Invalid, NotFound, Unavailable.
func (s *Service) Enrol(ctx context.Context, machineID string, e Enrolment) (Enrolled, error) {
	out, err := s.enrol(ctx, machineID, e)
	count(s.metrics.enrolments, err)
	return out, err
}

func (s *Service) enrol(ctx context.Context, id string, e Enrolment) (Enrolled, error) {
	var err error
	if e.Name, err = cleanName(e.Name); err != nil {
		return Enrolled{}, err
	}
	if e.Tags, err = cleanTags(e.Tags); err != nil {
		return Enrolled{}, err
	}
	if e.Key == "" {
		if !e.Auto {
			return Enrolled{}, muster.Errorf(muster.Invalid, "attachment_key is missing: expected an enrolment key, or autoenroll")
		}
		return s.openClaim(ctx, id, e)
	}
	key, err := s.key(ctx, e.Key)
	if err != nil {
		return Enrolled{}, err
	}
	if err := refused(s.knowMember(ctx, key.Organisation)); err != nil {
		return Enrolled{}, err
	}
	if e.Tags, err = cleanTags(slices.Concat(key.Tags, e.Tags)); err != nil {
		return Enrolled{}, err
	}

	out, err := s.enrolWithKey(ctx, id, e, key)
	if err == nil && !out.Already {
		s.cfg.Notify(id)
	}
	return out, err
}

func (s *Service) enrolWithKey(ctx context.Context, id string, e Enrolment, key muster.EnrolmentKey) (Enrolled, error) {
	changing := &s.directory.shard(id).changing
	changing.Lock()
	defer changing.Unlock()
	m, err := s.store.Machine(ctx, id)
	switch {
	case err != nil:
		return Enrolled{}, machineError(id, err)
	case m.State == muster.Blocked:
		return Enrolled{}, errBlocked
	case m.State == muster.Active && !e.Overwrite:
		return Enrolled{Already: true, State: m.State}, nil
	}
	if err := s.spend(ctx, key, &m); err != nil {
		return Enrolled{}, err
	}
	m, err = s.updateLocked(ctx, id, func(m *muster.Machine) error {
		if m.State == muster.Blocked {
			return errBlocked
		}
		describe(m, e.Name, e.Tags)
		switch {
		case m.State == muster.Active && m.Organisation == key.Organisation:
		case key.AutoAccept:
			s.join(m, key.Organisation)
		default:
			s.apply(m, key.Organisation)
		}
		return nil
	})
	return Enrolled{State: m.State}, err
}

// spend uses up one use of a key, unless the machine has what the key gives
// and only renews its name and tags: then a key that has no uses left will do.
func (s *Service) spend(ctx context.Context, key muster.EnrolmentKey, m *muster.Machine) error {
	if m.Organisation == key.Organisation && (m.State == muster.Active || !key.AutoAccept) {
		key.MaxUses = 0
		return refused(key.Usable(s.now()))
	}
	_, err := s.store.UseEnrolmentKey(ctx, key.Hash, s.now())
	return refused(err)
}

// key looks an enrolment key up by its text, usable or not; code Forbidden when
// there is none.
func (s *Service) key(ctx context.Context, text string) (muster.EnrolmentKey, error) {
	if len(text) > 128 {
		return muster.EnrolmentKey{}, errNoKey
	}
	key, err := s.store.EnrolmentKeyByHash(ctx, hashOf(text))
	return key, refused(err)
}

var errNoKey = muster.Errorf(muster.Forbidden, "the attachment key provided is not valid: this server has no such key; copy it anew from the console")

// refused turns a key's error into what the machine is to be told.
func refused(err error) error {
	switch muster.CodeOf(err) {
	case muster.Gone:
		return &muster.Error{Code: muster.Forbidden, Message: err.Error(), Cause: err}
	case muster.NotFound:
		return errNoKey
	}
	if err != nil {
		return unavailable("the enrolment key cannot be checked now", err)
	}
	return nil
}

// openClaim makes a link for a machine that came without a key.
func (s *Service) openClaim(ctx context.Context, id string, e Enrolment) (Enrolled, error) {
	r, err := s.find(ctx, id)
	switch {
	case err != nil:
		return Enrolled{}, err
	case r == nil:
		return Enrolled{}, machineError(id, muster.NotFound)
	case r.State == muster.Blocked:
		return Enrolled{}, errBlocked
	case r.State == muster.Active && !e.Overwrite:
		return Enrolled{Already: true, State: r.State}, nil
	case s.cfg.PublicURL == "":
		return Enrolled{}, muster.Errorf(muster.Forbidden, "enrolment without a key is not possible on this server: it has no public URL; use an enrolment key")
	}
	code := newCode()
	claim := muster.Claim{
		Hash:      hashOf(code),
		Machine:   id,
		Name:      e.Name,
		Tags:      e.Tags,
		ExpiresAt: s.now().UTC().Truncate(time.Microsecond).Add(claimLifetime),
	}
	if err := s.store.CreateClaim(ctx, claim); err != nil {
		return Enrolled{}, unavailable("the claim cannot be kept now", err)
	}
	return Enrolled{State: r.State, ClaimURL: s.cfg.PublicURL + "enroll/" + code, ClaimExpires: claim.ExpiresAt}, nil
}

// RedeemClaim makes the machine behind a claim's code active in an
// organisation and returns it. A claim works once. Codes: NotFound (no such
// code, machine or organisation), Gone (expired), Exists (it is in another
// organisation and did not ask to leave), Forbidden (blocked).
func (s *Service) RedeemClaim(ctx context.Context, code, organisation string) (muster.Machine, error) {
	claim, err := s.store.Claim(ctx, hashOf(code))
	switch {
	case errors.Is(err, muster.NotFound):
		return muster.Machine{}, muster.Errorf(muster.NotFound, "there is no such claim: it was used already or the link is incomplete")
	case err != nil:
		return muster.Machine{}, unavailable("the claim cannot be looked up now", err)
	case !s.now().Before(claim.ExpiresAt):
		return muster.Machine{}, muster.Errorf(muster.Gone, "the claim expired on %s: run cscli console enroll --quick again", claim.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if err := s.knowMember(ctx, organisation); err != nil {
		return muster.Machine{}, err
	}
	// A machine that was a member before it made the claim asked to be moved,
	// else Enrol would have made none. One that has joined since must ask anew;
	// so the claim moves it once, whoever comes second.
	made := claim.ExpiresAt.Add(-claimLifetime)
	m, err := s.update(ctx, claim.Machine, func(m *muster.Machine) error {
		switch {
		case m.State == muster.Blocked:
			return errBlocked
		case m.State == muster.Active && m.Organisation != organisation && !m.EnrolledAt.Before(made):
			return muster.Errorf(muster.Exists, "the machine has joined another organisation: to move it, run cscli console enroll --quick --overwrite")
		}
		describe(m, claim.Name, claim.Tags)
		if m.State != muster.Active || m.Organisation != organisation {
			s.join(m, organisation)
		}
		return nil
	})
	if err != nil {
		return muster.Machine{}, err
	}
	if err := s.store.DeleteClaim(ctx, claim.Hash); err != nil {
		s.log.Warn("a used claim could not be deleted; it expires by itself", "machine", claim.Machine, "error", err)
	}
	return m, nil
}

// KeyRequest describes an enrolment key to make.
type KeyRequest struct {
	Organisation string
	Tags         []string      // at most 32 of 64 bytes
	AutoAccept   bool          // machines are active at once
	MaxUses      int           // 0 = unlimited
	TTL          time.Duration // 0 = never expires
}

// CreateKey makes an enrolment key. Its text, lower-case letters and digits
// with 130 bits of chance, is in the first result and nowhere else. Codes:
// NotFound (organisation), Invalid.
func (s *Service) CreateKey(ctx context.Context, r KeyRequest) (string, muster.EnrolmentKey, error) {
	if r.MaxUses < 0 || r.TTL < 0 {
		return "", muster.EnrolmentKey{}, muster.Errorf(muster.Invalid, "uses %d and lifetime %v: expected 0 (no limit) or more", r.MaxUses, r.TTL)
	}
	tags, err := cleanTags(r.Tags)
	if err != nil {
		return "", muster.EnrolmentKey{}, err
	}
	if err := s.knowMember(ctx, r.Organisation); err != nil {
		return "", muster.EnrolmentKey{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", muster.EnrolmentKey{}, fmt.Errorf("making a key's id: %w", err)
	}
	text, now := newCode(), s.now().UTC().Truncate(time.Microsecond)
	key := muster.EnrolmentKey{
		ID:           id.String(),
		Hash:         hashOf(text),
		Organisation: r.Organisation,
		Tags:         tags,
		AutoAccept:   r.AutoAccept,
		MaxUses:      r.MaxUses,
		CreatedAt:    now,
	}
	if r.TTL > 0 {
		key.ExpiresAt = now.Add(r.TTL)
	}
	if err := s.store.CreateEnrolmentKey(ctx, key); err != nil {
		return "", muster.EnrolmentKey{}, fmt.Errorf("keeping the enrolment key: %w", err)
	}
	return text, key, nil
}

// newCode returns 26 lower-case letters and digits with 130 bits of chance.
func newCode() string { return strings.ToLower(rand.Text()) }

// hashOf is how keys and codes are kept; they are random, so that a plain hash
// suffices.
func hashOf(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

// describe gives a machine its name, unless empty, and tags.
func describe(m *muster.Machine, name string, tags []string) {
	if name != "" {
		m.Name = name
	}
	m.Tags = tags
}

func cleanName(name string) (string, error) {
	if name = clean(name); len(name) > maxName {
		return "", muster.Errorf(muster.Invalid, "the name has %d bytes: expected at most %d", len(name), maxName)
	}
	return name, nil
}

// cleanTags sorts tags and drops blanks and repeats.
func cleanTags(in []string) ([]string, error) {
	var tags []string
	for _, tag := range in {
		if tag = clean(tag); len(tag) > maxTag {
			return nil, muster.Errorf(muster.Invalid, "tag %q has %d bytes: expected at most %d", clip(tag), len(tag), maxTag)
		}
		if tag == "" || slices.Contains(tags, tag) {
			continue
		}
		if len(tags) == maxTags {
			return nil, muster.Errorf(muster.Invalid, "expected at most %d tags, the key's included", maxTags)
		}
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	return tags, nil
}

// clean drops what a terminal or a page could be fooled with: control and
// formatting characters and broken UTF-8.
func clean(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, text))
}
