package sieve

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/spool"
	"muster/internal/upstream"
	"muster/internal/wire"
)

// SignalLog makes requests durable; see spool.Intake.
type SignalLog interface {
	// Put returns when the whole batch is on disk. Its errors have a code and, for
	// Unavailable, a RetryAfter.
	Put(ctx context.Context, batch *muster.SievedBatch) error
}

// SignalTokens keeps what signals are forwarded with; see spool.Vault.
type SignalTokens interface {
	// Keep makes a token durable; one that is known costs nothing.
	Keep(ctx context.Context, authorization string, id spool.Identity, now time.Time) error
	// Refused reports whether the upstream does not take it any more.
	Refused(id spool.Identity, now time.Time) bool
}

// SignalClients proves that whoever sends signals is known to the upstream.
type SignalClients interface {
	// CheckClient returns an error of code Unauthorized for who is not. It may ask
	// the upstream.
	CheckClient(ctx context.Context, authorization string, v2 bool) error
}

// SignalRules decide what is withheld from the upstream.
type SignalRules interface {
	// Judge neither changes nor keeps signal.
	Judge(signal []byte) (withheld bool, reasons []string)
}

// SignalsConfig sets up Signals.
type SignalsConfig struct {
	Log     SignalLog
	Tokens  SignalTokens
	Clients SignalClients                         // nil: everybody is believed
	Rules   func() SignalRules                    // those of now; nil: nothing is withheld
	Locate  func(addr netip.Addr) muster.SieveGeo // nil: nothing is known
	// Local keeps every signal here: forwarding is switched off.
	Local bool
	// Strict answers after this upstream has, with its answer; nil: at once, and
	// the spool forwards.
	Strict     spool.Upstream
	Limits     SignalLimits
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// SignalLimits bound requests. Zero values choose the defaults named.
type SignalLimits struct {
	Signals  int   // in one request; 0 = 1,000
	Body     int64 // bytes as sent; 0 = 16 MiB
	Decoded  int64 // bytes after decompression; 0 = 16 MiB
	InFlight int64 // bytes of all requests being read; 0 = 64 MiB
}

// Signals answers POST /v2/signals and /v3/signals.
type Signals struct {
	cfg      SignalsConfig
	bodies   *signalBodies
	withheld prometheus.Counter
	refused  *prometheus.CounterVec
}

// NewSignals returns the handler.
func NewSignals(cfg SignalsConfig) *Signals {
	l := &cfg.Limits
	l.Signals = cmp.Or(l.Signals, 1000)
	l.Body = cmp.Or(l.Body, 16<<20)
	l.Decoded = cmp.Or(l.Decoded, 16<<20)
	l.InFlight = cmp.Or(l.InFlight, 64<<20)
	s := &Signals{
		cfg: cfg, bodies: newSignalBodies(*l),
		withheld: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_sieve_withheld_total", Help: "Signals that a rule withheld from the upstream.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_sieve_refused_total", Help: "Requests with signals that were refused, by status.",
		}, []string{"status"}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.withheld, s.refused)
	}
	return s
}

const (
	answerOK    = `{"message":"OK"}`
	answerLocal = `{"message":"OK (forwarding disabled)"}`
)

