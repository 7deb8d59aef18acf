package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// HTTPConfig configures NewHTTP.
type HTTPConfig struct {
	Log     *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil registers nothing
	// Name labels the metrics of this listener ("edge", "debug"). Required when
	// several handlers share one registry.
	Name string
	// Timeout bounds how long a request may take to be read and answered; zero
	// means 30 s. Handlers that wait on purpose call Extend.
	Timeout time.Duration
	// Fail answers a request whose handler panicked before writing anything; nil
	// answers a plain 500.
	Fail func(w http.ResponseWriter, r *http.Request, err error)
	// Peer says which address a client has, for the log; nil takes that of the
	// connection. Behind a proxy the two differ.
	Peer func(*http.Request) string
	Now  func() time.Time // nil is time.Now
}

// maxRefusalLines bounds how many 4xx lines are logged per second; what is left
// out is counted in the next line that is logged.
const maxRefusalLines = 50

// httpRecorder is the outermost handler of a listener.
type httpRecorder struct {
	next    http.Handler
	cfg     HTTPConfig
	metrics *httpMetrics
	lines   lineBudget
}

// NewHTTP wraps next with what every request needs, in this order: a Record in
// its context; read and write deadlines; recovery from panics, answered 500 and
// logged with the stack; then one log line and the metrics by route.
//
// Success is logged at debug, 4xx at info (at most 50 a second), 5xx at warn.
func NewHTTP(next http.Handler, cfg HTTPConfig) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Peer == nil {
		cfg.Peer = func(r *http.Request) string { return r.RemoteAddr }
	}
	if cfg.Fail == nil {
		cfg.Fail = func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "internal error", http.StatusInternalServerError)
		}
	}
	return &httpRecorder{next: next, cfg: cfg, metrics: newHTTPMetrics(cfg.Metrics, cfg.Name)}
}

// exchange is all the bookkeeping of one request, in one allocation.
type exchange struct {
	record Record
	ctx    requestContext
	writer recordingWriter
	body   recordingBody
}

func (h *httpRecorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.cfg.Now()
	setDeadlines(w, start.Add(h.cfg.Timeout), start.Add(h.cfg.Timeout))

	x := &exchange{}
	x.ctx = requestContext{Context: r.Context(), record: &x.record}
	x.writer = recordingWriter{ResponseWriter: w, record: &x.record}
	r = r.WithContext(&x.ctx)
	if r.Body != nil && r.Body != http.NoBody {
		x.body = recordingBody{body: r.Body, record: &x.record}
		r.Body = &x.body
	}

	h.metrics.inFlight.Add(1)
	defer func() {
		h.metrics.inFlight.Add(-1)
		cause := recover()
		abort := cause != nil && h.failed(&x.writer, r, cause)
		x.record.Duration = h.cfg.Now().Sub(start)
		h.finish(r, &x.record)
		if abort {
			panic(http.ErrAbortHandler)
		}
	}()
	h.next.ServeHTTP(&x.writer, r)
}

// failed answers after a panic. A response that has begun cannot be mended: then
// it returns true, and the connection is to be cut as http.ErrAbortHandler does.
func (h *httpRecorder) failed(w *recordingWriter, r *http.Request, cause any) (abort bool) {
	if cause == http.ErrAbortHandler { //nolint:errorlint // cause is any value; net/http compares it so too
		return true
	}
	err := fmt.Errorf("panic: %v", cause)
	w.record.Err = errors.Join(w.record.Err, err)
	h.cfg.Log.LogAttrs(r.Context(), slog.LevelError, "request handler panicked",
		slog.String(KeyRoute, routeOf(r, w.record)),
		slog.Any(KeyError, err),
		slog.String(KeyStack, string(debug.Stack())))
	if w.record.Status != 0 {
		w.record.Status = http.StatusInternalServerError // what the client was told it is not
		return true
	}
	h.cfg.Fail(w, r, err)
	return false
}

func (h *httpRecorder) finish(r *http.Request, rec *Record) {
	if rec.Status == 0 {
		rec.Status = http.StatusOK
	}
	rec.Route = routeOf(r, rec)
	h.metrics.observe(rec)
	span := trace.SpanFromContext(r.Context())
	if span.IsRecording() {
		span.SetName(rec.Route)
	}

	level := slog.LevelDebug
	switch {
	case rec.Quiet:
	case rec.Status >= 500:
		level = slog.LevelWarn
	case rec.Status >= 400:
		level = slog.LevelInfo
	}
	if !h.cfg.Log.Enabled(r.Context(), level) {
		return
	}
	var omitted int64
	if level == slog.LevelInfo {
		ok := false
		if ok, omitted = h.lines.take(h.cfg.Now()); !ok {
			return
		}
	}
	attrs := make([]slog.Attr, 0, 15)
	attrs = append(attrs,
		slog.String(KeyRoute, rec.Route),
		slog.Int(KeyStatus, rec.Status),
		slog.Duration(KeyDuration, rec.Duration),
		slog.Int64(KeyBytesIn, rec.BytesIn),
		slog.Int64(KeyBytesOut, rec.BytesOut),
		slog.String(KeyPeer, h.cfg.Peer(r)))
	attrs = appendSet(attrs, slog.String(KeyMachine, rec.Machine))
	attrs = appendSet(attrs, slog.String(KeyOrganisation, rec.Organisation))
	attrs = appendSet(attrs, slog.String(KeyUser, rec.User))
	attrs = appendSet(attrs, slog.String(KeyAgent, clip(r.UserAgent(), 100)))
	if rec.Accepted != 0 || rec.Refused != 0 {
		attrs = append(attrs, slog.Int(KeyAccepted, rec.Accepted), slog.Int(KeyRefused, rec.Refused))
	}
	if rec.Err != nil {
		attrs = append(attrs, slog.Any(KeyError, rec.Err))
	}
	if id := span.SpanContext().TraceID(); id.IsValid() {
		attrs = append(attrs, slog.String(KeyTrace, id.String()))
	}
	if omitted > 0 {
		attrs = append(attrs, slog.Int64(KeyOmitted, omitted))
	}
	h.cfg.Log.LogAttrs(r.Context(), level, "request", attrs...)
}

