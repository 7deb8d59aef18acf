package enroll

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// metrics counts what machines ask for, by outcome: "ok", an error's code, or
// "fault".
type metrics struct {
	logins, registrations, enrolments *prometheus.CounterVec
	verifications, refusals           prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Service) *metrics {
	byOutcome := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"outcome"})
	}
	m := &metrics{
		logins:        byOutcome("muster_logins_total", "Logins of machines."),
		registrations: byOutcome("muster_registrations_total", "Registrations of machines."),
		enrolments:    byOutcome("muster_enrolments_total", "Requests of machines to join an organisation."),
		verifications: prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_token_verifications_total", Help: "Tokens whose signature was verified because they were not remembered."}),
		refusals:      prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_token_refusals_total", Help: "Requests refused for their token."}),
	}
	if reg == nil {
		return m
	}
	gauge := func(name, help string, labels prometheus.Labels, f func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return float64(f()) })
	}
	const machines = "Machines by state of their enrolment."
	reg.MustRegister(
		m.logins, m.registrations, m.enrolments, m.verifications, m.refusals,
		gauge("muster_machines", machines, prometheus.Labels{"state": string(muster.Pending)}, func() int { return s.Counts().Pending }),
		gauge("muster_machines", machines, prometheus.Labels{"state": string(muster.Active)}, func() int { return s.Counts().Active }),
		gauge("muster_machines", machines, prometheus.Labels{"state": string(muster.Blocked)}, func() int { return s.Counts().Blocked }),
		gauge("muster_active_organisations", "Organisations that have an active machine.", nil, func() int { return s.Counts().Organisations }),
		gauge("muster_password_queue", "Weak passwords waiting for their check.", nil, func() int { return int(s.hasher.queued.Load()) }),
	)
	return m
}

func count(vec *prometheus.CounterVec, err error) {
	outcome := "ok"
	if err != nil {
		outcome = cmp.Or(string(muster.CodeOf(err)), "fault")
	}
	vec.WithLabelValues(outcome).Inc()
}
