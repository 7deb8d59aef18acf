package tailor

import "math"

// Features say what is known of one source for one reader at one moment. Each
// is zero or about that when nothing is known, save Age and Return.
type Features struct {
	Own        float64 // ln(1 + hours with sightings by the reader, faded by OwnHalfLife)
	Habit      float64 // ln(1 + days with sightings by the reader, faded by HabitHalfLife)
	Neighbours float64 // ln(1 + sum over other readers of similarity × presence)
	Age        float64 // ln(0.1 + days since anybody saw it)
	Network    float64 // ln(1 + sources of its /24 or /48 per day at the reader, faded)
	Return     float64 // log-odds that a source of its behaviour comes back within ReturnWindow
	Global     float64 // ln(Candidate.Score)
}

// Weights make a score of Features: Bias plus the sum of weight × feature.
type Weights struct {
	Bias       float64 `json:"bias"`
	Own        float64 `json:"own"`
	Habit      float64 `json:"habit"`
	Neighbours float64 `json:"neighbours"`
	Age        float64 `json:"age"`
	Network    float64 `json:"network"`
	Return     float64 `json:"return"`
	Global     float64 `json:"global"`
}

// DefaultWeights returns those fitted on the first 60 days of the nine
// honeypots. Global could not be fitted there (nobody judged these sources): a
// source of half the score needs twice the odds.
func DefaultWeights() Weights {
	return Weights{Bias: -4.94, Own: 0.86, Habit: 1.01, Neighbours: 0.28, Age: -0.74, Network: 0.59, Return: 0.48, Global: 1}
}

// Score returns the log-odds for f.
func (w *Weights) Score(f *Features) float64 {
	return w.Bias + w.Own*f.Own + w.Habit*f.Habit + w.Neighbours*f.Neighbours +
		w.Age*f.Age + w.Network*f.Network + w.Return*f.Return + w.Global*f.Global
}

// Sample is an observation to fit weights by: a source with Features came to the
// reader within the next day, or did not. Weight is how many such it stands for.
type Sample struct {
	Features Features
	Came     bool
	Weight   float64
}

const terms = 8

func (f *Features) vector() [terms]float64 {
	return [terms]float64{1, f.Own, f.Habit, f.Neighbours, f.Age, f.Network, f.Return, f.Global}
}

func (w *Weights) vector() [terms]*float64 {
	return [terms]*float64{&w.Bias, &w.Own, &w.Habit, &w.Neighbours, &w.Age, &w.Network, &w.Return, &w.Global}
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
