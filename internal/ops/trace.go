package ops

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// TraceConfig configures NewTraces.
type TraceConfig struct {
	// Endpoint is the URL of an OTLP/HTTP collector ("http://localhost:4318").
	// When empty, the standard variables OTEL_EXPORTER_OTLP_ENDPOINT and
	// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT decide; without them nothing is traced.
	Endpoint string
	Sample   float64 // share of traces kept, 0 to 1, unless the caller has decided
	Version  string  // of the program
}

// Traces exports OpenTelemetry traces, or does nothing.
type Traces struct {
	provider *sdktrace.TracerProvider // nil when off
}

// NewTraces sets traces up. It does not connect: a collector that is away costs
// spans, nothing else.
func NewTraces(ctx context.Context, cfg TraceConfig) (*Traces, error) {
	var opts []otlptracehttp.Option
	switch {
	case cfg.Endpoint != "":
		u, err := tracesURL(cfg.Endpoint)
		if err != nil {
			return nil, fmt.Errorf("traces: %w", err)
		}
		opts = append(opts, otlptracehttp.WithEndpointURL(u))
	case os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "":
		return &Traces{}, nil
	}
	exporter, err := otlptracehttp.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	// Later options win: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES may rename us.
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "muster"), attribute.String("service.version", cfg.Version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("traces: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return &Traces{provider: sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Sample))),
		sdktrace.WithResource(res),
	)}, nil
}

// tracesURL appends what OTLP/HTTP says for traces, as OTEL_EXPORTER_OTLP_ENDPOINT
// has it done, unless it is there.
func tracesURL(endpoint string) (string, error) {
	const path = "/v1/traces"
	if strings.HasSuffix(endpoint, path) {
		return endpoint, nil
	}
	return url.JoinPath(endpoint, path)
}

// Enabled reports whether spans are recorded.
func (t *Traces) Enabled() bool { return t.provider != nil }

// Tracer returns a tracer for a package's own spans; it does nothing when
// traces are off.
func (t *Traces) Tracer(name string) trace.Tracer {
	if t.provider == nil {
		return noop.NewTracerProvider().Tracer(name)
	}
	return t.provider.Tracer(name)
}

// Wrap traces the requests of next; when traces are off it returns next itself.
// It belongs around NewHTTP, which names each span after the route.
func (t *Traces) Wrap(next http.Handler) http.Handler {
	if t.provider == nil {
		return next
	}
	return otelhttp.NewHandler(next, "request",
		otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithMeterProvider(metricnoop.NewMeterProvider()),
		otelhttp.WithPropagators(propagation.TraceContext{}))
}

// Service flushes and ends the exporter when the group stops.
func (t *Traces) Service() Service {
	return Service{Name: "traces", Stop: func(ctx context.Context) error {
		if t.provider == nil {
			return nil
		}
		return t.provider.Shutdown(ctx)
	}}
}
