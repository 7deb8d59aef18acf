package jury

import (
	"cmp"
	"context"
	"slices"

	"muster/internal/crowd"
)

// Behaviour is what a scenario's reports are worth.
type Behaviour struct {
	Scenario string
	Prior    crowd.Prior
	Shots    float64 // canaries that it shot of late and was excused for, which is how twitchy it is
	Keeps    float64 // share of its confidence that it keeps for all that, up to 1
	Twitchy  bool    // it shoots canaries everywhere these days, and keeps less still
}

// Behaviours returns all that the taxonomy knows and all that were reported, by
// name.
func (w *Worker) Behaviours(ctx context.Context) (all []Behaviour, err error) {
	err = w.do(ctx, func(context.Context) error {
		names, half := w.numbers[scenarios].names, w.cfg.Parameters.Canary.TwitchHalf
		all = make([]Behaviour, 0, len(names))
		for number := 1; number < len(names); number++ {
			b := Behaviour{Scenario: names[number], Prior: w.priors[number]}
			b.Keeps = w.behaviours[number].Cut(w.now(), &w.cfg.Parameters)
			b.Shots, b.Twitchy = half/b.Keeps-half, w.table.Twitchy(uint16(number))
			all = append(all, b)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Behaviour) int { return cmp.Compare(a.Scenario, b.Scenario) })
	return all, err
}

// Ranks returns the ranks of machines; those that have not reported anything yet
// are left out.
func (w *Worker) Ranks(ctx context.Context, ids []string) (ranks map[string]uint8, err error) {
	ranks = make(map[string]uint8, len(ids))
	err = w.do(ctx, func(context.Context) error {
		for _, id := range ids {
			if number, known := w.numbers[machines].of[id]; known {
				ranks[id] = w.table.Of(number).Rank
			}
		}
		return nil
	})
	return ranks, err
}
