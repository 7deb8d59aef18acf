package filter

import (
	"encoding/json"
	"sync"
	"sync/atomic"
)

// Set is compiled rules. It is safe for use by several goroutines.
type Set struct {
	mode   Mode
	rules  []*compiledRule
	root   *scope   // the signal's paths
	scopes []*scope // with those of any, all and expressions; root is the first
	frames sync.Pool

	// For expressions.
	fields             []usedField // those that some expression uses
	decisions, context *scope      // the paths of their members; nil when none is used
	lists              Lists
}

type compiledRule struct {
	rule       Rule
	test       test        // nil when expression is set
	expression *expression // nil when test is set
	matched    atomic.Uint64
	failed     atomic.Uint64
}

// frame is what one evaluation needs.
type frame struct {
	text  string
	views []view // by scope
	run   *run   // of expressions; nil until the first
}

func newFrame(s *Set) *frame {
	f := &frame{views: make([]view, len(s.scopes))}
	for i, scope := range s.scopes {
		f.views[i] = newView(scope)
	}
	return f
}

// Result is what a set makes of a signal.
type Result struct {
	// Withheld: the signal is not to be forwarded.
	Withheld bool `json:"withheld"`
	// Reasons are of the rules that matched, in their order: in block mode why
	// the signal is withheld, in allow mode why it is let through.
	Reasons []Reason `json:"reasons,omitempty"`
	// Failures are of the rules that could not be evaluated and were skipped.
	Failures []Failure `json:"failures,omitempty"`
}

// Reason is a rule that matched.
type Reason struct {
	Rule    string  `json:"rule"`
	Text    string  `json:"reason"` // in CrowdSieve's words
	Matched []Match `json:"matched,omitempty"`
}

// Match is a field that took part in a rule's matching.
type Match struct {
	Field string `json:"field"`
	Op    string `json:"op"`
	Value string `json:"value"` // the signal's, as JSON, cut when it is long; undefined when there is none
}

// Failure is a rule that was skipped.
type Failure struct {
	Rule    string `json:"rule,omitempty"` // "" when no rule could be evaluated
	Message string `json:"message"`
}

// FilterReasons returns the reasons as CrowdSieve stores them: a JSON array with
// a text for each rule that matched, or "" (null in its API) when none did.
func (r Result) FilterReasons() string {
	if len(r.Reasons) == 0 {
		return ""
	}
	b := []byte{'['}
	for i, reason := range r.Reasons {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, quote(reason.Text)...)
	}
	return string(append(b, ']'))
}

// ReasonsJSON returns the reasons with rules, fields and values as a JSON array.
func (r Result) ReasonsJSON() []byte {
	if len(r.Reasons) == 0 {
		return []byte("[]")
	}
	out, _ := json.Marshal(r.Reasons) // texts alone always can be written
	return out
}

// Mode returns the mode that the set was compiled with.
func (s *Set) Mode() Mode { return s.mode }

// RuleStatus is a rule of a set with what it did since it was compiled.
type RuleStatus struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Enabled     bool   `json:"enabled"`
	File        string `json:"file,omitempty"`
	Line        int    `json:"line,omitempty"`
	Matched     uint64 `json:"matched"` // signals
	Failed      uint64 `json:"failed"`  // evaluations that were skipped after an error
}

// Rules returns the rules of the set in their order, those that are not enabled
// among them.
func (s *Set) Rules() []RuleStatus {
	all := make([]RuleStatus, len(s.rules))
	for i, r := range s.rules {
		all[i] = RuleStatus{
			Name: r.rule.Name, Description: r.rule.Description, Enabled: !r.rule.Disabled, File: r.rule.File,
			Line: r.rule.Line, Matched: r.matched.Load(), Failed: r.failed.Load(),
		}
	}
	return all
}

// Eval decides about a signal: the JSON object as the engine sent it, which Eval
// neither changes nor keeps. Every rule is evaluated, so that the reasons are
// complete. A signal that is no JSON matches no rule and has a failure.
func (s *Set) Eval(signal []byte) Result { return s.eval(signal, true) }

func (s *Set) eval(signal []byte, count bool) Result {
	f := s.frames.Get().(*frame)
	defer s.release(f)
	var result Result
	f.text = string(signal) // values are parts of it
	if !s.root.read(f.text, &f.views[0]) {
		result.Failures = append(result.Failures, Failure{Message: "expected a signal in JSON"})
		result.Withheld = s.mode == Allow
		return result
	}
	if f.run != nil {
		f.run.stale = true
	}
	for _, rule := range s.rules {
		if rule.rule.Disabled {
			continue
		}
		matched, err := rule.holds(f)
		switch {
		case err != nil:
			result.Failures = append(result.Failures, Failure{Rule: rule.rule.Name, Message: err.Error()})
			if count {
				rule.failed.Add(1)
			}
		case matched:
			result.Reasons = append(result.Reasons, rule.explain(f))
			if count {
				rule.matched.Add(1)
			}
		}
	}
	result.Withheld = (len(result.Reasons) > 0) == (s.mode == Block)
	return result
}

// largeSignal is the size from which a frame does not keep a signal's text.
const largeSignal = 64 << 10

func (s *Set) release(f *frame) {
	if len(f.text) >= largeSignal {
		f.text = ""
		for i := range f.views {
			f.views[i].clear()
		}
		f.run = nil
	}
	s.frames.Put(f)
}

func (r *compiledRule) holds(f *frame) (bool, error) {
	if r.expression != nil {
		return r.expression.holds(f)
	}
	return r.test.holds(f, &f.views[0]), nil
}

func (r *compiledRule) explain(f *frame) Reason {
	reason := Reason{Rule: r.rule.Name}
	if r.expression != nil {
		reason.Text = "expression " + excerpt(r.rule.Expr)
		return reason
	}
	reason.Text = r.test.explain(f, &f.views[0], &reason.Matched)
	return reason
}
