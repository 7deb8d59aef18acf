package jury

import (
	"time"

	"muster"
	"muster/internal/crowd"
)

// verdict puts a judgement into the words of those who read it.
func (w *Worker) verdict(source muster.Source, v *crowd.Verdict) muster.Verdict {
	out := muster.Verdict{
		Source: source, Audience: muster.Audience(w.numbers[organisations].name(v.Audience)), Listed: v.Listed,
		Remedy: muster.Remedy(v.Remedy.String()), Since: instant(v.Since), Until: instant(v.Until),
		Reasons: w.reasons(&v.Reasons),
	}
	if len(out.Reasons.Scenarios) > 0 {
		out.Scenario = out.Reasons.Scenarios[0]
	}
	return out
}

func instant(at int64) time.Time { return time.Unix(at, 0).UTC() }

func (w *Worker) reasons(r *crowd.Reasons) muster.Reasons {
	out := muster.Reasons{
		Machines: r.Machines, Organisations: r.Independent, First: r.First, Last: r.Last,
		Rule: r.Words(), Basis: bases[r.Rule], Never: r.Never, Local: r.Local, Shared: r.Shared, Probation: r.Probation,
		Support: r.Support, Threshold: r.Threshold, Diversity: r.Diversity, Independent: r.Independent, Needed: r.Needed,
		Bands: r.Bands, Honeypots: r.Honeypots, Confirmed: r.Confirmed, Convictions: r.Convictions,
		Epoch: w.epoch, Parameters: w.cfg.Parameters.Version,
	}
	for _, b := range r.Behaviours {
		if b.Reports == 0 {
			break
		}
		name := w.numbers[scenarios].name(uint32(b.Index))
		if name == "" {
			name = "others"
		}
		out.Scenarios = append(out.Scenarios, name)
		out.Reports = append(out.Reports, int(b.Reports))
	}
	return out
}

// bases name the rules for programs.
var bases = map[crowd.Rule]string{
	crowd.Undecided: "undecided", crowd.ByCrowd: "crowd", crowd.ByHoneypot: "honeypot", crowd.ByTopRank: "top-rank",
	crowd.ByFleet: "fleet", crowd.Standing: "standing", crowd.Suspicious: "suspicious", crowd.Waiting: "waiting",
	crowd.Lapsed: "lapsed", crowd.Unsupported: "unsupported", crowd.Cleared: "cleared", crowd.Never: "never", crowd.IsCanary: "canary",
}