// appendSet appends a text attribute unless it is empty.
func appendSet(attrs []slog.Attr, attr slog.Attr) []slog.Attr {
	if attr.Value.String() == "" {
		return attrs
	}
	return append(attrs, attr)
}

func routeOf(r *http.Request, rec *Record) string {
	switch {
	case rec.Route != "":
		return rec.Route
	case r.Pattern != "":
		return r.Pattern
	}
	return "unmatched"
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// Extend gives a request d more from now to be answered, for handlers that wait
// on purpose, such as a long poll. The read deadline goes away with it: reaching
// it would cancel the request's context.
func Extend(w http.ResponseWriter, now time.Time, d time.Duration) {
	setDeadlines(w, time.Time{}, now.Add(d))
}

// untimed lifts both deadlines of a request.
func untimed(w http.ResponseWriter) { setDeadlines(w, time.Time{}, time.Time{}) }

// setDeadlines does nothing for a writer without a connection (a test's).
// Every request sets both, because net/http leaves the write deadline of one
// request in force for the next one of its connection.
func setDeadlines(w http.ResponseWriter, read, write time.Time) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(read)
	_ = rc.SetWriteDeadline(write)
}

// recordingWriter counts what is written.
type recordingWriter struct {
	http.ResponseWriter
	record *Record
}

func (w *recordingWriter) WriteHeader(status int) {
	if w.record.Status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.record.Status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recordingWriter) Write(b []byte) (int, error) {
	if w.record.Status == 0 {
		w.record.Status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.record.BytesOut += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recordingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// recordingBody counts what is read.
type recordingBody struct {
	body   io.ReadCloser
	record *Record
}

func (b *recordingBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.record.BytesIn += int64(n)
	return n, err
}

func (b *recordingBody) Close() error { return b.body.Close() }

// lineBudget admits maxRefusalLines in each second.
type lineBudget struct {
	mu      sync.Mutex
	second  int64
	lines   int
	omitted int64
}

func (b *lineBudget) take(now time.Time) (ok bool, omitted int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := now.Unix(); s != b.second {
		b.second, b.lines = s, 0
	}
	if b.lines == maxRefusalLines {
		b.omitted++
		return false, 0
	}
	b.lines++
	omitted, b.omitted = b.omitted, 0
	return true, omitted
}

// httpMetrics are rate, errors and duration by route.
type httpMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	inFlight atomic.Int64
	routes   sync.Map // string → *routeMetrics: saves the vectors' label hashing
}

type routeMetrics struct {
	seconds        prometheus.Observer
	received, sent prometheus.Counter
	status         sync.Map // int → prometheus.Counter
}

func newHTTPMetrics(reg prometheus.Registerer, name string) *httpMetrics {
	var labels prometheus.Labels
	if name != "" {
		labels = prometheus.Labels{"listener": name}
	}
	m := &httpMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_http_requests_total", Help: "Requests answered, by route and status.", ConstLabels: labels,
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "muster_http_request_duration_seconds", Help: "Time from the request's header to the end of its answer.",
			ConstLabels: labels,
			Buckets:     []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_http_request_bytes_total", Help: "Bytes of request bodies read, before decompression.", ConstLabels: labels,
		}, []string{"route"}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_http_response_bytes_total", Help: "Bytes of response bodies written.", ConstLabels: labels,
		}, []string{"route"}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.seconds, m.received, m.sent,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "muster_http_requests_in_flight", Help: "Requests being served, long polls included.", ConstLabels: labels,
			}, func() float64 { return float64(m.inFlight.Load()) }))
	}
	return m
}

func (m *httpMetrics) observe(rec *Record) {
	v, ok := m.routes.Load(rec.Route)
	if !ok {
		v, _ = m.routes.LoadOrStore(rec.Route, &routeMetrics{
			seconds:  m.seconds.WithLabelValues(rec.Route),
			received: m.received.WithLabelValues(rec.Route),
			sent:     m.sent.WithLabelValues(rec.Route),
		})
	}
	route := v.(*routeMetrics)
	c, ok := route.status.Load(rec.Status)
	if !ok {
		c, _ = route.status.LoadOrStore(rec.Status, m.requests.WithLabelValues(rec.Route, strconv.Itoa(rec.Status)))
	}
	c.(prometheus.Counter).Inc()
	route.seconds.Observe(rec.Duration.Seconds())
	if rec.BytesIn > 0 {
		route.received.Add(float64(rec.BytesIn))
	}
	if rec.BytesOut > 0 {
		route.sent.Add(float64(rec.BytesOut))
	}
}

type drainKey struct{}

// Draining returns a channel that closes when the server begins to stop. A
// handler that waits (a long poll, an event stream) selects on it and answers
// at once with what it has. Outside of a Server it is nil: it never closes.
func Draining(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(drainKey{}).(<-chan struct{})
	return c
}
