package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the bus does. A nil *metrics counts nothing.
type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	seconds  prometheus.Histogram
	records  prometheus.Counter
	data     prometheus.Counter
	written  prometheus.Counter
	failed   prometheus.Counter
	restarts prometheus.Counter
}

// newMetrics registers the metrics of b, or returns nil when it has nowhere to.
func newMetrics(b *Bus) (*metrics, error) {
	if b.cfg.Registerer == nil {
		return nil, nil
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "muster", Subsystem: "stream", Name: name, Help: help})
	}
	m := &metrics{
		registerer: b.cfg.Registerer,
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "muster", Subsystem: "stream", Name: "append_seconds",
			Help:    "Time to write and sync one frame of records to the log.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 15),
		}),
		records:  counter("append_records_total", "Records written to the log."),
		data:     counter("append_data_bytes_total", "Bytes of records written to the log, before compression."),
		written:  counter("append_written_bytes_total", "Bytes of frames written to the log, after compression."),
		failed:   counter("append_failures_total", "Appends that failed."),
		restarts: counter("reader_restarts_total", "Interruptions after which a reader of the log began anew."),
	}
	m.all = []prometheus.Collector{m.seconds, m.records, m.data, m.written, m.failed, m.restarts, newLogCollector(b)}
	for _, c := range m.all {
		if err := m.registerer.Register(c); err != nil {
			m.unregister()
			return nil, fmt.Errorf("stream: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}

func (m *metrics) appended(took time.Duration, records, data, written int) {
	if m == nil {
		return
	}
	m.seconds.Observe(took.Seconds())
	m.records.Add(float64(records))
	m.data.Add(float64(data))
	m.written.Add(float64(written))
}

func (m *metrics) appendFailed() {
	if m != nil {
		m.failed.Inc()
	}
}

func (m *metrics) readerRestarted() {
	if m != nil {
		m.restarts.Inc()
	}
}

// logCollector asks for the log's size when it is scraped.
type logCollector struct {
	bus                *Bus
	bytes, limit, last *prometheus.Desc
}

func newLogCollector(b *Bus) *logCollector {
	return &logCollector{
		bus:   b,
		bytes: prometheus.NewDesc("muster_stream_log_bytes", "Size of the log on disk.", nil, nil),
		limit: prometheus.NewDesc("muster_stream_log_limit_bytes", "Size of the log at which it refuses records (stream.max_bytes).", nil, nil),
		last:  prometheus.NewDesc("muster_stream_log_position", "Position of the newest record of the log.", nil, nil),
	}
}

func (c *logCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.bytes
	ch <- c.limit
	ch <- c.last
}

// Collect leaves the figures out when the log does not answer, so that the
// other metrics can still be scraped.
func (c *logCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(c.bus.life, time.Second)
	defer cancel()
	state, err := c.bus.state(ctx)
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.GaugeValue, float64(state.Bytes))
	ch <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(c.bus.cfg.MaxBytes))
	ch <- prometheus.MustNewConstMetric(c.last, prometheus.GaugeValue, float64(state.LastSeq))
}
