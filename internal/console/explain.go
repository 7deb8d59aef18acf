package console

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"muster"
	"muster/internal/crowd"
	"muster/internal/jury"
)

// Judge says what the network thinks now. Each method waits for what the judge
// does at the moment, and at the start until it has loaded its evidence.
type Judge interface {
	Explain(ctx context.Context, source muster.Source) (jury.Standing, error)
	// Trust is of code muster.NotFound for a machine that never reported.
	Trust(ctx context.Context, machine string) (jury.Trust, error)
	// Ranks leaves out machines that never reported.
	Ranks(ctx context.Context, machines []string) (map[string]uint8, error)
	Network(ctx context.Context) (p crowd.Population, newcomer float32, err error)
	Behaviours(ctx context.Context) ([]jury.Behaviour, error) // by name
}

// judgePatience bounds how long a request waits for the judge.
const judgePatience = 5 * time.Second

// askJudge asks the judge, if this server has one that answers soon; else the
// error is of code muster.Unavailable.
func askJudge[T any](ctx context.Context, a *API, ask func(context.Context, Judge) (T, error)) (answer T, err error) {
	if a.cfg.Judge == nil {
		return answer, muster.Errorf(muster.Unavailable, "this server does not judge: ask one that does")
	}
	ctx, cancel := context.WithTimeout(ctx, judgePatience)
	defer cancel()
	answer, err = ask(ctx, a.cfg.Judge)
	if errors.Is(err, context.DeadlineExceeded) {
		err = muster.Errorf(muster.Unavailable, "the judge is busy, or still loads its evidence: ask again in a moment")
	}
	return answer, err
}

// about is all that is known about a source, for whoever asks why it is listed,
// or not.
type about struct {
	now      time.Time
	source   muster.Source // that was asked for
	subject  muster.Source // that is judged in its place
	verdicts []muster.Verdict
	around   muster.Verdict // of the narrowest listed range that subject lies in; not listed when there is none
	standing jury.Standing
	judged   bool             // standing was told: the judge answers
	history  []muster.Verdict // of the network, newest first
	canary   *muster.Canary
	allowed  *string // the reason of the allowlist's entry
	operator *muster.OperatorVerdict
	names    map[string]string // of organisations
}

// maxHistory bounds how many listings and ends of listings are looked back at.
const maxHistory = 100

func (a *API) explain(r *http.Request) (any, error) {
	source, err := muster.ParseSource(r.PathValue("value"))
	if err != nil {
		return nil, err
	}
	k, err := a.learn(r.Context(), source)
	if err != nil {
		return nil, err
	}
	return k.view(), nil
}

// learn finds out all about a source.
func (a *API) learn(ctx context.Context, source muster.Source) (k *about, err error) {
	k = &about{now: a.cfg.Now().UTC(), source: source, subject: jury.SubjectOf(source), names: map[string]string{}}
	if k.verdicts, err = a.cfg.Store.Verdicts(ctx, k.subject); err != nil {
		return nil, err
	}
	if k.history, err = a.cfg.Store.VerdictHistory(ctx, k.subject, muster.Network, maxHistory); err != nil {
		return nil, err
	}
	if err := a.learnAround(ctx, k); err != nil {
		return nil, err
	}
	k.standing, err = askJudge(ctx, a, func(ctx context.Context, j Judge) (jury.Standing, error) { return j.Explain(ctx, k.subject) })
	if k.judged = err == nil; err != nil && muster.CodeOf(err) != muster.Unavailable {
		return nil, err
	}
	if err := a.learnTruth(ctx, k); err != nil {
		return nil, err
	}
	organisations, err := a.cfg.Store.Organisations(ctx)
	for _, o := range organisations {
		k.names[o.ID] = o.Name
	}
	return k, err
}

// learnAround looks for a listed range that the subject lies in.
func (a *API) learnAround(ctx context.Context, k *about) error {
	v, err := a.cfg.Listing(ctx, k.subject.Addr())
	switch p := v.Source.Prefix(); {
	case muster.CodeOf(err) == muster.NotFound:
		return nil
	case err == nil && v.Source != k.subject && p.Bits() < k.subject.Prefix().Bits() && p.Contains(k.subject.Addr()):
		k.around = v
	}
	return err
}

// learnTruth looks at what people know about the source.
func (a *API) learnTruth(ctx context.Context, k *about) error {
	words, err := a.cfg.Store.OperatorVerdicts(ctx, k.now)
	if err != nil {
		return err
	}
	for i := range words {
		if w := &words[i]; concerns(w, k.subject) && (k.operator == nil || outweighs(w, k.operator)) {
			k.operator = w
		}
	}
	truth := a.cfg.Truth()
	if reason, ok := truth.Allowlist.Covers(k.subject); ok && (k.operator == nil || !strings.HasPrefix(reason, OperatorPrefix)) {
		k.allowed = &reason
	}
	for _, s := range []muster.Source{k.source, k.subject} {
		asn := k.standing.ASN
		if asn == 0 && a.cfg.ASN != nil && s.IsValid() {
			asn = a.cfg.ASN(s.Addr())
		}
		if c, ok := truth.Canaries.Match(s, asn); ok && k.canary == nil {
			k.canary = &c
		}
	}
	if c, ok := truth.Canaries.MatchName(k.standing.Name); ok && k.canary == nil {
		k.canary = &c
	}
	return nil
}

// concerns reports whether an operator's word is about a source: a listing is of
// all that lies in it, and what is never listed bars what is around it too.
func concerns(w *muster.OperatorVerdict, s muster.Source) bool {
	p := w.Source.Prefix()
	return p.Overlaps(s.Prefix()) && (!w.Listed || p.Bits() <= s.Prefix().Bits())
}