// ServeHTTP implements http.Handler. The statuses are CrowdSieve's: 400 for what
// is no array, 401 for who cannot prove to be a client, 413 for too many, 502
// when a strict sieve cannot reach its upstream; and 503 when the disk is full.
func (s *Signals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := s.serve(w, r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	if t := answer.Header.Get("Content-Type"); t != "" {
		header.Set("Content-Type", t)
	}
	if t := answer.Header.Get("Retry-After"); t != "" {
		header.Set("Retry-After", t)
	}
	header.Set("Content-Length", strconv.Itoa(len(answer.Body)))
	w.WriteHeader(answer.Status)
	_, _ = w.Write(answer.Body) // the client has gone
}

func (s *Signals) serve(w http.ResponseWriter, r *http.Request) (*upstream.Response, error) {
	ctx, now := r.Context(), s.cfg.Now()
	authorization, v2 := r.Header.Get("Authorization"), strings.HasPrefix(r.URL.Path, "/v2/")
	id, err := s.admit(ctx, authorization, v2, r.UserAgent(), now)
	if err != nil {
		return nil, err
	}
	body, release, err := s.bodies.read(w, r)
	if err != nil {
		return nil, err
	}
	defer release()
	batch := &muster.SievedBatch{
		Engine: id.Engine, Machine: id.Machine, V2: v2, Received: now.UTC(), Token: id.Token, UserAgent: cutAgent(r.UserAgent()),
	}
	if err := s.sift(body, batch); err != nil {
		return nil, err
	}
	switch {
	case s.cfg.Local:
		batch.Fate = muster.SieveLocal
		return &upstream.Response{Status: http.StatusOK, Body: []byte(answerLocal)}, s.cfg.Log.Put(ctx, batch)
	case s.cfg.Strict != nil:
		return s.strictly(ctx, authorization, batch)
	}
	if err := s.cfg.Tokens.Keep(ctx, authorization, id, now); err != nil {
		return nil, err
	}
	return &upstream.Response{Status: http.StatusOK, Body: []byte(answerOK)}, s.cfg.Log.Put(ctx, batch)
}

// admit finds out who sends.
func (s *Signals) admit(ctx context.Context, authorization string, v2 bool, agent string, now time.Time) (spool.Identity, error) {
	id, ok := spool.Identify(authorization)
	if !ok && !s.cfg.Local {
		return id, muster.Errorf(muster.Unauthorized, "no token came in the header Authorization: log in first")
	}
	if s.cfg.Clients != nil {
		if err := s.cfg.Clients.CheckClient(ctx, authorization, v2); err != nil {
			return id, err
		}
	}
	// Whoever is told logs in and sends the same again, where the spool would have
	// to wait for that login. Old engines would not.
	if !s.cfg.Local && s.cfg.Strict == nil && s.cfg.Tokens.Refused(id, now) && sendsAgain(agent) {
		return id, muster.Errorf(muster.Unauthorized, "the token is expired, or the upstream does not take it any more: log in again")
	}
	return id, nil
}

// sendsAgain reports whether a client sends the same signals again after 401:
// engines do from 1.6.2 on.
func sendsAgain(agent string) bool {
	version, isEngine := strings.CutPrefix(agent, "crowdsec/v")
	if !isEngine {
		return true
	}
	version, _, _ = strings.Cut(version, "-")
	have := strings.Split(version, ".")
	for i, first := range []int{1, 6, 2} {
		n := 0
		if i < len(have) {
			n, _ = strconv.Atoi(have[i]) // what is no number is old
		}
		if n != first {
			return n > first
		}
	}
	return true
}

// replicated marks what the sieve itself put on an engine.
const replicated = "crowdsieve-replication"

// longestUUID is the longest text that is taken for a uuid.
const longestUUID = 128

// sift decides about every signal of a request.
func (s *Signals) sift(body []byte, batch *muster.SievedBatch) error {
	var rules SignalRules
	if s.cfg.Rules != nil {
		rules = s.cfg.Rules()
	}
	withheld := 0
	_, err := wire.SplitSignals(body, s.cfg.Limits.Signals, func(raw wire.RawSignal) {
		signal := muster.SievedSignal{Raw: raw.JSON, UUID: raw.UUID}
		if len(signal.UUID) > longestUUID {
			signal.UUID = ""
		}
		if rules != nil {
			signal.Withheld, signal.Reasons = rules.Judge(raw.JSON)
		}
		if strings.Contains(raw.Origin, replicated) {
			signal.Withheld, signal.Reasons = true, append(signal.Reasons, "loop: the sieve's replication put it on this engine")
		}
		if s.cfg.Locate != nil {
			if addr, ok := address(raw.IP); ok {
				signal.Geo = s.cfg.Locate(addr)
			}
		}
		if signal.Withheld {
			withheld++
		}
		batch.Signals = append(batch.Signals, signal)
	})
	if err == nil {
		s.withheld.Add(float64(withheld))
	}
	return err
}

// address reads an address, or the first of a range.
func address(text string) (netip.Addr, bool) {
	text, _, _ = strings.Cut(text, "/")
	addr, err := netip.ParseAddr(text)
	return addr.Unmap().WithZone(""), err == nil
}

// strictly sends what is not withheld and answers what the upstream does. What
// it does not take stays here: its sender has been told.
func (s *Signals) strictly(ctx context.Context, authorization string, batch *muster.SievedBatch) (*upstream.Response, error) {
	answer, err := s.send(ctx, authorization, batch)
	batch.Fate = muster.SieveLocal
	if err == nil && answer.Status/100 == 2 {
		batch.Fate = muster.SieveSent
	}
	// The sender's patience must not decide whether what the upstream has taken is
	// known here.
	if kept := s.cfg.Log.Put(context.WithoutCancel(ctx), batch); kept != nil {
		return nil, kept
	}
	return answer, err
}

func (s *Signals) send(ctx context.Context, authorization string, batch *muster.SievedBatch) (*upstream.Response, error) {
	body := []byte{'['}
	for i := range batch.Signals {
		if batch.Signals[i].Withheld {
			continue
		}
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = append(body, batch.Signals[i].Raw...)
	}
	if len(body) == 1 {
		return &upstream.Response{Status: http.StatusOK, Body: []byte(answerOK)}, nil
	}
	return s.cfg.Strict.Send(ctx, spool.Call{
		Authorization: authorization, UserAgent: batch.UserAgent, V2: batch.V2, Body: append(body, ']'),
	})
}

// refuse answers an error. Engines read message, CrowdSieve's scripts error.
func (s *Signals) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusBadGateway, "the upstream did not answer"
	var (
		told *muster.Error
		ban  *upstream.BannedError
	)
	switch {
	case errors.As(err, &ban):
		status, text = http.StatusForbidden, ban.Error()
		if left := ban.Ban.Until.Sub(s.cfg.Now()); left > 0 {
			setRetryAfter(w, left)
		}
	case errors.As(err, &told):
		text = told.Message
		if told.RetryAfter > 0 {
			setRetryAfter(w, told.RetryAfter)
		}
		switch told.Code {
		case muster.Invalid:
			status = http.StatusBadRequest
		case muster.Unauthorized:
			status = http.StatusUnauthorized
		case muster.Forbidden:
			status = http.StatusForbidden
		case muster.TooLarge:
			status = http.StatusRequestEntityTooLarge
		case muster.RateLimited:
			status = http.StatusTooManyRequests
		case muster.Unavailable:
			status = http.StatusServiceUnavailable
		}
	case s.cfg.Strict == nil:
		status, text = http.StatusInternalServerError, "internal error: see the sieve's log"
	}
	if status >= http.StatusInternalServerError {
		s.cfg.Logger.Warn("signals were refused", "status", status, "error", err, "path", r.URL.Path)
	}
	s.refused.WithLabelValues(strconv.Itoa(status)).Inc()
	body, _ := json.Marshal(struct { // strings always have a JSON form
		Message string `json:"message"`
		Error   string `json:"error"`
	}{text, text})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone
}

func setRetryAfter(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
}

// longestAgent bounds what is kept and sent on of a User-Agent.
const longestAgent = 256

func cutAgent(agent string) string { return agent[:min(len(agent), longestAgent)] }
