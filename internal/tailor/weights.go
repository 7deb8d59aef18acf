package tailor

import "math"

// Features say what is known of one source for one reader at one moment. Each
// is zero or about that when nothing is known, save Age, Overdue and Return.
type Features struct {
	Own        float64 // ln(1 + hours with sightings by the reader, faded by OwnHalfLife)
	Habit      float64 // ln(1 + days with sightings by the reader, faded by HabitHalfLife)
	Met        float64 // 1 if the reader is known to have seen it, however long ago
	Neighbours float64 // ln(1 + sum over other readers of similarity × presence)
	Age        float64 // ln(0.1 + days since anybody saw it)
	Lasting    float64 // ln(1 + days with sightings by anybody, faded by HabitHalfLife)
	Waning     float64 // Age × Lasting: who came on many days is missed for longer
	Overdue    float64 // ln((0.5 + whole days since anybody saw it) / (1 + its usual gap in days, 0 if unknown))
	Once       float64 // 1 if it was seen on one day alone, so that no gap is known
	Network    float64 // ln(1 + sources of its /24 or /48 per day at the reader, faded)
	Return     float64 // log-odds that a source of its behaviour comes back within ReturnWindow
	Global     float64 // ln(Candidate.Score)
}

// Weights make a score of Features: Bias plus the sum of weight × feature.
type Weights struct {
	Bias       float64 `json:"bias"`
	Own        float64 `json:"own"`
	Habit      float64 `json:"habit"`
	Met        float64 `json:"met"`
	Neighbours float64 `json:"neighbours"`
	Age        float64 `json:"age"`
	Lasting    float64 `json:"lasting"`
	Waning     float64 `json:"waning"`
	Overdue    float64 `json:"overdue"`
	Once       float64 `json:"once"`
	Network    float64 `json:"network"`
	Return     float64 `json:"return"`
	Global     float64 `json:"global"`
}

// DefaultWeights returns those fitted on the first 60 days of the nine
// honeypots, whose 60 later days test them. Global could not be fitted there
// (nobody judged these sources): a source of half the score needs twice the
// odds.
func DefaultWeights() Weights {
	return Weights{
		Bias: -4.76, Own: 0.90, Habit: 1.02, Met: 0.46, Neighbours: 0.26, Age: -0.84, Lasting: -0.14, Waning: 0.19,
		Overdue: -0.18, Once: -0.10, Network: 0.44, Return: 0.39, Global: 1,
	}
}

// Score returns the log-odds for f.
func (w *Weights) Score(f *Features) float64 {
	return w.Bias + w.Own*f.Own + w.Habit*f.Habit + w.Met*f.Met + w.Neighbours*f.Neighbours +
		w.Age*f.Age + w.Lasting*f.Lasting + w.Waning*f.Waning + w.Overdue*f.Overdue + w.Once*f.Once +
		w.Network*f.Network + w.Return*f.Return + w.Global*f.Global
}

// Sample is an observation to fit weights by: a source with Features came to the
// reader within the next day, or did not. Weight is how many such it stands for.
type Sample struct {
	Features Features
	Came     bool
	Weight   float64
}

const terms = 13

func (f *Features) vector() [terms]float64 {
	return [terms]float64{
		1, f.Own, f.Habit, f.Met, f.Neighbours, f.Age, f.Lasting, f.Waning, f.Overdue, f.Once, f.Network, f.Return, f.Global,
	}
}

func (w *Weights) vector() [terms]*float64 {
	return [terms]*float64{
		&w.Bias, &w.Own, &w.Habit, &w.Met, &w.Neighbours, &w.Age, &w.Lasting, &w.Waning, &w.Overdue, &w.Once, &w.Network, &w.Return, &w.Global,
	}
}

// Fit returns the weights that explain the samples best: logistic regression
// with a Gaussian prior around prior, whose precision is strength; the fewer
// the samples, the closer the result is to prior. strength must be positive.
func Fit(samples []Sample, prior Weights, strength float64) Weights {
	const steps, small = 25, 1e-6 // Newton's method converges in about eight steps
	w := prior
	at, center := w.vector(), prior.vector()
	for range steps {
		var gradient [terms]float64
		var hessian [terms][terms]float64
		for i := range samples {
			s := &samples[i]
			x := s.Features.vector()
			p := 1 / (1 + math.Exp(-w.Score(&s.Features)))
			miss := -p
			if s.Came {
				miss++
			}
			for i := range terms {
				gradient[i] += s.Weight * miss * x[i]
				for j := range i + 1 {
					hessian[i][j] += s.Weight * p * (1 - p) * x[i] * x[j]
				}
			}
		}
		for i := range terms {
			gradient[i] -= strength * (*at[i] - *center[i])
			hessian[i][i] += strength
		}
		moved := 0.0
		for i, d := range solve(&hessian, gradient) {
			d = min(max(d, -2), 2) // far from the maximum a full step may overshoot
			*at[i] += d
			moved = max(moved, math.Abs(d))
		}
		if moved < small {
			break
		}
	}
	return w
}

// solve returns x with a·x = b by Cholesky decomposition; a is positive definite
// and given by its lower triangle, which is overwritten.
func solve(a *[terms][terms]float64, b [terms]float64) [terms]float64 {
	for i := range terms {
		for j := range i + 1 {
			sum := a[i][j]
			for k := range j {
				sum -= a[i][k] * a[j][k]
			}
			if i == j {
				a[i][i] = math.Sqrt(sum)
			} else {
				a[i][j] = sum / a[j][j]
			}
		}
	}
	for i := range terms {
		for k := range i {
			b[i] -= a[i][k] * b[k]
		}
		b[i] /= a[i][i]
	}
	for i := terms - 1; i >= 0; i-- {
		for k := i + 1; k < terms; k++ {
			b[i] -= a[k][i] * b[k]
		}
		b[i] /= a[i][i]
	}
	return b
}