// outweighs reports whether one word about a source stands over another.
func outweighs(w, over *muster.OperatorVerdict) bool {
	if w.Listed != over.Listed {
		return !w.Listed
	}
	return w.Source.Prefix().Bits() > over.Source.Prefix().Bits()
}

// network returns the network's verdict on the subject itself, listed or not;
// nil when there never was one.
func (k *about) network() *muster.Verdict {
	for i := range k.verdicts {
		if k.verdicts[i].Audience == muster.Network {
			return &k.verdicts[i]
		}
	}
	return nil
}

// listing returns the listing for everybody that the subject is under, its own
// or that of a range around it; nil when there is none.
func (k *about) listing() *muster.Verdict {
	if v := k.network(); v != nil && v.Listed {
		return v
	}
	if k.around.Listed {
		return &k.around
	}
	return nil
}

// reasons returns what the network holds against the subject: as of now, else as
// of the listing; nil when it holds nothing.
func (k *about) reasons() *muster.Reasons {
	if k.standing.Known {
		return &k.standing.Reasons
	}
	if v := k.network(); v != nil && v.Listed {
		return &v.Reasons
	}
	return nil
}

// explainView is an explanation as the API shows it. Nothing in it names a
// machine.
type explainView struct {
	Source   string          `json:"source"`
	Subject  string          `json:"subject"`   // what is judged: of a v6 address its /64
	Listed   bool            `json:"listed"`    // for everybody
	ListedAs string          `json:"listed_as"` // the subject, or the range around it; "" = not listed
	Remedy   muster.Remedy   `json:"remedy"`
	Since    *time.Time      `json:"since"`
	Until    *time.Time      `json:"until"` // when it lapses unless it is reported again
	Lines    []string        `json:"lines"` // for people, at most ten
	Known    bool            `json:"known"` // reports about it are remembered
	Judged   bool            `json:"judged"`
	Standing *standingView   `json:"standing"` // what the judge thinks now; null when it knows nothing
	Reasons  *muster.Reasons `json:"reasons"`  // of the verdict in force; null when there never was one
	Checks   checksView      `json:"checks"`
	Local    bool            `json:"local"` // the network is so small that newcomers' word counts
	Epoch    uint64          `json:"epoch"` // of the trust
	Version  int             `json:"parameters"`
	Fleets   []fleetView     `json:"fleets"` // organisations whose own machines have it on their list
	History  []pastView      `json:"history"`
	Verdicts []verdictView   `json:"verdicts"` // on the subject, for everybody and for organisations
}

type (
	standingView struct {
		muster.Reasons
		Due *time.Time `json:"due"` // when it is judged again without new reports
	}

	fleetView struct {
		Organisation string    `json:"organisation"` // id
		Name         string    `json:"name"`
		Since        time.Time `json:"since"`
		Until        time.Time `json:"until"`
	}

	// pastView is a listing, or the end of one.
	pastView struct {
		At       time.Time     `json:"at"`
		Listed   bool          `json:"listed"`
		Remedy   muster.Remedy `json:"remedy"`
		Scenario string        `json:"scenario"`
		Since    time.Time     `json:"since"`
		Until    time.Time     `json:"until"`
		Rule     string        `json:"rule"`
		Basis    string        `json:"basis"`
	}

	// checksView says what stands against any listing.
	checksView struct {
		Reserved  bool             `json:"reserved"`
		Allowlist *string          `json:"allowlist"` // the entry's reason; null = not on it
		Canary    bool             `json:"canary"`
		Known     *knownGood       `json:"canary_entry"` // null when it is none, or the judge alone knows which
		Operator  *operatorVerdict `json:"operator"`     // a person's word; null = none
	}

	knownGood struct {
		Value  string `json:"value"`
		Origin string `json:"origin"`
		Reason string `json:"reason"`
	}
)

func (k *about) view() explainView {
	v := explainView{
		Source: k.source.String(), Subject: k.subject.String(), Lines: k.lines(), Known: k.standing.Known, Judged: k.judged,
		Fleets: []fleetView{},
		Checks: checksView{Reserved: k.source.IsReserved(), Allowlist: k.allowed, Canary: k.good()},
		History: views(k.history, func(v muster.Verdict) pastView {
			return pastView{v.Changed, v.Listed, v.Remedy, v.Scenario, v.Since, v.Until, v.Reasons.Rule, v.Reasons.Basis}
		}),
		Verdicts: views(k.verdicts, viewVerdict),
	}
	if l := k.listing(); l != nil {
		v.Listed, v.ListedAs, v.Remedy, v.Since, v.Until = true, l.Source.String(), l.Remedy, &l.Since, &l.Until
	}
	if n := k.network(); n != nil {
		v.Reasons = &n.Reasons
	}
	if k.standing.Known {
		v.Standing = &standingView{k.standing.Reasons, orNull(k.standing.Due)}
	}
	if r := k.reasons(); r != nil {
		v.Local, v.Epoch, v.Version = r.Local, r.Epoch, r.Parameters
	}
	if c := k.canary; c != nil {
		v.Checks.Known = &knownGood{c.Value, c.Origin, c.Reason}
	}
	if k.operator != nil {
		w := viewOperatorVerdict(*k.operator)
		v.Checks.Operator = &w
	}
	for _, f := range k.fleets() {
		id := string(f.Audience)
		v.Fleets = append(v.Fleets, fleetView{id, k.names[id], f.Since, f.Until})
	}
	return v
}

// good reports whether the subject is a canary.
func (k *about) good() bool { return k.canary != nil || k.standing.Canary }

// fleets returns the listings for single organisations.
func (k *about) fleets() (listed []muster.Verdict) {
	for _, v := range k.verdicts {
		if v.Audience != muster.Network && v.Listed {
			listed = append(listed, v)
		}
	}
	return listed
}
