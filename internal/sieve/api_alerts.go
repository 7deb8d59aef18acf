package sieve

import (
	"errors"
	"math"
	"net/http"
	"regexp"
	"time"

	"muster"
	"muster/internal/history"
)

var (
	countryPattern = regexp.MustCompile(`^[A-Z]{2}$`)
	machinePattern = regexp.MustCompile(`^[a-zA-Z0-9_\-.:]+$`)
)

// The longest texts that alerts are searched for, in characters.
const (
	maxScenario  = 200
	maxMachineID = 255
)

// alertJSON is an alert with times as CrowdSieve writes them.
type alertJSON struct {
	muster.SieveAlert
	ReceivedAt  string  `json:"receivedAt"`
	ForwardedAt *string `json:"forwardedAt"`
}

func alertToJSON(a muster.SieveAlert) alertJSON {
	j := alertJSON{SieveAlert: a, ReceivedAt: isoTime(a.ReceivedAt)}
	if a.ForwardedAt != nil {
		j.ForwardedAt = isoOrNull(*a.ForwardedAt)
	}
	return j
}

// alerts lists alerts, latest first. newerThan makes polling cheap: without an
// alert after it the answer is empty, with one it is that of the other parameters.
func (a *API) alerts(r *http.Request) (any, error) {
	now, p := a.cfg.Now(), parametersOf(r.URL.RawQuery)
	q := history.Query{
		Limit:     p.integer("limit", history.DefaultLimit, 1, history.MaxLimit),
		Offset:    p.integer("offset", 0, 0, math.MaxInt32),
		Filtered:  p.boolean("filtered"),
		Forwarded: p.boolean("forwardedToCapi"),
		Scenario:  p.text("scenario", maxScenario, nil),
		Country:   p.text("country", 2, countryPattern),
		Machine:   p.text("machineId", maxMachineID, machinePattern),
		Addr:      p.address("ip"),
		Since:     p.time("since", "Since", now),
		Until:     p.time("until", "Until", now),
	}
	newerThan := p.time("newerThan", "newerThan", now)
	if p.err != nil {
		return nil, p.err
	}
	if !newerThan.IsZero() && !a.cfg.History.HasNewer(newerThan) {
		return []alertJSON{}, nil
	}
	alerts, err := a.cfg.History.Alerts(r.Context(), q)
	if err != nil {
		return nil, &apiFailure{"Failed to query alerts", err}
	}
	all := make([]alertJSON, len(alerts))
	for i := range alerts {
		all[i] = alertToJSON(alerts[i])
	}
	return all, nil
}

func (a *API) alert(r *http.Request) (any, error) {
	id, ok := wholeNumber(r.PathValue("id"))
	switch {
	case !ok:
		return nil, muster.Errorf(muster.Invalid, "params/id must be integer")
	case id < 1:
		return nil, muster.Errorf(muster.Invalid, "params/id must be >= 1")
	case id > math.MaxInt32<<20: // no number is as high, nor exact
		return nil, muster.Errorf(muster.NotFound, "Alert not found")
	}
	alert, err := a.cfg.History.Alert(r.Context(), int64(id))
	switch {
	case errors.Is(err, muster.NotFound):
		return nil, muster.Errorf(muster.NotFound, "Alert not found")
	case err != nil:
		return nil, &apiFailure{"Failed to get alert", err}
	}
	return alertToJSON(alert), nil
}

// periods are how far back statistics reach; "" is the default.
var periods = map[string]int{"7d": 7, "30d": 30, "": 30, "all": 0}

// since returns from when on a request wants statistics, zero for all.
func (a *API) since(r *http.Request) (time.Time, error) {
	p := parametersOf(r.URL.RawQuery)
	period, _ := p.get("period")
	days, ok := periods[period]
	if p.err == nil && !ok {
		p.err = muster.Errorf(muster.Invalid, "Invalid period parameter. Accepted values: 7d, 30d, all")
	}
	if p.err != nil || days == 0 {
		return time.Time{}, p.err
	}
	return a.cfg.Now().AddDate(0, 0, -days), nil
}

// orEmpty makes of nil an empty list.
func orEmpty[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

func (a *API) stats(*http.Request) (any, error) {
	s := a.cfg.History.Stats()
	return map[string]any{
		"total": s.Total, "filtered": s.Filtered, "forwarded": s.Forwarded,
		"topScenarios": orEmpty(s.TopScenarios), "allScenarios": orEmpty(s.AllScenarios), "topCountries": orEmpty(s.TopCountries),
		"timeBounds": map[string]*string{"min": isoOrNull(s.Min), "max": isoOrNull(s.Max)},
	}, nil
}

func (a *API) distribution(r *http.Request) (any, error) {
	since, err := a.since(r)
	if err != nil {
		return nil, err
	}
	d := a.cfg.History.Distribution(since)
	return map[string]any{
		"byDayOfWeek": orEmpty(d.ByDayOfWeek), "byHourOfDay": orEmpty(d.ByHourOfDay), "byCountry": orEmpty(d.ByCountry), "byScenario": orEmpty(d.ByScenario),
		"dailyTrend": orEmpty(d.DailyTrend), "totalAlerts": d.Total,
		"dateRange": map[string]*string{"from": isoOrNull(d.From), "to": isoOrNull(d.To)},
	}, nil
}

func (a *API) decisionStats(r *http.Request) (any, error) {
	since, err := a.since(r)
	if err != nil {
		return nil, err
	}
	d := a.cfg.History.DecisionStats(since)
	return map[string]any{
		"totalDecisions": d.Total, "byDayOfWeek": orEmpty(d.ByDayOfWeek), "byHourOfDay": orEmpty(d.ByHourOfDay),
		"byDurationCategory": orEmpty(d.ByDurationCategory), "topScenarios": orEmpty(d.TopScenarios), "byCountry": orEmpty(d.ByCountry),
	}, nil
}
