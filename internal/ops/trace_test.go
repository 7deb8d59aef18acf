package ops

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTracesOffCostNothing(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
	traces, err := NewTraces(t.Context(), TraceConfig{Sample: 1})
	if err != nil || traces.Enabled() {
		t.Fatalf("enabled = %v, %v", traces.Enabled(), err)
	}
	mux := http.NewServeMux()
	if got := traces.Wrap(mux); got != http.Handler(mux) {
		t.Errorf("Wrap returned %T", got)
	}
	_, span := traces.Tracer("x").Start(t.Context(), "work")
	if span.IsRecording() {
		t.Error("a span is recorded")
	}
	if err := traces.Service().Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTracesReachTheCollector(t *testing.T) {
	for name, configure := range map[string]func(url string) TraceConfig{
		"by configuration": func(url string) TraceConfig { return TraceConfig{Endpoint: url, Sample: 1, Version: "9.9"} },
		"by environment": func(url string) TraceConfig {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
			return TraceConfig{Sample: 1, Version: "9.9"}
		},
	} {
		got := make(chan string, 10)
		collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			got <- r.URL.Path + " " + string(b)
			w.Header().Set("Content-Type", "application/x-protobuf")
		}))
		traces, err := NewTraces(t.Context(), configure(collector.URL))
		if err != nil || !traces.Enabled() {
			t.Fatalf("%s: %v", name, err)
		}
		mux := http.NewServeMux()
		mux.HandleFunc("GET /v3/{thing}", func(http.ResponseWriter, *http.Request) {})
		var log bytes.Buffer
		h := traces.Wrap(NewHTTP(mux, HTTPConfig{Log: NewLogger(&log, slog.LevelDebug, LogJSON)}))
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v3/secret", nil))
		if err := traces.Service().Stop(t.Context()); err != nil { // flushes
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(log.String(), `"trace":"`) {
			t.Errorf("%s: the log line lacks the trace: %s", name, log.String())
		}
		collector.Close()
		body := <-got
		for _, want := range []string{"GET /v3/{thing}", "muster", "9.9"} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: what the collector got lacks %q", name, want)
			}
		}
		if !strings.HasPrefix(body, "/v1/traces ") {
			t.Errorf("%s: posted to %.40q", name, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
