package console

import (
	"cmp"
	"net/http"
	"time"

	"muster"
	"muster/internal/jury"
)

// OperatorPrefix leads the reasons of allowlist entries that stand for an
// operator's word.
const OperatorPrefix = "operator: "

// operatorVerdict is a person's word on a source as the API shows it.
type operatorVerdict struct {
	Source    string        `json:"source"`
	Listed    bool          `json:"listed"`           // false: never to be listed
	Remedy    muster.Remedy `json:"remedy,omitempty"` // of a listing
	Until     *time.Time    `json:"until"`            // null: for good
	Reason    string        `json:"reason"`
	By        string        `json:"by"`
	CreatedAt time.Time     `json:"created_at"`
}

func viewOperatorVerdict(v muster.OperatorVerdict) operatorVerdict {
	return operatorVerdict{v.Source.String(), v.Listed, v.Remedy, orNull(v.Until), v.Reason, v.By, v.CreatedAt}
}

// longestListing bounds how long a listing by hand holds: nobody remembers why,
// later than that, and addresses change hands.
const longestListing = 366 * 24 * time.Hour

// The widest ranges that one request lists, or exempts. A report must not speak
// for more than the first either, and by one wrong digit a person would cut off
// a registry's block. What is exempt may be as wide as canaries: large holders
// have a /8; but not everything, which would empty the list.
const (
	listedBits4, listedBits6 = 16, 32
	exemptBits4, exemptBits6 = muster.MinCanaryBits4, muster.MinCanaryBits6
)

// checkWidth refuses ranges that are wider than a number of bits.
func checkWidth(s muster.Source, bits4, bits6 int) error {
	bits := bits4
	if s.Addr().Is6() {
		bits = bits6
	}
	if s.Prefix().Bits() < bits {
		return muster.Errorf(muster.Invalid, "%s is too wide: expected /%d or narrower, IPv6 /%d", s, bits4, bits6)
	}
	return nil
}

func (a *API) operatorVerdicts(r *http.Request) (any, error) {
	list, err := a.cfg.Store.OperatorVerdicts(r.Context(), a.cfg.Now())
	return views(list, viewOperatorVerdict), err
}

func (a *API) decide(r *http.Request) (any, error) {
	var q struct {
		Source     string        `json:"source"`
		Listed     bool          `json:"listed"`
		Remedy     muster.Remedy `json:"remedy"`      // of a listing: ban (default) or captcha
		TTLSeconds int64         `json:"ttl_seconds"` // 0 = for good, which no listing is
		Reason     string        `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	source, err := muster.ParseSource(q.Source)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "source: %w", err)
	}
	reason, err := reasonOf(q.Reason, "whoever asks why it is listed or not gets to read it")
	if err != nil {
		return nil, err
	}
	ttl, err := lifetime(q.TTLSeconds)
	if err != nil {
		return nil, err
	}
	if q.Listed {
		source = jury.SubjectOf(source)
		q.Remedy = cmp.Or(q.Remedy, muster.RemedyBan)
		err = a.mayList(source, q.Remedy, ttl)
	} else if err = checkWidth(source, exemptBits4, exemptBits6); err == nil && q.Remedy != "" {
		err = muster.Errorf(muster.Invalid, "remedy: expected none, of what is never listed, got %q", clip(string(q.Remedy)))
	}
	if err != nil {
		return nil, err
	}
	now := a.cfg.Now().UTC()
	v := muster.OperatorVerdict{Source: source, Listed: q.Listed, Remedy: q.Remedy, Until: endOf(now, ttl), Reason: reason, By: callerOf(r), CreatedAt: now}
	detail := map[string]any{"listed": q.Listed, "ttl_seconds": q.TTLSeconds}
	if q.Listed {
		detail["remedy"] = q.Remedy
	}
	entry, err := a.audited(r, "verdict.set", source.String(), reason, detail)
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Store.PutOperatorVerdict(r.Context(), v, entry); err != nil {
		return nil, err
	}
	return viewOperatorVerdict(v), a.cfg.AllowlistChanged(r.Context())
}

// mayList refuses a listing by hand that would not come about, or not end.
func (a *API) mayList(source muster.Source, remedy muster.Remedy, ttl time.Duration) error {
	if err := checkWidth(source, listedBits4, listedBits6); err != nil {
		return err
	}
	truth := a.cfg.Truth()
	switch allowed, ok := truth.Allowlist.Covers(source); {
	case remedy != muster.RemedyBan && remedy != muster.RemedyCaptcha:
		return muster.Errorf(muster.Invalid, "remedy: expected ban or captcha, got %q", clip(string(remedy)))
	case ttl <= 0 || ttl > longestListing:
		return muster.Errorf(muster.Invalid, "ttl_seconds: expected how long it is listed, up to %d (%d days)", int64(longestListing/time.Second), longestListing/(24*time.Hour))
	case source.IsReserved():
		return muster.Errorf(muster.Invalid, "%s is reserved or private address space, which is never listed", source)
	case ok:
		return muster.Errorf(muster.Invalid, "%s is on the allowlist (%s), in whole or in part: that stands over a listing", source, cmp.Or(allowed, "without a reason"))
	}
	asn := uint32(0)
	if a.cfg.ASN != nil {
		asn = a.cfg.ASN(source.Addr())
	}
	if c, ok := truth.Canaries.Match(source, asn); ok {
		return muster.Errorf(muster.Invalid, "%s is known to be good (canary %s): that stands over a listing", source, c.Value)
	}
	if truth.Canaries.Inside(source) {
		return muster.Errorf(muster.Invalid, "in %s there is an address that is known to be good: list its parts", source)
	}
	return nil
}

func (a *API) undecide(r *http.Request) (any, error) {
	source, err := muster.ParseSource(r.PathValue("value"))
	if err != nil {
		return nil, err
	}
	entry, err := a.reasoned(r, "verdict.remove", source.String())
	if err != nil {
		return nil, err
	}
	err = a.cfg.Store.DeleteOperatorVerdict(r.Context(), source, entry)
	if subject := jury.SubjectOf(source); muster.CodeOf(err) == muster.NotFound && subject != source {
		err = a.cfg.Store.DeleteOperatorVerdict(r.Context(), subject, entry) // as which it was listed
	}
	if err != nil {
		return nil, err
	}
	return nil, a.cfg.AllowlistChanged(r.Context())
}
